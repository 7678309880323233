"""Tests poses by matches that were found without them: whether they fit, and whether the odometry's scale does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderocc_model.geometry.transforms import invert

from .matching import epipolar_errors, match_anywhere
from .views import View

__all__ = ["SCALES", "pose_votes", "scale_votes"]

# Factors by which the vehicle's motion is multiplied, in steps of 1.5 %; the middle one is 1.
SCALES = 2.0 ** (np.arange(-120, 121) / 48)
_FARTHEST_TESTED = 6.0  # metres between two images of one camera
_LEAST_WAY = 0.5  # metres between two images of different cameras, for which the scale matters
_TESTED, _TESTED_ACROSS = 20, 60  # pairs of images of one camera, and of two
_FITS = 2.0  # pixels


def scale_votes(
    views: Sequence[View], pairs: Sequence[tuple[int, int]], max_error: float
) -> tuple[np.ndarray, np.ndarray]:
    """How well the matches between cameras fit each of `SCALES`.

    The epipolar lines of one camera's images do not change with the scale. Those between two cameras do, at different
    times: the vehicle's motion has its scale from odometry, the way between two mounts from the calibration.

    Returns:
        votes: (241,) int, the matches with an error e below `max_error`, pixels.
        scores: (241,) the sum of 1 - (e / max_error)^2 over these matches (MSAC). Votes alone are as many over a wide
            range of scales.
    """
    across = [
        (one, other)
        for one, other in pairs
        if views[one].camera != views[other].camera and abs(views[one].way - views[other].way) > _LEAST_WAY
    ]
    votes, scores = np.zeros(len(SCALES), np.int64), np.zeros(len(SCALES))
    for one, other in _some(across, _TESTED_ACROSS):
        a, b = views[one], views[other]
        matches = match_anywhere(a.features, b.features)
        for number, factor in enumerate(SCALES):
            pose = invert(b.scaled(factor)) @ a.scaled(factor)
            errors = epipolar_errors(a.features, b.features, matches, pose) / max_error
            fits = errors[errors < 1]
            votes[number] += len(fits)
            scores[number] += float((1 - fits * fits).sum())
    return votes, scores


def pose_votes(views: Sequence[View], pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Matches between images of one camera that were found without poses, and how many of them the poses fit.

    Images farther apart than 6 m are not tested: most matches between them are wrong, however right the poses are.
    """
    same = [
        (one, other)
        for one, other in pairs
        if views[one].camera == views[other].camera and abs(views[one].way - views[other].way) < _FARTHEST_TESTED
    ]
    count = fit = 0
    for one, other in _some(same, _TESTED):
        a, b = views[one], views[other]
        matches = match_anywhere(a.features, b.features)
        pose = invert(b.odom_from_camera) @ a.odom_from_camera
        count += len(matches)
        fit += int(np.count_nonzero(epipolar_errors(a.features, b.features, matches, pose) < _FITS))
    return count, fit


def _some(pairs: Sequence[tuple[int, int]], most: int) -> Sequence[tuple[int, int]]:
    return pairs[:: -(-len(pairs) // most)] if pairs else pairs
