"""What a serialised message holds once it is read: images, calibrations, transforms and point clouds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class MessageError(ValueError):
    """A serialised message that cannot be read; says which message, which field, and what was found."""


class ImageMessage(NamedTuple):
    """sensor_msgs/Image. `data` is a flat uint8 view into the message's bytes, read-only where those are."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: np.ndarray

    @property
    def pixel_arguments(self) -> tuple[np.ndarray, int, int, int, str, bool]:
        """What `images.encodings.decode_raw` and `view_from_raw` take, in their order."""
        return self.data, self.height, self.width, self.step, self.encoding, self.is_bigendian


class CompressedImageMessage(NamedTuple):
    """sensor_msgs/CompressedImage. `data` is a flat uint8 view into the message's bytes, read-only where those are."""

    stamp_ns: int
    frame_id: str
    format: str
    data: np.ndarray


class VideoMessage(NamedTuple):
    """One packet of a video: foxglove_msgs/CompressedVideo or ffmpeg_image_transport_msgs/FFMPEGPacket.

    `format` names the codec (`renderocc_model.images.video_packets.codec_of`). `data` is a flat uint8 view into the
    message's bytes, read-only where those are.
    """

    stamp_ns: int
    frame_id: str
    format: str
    data: np.ndarray


class RegionOfInterest(NamedTuple):
    """sensor_msgs/RegionOfInterest, in pixels; all zero means the whole image."""

    x_offset: int
    y_offset: int
    height: int
    width: int
    do_rectify: bool


class CameraInfoMessage(NamedTuple):
    """sensor_msgs/CameraInfo. D (n,), K (3, 3), R (3, 3), P (3, 4): float64, copied."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    distortion_model: str
    D: np.ndarray
    K: np.ndarray
    R: np.ndarray
    P: np.ndarray
    binning_x: int
    binning_y: int
    roi: RegionOfInterest


class TransformMessage(NamedTuple):
    """geometry_msgs/TransformStamped: parent_from_child at `stamp_ns`. Metres; the quaternion is (x, y, z, w)."""

    stamp_ns: int
    parent: str
    child: str
    translation: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


class PointField(NamedTuple):
    """sensor_msgs/PointField: where a value of each point lies, in bytes from the point's start, and of what type."""

    name: str
    offset: int
    datatype: int
    count: int  # type: ignore[assignment]  # the name in ROS; it hides the method of tuples


# sensor_msgs/PointField INT8 .. FLOAT64
POINT_FIELD_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


class PointCloudMessage(NamedTuple):
    """sensor_msgs/PointCloud2. `data` is a flat uint8 view into the message's bytes; `column` reads values from it."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    fields: tuple[PointField, ...]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: np.ndarray
    is_dense: bool

    def __len__(self) -> int:
        """Number of points, also of those that are NaN."""
        return self.height * self.width

    def column(self, name: str) -> np.ndarray:
        """One field of every point, row after row, in native byte order, copied.

        Returns:
            (points,), or (points, count) for a field of several values.
        Raises:
            MessageError: there is no such field, its type is unknown, or it lies outside the bytes.
        """
        field = next((field for field in self.fields if field.name == name), None)
        if field is None:
            there = ", ".join(field.name for field in self.fields) or "none"
            raise MessageError(f"PointCloud2: there is no field '{name}'; it has {there}")
        if field.datatype not in POINT_FIELD_TYPES:
            raise MessageError(f"PointCloud2: field '{name}' has datatype {field.datatype}; expected 1 to 8")
        kind = np.dtype((">" if self.is_bigendian else "<") + POINT_FIELD_TYPES[field.datatype])
        count = max(field.count, 1)  # some drivers leave the field's count at 0
        points = self.height * self.width
        if points == 0:
            values = np.empty(0, kind)  # without points, steps and counts do not matter
        else:
            if field.offset + count * kind.itemsize > self.point_step:
                raise MessageError(
                    f"PointCloud2: field '{name}' reaches to byte {field.offset + count * kind.itemsize} of a point, "
                    f"but point_step is {self.point_step}"
                )
            needed = (self.height - 1) * self.row_step + self.width * self.point_step
            if needed > self.data.size or (self.height > 1 and self.row_step < self.width * self.point_step):
                raise MessageError(
                    f"PointCloud2: {self.height} rows of {self.width} points with point_step {self.point_step} and "
                    f"row_step {self.row_step} do not fit its {self.data.size} bytes"
                )
            strides = (self.row_step, self.point_step, kind.itemsize)
            values = np.ndarray((self.height, self.width, count), kind, self.data, field.offset, strides)
        values = values.reshape(points, count).astype(kind.newbyteorder("="))
        return values[:, 0] if count == 1 else values

    def xyz(self) -> np.ndarray:
        """(points, 3) float64, metres in `frame_id`; points without a return stay NaN. Errors as in `column`."""
        columns = [self.column(axis) for axis in "xyz"]
        for axis, column in zip("xyz", columns):
            if column.ndim > 1:
                raise MessageError(f"PointCloud2: field '{axis}' has {column.shape[1]} values a point; expected one")
        return np.stack([column.astype(np.float64) for column in columns], axis=-1)
