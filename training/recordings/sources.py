"""The image topics of a recording, for its images and its labels, and the errors that name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from renderocc_model.images.decoding import checked_size
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag, Topic
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_model.rosio.vehicle import Vehicle
from renderocc_model.rosio.video_track import VIDEO_READERS, VideoTrack, video_topic

__all__ = [
    "ImageSource",
    "JumpError",
    "Message",
    "RecordingError",
    "camera_of",
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
    """An image topic of a bag.

    Attributes:
        bag: an open bag.
        topic: name of the topic.
        compressed: whether its messages are CompressedImage.
        recorded: {stamp of an image: the time at which it was recorded}.
        pixels: what its pixels mean.
        video: the video, if it is one.
    """

    bag: Bag
    topic: str
    compressed: bool
    recorded: dict[int, int] = field(default_factory=dict)
    pixels: PixelFormat = field(default_factory=PixelFormat)
    video: VideoTrack | None = None

    def __str__(self) -> str:
        return f"{self.bag.path}: {self.topic}"

    def take(self, data: bytes, recorded_ns: int) -> None:
        """Look at each image once, in the order of recording.

        Raises:
            MosaicError: the camera's images cannot be used.
            ValueError: this one cannot be decoded.
            RecordingError: the message cannot be read.
        """
        if self.video is not None:
            read = VIDEO_READERS[self.bag.topics[self.topic].type]
            self.video.take(read_message(self, recorded_ns, read, data), recorded_ns)
        else:
            message = read_message(self, recorded_ns, self.read, data)
            if isinstance(message, cdr.CompressedImageMessage):
                checked_size(message.data)
            self.pixels.take(message)

    def read(self, data: bytes) -> Message:
        """An image message; MessageError if it cannot be read."""
        return cdr.read_compressed_image(data) if self.compressed else cdr.read_image(data)

    def plain(self, data: bytes) -> Message:
        """An image message as the decoders read it."""
        return self.pixels.plain(self.read(data))

    def picture(self, stamp_ns: int) -> cdr.ImageMessage:
        """A picture of the video as a raw image; VideoError if it cannot be decoded."""
        assert self.video is not None, "only videos are read by stamp"
        picture = self.video.picture(stamp_ns)
        height, width = picture.shape[:2]
        return cdr.ImageMessage(stamp_ns, "", height, width, "rgb8", False, 3 * width, picture.reshape(-1))


def time_text(stamp_ns: int, start_ns: int) -> str:
    """A stamp as text: in seconds, and in seconds since the recording began."""
    return f"{seconds_text(stamp_ns)} s ({(stamp_ns - start_ns) / 1e9:+.3f} s into the recording)"


def camera_of(topic: Topic) -> str:
    """The camera whose images a topic has: X of X/image_raw, X/image_raw/compressed or a video below; else empty."""
    name = topic.name
    if topic.type == _COMPRESSED:
        name = name.removesuffix("/compressed")
    elif topic.type in VIDEO_READERS:
        name = name if name.endswith("/image_raw") else name.rpartition("/")[0]
    elif topic.type != _IMAGE:
        return ""
    return name.removesuffix("/image_raw")[1:] if topic.count and name.endswith("/image_raw") else ""


def find_source(
    bags: Sequence[Bag], name: str, videos: bool = False, pixels: PixelFormat | None = None
) -> ImageSource | None:
    """The image topic of this name in the first bag that has it. Its stamps are not read yet.

    Args:
        bags: open bags.
        name: of the topic of raw images; compressed ones come first, videos last.
        videos: whether videos count.
        pixels: what is known of its pixels.
    """
    pixels = pixels or PixelFormat()
    for bag in bags:
        for topic, kind in ((f"{name}/compressed", _COMPRESSED), (name, _IMAGE)):
            if topic in bag.topics and bag.topics[topic].type == kind and bag.topics[topic].count:
                return ImageSource(bag, topic, kind == _COMPRESSED, pixels=pixels)
        topics = {one.name: (one.type,) for one in bag.topics.values() if one.count} if videos else {}
        video = video_topic(topics, name)
        if video is not None:
            return ImageSource(bag, video[0], False, pixels=pixels, video=VideoTrack(bag, video[0]))
    return None


def find_cameras(bag: Bag, vehicle: Vehicle) -> tuple[dict[str, ImageSource], tuple[str, ...]]:
    """The images of the cameras to use, by name, and the names of the cameras that have images but no camera_info.

    Args:
        vehicle: its cameras to use, none for all that have images and camera_info; and how their pixels are read.
    Raises:
        RecordingError: there are no messages, a camera that is wanted cannot be used, or no camera can.
    """
    if not bag.message_count:
        raise RecordingError(f"{bag.path}: the recording holds no messages; record again")
    found = {}
    for name in {camera_of(topic) for topic in bag.topics.values()} - {""}:
        pixels = PixelFormat(vehicle.bit_depth, vehicle.mosaic)
        if source := find_source([bag], f"/{name}/image_raw", videos=True, pixels=pixels):
            found[name] = source
    infos = {topic.name for topic in bag.topics.values() if topic.type == _INFO and topic.count}
    calibrated = sorted(name for name in found if f"/{name}/camera_info" in infos)
    uncalibrated = tuple(sorted(set(found) - set(calibrated)))
    cameras = vehicle.cameras or calibrated
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
