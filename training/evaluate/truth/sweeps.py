"""Reads the LiDAR sweeps of a recording in the fixed frame, with a class for each point."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.transforms import invert, transform_points
from training.label.clouds import LabelledCloud, LidarClouds, LidarGroup, NoCloud
from training.label.ground_clouds import GroundClouds, lidar_pose
from training.label.projection import project_points
from training.recordings.frames import Recording
from training.recordings.sources import RecordingError

__all__ = ["Sweep", "Sweeps"]

_LABEL_S = 0.1  # largest time between a sweep and the label images that give its points classes
_SAME_DEPTH = 0.05  # share of the depth by which a point and its pixel's label may differ


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Attributes:
        stamp_ns: its stamp.
        origin: (3,) its sensor's position in odom, float64 metres.
        points: (N, 3) in odom, float64 metres, deskewed to the stamp.
        classes: (N,) uint8 ids.
        times: (N,) seconds from the stamp to the time at which each point was seen; None if all are of the stamp.
        source: the LiDAR and its recording.
    """

    stamp_ns: int
    origin: np.ndarray
    points: np.ndarray
    classes: np.ndarray
    times: np.ndarray | None = None
    source: str = ""


class Sweeps:
    """The sweeps around a moment.

    Args:
        recording: an open recording, with its label bag if `lidar` gives no classes.
        lidar: its deskewed clouds.
        spacing: metres that the vehicle drives between two sweeps that are used; a standing vehicle adds nothing.
        reach: metres from the vehicle to the farthest sweep that is used.
    Attributes:
        lidars: the clouds of each LiDAR.
        joined: sweeps of other recordings in the same fixed frame, which are used, too.
    """

    def __init__(
        self,
        recording: Recording,
        lidar: LidarClouds | GroundClouds | LidarGroup,
        spacing: float,
        reach: float,
    ) -> None:
        self.recording, self.reach = recording, reach
        each = lidar.lidars if isinstance(lidar, LidarGroup) else (lidar,)
        self.lidars = tuple(one for one in each if isinstance(one, (LidarClouds, GroundClouds)))
        self._places = [self._driven(one.topic.stamps, spacing) for one in self.lidars]
        self._kept: dict[tuple[int, int], Sweep | None] = {}
        self.joined: list[Sweeps] = []

    def own(self, stamp_ns: int) -> list[Sweep]:
        """The sweep of each LiDAR that belongs to a moment."""
        found = []
        for number, lidar in enumerate(self.lidars):
            near = lidar.topic.nearest(stamp_ns, round(_LABEL_S * 1e9))
            sweep = None if near is None else self._sweep(number, near, stamp_ns)
            found += [] if sweep is None else [sweep]
        return found

    def beside(self, stamp_ns: int) -> list[Sweep]:
        """The sweeps right before and after those of `own`."""
        found = []
        for number, lidar in enumerate(self.lidars):
            near = lidar.topic.nearest(stamp_ns, round(_LABEL_S * 1e9))
            if near is None:
                continue
            place = bisect_left(lidar.topic.stamps, near)
            for other in (*lidar.topic.stamps[max(place - 1, 0) : place], *lidar.topic.stamps[place + 1 : place + 2]):
                sweep = self._sweep(number, other, stamp_ns)
                found += [] if sweep is None else [sweep]
        return found

    def around(self, stamp_ns: int) -> Iterator[Sweep]:
        """The sweeps taken within reach of the vehicle's place at a moment, without those across a jump of its pose.

        Those of `joined` come last.
        """
        here = self.recording.odom_from_base(stamp_ns)[:3, 3]
        wanted = [
            (number, other)
            for number, places in enumerate(self._places)
            for other, place in places
            if np.linalg.norm(place - here) < self.reach and self.recording.related(stamp_ns, other)
        ]
        yield from self._all(wanted, stamp_ns)
        for other_sweeps in self.joined:
            yield from other_sweeps.near(here)

    def near(self, place: np.ndarray) -> Iterator[Sweep]:
        """The sweeps taken within reach of a place (3,) in the fixed frame."""
        wanted = [(number, stamp) for number, stamp, far in self._distances(place) if far < self.reach]
        yield from self._all(wanted)

    def nearest(self, place: np.ndarray, count: int) -> list[Sweep]:
        """At most `count` sweeps, those taken nearest to a place (3,) in the fixed frame."""
        ranked = sorted(self._distances(place), key=lambda one: (one[2], one[1]))
        return list(self._all([(number, stamp) for number, stamp, _ in ranked[:count]]))

    def distance(self, place: np.ndarray) -> float:
        """Metres from a place (3,) in the fixed frame to the nearest sweep; infinite without sweeps."""
        return min((far for _, _, far in self._distances(place)), default=np.inf)

    def places(self) -> list[np.ndarray]:
        """The places (3,) in the fixed frame of the first LiDAR's sweeps, in the order of time."""
        return [place for _, place in self._places[0]]

    def _distances(self, place: np.ndarray) -> list[tuple[int, int, float]]:
        """LiDAR's number, stamp, and metres to a place, of all sweeps that are used."""
        return [
            (number, stamp_ns, float(np.linalg.norm(there - place)))
            for number, places in enumerate(self._places)
            for stamp_ns, there in places
        ]

    def _all(self, wanted: list[tuple[int, int]], at_ns: int | None = None) -> Iterator[Sweep]:
        """The sweeps of (LiDAR's number, stamp). Only these stay in memory."""
        self._kept = {key: self._kept[key] for key in wanted if key in self._kept}
        for number, stamp_ns in wanted:
            sweep = self._sweep(number, stamp_ns, stamp_ns if at_ns is None else at_ns)
            if sweep is not None:
                yield sweep

    def _driven(self, stamps: list[int], spacing: float) -> list[tuple[int, np.ndarray]]:
        """The stamps of sweeps with a pose that are at least `spacing` metres from the one before, and their places."""
        found: list[tuple[int, np.ndarray]] = []
        for stamp_ns in stamps:
            try:
                place = self.recording.odom_from_base(stamp_ns)[:3, 3]
            except RecordingError:
                continue
            jumped = bool(found) and not self.recording.related(found[-1][0], stamp_ns)
            if not found or jumped or np.linalg.norm(place - found[-1][1]) >= spacing:
                found.append((stamp_ns, place))
        return found

    def _sweep(self, number: int, stamp_ns: int, at_ns: int) -> Sweep | None:
        """A sweep; None if it cannot be read or deskewed, or a jump of the ego pose is between it and `at_ns`."""
        if not self.recording.related(stamp_ns, at_ns):
            return None
        key = number, stamp_ns
        if key not in self._kept:
            lidar = self.lidars[number]
            try:
                self._kept[key] = self._placed(lidar, lidar.at(stamp_ns))
            except (NoCloud, RecordingError):
                self._kept[key] = None
        return self._kept[key]

    def _placed(self, lidar: LidarClouds | GroundClouds, cloud: LabelledCloud) -> Sweep:
        clouds = lidar.clouds if isinstance(lidar, GroundClouds) else lidar
        base_from_lidar = lidar_pose(clouds, cloud)
        odom_from_lidar = self.recording.odom_from_base(cloud.stamp_ns) @ base_from_lidar
        classes = cloud.classes
        if classes is None:
            classes = self._from_images(cloud.stamp_ns, transform_points(base_from_lidar, cloud.xyz))
        points, source = transform_points(odom_from_lidar, cloud.xyz), f"{self.recording.path} {lidar.topic.topic}"
        return Sweep(cloud.stamp_ns, odom_from_lidar[:3, 3], points, classes, cloud.times, source)

    def _from_images(self, stamp_ns: int, points: np.ndarray) -> np.ndarray:
        """(N,) classes of points (N, 3) in base_link at a stamp, from the label images whose depth agrees; else 255."""
        recording = self.recording
        classes = np.full(len(points), UNLABELLED, np.uint8)
        for frame in recording.frames_at([stamp_ns], _LABEL_S):
            for camera, image_ns in frame.images.items():
                if not recording.has_labels(camera, image_ns) or not recording.related(image_ns, stamp_ns):
                    continue
                camera_from_base = invert(recording.base_from_camera(camera, image_ns, stamp_ns))
                seen = project_points(recording.models[camera], camera_from_base, points)
                seen = seen.kept(seen.in_image)
                column, row = np.rint(seen.pixels).astype(int).T
                depth = recording.depth(camera, image_ns)[row, column]
                same = np.abs(depth - seen.depth) < _SAME_DEPTH * seen.depth
                classes[seen.index[same]] = recording.semantic(camera, image_ns)[row[same], column[same]]
        return classes
