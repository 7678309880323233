"""Reads serialised ROS 2 messages (CDR) without message objects; pixels stay where they are, as views.

Both byte orders are read. Every declared length is checked against the bytes that are left before anything is made from
it, so a broken message takes no memory. Bytes after the last field are ignored, as ROS's own deserialisers ignore them
(transports pad). Only whether a message can be read is checked here, not its values (a step that does not fit a width,
a K of zeros).
"""

from __future__ import annotations

import struct

import numpy as np

from .cdr_messages import (
    CameraInfoMessage,
    CompressedImageMessage,
    ImageMessage,
    MessageError,
    PointCloudMessage,
    PointField,
    RegionOfInterest,
    TransformMessage,
    VideoMessage,
)

_NANOSECONDS = 1_000_000_000
_ENCAPSULATION_BYTES = 4
_LAYOUTS = {order: {code: struct.Struct(order + code) for code in ("I", "Q", "iI", "7d", "IIIIIIB")} for order in "<>"}
# Smallest size of a TransformStamped: stamp 8, the lengths of two empty strings 4 + 4, seven doubles 56.
_SMALLEST_TRANSFORM = 72
# Transforms become Python objects, a dozen times the size of their bytes. No robot has as many frames.
_MOST_TRANSFORMS = 10_000
# The fields of a Livox CustomPoint, each at its place (PointField of PointCloud2); with padding it takes 20 bytes.
_LIVOX_FIELDS = (
    PointField("offset_time", 0, 6, 1),
    *(PointField(axis, 4 + 4 * index, 7, 1) for index, axis in enumerate("xyz")),
    *(PointField(name, 16 + index, 2, 1) for index, name in enumerate(("reflectivity", "tag", "line"))),
)
_LIVOX_POINT, _LIVOX_STEP = 19, 20
_SMALLEST_POINT_FIELD = 16  # the length of an empty name 4, offset 4, datatype 1 with padding 4, count 4


class _Cursor:
    """Reads one message from front to back. Each read first checks that the bytes are there."""

    __slots__ = ("message", "view", "order", "layouts", "offset")

    def __init__(self, buffer, message: str):
        self.message = message
        try:
            self.view = memoryview(buffer).cast("B")
        except TypeError as error:
            raise MessageError(f"{message}: expected contiguous bytes, got {type(buffer).__name__} ({error})") from None
        if len(self.view) < _ENCAPSULATION_BYTES:
            raise MessageError(
                f"{message}: got {len(self.view)} bytes; even an empty serialised message has {_ENCAPSULATION_BYTES}"
            )
        kind = self.view[0] << 8 | self.view[1]
        if kind > 1:
            raise MessageError(
                f"{message}: encapsulation 0x{kind:04x} is not plain CDR (0x0000 or 0x0001), which is what ROS 2 "
                "sends; pass the whole serialised message"
            )
        self.order = "<" if kind else ">"
        self.layouts = _LAYOUTS[self.order]
        self.offset = _ENCAPSULATION_BYTES

    def skip(self, field: str, count: int, alignment: int) -> int:
        """Step over `count` bytes after aligning; returns where they start."""
        start = self.offset + (_ENCAPSULATION_BYTES - self.offset) % alignment
        if start + count > len(self.view):
            raise MessageError(
                f"{self.message}: '{field}' needs {count} bytes at byte {start}, but the message ends at byte "
                f"{len(self.view)}; it was cut short or is of another type"
            )
        self.offset = start + count
        return start

    def numbers(self, field: str, code: str, alignment: int = 4) -> tuple:
        layout = self.layouts[code]
        return layout.unpack_from(self.view, self.skip(field, layout.size, alignment))

    def uint32(self, field: str) -> int:
        return self.numbers(field, "I")[0]

    def boolean(self, field: str, value: int) -> bool:
        if value > 1:
            raise MessageError(f"{self.message}: '{field}' is a bool but holds {value}")
        return value == 1

    def string(self, field: str) -> str:
        length = self.uint32(field)
        if length == 0:  # against the standard, but some writers send it and all readers accept it
            return ""
        start = self.skip(field, length, 1)
        raw = bytes(self.view[start : start + length])
        if raw.find(0) != length - 1:
            raise MessageError(f"{self.message}: '{field}' is not text with a single NUL at its end: {raw[:40]!r}")
        try:
            return str(raw[:-1], "utf-8")
        except UnicodeDecodeError:
            raise MessageError(f"{self.message}: '{field}' is not UTF-8: {raw[:40]!r}") from None

    def header(self) -> tuple[int, str]:
        seconds, nanoseconds = self.numbers("header.stamp", "iI")
        return seconds * _NANOSECONDS + nanoseconds, self.string("header.frame_id")

    def float64(self, field: str, count: int) -> np.ndarray:
        if count == 0:
            return np.empty(0)
        start = self.skip(field, 8 * count, 8)
        return np.frombuffer(self.view, self.order + "f8", count, start).astype(np.float64)

    def bytes(self, field: str) -> np.ndarray:
        count = self.uint32(field)
        start = self.skip(field, count, 1)
        return np.frombuffer(self.view[start : start + count], np.uint8)


