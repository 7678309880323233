"""Reads what `renderocc check` needs of a recording in one pass: stamps, calibrations, transforms and read errors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from renderocc_model.base.findings import Faults, Findings
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.camera_search import COMPRESSED, FoundCameras, find_cameras, topic_types
from renderocc_model.rosio.camera_topics import CameraTopics, topics_of
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_model.rosio.transform_topics import TransformReader
from renderocc_model.rosio.vehicle import Vehicle
from training.recordings.lidar_topics import CLOUD_TYPES, read_cloud
from training.recordings.sources import time_text

__all__ = ["Contents", "read_contents"]


@dataclass
class Contents:
    """The contents of a recording, without pixels.

    Attributes:
        cameras: cameras with images and calibration.
        found: the search for cameras.
        reader: what was read of TF and odometry.
        clouds: {topic: (frame of the first cloud, stamps in the order of recording)}.
        cloud_points: {topic: points in all of its clouds}; in the first cloud, points without a place do not count.
        start_ns: record time of the first message.
    """

    cameras: dict[str, CameraTopics]
    found: FoundCameras
    reader: TransformReader
    start_ns: int
    clouds: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    cloud_points: dict[str, int] = field(default_factory=dict)

    @property
    def transforms(self) -> TransformBuffer:
        """All transforms of the recording."""
        return self.reader.transforms

    @property
    def pose_stamps(self) -> list[int]:
        """Stamps of the ego poses, ascending."""
        return self.reader.pose_stamps

    def time_text(self, stamp_ns: int) -> str:
        """A stamp as text: in seconds, and in seconds since the recording began."""
        return time_text(stamp_ns, self.start_ns)


def read_contents(findings: Findings, bag: Bag, vehicle: Vehicle) -> Contents:
    """Read a recording once.

    Args:
        findings: gets warnings about messages that cannot be read and about conflicts in /tf.
        bag: an open bag.
        vehicle: its cameras, topics, frames and clocks.
    """
    found = find_cameras(topic_types(bag.topics.values()), vehicle, prefer=COMPRESSED)
    cameras = {name: topics_of(source, vehicle) for name, source in found.cameras.items()}
    reader = TransformReader(bag.topics, vehicle)
    contents = Contents(cameras, found, reader, bag.start_ns)
    by_topic = {topic: camera for camera in cameras.values() for topic in (camera.image_topic, camera.info_topic)}
    clouds = {topic.name for topic in bag.topics.values() if topic.type in CLOUD_TYPES and topic.count}
    chosen = {name if name.startswith("/") else f"/{name}" for name in vehicle.lidar_topics}
    clouds = clouds & chosen or clouds
    bad = Faults()
    looked_at = {*by_topic, *clouds, *reader.topics}
    total = sum(topic.count for topic in bag.topics.values() if topic.name in looked_at)
    messages = tqdm(
        bag.messages(looked_at), bag.path.name, total, leave=False, unit="message", disable=not sys.stderr.isatty()
    )
    for topic, recorded_ns, data in messages:
        try:
            if topic in by_topic:
                by_topic[topic].take(topic, recorded_ns, data)
            elif topic in clouds:
                _take_cloud(contents, topic, bag.topics[topic].type, data, vehicle)
            else:
                reader.take(topic, data)
        except ValueError as error:
            bad.add(topic, str(error), contents.time_text(recorded_ns))
    for (topic, _), fault in bad.kinds.items():
        text = fault.with_count("message")
        remedy = "they are not used" if fault.count > 1 else "it is not used"
        findings.warn("messages", text, remedy, topic, fault.where)
    reader.finish()
    for note in filter(None, (found.note, *reader.notes)):
        findings.note("topics", note)
    for conflict in contents.transforms.conflicts:
        findings.warn("tf", str(conflict), "let only one node publish the transform of a frame", reader.tf)
    for camera in cameras.values():
        camera.frame_id = vehicle.optical_frame(camera.name, camera.frame_id, camera.info_frame_id)
    return contents


def _take_cloud(contents: Contents, topic: str, kind: str, data: bytes, vehicle: Vehicle) -> None:
    cloud = read_cloud(kind, data)
    if topic not in contents.clouds:
        points = int(np.isfinite(cloud.xyz()).all(axis=1).sum())  # checks the fields, too; the other clouds are alike
    else:
        points = len(cloud)
    contents.cloud_points[topic] = contents.cloud_points.get(topic, 0) + points
    frame = vehicle.frame(cloud.frame_id)
    contents.clouds.setdefault(topic, (frame, []))[1].append(cloud.stamp_ns + vehicle.offset_ns(topic))
