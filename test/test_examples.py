"""The scripts in examples/ run as their first lines say, from the repository's root."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from renderocc_model.network.packaged import packaged_checkpoint

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.system


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, f"examples/{name}.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(packaged_checkpoint("tiny") is None, reason="a source tree without the weights")
def test_predicting_without_ros_writes_the_volume_and_its_picture(town_bag, tmp_path):
    said = run("predict_without_ros", town_bag, "--out", tmp_path)
    assert "driveable_surface" in said
    volume = np.load(tmp_path / "volume.npz")
    assert volume["semantics"].shape == (100, 100, 16) and volume["mask_camera"].any()
    assert cv2.imread(str(tmp_path / "volume.png")).shape == (720, 1280, 3)


def test_a_rendered_field_shows_the_car_and_is_learned_back(tmp_path):
    said = run("render_a_field", "--out", tmp_path, "--steps", 25)
    # The camera stands 1.72 m ahead of base_link, the car begins at 10 m, and voxels of 0.5 m blur its surface.
    distance = float(re.search(r"ends after ([\d.]+) m, at a car", said)[1])
    assert 8.28 - 0.5 < distance < 8.28 + 0.5
    before, after = map(float, re.search(r"distances: ([\d.]+) m before learning, ([\d.]+) m after", said).groups())
    assert after < before / 2
    assert cv2.imread(str(tmp_path / "field.png")).shape == (128, 176, 3)


def test_training_on_one_recording_ends_with_a_network_that_predicts(town_bag, tmp_path):
    said = run("train_on_one_bag", town_bag, "--out", tmp_path, "--steps", 2, "--rays", 300)
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    assert re.search(r"the trained network sees \d+ occupied voxels", said)


def test_every_example_is_run_here_and_says_how_to_run_it():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == set(re.findall(r'run\("(\w+)"', Path(__file__).read_text()))
    for name in names:
        assert f"    python examples/{name}.py" in (ROOT / "examples" / f"{name}.py").read_text()
