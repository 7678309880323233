"""Divides a recording into windows that are worked on one by one, never across a jump of the ego pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training.recordings.frames import Recording, RecordingError

from .settings import MotionDepth

__all__ = ["Plan", "Shot", "Window", "plan_windows"]

_LEAST_BESIDE, _MOST_BESIDE = 2, 10  # images of a camera on each side of a window, as points are seen from there too


@dataclass(frozen=True, eq=False)
class Shot:
    """An image and its pose.

    Attributes:
        camera: name.
        stamp_ns: its stamp.
        odom_from_base: (4, 4), ego pose at the stamp.
        base_from_camera: (4, 4), the camera's mount at the stamp.
        way: metres that the vehicle has driven since the recording began.
    """

    camera: str
    stamp_ns: int
    odom_from_base: np.ndarray
    base_from_camera: np.ndarray
    way: float


@dataclass(frozen=True)
class Window:
    """Images that are worked on together; labels are kept of the `core` alone.

    Attributes:
        number: of the window in its plan.
        core: images, in the order of time.
        beside: images before and after them, which see the same points.
    """

    number: int
    core: tuple[Shot, ...]
    beside: tuple[Shot, ...]


@dataclass
class Plan:
    """The windows of a recording, and the reasons why images are in none: {(camera, stamp): reason}."""

    windows: list[Window] = field(default_factory=list)
    left_out: dict[tuple[str, int], str] = field(default_factory=dict)


def plan_windows(recording: Recording, settings: MotionDepth) -> Plan:
    """The windows of all images that have a pose.

    Args:
        recording: an open recording.
        settings: size of a window and the reach.
    Raises:
        RecordingError: a camera has no mount.
    """
    plan = Plan()
    for piece in _pieces(recording, plan.left_out):
        cameras = {shot.camera for shot in piece}
        size = settings.window_images * len(cameras)
        count = max(1, round(len(piece) / size))
        edges = [len(piece) * number // count for number in range(count + 1)]
        for first, last in zip(edges, edges[1:]):
            before, after = piece[:first][::-1], piece[last:]
            beside = _beside(before, piece[first], settings.matching_reach) + _beside(
                after, piece[last - 1], settings.matching_reach
            )
            core = tuple(piece[first:last])
            plan.windows.append(
                Window(len(plan.windows), core, tuple(sorted(beside, key=lambda shot: (shot.stamp_ns, shot.camera))))
            )
    return plan


def _pieces(recording: Recording, left_out: dict[tuple[str, int], str]) -> list[list[Shot]]:
    """All images with a pose, in the order of time, cut where the ego pose jumps."""
    pieces: list[list[Shot]] = []
    way = 0.0
    images = sorted((stamp, name) for name in recording.cameras for stamp in recording.stamps[name])
    for stamp_ns, camera in images:
        mount = recording.mount(camera, stamp_ns)
        try:
            pose = recording.odom_from_base(stamp_ns)
        except RecordingError as error:
            left_out[camera, stamp_ns] = str(error)
            continue
        last = pieces[-1][-1] if pieces else None
        if last is None or not recording.related(last.stamp_ns, stamp_ns):
            pieces.append([])
        elif last is not None:
            way += float(np.linalg.norm(pose[:3, 3] - last.odom_from_base[:3, 3]))
        pieces[-1].append(Shot(camera, stamp_ns, pose, mount, way))
    return pieces


def _beside(shots: Sequence[Shot], edge: Shot, reach: float) -> list[Shot]:
    """Images within the reach of a window's edge, at most so many of each camera, spread over the way.

    Args:
        shots: those on one side of the window, the nearest to the edge first.
        edge: the window's image at that side.
    """
    chosen: list[Shot] = []
    last: dict[str, float] = {}
    counts: dict[str, int] = {}
    step = reach / _MOST_BESIDE
    for shot in shots:
        distance = abs(shot.way - edge.way)
        if distance > reach and (min(counts.values(), default=0) >= _LEAST_BESIDE or distance > 4 * reach):
            break
        count = counts.get(shot.camera, 0)
        if count < _LEAST_BESIDE or distance - last[shot.camera] >= step:
            last[shot.camera], counts[shot.camera] = distance, count + 1
            chosen.append(shot)
    return chosen
