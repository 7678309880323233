"""Segmentation networks for labels: batches, devices, built-in mappings, and what share got which label."""

import sys
from collections import Counter

import numpy as np
import pytest
import yaml

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES
from training.label import main
from training.label.coverage import source_table
from training.label.from_images import Segmenter
from training.label.mapping import LabelError, load_mapping
from training.label.network_backends import PROVIDERS, load_network
from training.recordings.frames import Recording

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROAD, CAR, SKY = 0, 13, 10  # train ids of Cityscapes


def saved(path, batch="n", kind="scores"):
    """A network of 19 scores that finds road where red is largest, a car where green is, and sky where blue is."""
    weights = np.zeros((19, 3, 1, 1), np.float32)
    weights[ROAD, 0] = weights[CAR, 1] = weights[SKY, 2] = 1
    helper = onnx.helper
    nodes = [helper.make_node("Conv", ["x", "w"], ["y" if kind == "scores" else "s"])]
    if kind == "ids":
        nodes.append(helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0))
    scores, ids = (onnx.TensorProto.FLOAT, [batch, 19, "h", "w"]), (onnx.TensorProto.INT64, [batch, "h", "w"])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", *(scores if kind == "scores" else ids))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def picture(height, width, channel):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., channel] = 255
    return image


@pytest.mark.parametrize("kind", ["scores", "ids"])
def test_a_batch_of_several_sizes_is_labelled_as_its_images_are(tmp_path, kind):
    network = Segmenter(saved(tmp_path / "net.onnx", kind=kind), mapping="cityscapes")
    images = [picture(8, 12, 0), picture(6, 6, 1), picture(8, 12, 1), picture(6, 6, 0)]
    classes = network.batch(images)
    road, car = OCC3D_NUSCENES.id_of("driveable_surface"), OCC3D_NUSCENES.id_of("car")
    assert [each.shape for each in classes] == [(8, 12), (6, 6), (8, 12), (6, 6)]
    assert [np.unique(each).tolist() for each in classes] == [[road], [car], [car], [road]]
    alone = Segmenter(saved(tmp_path / "net.onnx", kind=kind), mapping="cityscapes")
    assert all(np.array_equal(alone(image), each) for image, each in zip(images, classes))
    assert network.counts == alone.counts == {ROAD: 96 + 36, CAR: 36 + 96}


def test_counts_are_pixels_of_the_image_not_of_the_network(tmp_path):
    path = saved(tmp_path / "net.onnx")
    path.with_suffix(".yaml").write_text("size: [4, 4]\nmapping: cityscapes\n")
    network = Segmenter(path)
    network(picture(8, 10, 2))
    assert network.counts == {SKY: 80}


def test_a_network_of_one_image_refuses_a_batch_and_says_what_to_do(tmp_path):
    network = Segmenter(saved(tmp_path / "net.onnx", batch=1), mapping="cityscapes")
    assert network(picture(4, 4, 0)).shape == (4, 4)
    with pytest.raises(LabelError, match="net.onnx: the network failed: .*dynamic first axis, or use --batch 1"):
        network.batch([picture(4, 4, 0)] * 2)


@pytest.mark.parametrize("classes, road", [(None, 11), (GROUND_OBSTACLE, 0)])
def test_a_mapping_by_name_needs_no_description(tmp_path, classes, road):
    network = Segmenter(saved(tmp_path / "net.onnx"), mapping="cityscapes", classes=classes)
    assert (network(picture(4, 4, 0)) == road).all()


def test_a_description_can_name_a_mapping_or_a_file_beside_it(tmp_path):
    path = saved(tmp_path / "net.onnx")
    path.with_suffix(".yaml").write_text("mapping: own.yaml\n")
    (tmp_path / "own.yaml").write_text("ids: {0: terrain}\nothers: unlabelled\n")
    assert (Segmenter(path)(picture(4, 4, 0)) == OCC3D_NUSCENES.id_of("terrain")).all()
    path.with_suffix(".yaml").write_text("mapping: cityscapes\nids: {0: terrain}\n")
    with pytest.raises(LabelError, match="net.yaml: has `mapping` and ids; leave one of them out"):
        Segmenter(path)


def test_a_provider_that_is_not_there_is_refused_and_not_replaced(tmp_path, monkeypatch):
    path = saved(tmp_path / "net.onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(LabelError, match="--provider cuda: onnxruntime has cpu here; pip install onnxruntime-gpu"):
        load_network(path, "cuda")
    with pytest.raises(LabelError, match="--provider coreml: onnxruntime has cpu here; install the onnxruntime that"):
        load_network(path, "coreml")
    assert load_network(path, "cpu")(np.ones((2, 3, 4, 5), np.float32)).shape == (2, 19, 4, 5)


def test_a_provider_that_does_not_start_is_named(tmp_path, monkeypatch):
    """onnxruntime lists what it was built with, and goes on with the CPU if that cannot be started."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    with pytest.raises(LabelError, match="--provider rocm|net.onnx: not an ONNX network.*rocm"):
        load_network(saved(tmp_path / "net.onnx"), "rocm")


def test_onnxruntime_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LabelError, match="net.onnx: ONNX networks need onnxruntime .*; pip install onnxruntime$"):
        load_network(tmp_path / "net.onnx")


def test_torchscript_has_no_providers_of_onnxruntime(tmp_path):
    with pytest.raises(LabelError, match="--provider openvino is for ONNX networks; net.pt is TorchScript, which has"):
        load_network(tmp_path / "net.pt", "openvino")


def test_the_table_shows_what_every_label_became():
    lines = source_table(Counter({0: 75, 10: 20, 13: 5}), load_mapping("cityscapes")).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["0", "road", "driveable_surface", "75", "75.00%"],
        ["10", "sky", "no", "surface", "20", "20.00%"],
        ["13", "car", "car", "5", "5.00%"],
    ]


@pytest.mark.slow
def test_labels_do_not_depend_on_the_batch_and_the_preview_has_the_shares(town_bag, tmp_path, capsys):
    network = saved(tmp_path / "net.onnx")
    common = [str(town_bag), "--network", str(network), "--mapping", "cityscapes", "--cameras", "cam_front", "cam_back"]
    for batch in ("1", "4"):
        words = ["--batch", batch, "--out", str(tmp_path / batch), "--preview", str(tmp_path / f"look{batch}")]
        assert main([*common, *words]) == 0
    shares = (tmp_path / "look1" / "labels.txt").read_text()
    assert shares == (tmp_path / "look4" / "labels.txt").read_text() and shares in capsys.readouterr().out
    counts = {row.split()[0]: row.split()[-2:] for row in shares.splitlines()[1:]}
    assert sum(int(pixels.replace(",", "")) for pixels, _ in counts.values()) == 6 * 352 * 128
    with Recording(town_bag, tmp_path / "1") as one, Recording(town_bag, tmp_path / "4") as four:
        for camera in ("cam_front", "cam_back"):
            for stamp_ns in one.stamps[camera]:
                assert np.array_equal(one.semantic(camera, stamp_ns), four.semantic(camera, stamp_ns))
                assert np.array_equal(one.depth(camera, stamp_ns), four.depth(camera, stamp_ns))
    note = yaml.safe_load((tmp_path / "1" / "labels.yaml").read_text())
    assert note["semantics"] == "network net.onnx, the label set cityscapes"
