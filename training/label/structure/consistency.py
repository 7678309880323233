"""Tests poses by matches that were found without them: whether they fit, and whether the odometry's scale does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderocc_model.geometry.transforms import invert

from .matching import epipolar_errors, match_anywhere
from .views import View

__all__ = ["SCALES", "scale_votes", "pose_votes"]

# Factors by which the vehicle's motion is multiplied; the middle one is 1.
SCALES = 2.0 ** np.linspace(-2.5, 2.5, 41)
_LEAST_WAY = 0.5  # metres between two images of different cameras, for which the scale matters
_TESTED = 20  # pairs of images
_FITS = 2.0  # pixels


def scale_votes(views: Sequence[View], pairs: Sequence[tuple[int, int]], max_error: float) -> np.ndarray:
    """Matches that fit each of `SCALES`, (41,) int.

    The epipolar lines of one camera's images do not change with the scale. Those between two cameras do, at different
    times: the vehicle's motion has its scale from odometry, the way between two mounts from the calibration.
    """
    across = [
        (one, other)
        for one, other in pairs
        if views[one].camera != views[other].camera and abs(views[one].way - views[other].way) > _LEAST_WAY
    ]
    votes = np.zeros(len(SCALES), np.int64)
    for one, other in _some(across):
        a, b = views[one], views[other]
        matches = match_anywhere(a.features, b.features)
        for number, factor in enumerate(SCALES):
            pose = invert(b.scaled(factor)) @ a.scaled(factor)
            votes[number] += np.count_nonzero(epipolar_errors(a.features, b.features, matches, pose) < max_error)
    return votes


def pose_votes(views: Sequence[View], pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Matches between images of one camera that were found without poses, and how many of them the poses fit."""
    same = [(one, other) for one, other in pairs if views[one].camera == views[other].camera]
    count = fit = 0
    for one, other in _some(same):
        a, b = views[one], views[other]
        matches = match_anywhere(a.features, b.features)
        pose = invert(b.odom_from_camera) @ a.odom_from_camera
        count += len(matches)
        fit += int(np.count_nonzero(epipolar_errors(a.features, b.features, matches, pose) < _FITS))
    return count, fit


def _some(pairs: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    return pairs[:: -(-len(pairs) // _TESTED)] if pairs else pairs
