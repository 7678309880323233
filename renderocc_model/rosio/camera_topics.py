"""One camera's topics, read message by message: stamps, sizes, calibration, and faults in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from renderocc_model.base.findings import kind_of_fault
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.images.decoding import checked_size

from . import cdr
from .camera_info import camera_model_from_info
from .camera_search import CameraSource
from .pixel_format import MosaicError, PixelFormat
from .rectification import Rectification, calibration_doubts, is_rectified, rectification_from_info
from .vehicle import Vehicle
from .video_track import VIDEO_READERS, FirstPicture

__all__ = [
    "GAP",
    "CameraTopics",
    "Complaint",
    "StampFault",
    "ImageLeftOut",
    "add_complaint",
    "stamp_faults",
    "topics_of",
]

_MOST_COMPLAINTS = 10
_MOST_REORDERED = 16  # pictures of a video
_OTHER_TIME_NS = 1_000_000_000  # stamps that go back by more are of another time, not of reordered pictures
_AFTER_STAMP = 12  # bytes of a message's encapsulation and of its stamp
GAP = 5.0  # times the median interval from which a pause is a gap


class ImageLeftOut(ValueError):
    """An image that cannot be decoded, whatever the camera's others are."""


@dataclass
class Complaint:
    """A fault of a camera's messages.

    Attributes:
        topic: their topic.
        recorded_ns: record time of the first such message.
        text: what is wrong with it. Texts that differ in their numbers only are of one fault.
        count: how many messages have it.
        left_out: whether only these images cannot be used, and the camera's others can.
    """

    topic: str
    recorded_ns: int
    text: str
    count: int = 1
    left_out: bool = False

    def __str__(self) -> str:
        return self.text if self.count == 1 else f"{self.text} (and {self.count - 1} more such messages)"


def add_complaint(complaints: list[Complaint], topic: str, recorded_ns: int, text: str, left_out: bool = False) -> None:
    """Add a fault of a message to a list, which has one entry for each kind of fault."""
    for complaint in complaints:
        if complaint.topic == topic and kind_of_fault(complaint.text) == kind_of_fault(text):
            complaint.count += 1
            return
    if len(complaints) < _MOST_COMPLAINTS:
        complaints.append(Complaint(topic, recorded_ns, text, left_out=left_out))