def read_header(buffer) -> tuple[int, str]:
    """The stamp in nanoseconds and the frame of any message that begins with a std_msgs/Header.

    Raises:
        MessageError: the bytes are too few for a header.
    """
    return _Cursor(buffer, "Header").header()


def read_string(buffer) -> str:
    """The text of a std_msgs/String."""
    return _Cursor(buffer, "String").string("data")


def read_image(buffer) -> ImageMessage:
    """A sensor_msgs/Image; its `data` is not copied and may be any length, whatever height, width and step say.

    Args:
        buffer: the serialised message, bytes or anything else with a contiguous buffer; it must not change while `data`
            is in use.
    Raises:
        MessageError: the bytes are cut short or are not such a message.
    """
    cursor = _Cursor(buffer, "Image")
    stamp_ns, frame_id = cursor.header()
    height = cursor.uint32("height")
    width = cursor.uint32("width")
    encoding = cursor.string("encoding")
    is_bigendian = cursor.view[cursor.skip("is_bigendian", 1, 1)] != 0  # a uint8 in ROS, so anything but 0 is true
    step = cursor.uint32("step")
    return ImageMessage(stamp_ns, frame_id, height, width, encoding, is_bigendian, step, cursor.bytes("data"))


def read_compressed_image(buffer) -> CompressedImageMessage:
    """A sensor_msgs/CompressedImage; its `data` is not copied. Arguments and errors are those of `read_image`."""
    cursor = _Cursor(buffer, "CompressedImage")
    stamp_ns, frame_id = cursor.header()
    return CompressedImageMessage(stamp_ns, frame_id, cursor.string("format"), cursor.bytes("data"))


def read_compressed_video(buffer) -> VideoMessage:
    """A foxglove_msgs/CompressedVideo; its `data` is not copied. Arguments and errors are those of `read_image`."""
    cursor = _Cursor(buffer, "CompressedVideo")
    stamp_ns, frame_id = cursor.header()  # timestamp and frame_id, which have the same bytes
    data = cursor.bytes("data")
    return VideoMessage(stamp_ns, frame_id, cursor.string("format"), data)


def read_ffmpeg_packet(buffer) -> VideoMessage:
    """An ffmpeg_image_transport_msgs/FFMPEGPacket; its `data` is not copied; else as `read_image`."""
    cursor = _Cursor(buffer, "FFMPEGPacket")
    stamp_ns, frame_id = cursor.header()
    cursor.skip("width and height", 8, 4)
    encoding = cursor.string("encoding")
    cursor.skip("pts", 8, 8)
    cursor.skip("flags and is_bigendian", 2, 1)
    return VideoMessage(stamp_ns, frame_id, encoding, cursor.bytes("data"))


def read_camera_info(buffer) -> CameraInfoMessage:
    """A sensor_msgs/CameraInfo.

    Raises:
        MessageError: the bytes are cut short or are not such a message. What the matrices hold is not checked here.
    """
    cursor = _Cursor(buffer, "CameraInfo")
    stamp_ns, frame_id = cursor.header()
    height = cursor.uint32("height")
    width = cursor.uint32("width")
    distortion_model = cursor.string("distortion_model")
    distortion = cursor.float64("d", cursor.uint32("d"))
    intrinsics = cursor.float64("k", 9).reshape(3, 3)
    rectification = cursor.float64("r", 9).reshape(3, 3)
    projection = cursor.float64("p", 12).reshape(3, 4)
    binning_x, binning_y, x, y, roi_height, roi_width, do_rectify = cursor.numbers("roi", "IIIIIIB")
    roi = RegionOfInterest(x, y, roi_height, roi_width, cursor.boolean("roi.do_rectify", do_rectify))
    return CameraInfoMessage(
        stamp_ns,
        frame_id,
        height,
        width,
        distortion_model,
        distortion,
        intrinsics,
        rectification,
        projection,
        binning_x,
        binning_y,
        roi,
    )


