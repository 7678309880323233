"""Reads a recording as frames. Images, poses and 2D labels are asked for by camera and stamp."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from renderocc_model.field.truth import truth_files
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.mount_entries import camera_mounts, lidar_mounts
from renderocc_model.geometry.mounts import mount_faults, shared_mounts
from renderocc_model.geometry.transforms import invert, quaternion_from_matrix
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.heading import heading_fault
from renderocc_model.rosio.motion import Jumps, find_jumps
from renderocc_model.rosio.tf_buffer import TransformError
from renderocc_model.rosio.vehicle import Vehicle

from .gathering import gather
from .index import read_index
from .label_images import LabelImageError, depth_image, semantic_image
from .pose_gaps import pose_gap
from .sources import (
    ImageSource,
    JumpError,
    Message,
    RecordingError,
    find_cameras,
    find_source,
    images_of,
    time_text,
)

__all__ = ["FrameIndex", "Recording"]

_DECODERS = {"semantic": semantic_image, "depth": depth_image}


@dataclass(frozen=True)
class FrameIndex:
    """The images that belong to one moment.

    Attributes:
        stamp_ns: the moment. The frame's base_link is the vehicle's pose at this moment.
        images: {camera: stamp of its image}, in the recording's order of cameras, without cameras that have no image.
    """

    stamp_ns: int
    images: dict[str, int]


class Recording:
    """An open recording with its labels, to be used as a context manager.

    Opening reads the whole recording once, because stamps are inside the messages. Stamps and transforms stay in
    memory; images are read when they are asked for.

    Args:
        path: a rosbag2.
        labels: sidecar bag with label topics. Labels are searched there first, then in the recording itself.
        vehicle: its cameras, topics, frames and limits of motion. Where the ego pose moves otherwise, the recording
            falls into pieces that are not related to each other.
        max_pose_gap: longest time in seconds from a stamp to the ego poses before and after it.
        truth: folder of its 3D truth; None for occupancy/ beside its messages.
    Attributes:
        base_frame, odom_frame: names in TF of the vehicle's frame and of the fixed one; no fixed one: it stands still.
        bag: the recording's messages (`renderocc_model.rosio.bags.Bag`).
        cameras: names of the cameras that `renderocc_model.rosio.camera_search` finds.
        uncalibrated: names of cameras that have images but no camera_info. They are not used.
        models: {camera: CameraModel}.
        optical_frames: {camera: name in TF}.
        stamps: {camera: stamps of its images with the clock's offset, ascending}.
        transforms: all of /tf and /tf_static, or of the topics in their place, and the odometry.
        jumps: where the ego pose jumps.
        notes: faults that do not prevent reading.
    Raises:
        BagError: the file cannot be read.
        RecordingError: there are no messages or no cameras, or a calibration cannot be used or changes.
    """

    def __init__(
        self,
        path: str | Path,
        labels: str | Path | None = None,
        vehicle: Vehicle = Vehicle(),
        max_pose_gap: float = 0.5,
        truth: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.labels_path = None if labels is None else Path(labels)
        self.vehicle, self.max_pose_gap = vehicle, max_pose_gap
        self.base_frame, self.odom_frame = vehicle.base, vehicle.fixed
        self._truth = truth_files(self.path, truth)
        with ExitStack() as stack:
            self.bag = stack.enter_context(Bag(self.path))
            bags = [self.bag] if self.labels_path is None else [stack.enter_context(Bag(self.labels_path)), self.bag]
            found = find_cameras(self.bag, vehicle)
            self.uncalibrated, self.cameras = tuple(found.uncalibrated), tuple(found.cameras)
            self._images = images_of(self.bag, found, vehicle)
            self._mounts = camera_mounts(vehicle.mounts, self.cameras)
            self._labels = {kind: self._label_sources(bags, kind) for kind in _DECODERS}
            infos = {source.info_topic: camera for camera, source in found.cameras.items()}
            index = read_index(self.bag, self._images, infos, self._labels, vehicle)
            self.models: dict[str, CameraModel] = index.models
            self.optical_frames: dict[str, str] = index.optical_frames
            self.reader = index.reader
            self.transforms, self.odom_frame = self.reader.transforms, self.reader.fixed
            self._lidars = lidar_mounts(vehicle.mounts)
            for topic, pose in self._lidars.items():
                place, rotation = pose[:3, 3].tolist(), quaternion_from_matrix(pose[:3, :3]).tolist()
                self.transforms.set(self.base_frame, mount_frame(topic), 0, place, rotation, static=True)
            self._frames_from_optical = index.frames_from_optical
            self.notes: list[str] = [f"{bag.path}: {note}" for bag in bags for note in bag.notes] + index.notes
            self.notes += [f"{self.path}: {found.note}"] if found.note else []
            self.stamps = {camera: sorted(source.recorded) for camera, source in self._images.items()}
            self.jumps: Jumps = find_jumps(self.transforms, self.odom_frame, self.base_frame, vehicle.motion)
            self._stack = stack.pop_all()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. A second call does nothing."""
        self._stack.close()

    def frames(self, anchor: str | None = None, max_time_diff: float = 0.1) -> list[FrameIndex]:
        """One frame for each image of the anchor camera, with the nearest image of every other camera.

        Args:
            anchor: name of a camera. When None, there is one frame for each file of 3D truth. A recording without 3D
                truth then has one frame for each image of its first camera, as in the node.
            max_time_diff: largest difference in seconds between an image's stamp and the moment. Of two images that are
                equally near, the earlier one is taken.
        """
        if anchor is not None and anchor not in self.cameras:
            raise RecordingError(f"{self.path}: anchor '{anchor}' is not one of the cameras {', '.join(self.cameras)}")
        moments = (self.truth_stamps() if anchor is None else []) or self.stamps[anchor or self.cameras[0]]
        return self.frames_at(moments, max_time_diff)

    def frames_at(self, moments: Sequence[int], max_time_diff: float = 0.1) -> list[FrameIndex]:
        """One frame for each moment (nanoseconds), with the nearest image of each camera, as `frames` chooses it."""
        limit = round(max_time_diff * 1e9)
        frames = []
        for stamp_ns in moments:
            nearest = {camera: _nearest(self.stamps[camera], stamp_ns) for camera in self.cameras}
            images = {camera: near for camera, near in nearest.items() if abs(near - stamp_ns) <= limit}
            frames.append(FrameIndex(stamp_ns, images))
        return frames

    def mount(self, camera: str, stamp_ns: int | None = None) -> np.ndarray:
        """base_from_camera (4, 4), both at the same stamp: the camera's pose on the vehicle."""
        stamp_ns = self.stamps[camera][0] if stamp_ns is None else stamp_ns
        try:
            if camera in self._mounts:
                mount = self._mounts[camera].copy()
            else:
                mount = self.transforms.lookup(self.base_frame, self.optical_frames[camera], stamp_ns)
        except TransformError as error:
            remedy = "; ".join(self.reader.missing.values()) or "record /tf_static, or set --mounts or --frame-prefix"
            raise RecordingError(
                f"{self.path}: camera '{camera}' has no pose on the vehicle at {self.time_text(stamp_ns)}: {error}; "
                f"{remedy}"
            ) from None
        return mount @ self._frames_from_optical[camera] if camera in self._frames_from_optical else mount

    def _label_sources(self, bags: Sequence[Bag], kind: str) -> dict[str, ImageSource]:
        """The label topics of a kind. Their stamps are those of the images, by the camera's clock."""
        found = {camera: find_source(bags, f"/{camera}/{kind}") for camera in self.cameras}
        return {
            camera: replace(source, offset_ns=self.vehicle.offset_ns(camera))
            for camera, source in found.items()
            if source is not None
        }

    def lidar_frame(self, topic: str, frame_id: str) -> str:
        """The name in the transform buffer of a LiDAR's frame: of its entry in `mounts`, else in TF."""
        return mount_frame(topic) if topic in self._lidars else self.vehicle.frame(frame_id)

    def header_stamp(self, camera: str, stamp_ns: int) -> int:
        """The stamp in the header of a camera's image, by the camera's own clock."""
        return stamp_ns - self._images[camera].offset_ns

    def is_video(self, camera: str) -> bool:
        """Whether a camera's images are pictures of a video."""
        return self._images[camera].video is not None

    def odom_from_base(self, stamp_ns: int) -> np.ndarray:
        """Ego pose (4, 4). It is the identity when odom_frame is empty.

        Raises:
            RecordingError: /tf has no poses near the stamp, or the pose jumps there.
        """
        if not self.odom_frame:
            return np.eye(4)
        where = f"{self.path}: no ego pose on {self.reader.pose_topic} at {self.time_text(stamp_ns)}"
        try:
            pose = self.transforms.lookup(self.odom_frame, self.base_frame, stamp_ns)
        except TransformError as error:
            remedy = (
                "; ".join(self.reader.missing.values()) or "record it from before the first image to after the last"
            )
            raise RecordingError(
                f"{where}: {error}; {remedy}, or set an empty odom frame for a vehicle that stands still"
            ) from None
        gap = pose_gap(self.reader.pose_stamps, stamp_ns)
        if gap > self.max_pose_gap:
            raise RecordingError(
                f"{where}: the nearest poses are up to {gap:.3f} s away, more than {self.max_pose_gap:g} s; leave this "
                "part out, or record the poses without gaps"
            )
        self.check_related(stamp_ns, stamp_ns)
        return pose

    def related(self, one_ns: int, other_ns: int) -> bool:
        """Whether the ego pose does not jump between two moments, so that one can be seen from the other."""
        return self.jumps.between(one_ns, other_ns) is None

    def warnings(self) -> list[str]:
        """What does not prevent reading but should be known, for people: the notes, mounts and driving directions that
        cannot be true, and the jumps of the ego pose."""
        across = "nothing is related across it"
        jumps = self.jumps.texts(self.time_text)
        heading = heading_fault(self.transforms, self.odom_frame, self.base_frame, self.vehicle.motion)
        return [
            *self.notes,
            *(f"{self.path}: {text}" for text in self._mount_faults()),
            *([f"{self.path}: ego pose on {self.reader.pose_topic}: {heading}"] if heading else []),
            *(f"{self.path}: ego pose on {self.reader.pose_topic}: {text}; {across}" for text in jumps),
        ]

    def _mount_faults(self) -> list[str]:
        mounts = {}
        for camera in self.cameras:
            with suppress(RecordingError, IndexError):  # it has no mount or no image, which is said where one is needed
                mounts[camera] = self.mount(camera)
        remedy = f"check the transform from {self.base_frame} to"
        faults = [
            f"camera '{camera}': {text}; {remedy} {self.optical_frames[camera]}"
            for camera, mount in mounts.items()
            for text in mount_faults(mount)
        ]
        return [*faults, *(f"cameras {text}" for text in shared_mounts(mounts))]

    def check_related(self, one_ns: int, other_ns: int) -> None:
        """Raise JumpError if the ego pose jumps between two moments, or at one of them."""
        jump = self.jumps.between(one_ns, other_ns)
        if jump is not None:
            raise JumpError(
                f"{self.path}: the ego pose on {self.reader.pose_topic} cannot be used at "
                f"{self.time_text(jump.after_ns)}: {jump}; what is before it and what is after it are not related"
            )

    def base_from_camera(self, camera: str, stamp_ns: int, at_stamp_ns: int) -> np.ndarray:
        """Pose of the camera at one stamp in base_link at another stamp, (4, 4).

        inv(odom_from_base(at)) @ odom_from_base(stamp) @ mount, as in the node.

        Raises:
            RecordingError: there is no pose or mount. JumpError: the ego pose jumps between the two moments.
        """
        mount = self.mount(camera, stamp_ns)
        if stamp_ns == at_stamp_ns or not self.odom_frame:
            return mount
        self.check_related(stamp_ns, at_stamp_ns)
        return invert(self.odom_from_base(at_stamp_ns)) @ self.odom_from_base(stamp_ns) @ mount

    def image_message(self, camera: str, stamp_ns: int) -> Message:
        """The image of a camera at one of its stamps."""
        return self.gather([("image", camera, stamp_ns)])["image", camera, stamp_ns]

    def has_labels(self, camera: str, stamp_ns: int, kinds: Sequence[str] = ("semantic", "depth")) -> bool:
        """Whether there are label images of all these kinds for this camera's image."""
        sources = (self._labels[kind].get(camera) for kind in kinds)
        return all(source is not None and stamp_ns in source.recorded for source in sources)

    def semantic(self, camera: str, stamp_ns: int) -> np.ndarray:
        """Class ids of a camera's image, (H, W) uint8, in its distorted image plane; 255 is unlabelled."""
        return self.decode("semantic", camera, stamp_ns, self.gather([("semantic", camera, stamp_ns)]))

    def depth(self, camera: str, stamp_ns: int) -> np.ndarray:
        """z-depth of a camera's image, (H, W) float32 metres; 0 is unknown."""
        return self.decode("depth", camera, stamp_ns, self.gather([("depth", camera, stamp_ns)]))

    def decode(
        self, kind: str, camera: str, stamp_ns: int, gathered: dict[tuple[str, str, int], Message]
    ) -> np.ndarray:
        """Decode a label image of kind 'semantic' or 'depth' that `gather` returned.

        Raises:
            RecordingError: it cannot be decoded. The text names the topic and the time.
        """
        model = self.models[camera]
        try:
            return _DECODERS[kind](gathered[kind, camera, stamp_ns], model.height, model.width)
        except LabelImageError as error:
            raise RecordingError(f"{self.topic(kind, camera)} at {self.time_text(stamp_ns)}: {error}") from None

    def truth_path(self, stamp_ns: int) -> Path | None:
        """Path of the file <stamp>.npz of the 3D truth; None when there is no such file."""
        return self._truth.get(stamp_ns)

    def truth_stamps(self) -> list[int]:
        """Moments that have 3D truth, ascending."""
        return list(self._truth)

    def time_text(self, stamp_ns: int) -> str:
        """A stamp as text: in seconds, and in seconds since the recording began."""
        return time_text(stamp_ns, self.bag.start_ns)

    def gather(self, wanted: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str, int], Message]:
        """{(kind, camera, stamp): message}, read in one pass over the part of the files that holds them.

        Args:
            wanted: (kind, camera, stamp) of each; the kind is 'image', 'semantic' or 'depth'.
        Raises:
            RecordingError: one of the images does not exist.
        """
        return gather(wanted, self._source, self.bag.start_ns)

    def topic(self, kind: str, camera: str) -> str:
        """'file: topic' of a camera's images, for error texts."""
        return str(self._source(kind, camera))

    def _source(self, kind: str, camera: str) -> ImageSource:
        source = (self._images if kind == "image" else self._labels[kind]).get(camera)
        if source is None:
            raise RecordingError(
                f"{self.labels_path or self.path}: camera '{camera}' has no topic /{camera}/{kind}[/compressed]; make "
                "labels with `renderocc label`"
            )
        return source


def mount_frame(topic: str) -> str:
    """The frame in the transform buffer of a LiDAR that has an entry in `mounts`. No frame of TF has this name."""
    return f"mount of {topic}"


def _nearest(stamps: Sequence[int], stamp_ns: int) -> int:
    place = bisect_left(stamps, stamp_ns)
    around = stamps[max(place - 1, 0) : place + 1]
    return min(around, key=lambda stamp: (abs(stamp - stamp_ns), stamp))