@dataclass
class CameraTopics:
    """One camera, as far as its messages were given to `take_info` and `take_image`.

    Attributes:
        name: of the camera.
        image_topic, info_topic: absolute names.
        compressed: whether the images are CompressedImage.
        offset_ns: nanoseconds to add to the stamps of the camera's clock.
        stamps: header stamps of the images that can be used, in the order of recording, nanoseconds.
        frame_id: optical frame, of the first image that names one.
        info_frame_id: that of the calibration.
        size: (height, width) of the first image.
        model: the calibration.
        rectification: of rectified images, else None.
        doubts: how parts of the calibration contradict each other.
        rectified: which images are rectified, as for `is_rectified`.
        video: message type, if the images are a video; else empty.
        recorded_later_s: the most that a stamp differs from when its image was recorded.
        pixels: what the pixels of the images mean.
        complaints: what is wrong with messages that cannot be used, once for each kind of fault.
    """

    name: str
    image_topic: str
    info_topic: str
    compressed: bool
    stamps: list[int] = field(default_factory=list)
    frame_id: str = ""
    size: tuple[int, int] | None = None
    model: CameraModel | None = None
    recorded_later_s: float = 0.0
    pixels: PixelFormat = field(default_factory=PixelFormat)
    complaints: list[Complaint] = field(default_factory=list)
    rectification: Rectification | None = None
    doubts: list[str] = field(default_factory=list)
    video: str = ""
    rectified: str = "auto"
    offset_ns: int = 0
    info_frame_id: str = ""
    _first_picture: FirstPicture | None = None
    _last_info: bytes | None = None

    def take(self, topic: str, recorded_ns: int, data: bytes) -> None:
        """A message of one of the two topics; what is wrong with it is noted."""
        try:
            if topic == self.info_topic:
                self.take_info(data)
            else:
                self.take_image(data, recorded_ns)
        except ImageLeftOut as error:
            add_complaint(self.complaints, topic, recorded_ns, str(error), left_out=True)
        except ValueError as error:
            add_complaint(self.complaints, topic, recorded_ns, str(error))

    def take_info(self, data: bytes) -> None:
        """A CameraInfo.

        Raises:
            ValueError: it cannot be used, or is another than before.
        """
        if data[_AFTER_STAMP:] == self._last_info:  # nearly always
            return
        message, rectified = cdr.read_camera_info(data), is_rectified(self.image_topic, self.rectified)
        self.info_frame_id = self.info_frame_id or message.frame_id
        model = camera_model_from_info(message, rectified)
        rectification = rectification_from_info(message) if rectified else None
        if self.model is not None and (self.model, self.rectification) != (model, rectification):
            raise ValueError("the calibration changes during the recording; record with one calibration")
        self.doubts = calibration_doubts(message, rectified)
        self.model, self.rectification, self._last_info = model, rectification, data[_AFTER_STAMP:]

    def take_image(self, data: bytes, recorded_ns: int) -> None:
        """An image.

        Raises:
            ImageLeftOut: it cannot be decoded; its stamp does not count.
            ValueError: it cannot be read, or is of another size than before.
        """
        stamp_ns, frame_id = cdr.read_header(data)
        self.frame_id = self.frame_id or frame_id
        message: cdr.VideoMessage | cdr.ImageMessage | cdr.CompressedImageMessage
        if self.video:
            message = VIDEO_READERS[self.video](data)
        else:
            message = cdr.read_compressed_image(data) if self.compressed else cdr.read_image(data)
        try:
            size = self._size_of(message)
        except MosaicError:
            raise
        except ValueError as error:
            raise ImageLeftOut(str(error)) from None
        stamp_ns += self.offset_ns if stamp_ns else 0  # zero stays zero: the camera has set no stamp
        self.stamps.insert(self._place_of(stamp_ns), stamp_ns)
        self.recorded_later_s = max(self.recorded_later_s, abs(recorded_ns - stamp_ns) / 1e9)
        if self.size is None:
            self.size = size
        if size is not None and size != self.size:
            before, now = (f"{width}x{height}" for height, width in (self.size, size))
            raise ValueError(f"images change their size from {before} to {now}; record with one size")

    def _place_of(self, stamp_ns: int) -> int:
        """Where a stamp belongs among `stamps`: at the end, but for B pictures of a video, which come late."""
        place = len(self.stamps)
        if self.video:
            first = max(0, place - _MOST_REORDERED)
            while place > first and 0 < self.stamps[place - 1] - stamp_ns < _OTHER_TIME_NS:
                place -= 1
        return place

    def _size_of(self, message: cdr.VideoMessage | cdr.ImageMessage | cdr.CompressedImageMessage):
        """(height, width); None of a video that has shown no picture yet. ValueError: it cannot be decoded."""
        if isinstance(message, cdr.VideoMessage):
            if self._first_picture is None:
                self._first_picture = FirstPicture()
            return self._first_picture.take(message)
        self.pixels.take(message)
        if isinstance(message, cdr.CompressedImageMessage):
            return checked_size(message.data)
        return message.height, message.width

    def size_mismatch(self) -> str:
        """How the images' size differs from the calibration's; empty where it does not."""
        if self.model is None or self.size is None or (self.model.height, self.model.width) == self.size:
            return ""
        height, width = self.size
        return f"image is {width}x{height} but camera_info says {self.model.width}x{self.model.height}"


def topics_of(source: CameraSource, vehicle: Vehicle) -> CameraTopics:
    """A camera that `find_cameras` found, to be given its messages."""
    return CameraTopics(
        source.name,
        source.image_topic,
        source.info_topic,
        source.compressed,
        pixels=PixelFormat(vehicle.bit_depth, vehicle.mosaic),
        video=source.kind if source.kind in VIDEO_READERS else "",
        rectified=vehicle.rectified,
        offset_ns=vehicle.offset_ns(source.name),
    )


@dataclass(frozen=True)
class StampFault:
    """Something wrong with a row of stamps.

    Attributes:
        kind: "zero", "back" (earlier than or equal to the one before) or "gap".
        stamp_ns: of the message at which it shows first.
        count: how often.
        text: for people, without topic and time.
    """

    kind: str
    stamp_ns: int
    count: int
    text: str


def stamp_faults(stamps: list[int], what: str = "image") -> list[StampFault]:
    """Zero stamps, stamps that go back or repeat, and gaps of more than `GAP` times the median interval.

    Args:
        stamps: header stamps in the order of recording, nanoseconds.
        what: name of one message, for the texts.
    """
    times = np.array(stamps, np.int64)
    faults = []
    zero = np.flatnonzero(times == 0)
    if zero.size:
        faults.append(StampFault("zero", 0, zero.size, f"{zero.size} {what}s have no stamp"))
    steps = np.diff(times) / 1e9
    back = np.flatnonzero(steps <= 0)
    if back.size:
        at = int(back[0])
        text = f"stamps go back or repeat, first at {what} {at + 1} by {-steps[at] * 1e3:.1f} ms"
        faults.append(StampFault("back", int(times[at + 1]), back.size, text))
    positive = steps[steps > 0]
    if len(positive) > 3:
        median = np.median(positive)
        gaps = np.flatnonzero(steps > GAP * median)
        if gaps.size:
            longest = gaps[np.argmax(steps[gaps])]
            text = f"a gap of {steps[longest]:.2f} s where {what}s come every {median:.3f} s"
            faults.append(StampFault("gap", int(times[longest]), gaps.size, text))
    return faults
