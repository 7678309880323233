"""What the commands are given: a recording of a tiny town and all that is made of it, by the commands themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import yaml

from .process import run_command

__all__ = ["make_material"]

# 16 x 16 x 8 voxels of 0.4 m, views of 96 x 64 pixels, 7 depth bins: a thousandth of `tiny`.
SMALL_MODEL = {
    "preset": "tiny",
    "grid": {"lower": [-3.2, -3.2, -1.0], "upper": [3.2, 3.2, 2.2], "voxel_size": 0.4},
    "images": {"height": 64, "width": 96},
    "backbone": {"name": "test_efficientnet"},
    "neck": {"channels": 8},
    "lift": {"context_channels": 6, "hidden_channels": 8, "height_slices": 2, "depth": {"count": 7, "maximum": 12.0}},
    "encoder": {"channels": [8, 12], "blocks": [1, 1], "out_channels": 8},
    "heads": {"voxel_channels": 5, "hidden_channels": 6},
}
_RUN = {
    "threads": 1,
    "workers": 1,
    "log_every": 1,
    "save_every": 1,
    "validate_every": 0,
    "picture_every": 0,
    "tensorboard": False,
}
STEPS = 6
_LIMIT_S = 600.0
_VOXELS = (256, 256, 32)  # of SemanticKITTI's volumes


def make_material(folder: Path, say: Callable[[str], None] = print) -> Path:
    """Make what is missing of the material; each part is renamed into place when it is whole.

    Raises:
        RuntimeError: a command failed; the text ends with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_settings(folder)
    steps = {
        "kitti": None,
        "town": ("simulate", "{out}", "--seed", "3", "--frames", "2", "--rig", "rig.yaml", "--jobs", "2"),
        "labels": ("label", "town", "--out", "{out}"),
        "tables": (
            "prepare",
            "town",
            "--labels",
            "labels",
            "--out",
            "{out}",
            "--jobs",
            "1",
            "--pixels-per-image",
            "300",
        ),
        "run": ("train", "--config", "train.yaml", "--out", "{out}", "data.prepared=tables"),
        "volumes": (
            "eval",
            "--checkpoint",
            "run/checkpoint.safetensors",
            "--data",
            "tables",
            "--predictions",
            "{out}",
        ),
    }
    for name, command in steps.items():
        if (folder / name).exists():
            continue
        say(f"making {name}")
        partial = f".making_{name}"
        shutil.rmtree(folder / partial, ignore_errors=True)
        if command is None:
            _write_kitti(folder / partial / "sequences" / "08")
        else:
            # The recording's name is in its metadata, so it is written under it, in a folder of its own.
            inside = f"{partial}/{name}"
            ended = run_command([word.format(out=inside) for word in command], folder, folder / f"{name}.log", _LIMIT_S)
            if ended.status != 0:
                raise RuntimeError(f"making {name} failed ({ended.status}): {ended.text[-2000:]}")
        made = folder / partial / name if command else folder / partial
        made.rename(folder / name)
        shutil.rmtree(folder / partial, ignore_errors=True)
    return folder


def _write_settings(folder: Path) -> None:
    """A rig of two cameras, and the YAML files of a training run and a study."""
    train = {
        "model": SMALL_MODEL,
        "sample": {"rays": 100},
        "optimiser": {"warm_up": 1},
        "steps": STEPS,
        "run": _RUN,
        "precision": "float32",
    }
    study = {
        "name": "micro",
        "title": "A micro study",
        "seeds": [4],
        "train": "study_train.yaml",
        "comparison": "variants.yaml",
        "data": {
            **{part: {"seeds": [seed], "frames": 2} for seed, part in enumerate(("training", "validation", "test"))},
            "width": 96,
            "height": 64,
            "pixels_per_image": 100,
        },
    }
    variants = {
        "variants": [{"name": "plain", "about": "the frame's own rays", "settings": ["sample.auxiliary_offsets=[]"]}],
        "tables": [{"title": "One row", "rows": [{"variant": "plain", "label": "plain rays"}]}],
        "main": "plain",
    }
    files = {
        "train.yaml": {**train, "data": {"validation": []}},
        "study_train.yaml": {**train, "steps": 2},
        "study.yaml": study,
        "variants.yaml": variants,
        "rig.yaml": {"cameras": {"front": _camera([-0.5, 0.5, -0.5, 0.5]), "back": _camera([0.5, 0.5, -0.5, -0.5])}},
    }
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))


def _camera(rotation: list[float]) -> dict:
    """96 x 64 pixels, 77 degrees across; an optical frame that looks along x of base_link, or back."""
    return {
        "frame_id": "",
        "size": [96, 64],
        "K": [60.0, 0.0, 47.5, 0.0, 60.0, 31.5, 0.0, 0.0, 1.0],
        "distortion_model": "plumb_bob",
        "coefficients": [0.0] * 5,
        "base_from_camera": {"translation": [0.5, 0.0, 1.6], "rotation": rotation},
    }


def _write_kitti(folder: Path, frames: int = 2) -> None:
    """A sequence in SemanticKITTI's layout: an empty road along cam0's z, noise for a scan."""
    for name in ("image_2", "image_3", "velodyne", "labels", "voxels"):
        (folder / name).mkdir(parents=True)
    projection = "718.856 0 607.1928 {} 0 718.856 185.2157 0 0 0 1 0"
    cameras = "".join(f"P{index}: {projection.format(offset)}\n" for index, offset in enumerate((0, -386, 45, -337)))
    (folder / "calib.txt").write_text(f"{cameras}Tr: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27\n")
    (folder / "times.txt").write_text("".join(f"{0.1 * frame:e}\n" for frame in range(frames)))
    (folder / "poses.txt").write_text("".join(f"1 0 0 0 0 1 0 0 0 0 1 {frame}\n" for frame in range(frames)))
    rng = np.random.default_rng(1)
    for frame in range(frames):
        for name in ("image_2", "image_3"):
            picture = np.full((376, 1241, 3), 40 * frame, np.uint8)
            (folder / name / f"{frame:06d}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        scan = rng.uniform(-20, 20, (500, 4)).astype("<f4")
        (folder / "velodyne" / f"{frame:06d}.bin").write_bytes(scan.tobytes())
        (folder / "labels" / f"{frame:06d}.label").write_bytes(np.full(500, 40, "<u4").tobytes())
    volume = np.zeros(_VOXELS, "<u2")
    volume[:, :, 2] = 40
    (folder / "voxels" / "000000.label").write_bytes(volume.tobytes())
    for name, bits in (("bin", volume > 0), ("invalid", volume > 40), ("occluded", volume > 40)):
        (folder / "voxels" / f"000000.{name}").write_bytes(np.packbits(bits.ravel()).tobytes())
