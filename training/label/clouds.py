"""Reads the LiDAR clouds of a recording, with classes if there are any, and their pose relative to a camera."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from renderocc_model.geometry.transforms import invert
from renderocc_model.rosio import cdr
from renderocc_model.rosio.tf_buffer import TransformError
from training.recordings.frames import Recording
from training.recordings.lidar_topics import read_cloud
from training.recordings.point_times import PointTimes
from training.recordings.raw_classes import NO_SURFACE
from training.recordings.sources import RecordingError
from training.recordings.stamped_topic import StampedTopic

from .deskew import deskewed
from .mapping import ClassMapping, LabelError

__all__ = [
    "CloudSource",
    "LabelledCloud",
    "LabelField",
    "LabelFiles",
    "LidarClouds",
    "LidarGroup",
    "NoCloud",
    "null_returns",
]

# One value for each point: SemanticKITTI's uint32 with the class in the lower 16 bits, lidarseg's uint8.
_FILE_TYPES: dict[str, tuple[np.dtype, int]] = {".label": (np.dtype("<u4"), 0xFFFF), ".bin": (np.dtype("u1"), 0xFF)}

_AT_ORIGIN = 1e-6  # metres; drivers write zeros, which may have been rotated
_LEAST_TIMED = 0.5  # share of a cloud's points that must have a time near its stamp
_SAME_PLACE = 100  # points with the same coordinates


def null_returns(xyz: np.ndarray) -> np.ndarray:
    """Which points (N, 3) stand for beams without a return, (N,) bool.

    Drivers of organised clouds put such points at the sensor's origin. In a cloud that was moved into another frame
    they are all at one other place, which the beams of a LiDAR do not hit again and again.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        null = np.abs(xyz).max(axis=1, initial=0.0) < _AT_ORIGIN
    values, counts = np.unique(xyz[:, 0], return_counts=True)
    for value in values[(counts >= _SAME_PLACE) & np.isfinite(values)]:
        rows = np.flatnonzero(xyz[:, 0] == value)
        _, place, times = np.unique(xyz[rows], axis=0, return_inverse=True, return_counts=True)
        null[rows[times[place.ravel()] >= _SAME_PLACE]] = True
    return null


class NoCloud(LabelError):
    """There are no labels for this image. Other images may have some."""


@dataclass(frozen=True)
class LabelledCloud:
    """A cloud's points xyz (N, 3) float64 in `frame_id`, and their class ids (N,) uint8, or None without classes.

    `times`: (N,) seconds from the stamp to the time at which each point was seen; None if the cloud does not say it.
    All are where they are seen from the LiDAR at the stamp. Points that are no surface (noise, sky, the vehicle itself)
    and beams without a return are left out. `nearest`: it is
    that of its LiDAR which is nearest to the image in time, though other LiDARs' clouds come before it.
    """

    stamp_ns: int
    frame_id: str
    xyz: np.ndarray
    classes: np.ndarray | None
    nearest: bool = False
    times: np.ndarray | None = None


@dataclass(frozen=True)
class LabelField:
    """Takes classes from a field of the cloud."""

    name: str
    mapping: ClassMapping

    def of(self, message: cdr.PointCloudMessage, index: int) -> np.ndarray:
        """(N,) uint8 class ids of the points of a cloud."""
        return self.mapping.of_ids(message.column(self.name))


class LabelFiles:
    """Takes classes from files with one value for each point: SemanticKITTI's .label or lidarseg's .bin.

    Args:
        folder: has one file for each cloud. Names are the clouds' stamps in nanoseconds, or have the clouds' order.
        stamps: the clouds' stamps, ascending.
        mapping: maps the values to classes.
    Raises:
        LabelError: there are no such files, or not as many as clouds.
    """

    def __init__(self, folder: Path, stamps: list[int], mapping: ClassMapping) -> None:
        self.mapping = mapping
        files = sorted(file for file in Path(folder).glob("*") if file.suffix in _FILE_TYPES)
        by_stamp = {file.stem: file for file in files}
        if not files:
            raise LabelError(f"{folder}: has no .label or .bin files; name the folder that contains them")
        if all(str(stamp) in by_stamp for stamp in stamps):
            files = [by_stamp[str(stamp)] for stamp in stamps]
        elif len(files) != len(stamps):
            raise LabelError(
                f"{folder}: {len(files)} label files for {len(stamps)} clouds, and their names are not the clouds' "
                "stamps in nanoseconds; give one file for each cloud"
            )
        self._files = files

    def of(self, message: cdr.PointCloudMessage, index: int) -> np.ndarray:
        """(N,) uint8 class ids of the points of cloud number `index`."""
        file = self._files[index]
        kind, mask = _FILE_TYPES[file.suffix]
        size = file.stat().st_size
        if size != len(message) * kind.itemsize:
            raise LabelError(
                f"{file}: {size} bytes, but its cloud has {len(message)} points of {kind.itemsize} bytes each; give "
                "the label files of these clouds, with one label for each point"
            )
        try:
            return self.mapping.of_ids(np.fromfile(file, kind) & mask)
        except LabelError as error:
            raise LabelError(f"{file}: {error}") from None


