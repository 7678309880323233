"""`renderocc label --densify`: images are filled by a network whose scale fits their points, and by no other."""

import numpy as np
import pytest
from town import HEIGHT, WIDTH

from training.label import main
from training.label.densify import Densifier
from training.label.depth_fit import DenseDepth, DepthFit, fit_depth
from training.label.mapping import LabelError
from training.recordings.camera_image import camera_image
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

SETTINGS = DenseDepth()


def depths(count=60, seed=0):
    return np.random.default_rng(seed).uniform(3, 30, count)


# --------------------------------------------------------------------------------------------------------------- fit


def test_scale_and_shift_are_found_although_three_in_ten_points_are_wrong():
    depth = depths()
    output = (1 / depth - 0.02) / 0.5  # 1 / depth = 0.5 y + 0.02
    wrong = depth.copy()
    wrong[:18] *= np.random.default_rng(1).uniform(1.5, 3.0, 18)
    fit = fit_depth(output, wrong, True, SETTINGS)
    assert (fit.scale, fit.shift) == pytest.approx((0.5, 0.02)) and fit.share == pytest.approx(0.7)
    found = fit.depth(output)
    assert np.count_nonzero(found) > 55  # the nearest and the farthest may lie beyond what right points span
    np.testing.assert_allclose(found[found > 0], depth[found > 0], rtol=1e-5)


def test_a_network_of_depths_has_a_scale_alone():
    depth = depths()
    fit = fit_depth(depth / 2.5, np.where(np.arange(60) < 15, 2 * depth, depth), False, SETTINGS)
    assert (fit.scale, fit.shift, fit.share) == pytest.approx((2.5, 0.0, 0.75))


def test_noise_of_the_points_averages_out():
    depth, noise = depths(400), np.random.default_rng(2).normal(0, 0.03, 400)
    fit = fit_depth((1 / depth - 0.02) / 0.5, depth * (1 + noise), True, SETTINGS)
    # 0.03 / sqrt(400) is 0.0015; the worst depth, at an end of the range, is worse by a factor of a few.
    np.testing.assert_allclose(fit.depth((1 / depth - 0.02) / 0.5), depth, rtol=0.01)


@pytest.mark.parametrize(
    ("output", "depth", "inverse", "why"),
    [
        (1 / depths(19), depths(19), True, "too few points"),
        (np.full(60, np.nan), depths(), True, "too few points"),
        (np.random.default_rng(3).uniform(0, 1, 60), depths(), True, "do not fit"),
        (np.ones(60), np.where(np.arange(60) % 2, 3.0, 30.0), True, "does not vary"),
        (depths(), depths(), True, "do not fit"),  # depths of a network that is said to give inverse ones
        (1 / depths(), depths(), False, "do not fit"),
        (-1 / depths(), depths(), True, "do not fit"),  # it fits with a scale below zero: near and far are swapped
    ],
)
def test_an_image_that_does_not_fit_is_not_filled(output, depth, inverse, why):
    refused = fit_depth(output, depth, inverse, SETTINGS)
    assert isinstance(refused, str) and why in refused


def test_nothing_is_said_beyond_what_the_points_span():
    fit = DepthFit(1.0, 0.0, True, 1.0, nearest=6.0, farthest=20.0)
    # Filled from 6 / 1.2 = 5 m to 20 * 1.2 = 24 m; the sky has an inverse depth of 0, or below it after the shift.
    found = fit.depth(np.array([1 / 4.9, 1 / 5.1, 0.1, 1 / 23.9, 1 / 24.1, 0.0, -0.1, np.nan]))
    np.testing.assert_allclose(found, [0, 5.1, 10, 23.9, 0, 0, 0, 0], rtol=1e-6)


# ----------------------------------------------------------------------------------------------------------- network


