"""From the parameters to a network that is ready, and what the log says of it."""

import os
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from small_models import small_config

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.network import packaged
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.network import build_network
from renderocc_ros.frame.network_setup import make_predictor
from renderocc_ros.parameters import NodeConfig


class Log:
    """What is said, as (level, text)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, text: str) -> None:
        self.lines.append(("info", text))

    def warning(self, text: str) -> None:
        self.lines.append(("warning", text))


@pytest.fixture(autouse=True)
def threads_as_before():
    """The network's and OpenCV's threads are settings of the whole process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    config = small_config("tiny")
    save_checkpoint(path, build_network(config), OCC3D_NUSCENES, 0.37, None, {"by": "test"})
    return path


def settings(**parameters) -> NodeConfig:
    return NodeConfig(**{"device": "cpu", "cpu_threads": 2, "backend": "torch", **parameters})


def test_a_checkpoint_is_loaded_and_the_log_says_which_and_where_it_runs(checkpoint):
    log = Log()
    predictor = make_predictor(settings(checkpoint=str(checkpoint)), log)
    assert predictor.config.images.height == 64 and predictor.threshold == pytest.approx(0.37)
    assert log.lines == [
        ("info", "loading PyTorch"),
        ("info", f"loading the network {checkpoint}"),
        ("info", f"network: {checkpoint}"),
        ("info", "making the network ready on the CPU, 2 threads"),
        ("info", f"running on the CPU, 2 threads, {predictor.precision}; occupied above 0.37"),
    ]
    assert torch.get_num_threads() == 2 and cv2.getNumThreads() == 1


def test_a_threshold_given_as_parameter_wins_and_the_stored_one_is_kept(checkpoint):
    predictor = make_predictor(settings(checkpoint=str(checkpoint), threshold=0.6), Log())
    assert (predictor.threshold, predictor.stored_threshold) == (0.6, pytest.approx(0.37))


def test_no_number_of_threads_means_all_cores(checkpoint):
    log = Log()
    make_predictor(NodeConfig(device="cpu", cpu_threads=0, checkpoint=str(checkpoint)), log)
    assert f"the CPU, {os.cpu_count()} threads" in log.lines[-1][1]


@pytest.fixture
def in_the_package(checkpoint, monkeypatch, tmp_path):
    """A package that has a trained `tiny`."""
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    return Path(shutil.copy(checkpoint, tmp_path / "tiny.safetensors"))


@pytest.mark.parametrize("parameters", [{}, {"checkpoint": "tiny"}])
def test_without_a_checkpoint_and_by_its_name_the_network_of_the_package_is_used(in_the_package, parameters):
    log = Log()
    assert make_predictor(settings(**parameters), log).provenance == {"by": "test"}
    assert log.lines[1:3] == [("info", f"loading the network {in_the_package}"), ("info", f"network: {in_the_package}")]


@pytest.mark.slow
def test_a_preset_that_the_package_has_no_network_of_is_untrained_and_warned_of(in_the_package):
    log = Log()
    assert make_predictor(settings(preset="base"), log).provenance["untrained"]
    assert log.lines[1] == ("info", "loading the network base")
    assert log.lines[2][0] == "warning" and "UNTRAINED 'base'" in log.lines[2][1]


def test_without_any_checkpoint_the_untrained_network_is_warned_of_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "FOLDER", tmp_path)
    log = Log()
    predictor = make_predictor(settings(preset="tiny"), log)
    assert predictor.config.name == "tiny" and predictor.provenance["untrained"]
    assert log.lines[1] == ("info", "loading the network tiny")
    level, text = log.lines[2]
    assert level == "warning" and "UNTRAINED 'tiny'" in text and "set the parameter 'checkpoint'" in text


def test_a_checkpoint_that_is_not_there_or_broken_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="lost.safetensors"):
        make_predictor(settings(checkpoint=str(tmp_path / "lost.safetensors")), Log())
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no network at all")
    with pytest.raises(ValueError, match="broken.safetensors"):
        make_predictor(settings(checkpoint=str(broken)), Log())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_with_the_remedy(checkpoint):
    with pytest.raises(ValueError, match="torch sees no CUDA device; check nvidia-smi, or use device 'cpu'"):
        make_predictor(NodeConfig(device="cuda", checkpoint=str(checkpoint)), Log())
