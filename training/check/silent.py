"""Finds cameras and LiDARs that are recorded in name only: their topics are there, and no messages on them."""

from __future__ import annotations

import re
from collections.abc import Collection

from renderocc_model.base.findings import Findings
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.vehicle import Vehicle, absolute

__all__ = ["check_silent_cameras"]

_INFO = "sensor_msgs/msg/CameraInfo"
_ANY = "\0"


def check_silent_cameras(findings: Findings, cameras: Collection[str], bag: Bag, vehicle: Vehicle) -> None:
    """Name the cameras that have a calibration, and no image on any topic beside it.

    Args:
        findings: gets a warning for each.
        cameras: names of the cameras that have images.
        bag: the open recording.
        vehicle: its topic of calibrations and its cameras.
    """
    pattern = re.compile(re.escape(absolute(vehicle.camera_info_topic_of(_ANY))).replace(re.escape(_ANY), "(.+)"))
    images = {topic.name for topic in bag.topics.values() if topic.count and topic.type != _INFO}
    for topic in bag.topics.values():
        match = pattern.fullmatch(topic.name)
        if topic.type != _INFO or not topic.count or match is None:
            continue
        name, beside = match.group(1), f"{topic.name.rpartition('/')[0]}/"
        if name in cameras or (vehicle.cameras and name not in vehicle.cameras):
            continue
        if not any(image.startswith(beside) for image in images):
            remedy = "the camera is left out; record its images, or name their topics with --image-topic"
            findings.warn(f"camera '{name}'", "camera_info but no images", remedy, topic.name)
