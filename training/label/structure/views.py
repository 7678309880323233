"""Views: images with their poses and features, and which of them are matched with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.transforms import invert, transform_points

from .features import Features
from .settings import MotionDepth

__all__ = ["View", "matching_pairs"]

_STEPS = (0.4, 1.0, 2.0, 4.0, 8.0)  # metres between a camera's images that are matched, as far as the reach goes
_LEAST_BASELINE = 0.15  # metres between two cameras; less gives no parallax
_DEPTHS = (4.0, 10.0, 25.0)  # metres, where two views are asked for what both see
_LEAST_OVERLAP = 0.12  # share of those places that both see
_MOST_TURNED = np.cos(np.radians(35.0))  # between two rays to a place; SIFT does not match what is turned more
_MOST_SCALED = 2.0  # ratio of the distances to a place


@dataclass(frozen=True, eq=False)
class View:
    """One image.

    Attributes:
        camera: name.
        stamp_ns: its stamp.
        model: the camera's model.
        odom_from_base: (4, 4), ego pose at the stamp.
        base_from_camera: (4, 4), the camera's mount.
        way: metres that the vehicle has driven when the image is taken.
        features: its features.
    """

    camera: str
    stamp_ns: int
    model: CameraModel
    odom_from_base: np.ndarray
    base_from_camera: np.ndarray
    way: float
    features: Features

    @cached_property
    def odom_from_camera(self) -> np.ndarray:
        """(4, 4), pose of the optical frame at the stamp."""
        return self.odom_from_base @ self.base_from_camera

    def scaled(self, factor: float) -> np.ndarray:
        """`odom_from_camera` if the vehicle had moved `factor` times as far."""
        pose = self.odom_from_base.copy()
        pose[:3, 3] *= factor
        return pose @ self.base_from_camera


def matching_pairs(views: Sequence[View], settings: MotionDepth) -> list[tuple[int, int]]:
    """The pairs of views that are matched, as indices (one, other) with one < other.

    An image is matched with images of its camera at several distances, the next two among them; and with the image of
    each other camera, within the reach and also at another time, that sees most of what it sees.

    Args:
        views: in the order of time.
        settings: the reach.
    """
    pairs: set[tuple[int, int]] = set()
    by_camera: dict[str, list[int]] = {}
    for index, view in enumerate(views):
        by_camera.setdefault(view.camera, []).append(index)
    for indices in by_camera.values():
        for place, index in enumerate(indices):
            pairs |= {(index, later) for later in _later(views, index, indices[place + 1 :], settings.matching_reach)}
    for index, view in enumerate(views):
        places = _places(view)
        for camera, others in by_camera.items():
            if camera != view.camera:
                best = _best(views, index, places, others, settings.matching_reach)
                if best is not None:
                    pairs.add((min(index, best), max(index, best)))
    return sorted(pairs)


def _later(views: Sequence[View], index: int, following: Sequence[int], reach: float) -> list[int]:
    """The later images of a camera that one of its images is matched with."""
    chosen: list[int] = []
    moved = [later for later in following if _baseline(views[index], views[later]) >= _LEAST_BASELINE]
    steps = list(_STEPS)
    for number, later in enumerate(moved):
        distance = views[later].way - views[index].way
        if distance > reach and number >= 2:
            break
        passed = [step for step in steps if step <= distance]
        if number < 2 or passed:
            chosen.append(later)
            steps = [step for step in steps if step > distance]
    return chosen


def _baseline(one: View, other: View) -> float:
    return float(np.linalg.norm(one.odom_from_camera[:3, 3] - other.odom_from_camera[:3, 3]))


def _places(view: View) -> np.ndarray:
    """Places in odom that a view may see, (N, 3)."""
    model = view.model
    across = (np.arange(8) + 0.5) / 8
    columns, rows = np.meshgrid(across * model.width - 0.5, across[1::2] * model.height - 0.5)
    directions = model.unproject(np.stack([columns.ravel(), rows.ravel()], axis=1))
    directions = directions[np.isfinite(directions).all(axis=1)]
    return transform_points(view.odom_from_camera, np.concatenate([directions * depth for depth in _DEPTHS]))


def _best(views: Sequence[View], index: int, places: np.ndarray, others: Sequence[int], reach: float) -> int | None:
    """The view of another camera that sees most of what a view sees."""
    view = views[index]
    own = places - view.odom_from_camera[:3, 3]
    own_distance = np.linalg.norm(own, axis=1)
    best, most = None, _LEAST_OVERLAP
    for other in others:
        far = abs(views[other].way - view.way) > reach
        if far or _baseline(view, views[other]) < _LEAST_BASELINE:
            continue
        pose = views[other].odom_from_camera
        seen = places - pose[:3, 3]
        distance = np.linalg.norm(seen, axis=1)
        cosine = np.einsum("ij,ij->i", seen, own) / (distance * own_distance)
        ratio = distance / own_distance
        alike = (cosine > _MOST_TURNED) & (ratio < _MOST_SCALED) & (ratio > 1 / _MOST_SCALED)
        if alike.mean() <= most:
            continue
        _, inside = views[other].model.project(transform_points(invert(pose), places))
        share = float((inside & alike).mean())
        if share > most:
            best, most = other, share
    return best
