"""Takes depth from motion: runs it for a recording, and keeps what may move out of the labels."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.base.config_arguments import from_arguments
from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.camera_model import CameraModel
from training.label.structure.run import MotionLabels, depth_from_motion
from training.label.structure.settings import MotionDepth, StructureError
from training.label.structure.window import ImageLabels
from training.recordings.frames import Recording

from .clouds import NoCloud

__all__ = ["motion_labels", "standing_depth", "triangulated_labels", "windows_folder"]

_EDGE = 2  # pixels around what may move, where classes and features do not agree to the pixel


def windows_folder(out: Path) -> Path:
    """Where the windows that are done are kept until the label bag `out` is complete."""
    return out.with_name(f".{out.name}.motion")


def motion_labels(recording: Recording, wanted: Namespace, out: Path) -> MotionLabels:
    """Depth from motion for all images, with a progress bar.

    Args:
        recording: an open recording.
        wanted: the options of `renderocc label`.
        out: the label bag that will be written.
    Raises:
        StructureError: it is not possible; the text has the reason.
    """
    from tqdm import tqdm

    with tqdm(unit="window", desc="depth from motion", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        settings = from_arguments(wanted, MotionDepth)
        return depth_from_motion(recording, settings, windows_folder(out), wanted.jobs, show)


def triangulated_labels(motion: MotionLabels, camera: str, stamp_ns: int) -> ImageLabels:
    """The labels of an image.

    Raises:
        NoCloud: it has none, and why.
    """
    try:
        return motion.of(camera, stamp_ns)
    except StructureError as error:
        raise NoCloud(str(error)) from None


def standing_depth(
    labels: ImageLabels, model: CameraModel, semantic: np.ndarray | None, classes: ClassTable
) -> np.ndarray:
    """Depth image (H, W) float32 metres, 0 unknown, without what may move.

    A vehicle that drives ahead at our speed has no parallax, and one that drives slower looks farther away than it is;
    both fit the epipolar lines. So labels on and beside pixels of classes that move are left out.

    Args:
        labels: of the image.
        model: the camera's model.
        semantic: (H, W) class ids, or None without classes.
        classes: their table.
    """
    depth = np.zeros((model.height, model.width), np.float32)
    columns, rows = labels.pixels.T
    inside = (columns >= 0) & (columns < model.width) & (rows >= 0) & (rows < model.height)
    depth[rows[inside], columns[inside]] = labels.depth[inside]
    if semantic is not None:
        moving = np.isin(semantic, classes.dynamic).astype(np.uint8)
        depth[cv2.dilate(moving, np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)) > 0] = 0
    return depth