class LidarClouds:
    """The clouds of one topic. Those read last stay in memory.

    Args:
        recording: an open recording.
        clouds: its topic of clouds.
        classes: source of the points' classes, or None.
        sweeps: number of clouds for each image: those nearest in time.
        max_time_diff: largest time in seconds between an image and its nearest cloud. Other images get no labels.
        times: where the times of the points are, which clouds are then deskewed by; None leaves them as they are.
    """

    def __init__(
        self,
        recording: Recording,
        clouds: StampedTopic,
        classes: LabelField | LabelFiles | None,
        sweeps: int = 1,
        max_time_diff: float = 0.1,
        times: PointTimes | None = None,
    ) -> None:
        self.recording, self.topic, self.classes, self.times = recording, clouds, classes, times
        self.sweeps, self.limit_ns = sweeps, round(max_time_diff * 1e9)
        self._index = {stamp_ns: index for index, stamp_ns in enumerate(clouds.stamps)}
        self._cache: OrderedDict[int, LabelledCloud] = OrderedDict()

    def around(self, stamp_ns: int) -> list[LabelledCloud]:
        """The clouds for an image, the nearest in time first.

        Raises:
            NoCloud: no cloud is near enough in time, or it cannot be read.
            LabelError: a cloud's classes do not fit it.
        """
        # A scan is at an image's time when its middle is.
        centre_ns = stamp_ns if self.times is None else stamp_ns - round(self.times.middle * 1e9)
        if self.topic.nearest(centre_ns, self.limit_ns) is None:
            raise NoCloud(f"no cloud on {self.topic.topic} within {self.limit_ns / 1e9:g} s")
        near = self.topic.around(centre_ns, self.sweeps)
        if len(self.recording.jumps):
            near = self._in_same_piece(stamp_ns, centre_ns)
        return [self.at(stamp) for stamp in near]

    def _in_same_piece(self, stamp_ns: int, centre_ns: int) -> list[int]:
        """The stamps of the clouds nearest to `centre_ns` that no jump of the ego pose separates from a moment."""
        recording = self.recording
        recording.odom_from_base(stamp_ns)  # raises where the moment itself is inside a jump
        related = [stamp for stamp in self.topic.stamps if recording.related(stamp, stamp_ns)]
        near = sorted(related, key=lambda stamp: (abs(stamp - centre_ns), stamp))[: self.sweeps]
        if not near or abs(near[0] - centre_ns) > self.limit_ns:
            raise NoCloud(
                f"no cloud on {self.topic.topic} within {self.limit_ns / 1e9:g} s on the same side of a jump of the "
                "ego pose"
            )
        return near

    def camera_from_cloud(self, camera: str, stamp_ns: int, cloud: LabelledCloud) -> np.ndarray:
        """Pose (4, 4) of the LiDAR at the cloud's stamp in the camera's optical frame at the image's stamp.

        Raises:
            ValueError: TF does not have it; the text has the reason.
        """
        recording = self.recording
        try:
            base_from_lidar = recording.transforms.lookup(recording.base_frame, cloud.frame_id, cloud.stamp_ns)
        except TransformError as error:
            raise LabelError(
                f"{recording.path}: the LiDAR's frame '{cloud.frame_id}' has no pose on the vehicle: {error}; "
                "record /tf_static, or set --mounts or --frame-prefix"
            ) from None
        base_from_camera = recording.base_from_camera(camera, stamp_ns, cloud.stamp_ns)
        return invert(base_from_camera) @ base_from_lidar

    def at(self, stamp_ns: int) -> LabelledCloud:
        """The cloud at one of the topic's stamps, deskewed.

        Raises:
            NoCloud, LabelError: as `around`.
        """
        if stamp_ns in self._cache:
            self._cache.move_to_end(stamp_ns)
            return self._cache[stamp_ns]
        try:
            message = read_cloud(self.topic.type, self.topic.read(stamp_ns))
            xyz = message.xyz()
            classes = None if self.classes is None else self.classes.of(message, self._index[stamp_ns])
            offsets = None if self.times is None else self.times.offsets(message)
        except ValueError as error:
            # A message that cannot be read costs its own images their labels; classes that do not fit are a mistake.
            kind = NoCloud if isinstance(error, cdr.MessageError) else LabelError
            where = f"{self.recording.path}: {self.topic.topic} at {self.recording.time_text(stamp_ns)}"
            raise kind(f"{where}: {error}") from None
        kept = np.isfinite(xyz).all(axis=1) & ~null_returns(xyz)
        if classes is not None:
            kept &= classes != NO_SURFACE
        if offsets is not None:
            kept = self._timed(kept, offsets)
        frame = self.recording.lidar_frame(self.topic.topic, message.frame_id)
        xyz = xyz[kept] if offsets is None else self._deskewed(frame, stamp_ns, xyz[kept], offsets[kept])
        classes = None if classes is None else classes[kept]
        times = None if offsets is None else offsets[kept]
        self._cache[stamp_ns] = cloud = LabelledCloud(stamp_ns, frame, xyz, classes, times=times)
        while len(self._cache) > self.sweeps + 2:
            self._cache.popitem(last=False)
        return cloud

    def _timed(self, kept: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Which of the kept points have a time, (N,) bool."""
        timed = kept & np.isfinite(offsets)
        if np.count_nonzero(timed) < _LEAST_TIMED * np.count_nonzero(kept):
            assert self.times is not None
            raise NoCloud(
                f"most points of a cloud on {self.topic.topic} have a time in field '{self.times.field}' that is not "
                "near its stamp; --no-deskew leaves their times out"
            )
        return timed

    def _deskewed(self, frame_id: str, stamp_ns: int, xyz: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        try:
            return deskewed(self.recording, frame_id, stamp_ns, xyz, offsets)
        except RecordingError as error:
            raise NoCloud(f"a cloud on {self.topic.topic} cannot be deskewed: {error}") from None


class CloudSource(Protocol):
    """Gives the clouds for an image: `LidarClouds`, several of them, or clouds that are classified first."""

    @property
    def classes(self) -> object | None:
        """What gives the points' classes; None without classes."""

    def around(self, stamp_ns: int) -> list[LabelledCloud]:
        """As `LidarClouds.around`."""

    def camera_from_cloud(self, camera: str, stamp_ns: int, cloud: LabelledCloud) -> np.ndarray:
        """As `LidarClouds.camera_from_cloud`."""


class LidarGroup:
    """The clouds of several LiDARs, which label an image together.

    Args:
        lidars: one for each topic.
    """

    def __init__(self, lidars: Sequence[CloudSource]) -> None:
        self.lidars, self.classes = tuple(lidars), lidars[0].classes

    def around(self, stamp_ns: int) -> list[LabelledCloud]:
        """The clouds for an image: the nearest one of each LiDAR, then the others of each.

        Raises:
            NoCloud: no LiDAR has one.
            LabelError: a cloud's classes do not fit it.
        """
        found, reasons = [], []
        for lidar in self.lidars:
            try:
                found.append(lidar.around(stamp_ns))
            except NoCloud as error:
                reasons.append(str(error))
        if not found:
            raise NoCloud("; ".join(reasons))
        nearest = [replace(clouds[0], nearest=True) for clouds in found]
        return [*nearest, *(cloud for clouds in found for cloud in clouds[1:])]

    def camera_from_cloud(self, camera: str, stamp_ns: int, cloud: LabelledCloud) -> np.ndarray:
        """As of one LiDAR."""
        return self.lidars[0].camera_from_cloud(camera, stamp_ns, cloud)
