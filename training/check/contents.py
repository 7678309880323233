"""Reads what `renderocc check` needs of a recording in one pass: stamps, calibrations, transforms and read errors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from renderocc_model.base.findings import Faults, Findings
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.camera_topics import CameraTopics
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_model.rosio.vehicle import Vehicle
from training.recordings.lidar_topics import CLOUD_TYPES, read_cloud
from training.recordings.sources import camera_of, find_source, time_text

__all__ = ["Contents", "read_contents"]

_IMAGE, _COMPRESSED, _INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"


@dataclass
class Contents:
    """The contents of a recording, without pixels.

    Attributes:
        cameras: cameras with images and calibration.
        uncalibrated: names of cameras with images but without camera_info.
        clouds: {topic: (frame of the first cloud, stamps in the order of recording)}.
        cloud_points: {topic: points in all of its clouds}; in the first cloud, points without a place do not count.
        transforms: all of /tf and /tf_static.
        pose_stamps: stamps of the ego poses on /tf, ascending.
        start_ns: record time of the first message.
    """

    cameras: dict[str, CameraTopics]
    uncalibrated: tuple[str, ...]
    start_ns: int
    clouds: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    cloud_points: dict[str, int] = field(default_factory=dict)
    transforms: TransformBuffer = field(default_factory=lambda: TransformBuffer(history=1e9, max_samples=1 << 30))
    pose_stamps: list[int] = field(default_factory=list)

    def time_text(self, stamp_ns: int) -> str:
        """A stamp as text: in seconds, and in seconds since the recording began."""
        return time_text(stamp_ns, self.start_ns)


def read_contents(findings: Findings, bag: Bag, vehicle: Vehicle) -> Contents:
    """Read a recording once.

    Args:
        findings: gets warnings about messages that cannot be read and about conflicts in /tf.
        bag: an open bag.
        vehicle: its frames; and its cameras to check, none for all.
    """
    cameras, uncalibrated = _find_cameras(bag, vehicle)
    contents = Contents(cameras, uncalibrated, bag.start_ns)
    by_topic = {topic: camera for camera in cameras.values() for topic in (camera.image_topic, camera.info_topic)}
    clouds = {topic.name for topic in bag.topics.values() if topic.type in CLOUD_TYPES and topic.count}
    bad = Faults()
    looked_at = {*by_topic, *clouds, "/tf", "/tf_static"}
    total = sum(topic.count for topic in bag.topics.values() if topic.name in looked_at)
    messages = tqdm(
        bag.messages(looked_at), bag.path.name, total, leave=False, unit="message", disable=not sys.stderr.isatty()
    )
    for topic, recorded_ns, data in messages:
        try:
            if topic in by_topic:
                by_topic[topic].take(topic, recorded_ns, data)
            elif topic in clouds:
                _take_cloud(contents, topic, bag.topics[topic].type, data)
            else:
                _take_transforms(contents, data, topic == "/tf_static", vehicle.base)
        except ValueError as error:
            bad.add(topic, str(error), contents.time_text(recorded_ns))
    for (topic, _), fault in bad.kinds.items():
        text = fault.with_count("message")
        remedy = "they are not used" if fault.count > 1 else "it is not used"
        findings.warn("messages", text, remedy, topic, fault.where)
    contents.pose_stamps = sorted(set(contents.pose_stamps))
    for conflict in contents.transforms.conflicts:
        findings.warn("tf", str(conflict), "let only one node publish the transform of a frame", "/tf")
    return contents


def _take_cloud(contents: Contents, topic: str, kind: str, data: bytes) -> None:
    cloud = read_cloud(kind, data)
    if topic not in contents.clouds:
        points = int(np.isfinite(cloud.xyz()).all(axis=1).sum())  # checks the fields, too; the other clouds are alike
    else:
        points = len(cloud)
    contents.cloud_points[topic] = contents.cloud_points.get(topic, 0) + points
    contents.clouds.setdefault(topic, (cloud.frame_id, []))[1].append(cloud.stamp_ns)


def _take_transforms(contents: Contents, data: bytes, static: bool, base_frame: str) -> None:
    for item in cdr.read_tf(data):
        contents.transforms.set(item.parent, item.child, item.stamp_ns, item.translation, item.quaternion, static)
        if not static and item.child.lstrip("/") == base_frame:
            contents.pose_stamps.append(item.stamp_ns)


def _find_cameras(bag: Bag, vehicle: Vehicle) -> tuple[dict[str, CameraTopics], tuple[str, ...]]:
    """Find the cameras as `Recording` does: <camera>/image_raw[/compressed] or video, with <camera>/camera_info."""
    infos = {topic.name for topic in bag.topics.values() if topic.type == _INFO and topic.count}
    cameras, uncalibrated = {}, set()
    for name in sorted({camera_of(topic) for topic in bag.topics.values()} - {""}):
        if vehicle.cameras and name not in vehicle.cameras:
            continue
        source, info = find_source([bag], f"/{name}/image_raw", videos=True), f"/{name}/camera_info"
        if source is None or info not in infos:
            uncalibrated.add(name)
            continue
        pixels = PixelFormat(vehicle.bit_depth, vehicle.mosaic)
        video = "" if source.video is None else bag.topics[source.topic].type
        cameras[name] = CameraTopics(
            name, source.topic, info, source.compressed, pixels=pixels, rectified=vehicle.rectified, video=video
        )
    return cameras, tuple(sorted(uncalibrated))
