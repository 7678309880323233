"""The work on one window: features, matches, points, and the labels that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.transforms import invert, transform_points
from training.recordings.camera_image import camera_image
from training.recordings.frames import Message

from .consistency import pose_votes, scale_votes
from .features import Extractor
from .matching import match_along_lines
from .plan import Window
from .settings import MotionDepth
from .support import similar_neighbours
from .triangulation import Points, triangulate
from .views import View, matching_pairs

__all__ = ["ImageLabels", "Report", "Task", "solve_window"]

_FARTHEST = 65.0  # metres; a depth image in millimetres ends there
_NEAREST = 0.5  # metres


@dataclass(frozen=True)
class Task:
    """A window with the messages of its images, which another process can work on."""

    window: Window
    messages: dict[tuple[str, int], Message]
    models: dict[str, CameraModel]
    settings: MotionDepth


@dataclass(frozen=True)
class ImageLabels:
    """Labels of one image: pixels (N, 2) int32 as (column, row), and z-depth (N,) float32 metres."""

    pixels: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Report:
    """What was found in one window.

    Attributes:
        images: number of them, with those beside the window.
        features: median number of an image.
        way: metres that the vehicle drives within the window.
        step: median of the metres that the vehicle drives from an image to the next one of its camera.
        same, across: pairs of images that were matched, of one camera and of two.
        matches: of all pairs.
        labels: of the window's core.
        tested, fit: matches of one camera's images found without poses, and those that the poses fit.
        scales, scores: votes and scores of `consistency.scale_votes`.
        unread: number of images that could not be decoded.
        reason: of the first of them.
    """

    images: int
    features: int
    way: float
    step: float
    same: int
    across: int
    matches: int
    labels: int
    tested: int
    fit: int
    scales: tuple[int, ...]
    scores: tuple[float, ...]
    unread: int = 0
    reason: str = ""


def solve_window(task: Task) -> tuple[dict[tuple[str, int], ImageLabels], Report]:
    """The labels of the window's core, {(camera, stamp): labels}, and what was found. An image may have no label."""
    views, reasons = _views(task)
    settings = task.settings
    pairs = matching_pairs(views, settings)
    matches = {}
    for one, other in pairs:
        a, b = views[one], views[other]
        pose = invert(b.odom_from_camera) @ a.odom_from_camera
        found = match_along_lines(a.features, b.features, pose, 2 * settings.max_pixel_error)
        if len(found):
            matches[one, other] = found
    points = triangulate(views, matches, settings)
    core = {(shot.camera, shot.stamp_ns) for shot in task.window.core}
    labels = {key: found for key, found in _labels(views, points, settings).items() if key in core}
    ways = [view.way for view in views]
    votes, scores = scale_votes(views, pairs, settings.max_pixel_error)
    report = Report(
        len(views),
        int(np.median([len(view.features) for view in views])) if views else 0,
        max(ways) - min(ways) if views else 0.0,
        _step(views),
        sum(views[one].camera == views[other].camera for one, other in pairs),
        sum(views[one].camera != views[other].camera for one, other in pairs),
        sum(len(found) for found in matches.values()),
        sum(len(found.depth) for found in labels.values()),
        *pose_votes(views, pairs),
        tuple(votes.tolist()),
        tuple(scores.tolist()),
        len(reasons),
        reasons[0] if reasons else "",
    )
    return labels, report


def _step(views: Sequence[View]) -> float:
    ways: dict[str, list[float]] = {}
    for view in views:
        ways.setdefault(view.camera, []).append(view.way)
    steps = np.concatenate([np.zeros(0), *(np.diff(way) for way in ways.values())])
    return float(np.median(steps)) if len(steps) else 0.0


def _views(task: Task) -> tuple[list[View], list[str]]:
    """The images with their features, in the order of time, and why others have none."""
    extract = Extractor(task.settings)
    views, reasons = [], []
    shots = sorted((*task.window.core, *task.window.beside), key=lambda shot: (shot.stamp_ns, shot.camera))
    for shot in shots:
        model = task.models[shot.camera]
        try:
            image = camera_image(task.messages[shot.camera, shot.stamp_ns], model)
        except ValueError as error:
            reasons.append(f"camera '{shot.camera}': {error}")
            continue
        views.append(
            View(
                shot.camera,
                shot.stamp_ns,
                model,
                shot.odom_from_base,
                shot.base_from_camera,
                shot.way,
                extract(image, model),
            )
        )
    return views, reasons


def _labels(views: Sequence[View], points: Points, settings: MotionDepth) -> dict[tuple[str, int], ImageLabels]:
    """The labels of all images: z-depths of the points at the pixels of their features."""
    count = np.bincount(points.point, minlength=len(points.xyz))
    place = np.zeros((len(points.point), 3))
    for index, view in enumerate(views):
        seen = points.view == index
        place[seen] = transform_points(invert(view.odom_from_camera), points.xyz[points.point[seen]])
    pixels = _pixels(views, points)
    near = np.zeros(len(points.point))
    for index, view in enumerate(views):
        seen = np.flatnonzero(points.view == index)
        near[seen] = similar_neighbours(pixels[seen], place[seen, 2], view.model.width)
    support = np.bincount(points.point, near, len(points.xyz)) / np.maximum(count, 1)
    wanted = np.where(count == 2, settings.min_neighbours, min(1, settings.min_neighbours))
    good = (support >= wanted)[points.point] & (place[:, 2] > _NEAREST) & (place[:, 2] < _FARTHEST)
    good &= _uncertainty(views, points, place) < settings.max_depth_error
    labels = {}
    for index, view in enumerate(views):
        seen = np.flatnonzero(good & (points.view == index))
        seen = seen[np.argsort(-place[seen, 2], kind="stable")]  # of two at a pixel, the nearer one is the last
        labels[view.camera, view.stamp_ns] = ImageLabels(
            np.floor(pixels[seen] + 0.5).astype(np.int32), place[seen, 2].astype(np.float32)
        )
    return labels


def _pixels(views: Sequence[View], points: Points) -> np.ndarray:
    pixels = np.zeros((len(points.point), 2))
    for index, view in enumerate(views):
        seen = points.view == index
        pixels[seen] = view.features.pixels[points.feature[seen]]
    return pixels


def _uncertainty(views: Sequence[View], points: Points, place: np.ndarray) -> np.ndarray:
    """Standard deviation of each observation's distance along its ray, as a share of the distance."""
    distance = np.linalg.norm(place, axis=1)
    rays = np.zeros_like(place)
    for index, view in enumerate(views):
        seen = points.view == index
        rays[seen] = place[seen] @ view.odom_from_camera[:3, :3].T
    rays /= np.maximum(distance, 1e-9)[:, None]
    along = np.einsum("ki,kij,kj->k", rays, points.covariance[points.point], rays)
    return np.sqrt(np.maximum(along, 0)) / np.maximum(distance, 1e-9)