def read_point_cloud(buffer) -> PointCloudMessage:
    """A sensor_msgs/PointCloud2; its `data` is not copied, see `read_image`.

    Raises:
        MessageError: the bytes are cut short or are not such a message. `column` checks whether a field fits the bytes.
    """
    cursor = _Cursor(buffer, "PointCloud2")
    stamp_ns, frame_id = cursor.header()
    height = cursor.uint32("height")
    width = cursor.uint32("width")
    count = cursor.uint32("fields")
    left = len(cursor.view) - cursor.offset
    if count * _SMALLEST_POINT_FIELD > left:
        raise MessageError(
            f"PointCloud2: 'fields' declares {count} of them, which do not fit into the {left} bytes left; "
            "the message was cut short or is of another type"
        )
    fields = []
    for _ in range(count):
        name = cursor.string("fields.name")
        offset = cursor.uint32("fields.offset")
        datatype = cursor.view[cursor.skip("fields.datatype", 1, 1)]
        fields.append(PointField(name, offset, datatype, cursor.uint32("fields.count")))
    is_bigendian = cursor.boolean("is_bigendian", cursor.view[cursor.skip("is_bigendian", 1, 1)])
    point_step = cursor.uint32("point_step")
    row_step = cursor.uint32("row_step")
    data = cursor.bytes("data")
    if height * width > data.size:
        raise MessageError(f"PointCloud2: {height} rows of {width} points do not fit its {data.size} bytes")
    is_dense = cursor.boolean("is_dense", cursor.view[cursor.skip("is_dense", 1, 1)])
    return PointCloudMessage(
        stamp_ns, frame_id, height, width, tuple(fields), is_bigendian, point_step, row_step, data, is_dense
    )


def read_livox(buffer) -> PointCloudMessage:
    """A CustomMsg of the Livox drivers as a PointCloud2 of one row; its `data` is copied.

    Its fields are offset_time (uint32, nanoseconds after the stamp), x, y, z (float32), reflectivity, tag and line
    (uint8). livox_ros_driver, livox_ros_driver2 and livox_interfaces have the same message.

    Raises:
        MessageError: the bytes are cut short or are not such a message.
    """
    cursor = _Cursor(buffer, "CustomMsg")
    stamp_ns, frame_id = cursor.header()
    cursor.numbers("timebase", "Q", 8)  # the stamp once more, of the LiDAR's clock
    cursor.uint32("point_num")
    cursor.skip("rsvd", 4, 1)  # lidar_id, and three bytes that are not used
    count = cursor.uint32("points")
    start = cursor.skip("points", _LIVOX_STEP * count - (_LIVOX_STEP - _LIVOX_POINT) if count else 0, 4 if count else 1)
    data = np.zeros(_LIVOX_STEP * count, np.uint8)
    held = np.frombuffer(cursor.view[start : cursor.offset], np.uint8)
    data[: held.size] = held
    return PointCloudMessage(
        stamp_ns, frame_id, 1, count, _LIVOX_FIELDS, cursor.order == ">", _LIVOX_STEP, data.size, data, True
    )


def read_tf(buffer) -> list[TransformMessage]:
    """The transforms of a tf2_msgs/TFMessage, in order.

    Raises:
        MessageError: the bytes are cut short or are not such a message. Frames and numbers are not checked here; see
            `TransformBuffer.set`.
    """
    cursor = _Cursor(buffer, "TFMessage")
    count = cursor.uint32("transforms")
    left = len(cursor.view) - cursor.offset
    if count * _SMALLEST_TRANSFORM > left:
        raise MessageError(
            f"TFMessage: 'transforms' declares {count} of them, which do not fit into the {left} bytes left; "
            "the message was cut short or is of another type"
        )
    if count > _MOST_TRANSFORMS:
        raise MessageError(f"TFMessage: holds {count} transforms; expected at most {_MOST_TRANSFORMS}")
    transforms = []
    for _ in range(count):
        stamp_ns, parent = cursor.header()
        child = cursor.string("child_frame_id")
        pose = cursor.numbers("transform", "7d", 8)
        transforms.append(TransformMessage(stamp_ns, parent, child, pose[:3], pose[3:]))
    return transforms


def read_odometry(buffer) -> TransformMessage:
    """The pose of a nav_msgs/Odometry: parent is its fixed frame, child the frame that moves, which may be empty.

    Raises:
        MessageError: the bytes are cut short or are not such a message. Frames and numbers are not checked here.
    """
    cursor = _Cursor(buffer, "Odometry")
    stamp_ns, parent = cursor.header()
    child = cursor.string("child_frame_id")
    pose = cursor.numbers("pose", "7d", 8)
    return TransformMessage(stamp_ns, parent, child, pose[:3], pose[3:])
