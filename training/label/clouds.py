"""LiDAR clouds of a recording, with classes where they have them, seen from a camera at its image's stamp."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderocc_model.geometry.transforms import invert
from renderocc_model.rosio import cdr
from renderocc_model.rosio.tf_buffer import TransformError
from training.recordings.frames import Recording
from training.recordings.raw_classes import NO_SURFACE
from training.recordings.stamped_topic import StampedTopic

from .mapping import ClassMapping, LabelError

__all__ = ["Cloud", "LabelField", "LabelFiles", "Lidar", "NoCloud", "POINT_CLOUD"]

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
# One value a point: SemanticKITTI's uint32 with the class in the lower half, lidarseg's uint8.
_FILE_TYPES: dict[str, tuple[np.dtype, int]] = {".label": (np.dtype("<u4"), 0xFFFF), ".bin": (np.dtype("u1"), 0xFF)}


class NoCloud(LabelError):
    """There is nothing to label this image with; others may have something."""


@dataclass(frozen=True)
class Cloud:
    """A LiDAR's points at its stamp: xyz (N, 3) float64 in `frame_id`, and class ids (N,) uint8 where there are any.

    Returns that are no surface of the world are left out.
    """

    stamp_ns: int
    frame_id: str
    xyz: np.ndarray
    classes: np.ndarray | None


@dataclass(frozen=True)
class LabelField:
    """Classes from a field of the cloud itself."""

    name: str
    mapping: ClassMapping

    def of(self, message: cdr.PointCloudMessage, index: int) -> np.ndarray:
        """(N,) uint8 class ids of the points of a cloud."""
        return self.mapping.of_ids(message.column(self.name))


class LabelFiles:
    """Classes from files of one value a point, in the clouds' order: SemanticKITTI's .label or lidarseg's .bin.

    Args:
        folder: holds one file for each cloud, named after the cloud's stamp in nanoseconds, or in the order of names.
        stamps: of the clouds, ascending.
        mapping: what the values mean.
    Raises:
        LabelError: no such files, or not as many as clouds.
    """

    def __init__(self, folder: Path, stamps: list[int], mapping: ClassMapping) -> None:
        self.mapping = mapping
        files = sorted(file for file in Path(folder).glob("*") if file.suffix in _FILE_TYPES)
        by_stamp = {file.stem: file for file in files}
        if not files:
            raise LabelError(f"{folder}: no .label or .bin files in it; name the folder that holds them")
        if all(str(stamp) in by_stamp for stamp in stamps):
            files = [by_stamp[str(stamp)] for stamp in stamps]
        elif len(files) != len(stamps):
            raise LabelError(
                f"{folder}: {len(files)} label files for {len(stamps)} clouds, and their names are not the clouds' "
                "stamps in nanoseconds; leave one file for each cloud"
            )
        self._files = files

    def of(self, message: cdr.PointCloudMessage, index: int) -> np.ndarray:
        """(N,) uint8 class ids of the points of cloud number `index`."""
        file = self._files[index]
        kind, mask = _FILE_TYPES[file.suffix]
        size = file.stat().st_size
        if size != len(message) * kind.itemsize:
            raise LabelError(
                f"{file}: {size} bytes, but its cloud has {len(message)} points of {kind.itemsize} bytes each; labels "
                "and clouds must belong together, point for point"
            )
        try:
            return self.mapping.of_ids(np.fromfile(file, kind) & mask)
        except LabelError as error:
            raise LabelError(f"{file}: {error}") from None


class Lidar:
    """The clouds of one topic, a few of them kept.

    Args:
        recording: open.
        clouds: its cloud topic.
        classes: where the points' classes come from, or None.
        sweeps: how many clouds, the nearest in time, label one image.
        max_time_diff: seconds from an image to its nearest cloud beyond which it gets no labels.
    """

    def __init__(
        self,
        recording: Recording,
        clouds: StampedTopic,
        classes: LabelField | LabelFiles | None,
        sweeps: int = 1,
        max_time_diff: float = 0.1,
    ) -> None:
        self.recording, self.topic, self.classes = recording, clouds, classes
        self.sweeps, self.limit_ns = sweeps, round(max_time_diff * 1e9)
        self._index = {stamp_ns: index for index, stamp_ns in enumerate(clouds.stamps)}
        self._cache: OrderedDict[int, Cloud] = OrderedDict()

    def around(self, stamp_ns: int) -> list[Cloud]:
        """The clouds that label an image, the nearest in time first.

        Raises:
            NoCloud: there is none near enough.
            LabelError: it cannot be read.
        """
        if self.topic.nearest(stamp_ns, self.limit_ns) is None:
            raise NoCloud(f"no cloud on {self.topic.topic} within {self.limit_ns / 1e9:g} s")
        return [self._cloud(stamp) for stamp in self.topic.around(stamp_ns, self.sweeps)]

    def camera_from_cloud(self, camera: str, stamp_ns: int, cloud: Cloud) -> np.ndarray:
        """(4, 4): LiDAR frame at the cloud's stamp into the optical frame at the image's, through odom.

        Raises:
            ValueError: TF does not say, with the reason.
        """
        recording = self.recording
        try:
            base_from_lidar = recording.transforms.lookup(recording.base_frame, cloud.frame_id, cloud.stamp_ns)
        except TransformError as error:
            raise LabelError(
                f"the LiDAR's frame '{cloud.frame_id}' has no place on the vehicle: {error}; record /tf_static"
            ) from None
        base_from_camera = recording.base_from_camera(camera, stamp_ns, cloud.stamp_ns)
        return invert(base_from_camera) @ base_from_lidar

    def _cloud(self, stamp_ns: int) -> Cloud:
        if stamp_ns in self._cache:
            self._cache.move_to_end(stamp_ns)
            return self._cache[stamp_ns]
        try:
            message = cdr.read_point_cloud(self.topic.read(stamp_ns))
            xyz = message.xyz()
            classes = None if self.classes is None else self.classes.of(message, self._index[stamp_ns])
        except ValueError as error:
            where = f"{self.recording.path}: {self.topic.topic} at {self.recording.time_text(stamp_ns)}"
            raise LabelError(f"{where}: {error}") from None
        kept = np.isfinite(xyz).all(axis=1)
        if classes is not None:
            kept &= classes != NO_SURFACE
            classes = classes[kept]
        self._cache[stamp_ns] = cloud = Cloud(stamp_ns, message.frame_id, xyz[kept], classes)
        while len(self._cache) > self.sweeps + 2:
            self._cache.popitem(last=False)
        return cloud
