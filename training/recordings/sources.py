"""The image topics of a recording, for its images and its labels, and the errors that name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from renderocc_model.images.decoding import checked_size
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.camera_search import COMPRESSED, IMAGE, FoundCameras, no_cameras, topic_types
from renderocc_model.rosio.camera_search import find_cameras as search
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_model.rosio.vehicle import Vehicle
from renderocc_model.rosio.video_track import VIDEO_READERS, VideoTrack

__all__ = [
    "ImageSource",
    "JumpError",
    "Message",
    "RecordingError",
    "find_cameras",
    "find_source",
    "images_of",
    "read_message",
    "time_text",
]

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
        offset_ns: nanoseconds that the stamps have more than the headers, which puts the camera's clock right.
    """

    bag: Bag
    topic: str
    compressed: bool
    recorded: dict[int, int] = field(default_factory=dict)
    pixels: PixelFormat = field(default_factory=PixelFormat)
    video: VideoTrack | None = None
    offset_ns: int = 0

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
        picture = self.video.picture(stamp_ns - self.offset_ns)
        height, width = picture.shape[:2]
        return cdr.ImageMessage(stamp_ns, "", height, width, "rgb8", False, 3 * width, picture.reshape(-1))


def time_text(stamp_ns: int, start_ns: int) -> str:
    """A stamp as text: in seconds, and in seconds since the recording began."""
    return f"{seconds_text(stamp_ns)} s ({(stamp_ns - start_ns) / 1e9:+.3f} s into the recording)"


def find_source(bags: Sequence[Bag], name: str) -> ImageSource | None:
    """The images of this name, raw or compressed, in the first bag that has them. Their stamps are not read yet."""
    for bag in bags:
        for topic, kind in ((f"{name}/compressed", COMPRESSED), (name, IMAGE)):
            if topic in bag.topics and bag.topics[topic].type == kind and bag.topics[topic].count:
                return ImageSource(bag, topic, kind == COMPRESSED)
    return None


def find_cameras(bag: Bag, vehicle: Vehicle) -> FoundCameras:
    """The cameras of a recording.

    Args:
        vehicle: its cameras to use, none for all that have images and camera_info; and its topics.
    Raises:
        RecordingError: there are no messages, a camera that is wanted cannot be used, or no camera can.
    """
    if not bag.message_count:
        raise RecordingError(f"{bag.path}: the recording holds no messages; record again")
    found = search(topic_types(bag.topics.values()), vehicle, prefer=COMPRESSED)
    for name, why in found.missing.items():
        raise RecordingError(f"{bag.path}: camera '{name}': {why}")
    if not found.cameras:
        why = no_cameras(bag.topics.values(), vehicle, found)
        raise RecordingError(f"{bag.path}: no camera can be used: {why}")
    return found


def images_of(bag: Bag, found: FoundCameras, vehicle: Vehicle) -> dict[str, ImageSource]:
    """{camera: its images} in an open bag."""
    return {
        name: ImageSource(
            bag,
            source.image_topic,
            source.compressed,
            pixels=PixelFormat(vehicle.bit_depth, vehicle.mosaic),
            video=VideoTrack(bag, source.image_topic) if source.kind in VIDEO_READERS else None,
            offset_ns=vehicle.offset_ns(name),
        )
        for name, source in found.cameras.items()
    }


def read_message(source: ImageSource, recorded_ns: int, read: Callable[[Given], Read], given: Given) -> Read:
    """`read(given)`, for a message of a source or its bytes.

    Raises:
        RecordingError: `read` raises a ValueError. The text names the topic and the time.
    """
    try:
        return read(given)
    except ValueError as error:
        raise RecordingError(f"{source}, message recorded at {seconds_text(recorded_ns)} s: {error}") from None
