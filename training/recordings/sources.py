"""The image topics of a recording, for its images and its labels, and the errors that name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.stamp_text import seconds_text

__all__ = [
    "ImageSource",
    "JumpError",
    "Message",
    "RecordingError",
    "find_cameras",
    "find_source",
    "read_message",
    "time_text",
]

_IMAGE, _COMPRESSED, _INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
Message = cdr.ImageMessage | cdr.CompressedImageMessage
Given = TypeVar("Given")
Read = TypeVar("Read")


class RecordingError(ValueError):
    """The recording cannot be used for training. The text names the file, the topic, the time and what to do."""


class JumpError(RecordingError):
    """Two moments cannot be related, because the ego pose jumps between them. The text has the jump's time and size."""


@dataclass(frozen=True)
class ImageSource:
    """An image topic of a bag. `recorded` holds, for each stamp of an image, the time at which it was recorded."""

    bag: Bag
    topic: str
    compressed: bool
    recorded: dict[int, int]

    def __str__(self) -> str:
        return f"{self.bag.path}: {self.topic}"


def time_text(stamp_ns: int, start_ns: int) -> str:
    """A stamp as text: in seconds, and in seconds since the recording began."""
    return f"{seconds_text(stamp_ns)} s ({(stamp_ns - start_ns) / 1e9:+.3f} s into the recording)"


def find_source(bags: Sequence[Bag], name: str) -> ImageSource | None:
    """The image topic of this name in the first bag that has it, preferably compressed. Its stamps are not read yet."""
    for bag in bags:
        for topic, kind in ((f"{name}/compressed", _COMPRESSED), (name, _IMAGE)):
            if topic in bag.topics and bag.topics[topic].type == kind and bag.topics[topic].count:
                return ImageSource(bag, topic, kind == _COMPRESSED, {})
    return None


def find_cameras(bag: Bag, wanted: Sequence[str] | None) -> tuple[dict[str, ImageSource], tuple[str, ...]]:
    """The images of the cameras to use, by name, and the names of the cameras that have images but no camera_info.

    Args:
        wanted: names of the cameras to use. None takes all that have images and camera_info.
    Raises:
        RecordingError: there are no messages, a camera that is wanted cannot be used, or no camera can.
    """
    if not bag.message_count:
        raise RecordingError(f"{bag.path}: the recording holds no messages; record again")
    found = {}
    for topic in bag.topics.values():
        name = topic.name.removesuffix("/compressed")
        if topic.type in (_IMAGE, _COMPRESSED) and name.endswith("/image_raw") and topic.count:
            if source := find_source([bag], name):
                found[name.removesuffix("/image_raw")[1:]] = source
    infos = {topic.name for topic in bag.topics.values() if topic.type == _INFO and topic.count}
    calibrated = sorted(name for name in found if f"/{name}/camera_info" in infos)
    uncalibrated = tuple(sorted(set(found) - set(calibrated)))
    cameras = calibrated if wanted is None else wanted
    for name in cameras:
        if name not in calibrated:
            why = "has no camera_info" if name in found else f"is not in it; it has {', '.join(calibrated)}"
            raise RecordingError(f"{bag.path}: camera '{name}' {why}")
    if not cameras:
        lacking = ", ".join(f"/{name}/camera_info" for name in uncalibrated)
        why = f"its images lack {lacking}" if lacking else "it has no <camera>/image_raw[/compressed] topics"
        raise RecordingError(f"{bag.path}: no camera can be used: {why}; record images with camera_info")
    return {name: found[name] for name in cameras}, uncalibrated


def read_message(source: ImageSource, recorded_ns: int, read: Callable[[Given], Read], given: Given) -> Read:
    """`read(given)`, for a message of a source or its bytes.

    Raises:
        RecordingError: `read` raises a ValueError. The text names the topic and the time.
    """
    try:
        return read(given)
    except ValueError as error:
        raise RecordingError(f"{source}, message recorded at {seconds_text(recorded_ns)} s: {error}") from None
