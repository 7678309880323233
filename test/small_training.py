"""A small training run for tests: three short recordings of two cameras, prepared, and settings that take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from small_models import small_config
from tiny_bag import FRAME_NS, START_NS, Plan, write_bag

from renderocc_model.base.config import to_mapping
from training.data.prepare import PrepareConfig, prepare_recording

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 3


def small_tables(folder: Path) -> Path:
    """Tables of recordings one, two and three, with 3D truth of the small models' grid (16 x 16 x 4 voxels of 1 m)."""
    rng = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        bag = write_bag(folder / name, Plan(frames=FRAMES))
        (bag / "occupancy").mkdir()
        for frame in range(FRAMES):
            volume = np.where(rng.random((16, 16, 4)) < 0.8, 17, rng.integers(0, 17, (16, 16, 4))).astype(np.uint8)
            path = bag / "occupancy" / f"{START_NS + frame * FRAME_NS}.npz"
            np.savez(path, semantics=volume, mask_camera=np.ones_like(volume), mask_lidar=np.ones_like(volume))
        prepare_recording(bag, None, folder / "tables", PrepareConfig())
    return folder / "tables"


def small_settings(folder: Path, preset: str = "tiny", **changes) -> Path:
    """A YAML of settings for `small_tables`; `three` is held out."""
    settings = {
        "model": to_mapping(small_config(preset)),
        "data": {"prepared": str(folder / "tables"), "validation": ["three"]},
        "sample": {"rays": 200},
        "optimiser": {"warm_up": 2, "learning_rate": 3e-3, "ema": 0.9},
        "steps": 12,
        "batch": 2,
        "precision": "float32",
        "run": {
            "threads": 1,
            "workers": 0,
            "log_every": 1,
            "save_every": 2,
            "validate_every": 0,
            "validation_frames": 1,
            "picture_every": 0,
            "pictures": 1,
            "tensorboard": False,
        },
    }
    path = folder / f"{preset}.yaml"
    path.write_text(yaml.safe_dump({**settings, **changes}))
    return path


def start_training(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    """`renderocc train` in a process and a process group of its own. Its stdout and stderr are one stream.

    Args:
        launcher: words between the interpreter and `-m training.train`.
    """
    command = [sys.executable, *launcher, "-m", "training.train", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen, text: str) -> str:
    """The output of the process up to the first line that contains a text, or up to its end."""
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            break
    return "".join(said)


def assert_trained_on(tables, folder, **data) -> None:
    """A training of a few steps on prepared tables, in a process of its own, ends with success. `data`: settings."""
    settings = small_settings(folder, data={"prepared": str(tables), **data})
    process = start_training("--config", str(settings), "--out", str(folder / "run"), "--fast-dev-run")
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
