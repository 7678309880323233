"""Networks in OpenVINO against the same networks in PyTorch: volumes, cameras that come and go, choice and refusals."""

import importlib.util

import numpy as np
import pytest
import torch
from exported_files import small_checkpoint
from small_models import camera_ring, small_config

from renderocc_model.export import backends
from renderocc_model.export.backends import chosen_backend
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.rig import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable
from renderocc_model.images.preprocessing import normalise
from renderocc_model.inference.openvino_graphs import ImageStage, VolumeStage, import_openvino
from renderocc_model.inference.precision import chosen_device, openvino_device, openvino_precision
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import load_checkpoint
from renderocc_model.network.fusion import KeptFrame
from renderocc_model.network.lift import Frustums
from renderocc_model.network.untrained import untrained_checkpoint

INSTALLED = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="OpenVINO is not installed")


def frame(config, cameras, seed=0):
    """Arguments of `Predictor.predict`: random pictures of a ring of cameras."""
    height, width = config.images.height, config.images.width
    views, poses = camera_ring(config, cameras)
    tables = [UndistortTable(CameraModel(width, height, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
    pictures = np.random.default_rng(seed).integers(0, 256, (cameras, height, width, 3), dtype=np.uint8)
    return pictures, tables, poses


@needs_openvino
@pytest.mark.slow
def test_openvino_predicts_the_volumes_of_torch_for_any_number_of_cameras():
    theirs = Predictor(small_checkpoint(), device="cpu", precision="float32", backend="torch")
    ours = Predictor(small_checkpoint(), device="cpu", precision="float32", backend="openvino")
    assert (ours.backend, ours.precision, str(ours.device)) == ("openvino", "float32", "cpu")
    ours.warm_up()
    for cameras in (6, 2, 1, 6):  # some drop out and come back
        mine, other = (predictor.predict(*frame(ours.config, cameras, seed=cameras)) for predictor in (ours, theirs))
        np.testing.assert_allclose(mine.confidence, other.confidence, atol=1e-4)
        assert (mine.semantics == other.semantics).mean() > 0.999
        torch.testing.assert_close(mine.field.semantics, other.field.semantics, atol=1e-3, rtol=1e-3)


@needs_openvino
@pytest.mark.slow
def test_a_frame_stays_what_it_was_when_later_ones_are_predicted():
    predictor = Predictor(small_checkpoint(), device="cpu", precision="float32", backend="openvino")
    first = predictor.predict(*frame(predictor.config, 6, seed=1))
    copied = Predictor.predict(predictor, *frame(predictor.config, 6, seed=1)).field
    kept = copied.density.clone(), copied.semantics.clone()
    for seed in (2, 3):
        predictor.predict(*frame(predictor.config, 6, seed=seed))
    assert torch.equal(first.field.density, kept[0]) and torch.equal(first.field.semantics, kept[1])


KINDS = {
    "plain": (),
    "heights and rays": ("lift.heights.count=8", "lift.rays=true"),
    "3D": ("encoder.kind=convolutions_3d", "lift.height_slices=4"),
    "joining": ("fusion.enabled=true",),
    "comparing images": ("fusion.enabled=true", "fusion.stereo.channels=8", "lift.subpixels=2"),
    "several places of a pixel": ("lift.subpixels=2", "lift.heights.count=8", "lift.rays=true"),
    "layers": ("heads.density_layers=3",),
    "layers in 3D": ("encoder.kind=convolutions_3d", "lift.height_slices=4", "heads.density_layers=3"),
    "remembering": ("fusion.enabled=true", "fusion.stereo.channels=8", "fusion.frames=3"),
    "joining in 3D": ("encoder.kind=convolutions_3d", "lift.height_slices=4", "fusion.enabled=true"),
}


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["joining", "comparing images", "remembering"])
def test_a_model_that_joins_frames_gives_torchs_volumes_over_a_drive(kind):
    joining = untrained_checkpoint(small_config("tiny", *KINDS[kind]), OCC3D_NUSCENES)
    ours, theirs = (
        Predictor(joining, device="cpu", precision="float32", backend=name) for name in ("openvino", "torch")
    )
    given, alone = frame(ours.config, 4), []
    for number, x in enumerate((0.0, 0.4, 0.9)):
        odom_from_base = np.eye(4)
        odom_from_base[0, 3] = x
        mine, other = (one.predict(*given, odom_from_base, 5 + 0.45 * number) for one in (ours, theirs))
        np.testing.assert_allclose(mine.confidence, other.confidence, atol=1e-4)
        alone.append(other.confidence)
    assert not np.allclose(alone[1], alone[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_stages_are_the_network(kind):
    """In PyTorch alone: with the pooled volume between them they give its density, and features of its logits."""
    config = small_config("tiny", *KINDS[kind])
    network = untrained_checkpoint(config, OCC3D_NUSCENES, seed=3).network.eval()
    views, poses = camera_ring(config, 2)
    geometry = Frustums(config, views).place(poses)
    height, width = config.images.height, config.images.width
    pictures = torch.randint(
        0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        previous, joined = None, ()
        if network.fusion is not None:
            shape = config.volume_shape
            generator = torch.Generator().manual_seed(1)
            keys = None if network.stereo is None else torch.randn(config.keys_shape(2), generator=generator)
            previous = KeptFrame.current(torch.randn(1, *shape, generator=generator), keys).with_cameras(geometry)
            motion = torch.eye(4, dtype=torch.float64)
            motion[0, 3] = -0.7
            previous = previous.moved(motion)
            earlier = network.earlier(previous, geometry)
            joined = (part.movedim(1, -1) for part in earlier[:2])
        expected = network(normalise(pictures)[None], geometry, previous)
        logits, context, *others = ImageStage(network).eval()(pictures, geometry.cameras[0])
        heights = others.pop(0).movedim(-1, 1) if config.lift.heights.count else None
        keys = others.pop() if network.stereo is not None else None
        logits = network.lift.with_heights(logits, heights, geometry.cameras[0])
        depth = network.depth_of(logits, keys, None if keys is None else earlier.images)
        assert not others
        pooled = network.pool(depth, context.movedim(-1, 1), geometry)
        density, voxels, *kept = VolumeStage(network).eval()(pooled.movedim(1, -1), *joined)
        logits = network.heads.logits_of(voxels.view(*config.grid.shape, -1))
    torch.testing.assert_close(depth, expected.depth_distribution, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(density, expected.density, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits, expected.semantics[0], atol=1e-4, rtol=1e-4)
    assert len(kept) == config.fusion.recurrent
    for volume in kept:
        torch.testing.assert_close(volume.movedim(-1, 1), expected.kept.volume, atol=1e-5, rtol=1e-4)


def test_auto_takes_openvino_for_the_file_of_a_checkpoint_on_a_cpu_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object())
    assert chosen_backend("a.safetensors", "auto", "cpu") == "openvino"
    assert chosen_backend("a.safetensors", "auto", "cuda") == "torch"
    assert chosen_backend("", "auto", "cpu") == "torch"  # in memory
    assert chosen_backend("a.pt2", "auto", "cpu") == "torch" and chosen_backend("a.onnx", "auto") == "onnxruntime"
    monkeypatch.setattr(backends.torch.cuda, "is_available", lambda: True)
    assert chosen_backend("a.safetensors", "auto", "auto") == "torch"
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert chosen_backend("a.safetensors", "auto", "cpu") == "torch"
    assert chosen_backend("a.safetensors", "openvino", "cpu") == "openvino"  # its import says what to install
    assert chosen_backend("a.safetensors", "auto", "intel_gpu") == "openvino"


def test_what_openvino_does_not_run_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="a.pt2: backend openvino does not run .pt2 files; give the checkpoint itself"):
        chosen_backend("a.pt2", "openvino")
    with pytest.raises(ValueError, match="device is 'cuda', on which OpenVINO does not run; use cpu, intel_gpu"):
        openvino_device("cuda")
    with pytest.raises(ValueError, match="device is 'intel_gpu', which backend openvino runs on"):
        chosen_device("intel_gpu")
    with pytest.raises(ValueError, match="on intel_gpu choose auto, float32 or float16"):
        openvino_precision("bfloat16", "intel_gpu")
    assert openvino_precision("auto", "intel_gpu") == "float16" and openvino_device("auto") == "cpu"


@needs_openvino
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device is 'intel_npu', but OpenVINO finds only .*CPU.*use device 'cpu'"):
        Predictor(load_checkpoint(small_checkpoint()), device="intel_npu", backend="openvino")


@pytest.mark.skipif(INSTALLED, reason="OpenVINO is installed")
def test_without_openvino_one_line_says_what_to_install():
    with pytest.raises(ValueError, match="python3 -m pip install openvino, or use backend torch"):
        import_openvino()
