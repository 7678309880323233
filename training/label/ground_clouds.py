"""Clouds whose points are classified as ground or obstacle, in place of clouds with recorded classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from renderocc_model.field.classes import GROUND_OBSTACLE
from renderocc_model.geometry.transforms import invert, transform_points
from renderocc_model.rosio.tf_buffer import TransformError
from training.label.ground.classify import classes_by_plane, cloud_classes
from training.label.ground.level import GroundError, Level, find_level, fit_plane
from training.label.ground.patchwork import have_patchwork
from training.recordings.sources import RecordingError

from .clouds import CloudSource, LabelledCloud, LidarClouds, LidarGroup, NoCloud
from .mapping import LabelError

__all__ = ["METHODS", "GroundClouds", "ground_clouds", "lidar_pose"]

METHODS = ("patchwork", "plane")
_MOMENTS = 20  # clouds that the height of the ground is measured at
_KEPT = 5  # classified clouds in memory


class GroundClouds:
    """Classifies the points of a LiDAR as ground or obstacle. Stands in for `LidarClouds` with classes.

    Args:
        clouds: the clouds, without classes.
        level: the ground below the vehicle.
        sweeps: number of clouds that are joined to judge one: those nearest to it in time, moved by the ego poses.
        method: "patchwork" or "plane".
    Attributes:
        classes: the class table of the ids.
    """

    def __init__(self, clouds: LidarClouds, level: Level, sweeps: int = 3, method: str = "patchwork") -> None:
        self.clouds, self.level, self.sweeps, self.method = clouds, level, sweeps, method
        self.recording, self.topic, self.classes = clouds.recording, clouds.topic, GROUND_OBSTACLE
        self._done: OrderedDict[int, LabelledCloud] = OrderedDict()

    def around(self, stamp_ns: int) -> list[LabelledCloud]:
        """The clouds for an image, as `LidarClouds.around`, with classes."""
        return [self._classified(cloud) for cloud in self.clouds.around(stamp_ns)]

    def at(self, stamp_ns: int) -> LabelledCloud:
        """The cloud at one of the topic's stamps, as `LidarClouds.at`, with classes."""
        return self._classified(self.clouds.at(stamp_ns))

    def camera_from_cloud(self, camera: str, stamp_ns: int, cloud: LabelledCloud) -> np.ndarray:
        """As `LidarClouds.camera_from_cloud`."""
        return self.clouds.camera_from_cloud(camera, stamp_ns, cloud)

    def _classified(self, cloud: LabelledCloud) -> LabelledCloud:
        if cloud.stamp_ns in self._done:
            return self._done[cloud.stamp_ns]
        base_from_lidar = lidar_pose(self.clouds, cloud)
        points = self._joined(cloud, base_from_lidar)
        if self.method == "plane":
            plane = fit_plane(points)
            classes = classes_by_plane(points, self.level.plane if plane is None else plane)
        else:
            level_from_base = self.level.level_from_base
            centre = transform_points(level_from_base, base_from_lidar[None, :3, 3])[0]
            classes = cloud_classes(transform_points(level_from_base, points), centre)
        self._done[cloud.stamp_ns] = done = replace(cloud, classes=classes[: len(cloud.xyz)])
        while len(self._done) > max(_KEPT, self.clouds.sweeps + 2):
            self._done.popitem(last=False)
        return done

    def _joined(self, cloud: LabelledCloud, base_from_lidar: np.ndarray) -> np.ndarray:
        """(N, 3) points of a cloud, then those of its neighbours in time, in base_link at the cloud's stamp."""
        parts = [transform_points(base_from_lidar, cloud.xyz)]
        recording, stamp_ns = self.recording, cloud.stamp_ns
        for other_ns in self.topic.around(stamp_ns, self.sweeps):
            if other_ns == stamp_ns or not recording.related(stamp_ns, other_ns):
                continue
            try:
                other = self.clouds.at(other_ns)
                moved = invert(recording.odom_from_base(stamp_ns)) @ recording.odom_from_base(other_ns)
            except (NoCloud, RecordingError):
                continue  # the cloud is judged with the neighbours that there are
            parts.append(transform_points(moved @ lidar_pose(self.clouds, other), other.xyz))
        return np.concatenate(parts)


def lidar_pose(clouds: LidarClouds, cloud: LabelledCloud) -> np.ndarray:
    """base_from_lidar (4, 4) at a cloud's stamp.

    Raises:
        LabelError: TF does not have it.
    """
    recording = clouds.recording
    try:
        return recording.transforms.lookup(recording.base_frame, cloud.frame_id, cloud.stamp_ns)
    except TransformError as error:
        raise LabelError(
            f"the LiDAR's frame '{cloud.frame_id}' has no pose on the vehicle: {error}; record /tf_static"
        ) from None


def ground_clouds(lidars: Sequence[LidarClouds], sweeps: int, method: str) -> tuple[CloudSource, str]:
    """The classified clouds of a recording, and a line for people about the ground that was found.

    Args:
        lidars: the clouds of each LiDAR, without classes.
        sweeps, method: see `GroundClouds`.
    Raises:
        LabelError: Patchwork++ is not installed, or there is no ground in the clouds.
    """
    if method == "patchwork" and not have_patchwork():
        raise LabelError(
            "--classes-from ground needs Patchwork++ for clouds: pip install pypatchworkpp; or give --ground-method "
            "plane"
        )
    recording = lidars[0].recording
    where = f"{recording.path}: {', '.join(clouds.topic.topic for clouds in lidars)}"
    moments, why = [], ""
    for clouds in lidars:
        stamps = clouds.topic.stamps
        for index in np.unique(np.linspace(0, len(stamps) - 1, _MOMENTS).round().astype(int)):
            try:
                cloud = clouds.at(stamps[index])
            except (NoCloud, RecordingError) as error:
                why = why or str(error)
                continue
            moments.append(transform_points(lidar_pose(clouds, cloud), cloud.xyz))
    if not moments:
        raise LabelError(f"{where}: not one cloud can be used to find the ground: {why}")
    try:
        level = find_level(moments, "the clouds")
    except GroundError as error:
        raise LabelError(f"{where}: {error}") from None
    each = [GroundClouds(clouds, level, sweeps, method) for clouds in lidars]
    return (LidarGroup(each) if len(each) > 1 else each[0]), level.text(recording.base_frame)
