"""Tells why depth from motion fails or finds little: a standing vehicle, poor images, or wrong poses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .consistency import SCALES
from .settings import MotionDepth, NoParallax, StructureError
from .window import Report

__all__ = ["check_found", "check_poses", "remarks"]

_FEW_FEATURES = 200  # of an image, in the median; a street of 576x192 pixels has 1,100
_FEW_LABELS = 20  # of an image
_FAR_APART = 6.0  # metres between a camera's images, where little is seen twice
_ENOUGH_TESTED = 300  # matches, before poses are judged by them
_LEAST_FIT = 0.25  # share of matches found without poses; right poses fitted 49 % and more so far
_LEAST_VOTES = 100  # for a scale
_SURE = 6.0  # standard deviations by which another scale has to fit better
_DOUBTFUL_SCALE = 0.045  # error of the scale that is worth a warning; the calibration of DDAD is 4 % off in this sense


class _Scale(NamedTuple):
    """The scale that fits the matches between cameras best, the matches that fit it, and whether it differs surely."""

    factor: float
    votes: int
    differs: bool

    @property
    def error(self) -> float:
        return max(self.factor, 1 / self.factor) - 1


def check_poses(name: str, reports: Sequence[Report], settings: MotionDepth) -> None:
    """Raise StructureError if the ego poses cannot be true. May be called after each window.

    Args:
        name: of the recording, for error texts.
        reports: of the windows so far.
        settings: the largest error of the scale.
    """
    tested, fit = sum(report.tested for report in reports), sum(report.fit for report in reports)
    if tested >= _ENOUGH_TESTED and fit < _LEAST_FIT * tested:
        raise StructureError(
            f"{name}: the poses do not fit the images: of {tested} matches between images of one camera, {fit} "
            f"({fit / tested:.0%}) lie on the epipolar lines that /tf says; look at the odometry, at the stamps of the "
            "images against those of /tf, at camera_info and at the mounts (renderocc check)"
        )
    scale = _scale(reports)
    if scale is not None and scale.differs and scale.error > settings.max_scale_error:
        raise StructureError(
            f"{name}: the odometry's scale is wrong: {_of_scale(scale)}; correct the odometry (wheel radius, units, "
            "scale of a visual odometry), or the cameras' mounts if it is right; --max-scale-error "
            f"{np.ceil(100 * scale.error) / 100:.2f} takes it as it is"
        )


def check_found(name: str, reports: Sequence[Report], settings: MotionDepth) -> None:
    """Raise StructureError, with the reason, if the windows of a recording have no label at all.

    Args:
        name: of the recording, for error texts.
        reports: of all windows.
        settings: for `check_poses`.
    """
    check_poses(name, reports, settings)
    if any(report.labels for report in reports):
        return
    unread = sum(report.unread for report in reports)
    images = sum(report.images for report in reports)
    if not images:
        why = next((report.reason for report in reports if report.reason), "no image has an ego pose")
        raise StructureError(f"{name}: no image can be used for depth from motion; {unread} cannot be read: {why}")
    matches = sum(report.matches for report in reports)
    kind = StructureError if any(report.same for report in reports) else NoParallax
    raise kind(f"{name}: not one pixel could be labelled, from {matches} matches in {images} images: {_why(reports)}")


def remarks(reports: Sequence[Report]) -> list[str]:
    """What a user should know of labels that were found, as texts for warnings.

    Args:
        reports: of all windows.
    """
    texts = []
    images, labels = sum(report.images for report in reports), sum(report.labels for report in reports)
    standing = sum(not report.same for report in reports)
    if labels < _FEW_LABELS * images or (_step(reports) > _FAR_APART and not standing):
        texts.append(f"only {labels} pixels could be labelled in {images} images: {_why(reports)}")
    elif standing:
        where = "" if standing == len(reports) else f" in {standing} of {len(reports)} parts of the recording"
        texts.append(f"the vehicle stands still{where}, where only cameras that overlap give depth; record a drive")
    if standing == len(reports):
        return texts
    scale = _scale(reports)
    if scale is None:
        texts.append(
            "the odometry's scale could not be checked, as too few matches are between cameras that overlap; if it is "
            "wrong, all depths are wrong by the same factor"
        )
    elif scale.differs and scale.error > _DOUBTFUL_SCALE:
        texts.append(
            f"the odometry's scale may be wrong: {_of_scale(scale)}; if so, all depths are wrong by this factor; look "
            "at the odometry and the cameras' mounts"
        )
    return texts


def _why(reports: Sequence[Report]) -> str:
    """The likeliest reason why few labels or none were found, and what to do."""
    way = max(report.way for report in reports)
    if not any(report.same for report in reports):
        overlap = (
            "what overlapping cameras see from places that are apart is not alike enough"
            if any(report.across for report in reports)
            else "no two cameras see the same from places that are apart"
        )
        return (
            f"there is no parallax: the vehicle moves {way:.2f} m in all of a window's images, and {overlap}; depth "
            "from motion needs a vehicle that drives; record a drive, or use a LiDAR or depth images"
        )
    features = int(np.median([report.features for report in reports]))
    if features < _FEW_FEATURES:
        return (
            f"the images have too few features, {features} in the median; they are too dark, too blurred or show too "
            "little texture; look at them, and raise --feature-image-size if they are larger"
        )
    if _step(reports) > _FAR_APART:
        return (
            "the images do not overlap enough: from one of a camera's images to the next the vehicle moves "
            f"{_step(reports):.1f} m in the median; record more images a second, or drive more slowly"
        )
    return (
        "look at the odometry, the stamps and the mounts (renderocc check), and at the images; raise --max-pixel-error "
        "if the calibration is poor"
    )


def _step(reports: Sequence[Report]) -> float:
    return float(np.median([report.step for report in reports]))


def _scale(reports: Sequence[Report]) -> _Scale | None:
    """The scale that fits best, or None if too few matches tell."""
    if not reports:
        return None
    votes = np.sum([report.scales for report in reports], axis=0)
    scores = np.sum([report.scores for report in reports], axis=0)
    best = int(scores.argmax())
    if votes[best] < _LEAST_VOTES:
        return None
    # Scores are in units of the largest squared error. Over the mean square of what fits they are squares of standard
    # deviations.
    spread = (votes[best] - scores[best]) / votes[best]
    more = scores[best] - scores[len(SCALES) // 2]
    return _Scale(float(SCALES[best]), int(votes[best]), bool(more > _SURE**2 * spread))


def _of_scale(scale: _Scale) -> str:
    return (
        f"matches between cameras, {scale.votes} of them, fit best if the vehicle moves {scale.factor:.2f} times as "
        "far as /tf says"
    )
