"""Separates the points of a LiDAR into ground and obstacles with Patchwork++ (pypatchworkpp)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator

import numpy as np

from renderocc_model.field.classes import GROUND_OBSTACLE, UNLABELLED

__all__ = ["have_patchwork", "patchwork_classes"]

_NEAREST = 1.0  # metres from the centre; nearer points are on the vehicle and get no class
_FARTHEST = 80.0
# Metres above the ground of the place that Patchwork++ takes for the sensor. Its limits are made for this height. The
# LiDAR's own frame is no better: drivers send clouds that are joined, or moved into another frame.
_EYE = 1.723


def have_patchwork() -> bool:
    """Whether pypatchworkpp is installed."""
    return importlib.util.find_spec("pypatchworkpp") is not None


def patchwork_classes(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Class ids of GROUND_OBSTACLE of a cloud's points, by Patchwork++ (Lee et al., IROS 2022).

    Each cloud is judged by itself. Patchwork++ can learn its limits from the clouds before, but then the result depends
    on where a recording begins.

    Args:
        points: (N, 3) in a frame whose z is the height above the ground below the vehicle, metres.
        centre: (2,) the LiDAR's place in the same frame, x and y.
    Returns:
        (N,) uint8; 255 for points nearer than 1 m or farther than 80 m, and for noise.
    """
    import pypatchworkpp

    wanted = pypatchworkpp.Parameters()
    wanted.sensor_height = _EYE
    wanted.min_range, wanted.max_range = _NEAREST, _FARTHEST
    wanted.enable_RNR = False  # needs intensities, whose unit every driver chooses for itself
    wanted.verbose = False
    with _quiet():
        judge = pypatchworkpp.patchworkpp(wanted)
    judge.estimateGround(np.ascontiguousarray(points - (*centre[:2], _EYE), np.float32))
    classes = np.full(len(points), UNLABELLED, np.uint8)
    classes[np.asarray(judge.getNongroundIndices(), np.int64)] = GROUND_OBSTACLE.id_of("obstacle")
    classes[np.asarray(judge.getGroundIndices(), np.int64)] = GROUND_OBSTACLE.id_of("ground")
    distance = np.hypot(points[:, 0] - centre[0], points[:, 1] - centre[1])
    classes[(distance < _NEAREST) | (distance > _FARTHEST)] = UNLABELLED
    return classes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is written to standard output meanwhile: the library announces itself there, whatever `verbose` says."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
