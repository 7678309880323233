"""Tells why depth from motion fails: a standing vehicle, poor images, or wrong poses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .consistency import SCALES
from .settings import NoParallax, StructureError
from .window import Report

__all__ = ["check_found", "check_poses"]

_FEW_FEATURES = 40  # of an image, in the median
_ENOUGH_TESTED = 300  # matches, before poses are judged by them
_LEAST_FIT = 0.25  # share of matches found without poses; right poses fitted 49 % and more so far
_LEAST_VOTES = 100  # for a scale
_LEAST_GAIN = 1.2  # of the best scale's votes over those of the odometry's own
_SURE = 4.0  # and so many standard deviations of a count
_SAME_SCALE = 0.12  # largest logarithm of a factor that is none


def check_poses(name: str, reports: Sequence[Report]) -> None:
    """Raise StructureError if the ego poses cannot be true. May be called after each window.

    Args:
        name: of the recording, for error texts.
        reports: of the windows so far.
    """
    tested, fit = sum(report.tested for report in reports), sum(report.fit for report in reports)
    if tested >= _ENOUGH_TESTED and fit < _LEAST_FIT * tested:
        raise StructureError(
            f"{name}: the poses do not fit the images: of {tested} matches between images of one camera, {fit} "
            f"({fit / tested:.0%}) lie on the epipolar lines that /tf says; look at the odometry, at the stamps of the "
            "images against those of /tf, at camera_info and at the mounts (renderocc check)"
        )
    votes = np.sum([report.scales for report in reports], axis=0) if reports else np.zeros(len(SCALES))
    own, best = int(votes[len(SCALES) // 2]), int(votes.argmax())
    more = int(votes[best]) - own
    wrong = abs(np.log(SCALES[best])) > _SAME_SCALE and votes[best] >= _LEAST_VOTES
    if wrong and votes[best] > _LEAST_GAIN * own and more > _SURE * np.sqrt(votes[best]):
        raise StructureError(
            f"{name}: the odometry's scale is wrong: {votes[best]} matches between cameras fit if the vehicle moves "
            f"{SCALES[best]:.2g} times as far as /tf says, {own} if it is right; correct the odometry (wheel radius, "
            "units, scale of a visual odometry), or the cameras' mounts if it is right"
        )


def check_found(name: str, reports: Sequence[Report]) -> None:
    """Raise StructureError, with the reason, if the windows of a recording have no point at all.

    Args:
        name: of the recording, for error texts.
        reports: of all windows.
    """
    check_poses(name, reports)
    if any(report.points for report in reports):
        return
    unread = sum(report.unread for report in reports)
    images = sum(report.images for report in reports)
    if not images:
        why = next((report.reason for report in reports if report.reason), "no image has an ego pose")
        raise StructureError(f"{name}: no image can be used for depth from motion; {unread} cannot be read: {why}")
    if not any(report.same or report.across for report in reports):
        way = max(report.way for report in reports)
        raise NoParallax(
            f"{name}: no parallax: the vehicle moves {way:.2f} m in all of a window's images, and no two cameras see "
            "the same from places that are apart; depth from motion needs a vehicle that drives, or cameras that "
            "overlap; record a drive, or use a LiDAR or depth images"
        )
    features = int(np.median([report.features for report in reports]))
    if features < _FEW_FEATURES:
        raise StructureError(
            f"{name}: the images have too few features: {features} in the median; they are too dark, too blurred or "
            "show too little texture; look at them, and raise --feature-image-size if they are larger"
        )
    matches = sum(report.matches for report in reports)
    raise StructureError(
        f"{name}: not one point could be triangulated from {matches} matches in {images} images; look at the odometry, "
        "the stamps and the mounts (renderocc check), and raise --max-pixel-error"
    )
