"""Exported networks in Predictor and in the node: the same occupancy, the choice of what runs them, its refusals."""

import importlib.util
import time

import numpy as np
import pytest
import torch
from exported_files import FORMS, exported_file, small_checkpoint, two_threads  # noqa: F401  (a fixture)
from sensor_msgs.msg import PointCloud2
from small_models import camera_ring
from system import wait_until
from test_network_setup import Log
from test_node_in_process import System, until_active

from renderocc_model.base.findings import Findings
from renderocc_model.export.backends import BACKENDS, chosen_backend, load_exported
from renderocc_model.geometry.rig import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import CheckpointError
from renderocc_ros.commands.doctor.files import check_checkpoint
from renderocc_ros.frame.network_setup import make_predictor
from renderocc_ros.parameters import NodeConfig

pytestmark = pytest.mark.system


def frame(config, cameras):
    """Arguments of `Predictor.predict`: random pictures of a ring of cameras."""
    views, poses = camera_ring(config, cameras)
    tables = [UndistortTable(CameraModel(96, 64, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
    pictures = np.random.default_rng(cameras).integers(0, 256, (cameras, 64, 96, 3), dtype=np.uint8)
    return pictures, tables, poses


@pytest.mark.parametrize("form", FORMS)
def test_an_exported_file_alone_makes_a_predictor_with_the_same_occupancy(form):
    _, path = exported_file(form)
    exported = Predictor(path, device="cpu")
    plain = Predictor(small_checkpoint(), device="cpu", precision="float32")
    assert (exported.backend, exported.precision, exported.device.type) == (FORMS[form], "float32", "cpu")
    assert (exported.classes, exported.grid, exported.threshold) == (plain.classes, plain.grid, plain.threshold)
    exported.warm_up()
    for cameras in (6, 2):  # one drops out, or four
        ours, theirs = (predictor.predict(*frame(plain.config, cameras)) for predictor in (exported, plain))
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)
        assert (ours.semantics == theirs.semantics).mean() > 0.999
        assert ours.field.semantics.shape == theirs.field.semantics.shape  # what ~/rendered is made of


@pytest.mark.parametrize(
    "words",
    [
        ("fusion.enabled=true",),
        ("fusion.enabled=true", "fusion.stereo.channels=8", "lift.subpixels=2", "heads.density_layers=2"),
        ("fusion.enabled=true", "fusion.frames=4"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_an_exported_model_that_joins_frames_gives_the_same_over_a_drive(form, words):
    checkpoint, path = exported_file(form, "tiny", *words)
    exported = Predictor(path, device="cpu")
    plain = Predictor(checkpoint, device="cpu", precision="float32")
    assert exported.config.fusion.enabled
    exported.warm_up()
    given, alone = frame(plain.config, 4), []
    for number, x in enumerate((0.0, 0.4, 0.9, None, 1.5)):  # a frame without a pose forgets those before it
        odom_from_base = None if x is None else np.eye(4)
        if x is not None:
            odom_from_base[0, 3] = x
        ours, theirs = (one.predict(*given, odom_from_base, 5 + 0.45 * number) for one in (exported, plain))
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)
        alone.append(theirs.confidence)
    assert not np.allclose(alone[1], alone[0], atol=1e-3) and np.array_equal(alone[3], alone[4])


def test_the_ending_chooses_the_backend_and_another_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as if OpenVINO were not installed
    chosen = {name: chosen_backend(name, "auto") for name in ("a.safetensors", "tiny", "a.pt2", "a.onnx")}
    assert chosen == {"a.safetensors": "torch", "tiny": "torch", "a.pt2": "torch", "a.onnx": "onnxruntime"}
    assert chosen_backend("a.onnx", "tensorrt") == "tensorrt"
    with pytest.raises(ValueError, match="a.onnx: backend torch does not run .onnx files; it is run by onnxruntime or"):
        chosen_backend("a.onnx", "torch")
    for name in ("a.safetensors", "a.pt2"):
        with pytest.raises(ValueError, match="renderocc export --format onnx"):
            chosen_backend(name, "onnxruntime")
    with pytest.raises(ValueError, match=f"choose one of {', '.join(BACKENDS)}"):
        chosen_backend("a.onnx", "onnx")


def test_what_a_backend_cannot_do_is_refused():
    _, path = exported_file("onnx")
    with pytest.raises(ValueError, match="precision is bfloat16, but tiny.onnx computes in float32"):
        Predictor(path, device="cpu", precision="bfloat16")
    with pytest.raises(ValueError, match="runs on the CPU here, not on 'cuda'"):
        load_exported(path, "onnxruntime", torch.device("cuda"))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_runtime_that_is_not_installed_is_one_line_that_says_what_to_install():
    with pytest.raises(ValueError, match="python3 -m pip install tensorrt, or use backend onnxruntime"):
        Predictor(exported_file("onnx")[1], device="cpu", backend="tensorrt")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_whose_network_is_damaged_is_refused_by_name(form, tmp_path):
    _, path = exported_file(form)
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 4096] = bytes(255 for _ in range(4096))
    damaged = tmp_path / path.name
    damaged.write_bytes(content[: -len(content) // 8])
    with pytest.raises(CheckpointError, match=path.name):
        Predictor(damaged, device="cpu")


def test_onnxruntime_gets_the_threads_that_the_parameter_gives_the_node():
    log = Log()
    predictor = make_predictor(NodeConfig(device="cpu", cpu_threads=1, checkpoint=str(exported_file("onnx")[1])), log)
    assert predictor._exported._session.get_session_options().intra_op_num_threads == 1
    assert "running on the CPU, 1 threads by onnxruntime, float32; occupied above 0.3" in log.lines[-1][1]


def test_an_untrained_network_and_a_checkpoint_are_not_run_by_onnxruntime():
    for checkpoint in ("", str(small_checkpoint())):
        with pytest.raises(ValueError, match="backend onnxruntime does not run"):
            make_predictor(NodeConfig(device="cpu", cpu_threads=2, checkpoint=checkpoint, backend="onnxruntime"), Log())


def test_the_doctor_knows_an_exported_network(tmp_path):
    findings = Findings()
    check_checkpoint(findings, exported_file("onnx")[1], NodeConfig(checkpoint="", grid_ignored_classes=()))
    assert "exported, for onnxruntime, grid 16x16x4 at 1 m, 18 classes, occupied above 0.3" in str(findings.__dict__)


def test_the_node_runs_an_exported_network():
    running = System(exported_file("onnx")[1])
    try:
        until_active(running)
        assert running.node._configured.predictor.backend == "onnxruntime"
        running.send()
        wait_until(lambda: running.points, 20, "points")
        assert isinstance(running.points[-1], PointCloud2) and running.points[-1].width > 0
        wait_until(lambda: running.node._configured.worker.last_frame is not None, 5, "a frame")
        assert running.node._configured.worker.last_frame.used == ("front", "left", "back")
        time.sleep(0.2)
        assert running.node._configured.worker.counters.failed == 0
    finally:
        running.close()