def saved(path, nodes, constants, output_shape):
    """An ONNX network with the input x (1, 3, h, w) and the output y."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(kind, ins, outs, **more) for kind, ins, outs, more in nodes],
        "g",
        [helper.make_tensor_value_info("x", floats, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", floats, output_shape)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def red_is_near(path):
    """A network whose output is the red channel of its input."""
    weights = {"w": np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)}
    return saved(path, [("Conv", ["x", "w"], ["y"], {})], weights, [1, 1, "h", "w"])


@pytest.fixture
def network(tmp_path):
    pytest.importorskip("onnxruntime")
    return red_is_near(tmp_path / "net.onnx")


def test_an_image_is_filled_and_its_points_stay(network):
    red = np.tile(np.arange(40, 240, dtype=np.uint8), (50, 1))  # 1 / depth = red / 1000: depths of 25 m to 4.2 m
    image = np.stack([red, red * 0, red * 0], axis=-1)
    exact = 1000 / red.astype(np.float32)
    sparse = np.zeros_like(exact)
    rows, columns = np.divmod(np.random.default_rng(0).choice(red.size, 40, replace=False), 200)
    sparse[rows, columns] = exact[rows, columns] * 1.01
    densifier = Densifier(network)
    dense = densifier.fill(image, sparse)
    np.testing.assert_allclose(dense[dense > 0], np.where(sparse > 0, sparse, exact * 1.01)[dense > 0], rtol=1e-4)
    assert (dense[rows, columns] == sparse[rows, columns]).all() and (dense > 0).mean() > 0.95
    sparse[rows[:21], columns[:21]] = 0
    assert densifier.fill(image, sparse) is sparse
    assert densifier.text() == "net.onnx: 1 images filled, 1 not (too few points)"


def test_the_description_says_size_and_kind_of_output(network):
    image = np.full((40, 80, 3), 100, np.uint8)
    image[:, 40:] = 200
    network.with_suffix(".yaml").write_text(
        "size: [10, 20]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\nchannels: rgb\noutput: depth\n"
    )
    sparse = np.zeros((40, 80), np.float32)
    sparse[::4, 4:36:6], sparse[::4, 46:78:6] = 5.0, 10.0
    dense = Densifier(network).fill(image, sparse)
    np.testing.assert_allclose(dense[:, :36], 5.0, rtol=1e-5)
    np.testing.assert_allclose(dense[:, 44:], 10.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("output: disparity\n", "net.yaml: output is 'disparity'; expected inverse_depth or depth"),
        ("scale: 3\n", "net.yaml: has scale; expected size, mean, std, channels and output"),
        ("size: [0, 4]\n", "net.yaml: size is"),
    ],
)
def test_a_wrong_description_is_named(network, text, culprit):
    network.with_suffix(".yaml").write_text(text)
    with pytest.raises(LabelError, match=culprit):
        Densifier(network)


def test_a_network_that_gives_no_depth_image_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    path = saved(tmp_path / "two.onnx", [("Concat", ["x", "x"], ["y"], {"axis": 1})], {}, [1, 6, "h", "w"])
    sparse = np.ones((4, 8), np.float32)
    with pytest.raises(LabelError, match=r"two.onnx: its output for an image is \(1, 6, 4, 8\); expected \(1, h, w\)"):
        Densifier(path).fill(np.zeros((4, 8, 3), np.uint8), sparse)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--densify", "net.onnx"], "--densify fills images between the points of --depth-from motion"),
        (["--densify-config", "net.yaml"], "--densify-config describes the network of --densify; name one"),
        (["--depth-from", "motion", "--densify", "no.onnx"], "no.onnx: there is no such file"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(town_bag, tmp_path, words, culprit, capsys):
    assert main([str(town_bag), "--out", str(tmp_path / "labels"), *words]) == 2
    assert culprit in capsys.readouterr().err and not (tmp_path / "labels").exists()


# ---------------------------------------------------------------------------------------------------------- the town


def recalls(path, images, outputs):
    """A network that gives for each image the output that belongs to it, told by the image's mean.

    Args:
        images: (N, 3, H, W) as the network sees them.
        outputs: (N, 1, H, W).
    """
    nodes = [
        ("ReduceMean", ["x"], ["mean"], {"axes": [1, 2, 3], "keepdims": 0}),
        ("Sub", ["mean", "means"], ["off"], {}),
        ("Abs", ["off"], ["apart"], {}),
        ("ArgMin", ["apart"], ["which"], {"axis": 0, "keepdims": 1}),
        ("Gather", ["outputs", "which"], ["y"], {"axis": 0}),
    ]
    constants = {"means": images.mean(axis=(1, 2, 3)), "outputs": outputs}
    return saved(path, nodes, {name: value.astype(np.float32) for name, value in constants.items()}, [1, 1, "h", "w"])


@pytest.mark.slow
def test_exact_depth_up_to_scale_shift_and_noise_becomes_metric_in_the_town(town_bag, tmp_path, capsys):
    pytest.importorskip("pycolmap", reason="needs pycolmap: pip install -r requirements-train.txt")
    pytest.importorskip("onnxruntime")
    camera, rng = "cam_front_left", np.random.default_rng(5)
    network = tmp_path / "exact.onnx"
    network.with_suffix(".yaml").write_text("mean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    images, outputs, exact = [], [], {}
    with Recording(town_bag) as recording:
        for stamp in recording.stamps[camera]:
            image = camera_image(recording.image_message(camera, stamp), recording.models[camera])
            images.append(image.transpose(2, 0, 1) / 255)
            exact[stamp] = recording.depth(camera, stamp)
            inverse = np.divide(1, exact[stamp], out=np.zeros((HEIGHT, WIDTH)), where=exact[stamp] > 0)
            noisy = inverse * rng.normal(1, 0.02, inverse.shape)
            outputs.append((rng.uniform(2, 9) * noisy + rng.uniform(-1, 1))[None])  # another scale for each image
    recalls(network, np.stack(images), np.stack(outputs))
    out = tmp_path / "labels"
    words = [town_bag, "--out", out, "--depth-from", "motion", "--cameras", camera, "--jobs", "1"]
    words += ["--semantic-topic", "/{camera}/semantic", "--densify", network, "--densify-min-points", "10"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().err
    assert f"densify: exact.onnx: {len(exact)} images filled\n" in said
    with Recording(town_bag, out) as labelled:
        for stamp, truth in exact.items():
            found = labelled.depth(camera, stamp)
            both = (found > 0) & (truth > 0)
            errors = np.abs(found[both] / truth[both] - 1)
            assert both.mean() > 0.4 and np.median(errors) < 0.05
            assert (found[truth == 0] == 0).mean() > 0.99  # the sky stays unknown
