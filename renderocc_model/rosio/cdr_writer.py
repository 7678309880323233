"""Writes large messages as little-endian CDR straight from arrays.

The few bytes before, between and after the arrays are packed one by one; NumPy brings the arrays into the message's
layout, and one copy joins them, because `Publisher.publish` takes `bytes`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

_NANOSECONDS = 1_000_000_000
_POINT_FIELD_DATATYPE = {"u4": 6, "f4": 7}  # sensor_msgs/PointField: UINT32, FLOAT32
_CUBE_LIST, _ADD, _DELETE = 6, 0, 2  # visualization_msgs/Marker
_IDENTITY_ORIENTATION = (0.0, 0.0, 0.0, 1.0)

# The layout of one published point, 24 bytes. `rgb` is PCL's: 0x00RRGGBB in the bits of a float32.
POINT_DTYPE = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4"), ("confidence", "<f4"), ("label", "<u4")]
)

# encoding: (element type, channels)
IMAGE_ENCODINGS = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "mono8": ("u1", 1),
    "mono16": ("<u2", 1),
    "16UC1": ("<u2", 1),
    "32FC1": ("<f4", 1),
}


class _Bytes:
    """The small fields of a message, each aligned to its size counted from the end of the encapsulation header."""

    def __init__(self, encapsulation: bytes = b"\x00\x01\x00\x00"):
        self.data = bytearray(encapsulation)
        self.origin = len(encapsulation)

    def pack(self, code: str, *values) -> None:
        """Numbers of one type: `code` is a struct character, values as many as given."""
        alignment = struct.calcsize("<" + code)
        self.data += bytes((self.origin - len(self.data)) % alignment)
        self.data += struct.pack(f"<{len(values)}{code}", *values)

    def string(self, text: str) -> None:
        raw = text.encode()
        if 0 in raw:
            raise ValueError(f"{text!r} holds a NUL character, which a ROS string cannot hold")
        self.pack("I", len(raw) + 1)
        self.data += raw + b"\x00"

    def stamp(self, stamp_ns: int) -> None:
        seconds, nanoseconds = divmod(int(stamp_ns), _NANOSECONDS)
        if not -(2**31) <= seconds < 2**31:
            raise ValueError(f"stamp {stamp_ns} ns does not fit a ROS time (32-bit seconds); give nanoseconds")
        self.pack("i", seconds)
        self.pack("I", nanoseconds)

    def header(self, stamp_ns: int, frame_id: str) -> None:
        self.stamp(stamp_ns)
        self.string(frame_id)


def _marker_end() -> bytes:
    """The last fields of a marker without texture, text and mesh; they begin at a multiple of 4, their largest
    alignment."""
    end = _Bytes(encapsulation=b"")
    end.string("")  # texture_resource
    end.header(0, "")  # texture
    end.string("")
    end.pack("I", 0)
    end.pack("I", 0)  # uv_coordinates
    end.string("")  # text
    end.string("")  # mesh_resource
    end.string("")  # mesh_file
    end.pack("I", 0)
    end.pack("B", 0)  # mesh_use_embedded_materials
    return bytes(end.data)


_MARKER_END = _marker_end()


def write_point_cloud(
    stamp_ns: int, frame_id: str, xyz: ArrayLike, colours: ArrayLike, confidence: ArrayLike, labels: ArrayLike
) -> bytes:
    """A serialised sensor_msgs/PointCloud2 of one row with the fields of `POINT_DTYPE`.

    Args:
        stamp_ns: stamp in nanoseconds.
        frame_id: frame of the points.
        xyz: (N, 3) in metres; N may be 0.
        colours: (N, 3) RGB, uint8.
        confidence: (N,).
        labels: (N,) class ids, of any integer type.
    Raises:
        ValueError: the arrays are not of these shapes and types.
    """
    xyz, colours, confidence, labels = (np.asarray(values) for values in (xyz, colours, confidence, labels))
    count = len(xyz)
    expected = {"xyz": (count, 3), "colours": (count, 3), "confidence": (count,), "labels": (count,)}
    _check_shapes(expected, xyz=xyz, colours=colours, confidence=confidence, labels=labels)
    if colours.dtype != np.uint8 or labels.dtype.kind not in "ui":
        raise ValueError(f"colours are {colours.dtype} and labels {labels.dtype}; expected uint8 and integers")
    points = np.empty(count, POINT_DTYPE)
    for axis, name in enumerate("xyz"):
        points[name] = xyz[:, axis]
    blue_green_red = np.zeros((count, 4), np.uint8)  # the little-endian bytes of 0x00RRGGBB
    blue_green_red[:, :3] = colours[:, ::-1]
    points["rgb"] = blue_green_red.view("<f4")[:, 0]
    points["confidence"] = confidence
    points["label"] = labels

    head = _Bytes()
    head.header(stamp_ns, frame_id)
    head.pack("I", 1, count)
    fields: Mapping = POINT_DTYPE.fields or {}
    head.pack("I", len(fields))
    for name, (kind, offset, *_) in fields.items():
        head.string(name)
        head.pack("I", offset)
        head.pack("B", _POINT_FIELD_DATATYPE[kind.str[1:]])
        head.pack("I", 1)
    head.pack("B", 0)  # is_bigendian
    head.pack("I", POINT_DTYPE.itemsize, points.nbytes)
    head.pack("I", points.nbytes)
    is_dense = bool(np.isfinite(xyz).all())
    return b"".join((head.data, points.data, struct.pack("<B", is_dense)))


def write_markers(
    stamp_ns: int,
    frame_id: str,
    centres: ArrayLike,
    colours: ArrayLike,
    voxel_size: float,
    namespace: str = "occupancy",
) -> bytes:
    """A serialised visualization_msgs/MarkerArray with one CUBE_LIST of equal cubes.

    Without cubes its marker has the action DELETE: RViz refuses an empty list and would go on showing the last one.

    Args:
        stamp_ns: stamp in nanoseconds.
        frame_id: frame of the centres.
        centres: (N, 3) in metres.
        colours: (N, 4) RGBA, 0..1.
        voxel_size: edge of a cube in metres.
        namespace: the marker's namespace; its id in there is 0.
    Raises:
        ValueError: the arrays are not of these shapes, or the size is not a positive number.
    """
    centres = np.ascontiguousarray(centres, "<f8")
    colours = np.ascontiguousarray(colours, "<f4")
    count = len(centres)
    _check_shapes({"centres": (count, 3), "colours": (count, 4)}, centres=centres, colours=colours)
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise ValueError(f"voxel_size is {voxel_size}; a cube needs a positive edge in metres")

    head = _Bytes()
    head.pack("I", 1)  # one marker
    head.header(stamp_ns, frame_id)
    head.string(namespace)
    head.pack("i", 0, _CUBE_LIST, _ADD if count else _DELETE)
    head.pack("d", 0.0, 0.0, 0.0, *_IDENTITY_ORIENTATION)
    head.pack("d", voxel_size, voxel_size, voxel_size)
    head.pack("f", 1.0, 1.0, 1.0, 1.0)
    head.pack("i", 0, 0)  # lifetime: until replaced
    head.pack("B", 0)  # frame_locked
    head.pack("I", count)
    if count:  # an empty sequence has no elements, so nothing is aligned after it
        head.pack("d")
    return b"".join((head.data, centres.data, struct.pack("<I", count), colours.data, _MARKER_END))


def write_occupancy_grid(
    stamp_ns: int,
    frame_id: str,
    values: ArrayLike,
    resolution: float,
    origin_x: float,
    origin_y: float,
    origin_z: float = 0.0,
) -> bytes:
    """A serialised nav_msgs/OccupancyGrid; its axes are parallel to those of the frame.

    Args:
        stamp_ns: stamp in nanoseconds, also given as the map's load time.
        frame_id: frame of the origin.
        values: (X, Y) indexed [x, y]: 0..100, or -1 for unknown.
        resolution: edge of a cell in metres.
        origin_x, origin_y, origin_z: the lower corner of cell [0, 0] in metres.
    Raises:
        ValueError: not two axes, a value outside -1..100, or a resolution that is not a positive number.
    """
    values = np.asarray(values)
    _check_cells(values)
    if not (math.isfinite(resolution) and resolution > 0):
        raise ValueError(f"resolution is {resolution}; a cell needs a positive edge in metres")
    width, height = values.shape
    head = _Bytes()
    head.header(stamp_ns, frame_id)
    head.stamp(stamp_ns)
    head.pack("f", resolution)
    head.pack("I", width, height)
    head.pack("d", origin_x, origin_y, origin_z, *_IDENTITY_ORIENTATION)
    head.pack("I", values.size)
    rows = np.ascontiguousarray(values.T, np.int8)  # x runs fastest in the message
    return b"".join((head.data, rows.data))


def write_occupancy_grid_update(stamp_ns: int, frame_id: str, values: ArrayLike, x: int, y: int) -> bytes:
    """A serialised map_msgs/OccupancyGridUpdate: a rectangle of cells that replaces those of the last whole grid.

    Args:
        stamp_ns: stamp in nanoseconds.
        frame_id: frame of the grid.
        values: (X, Y) indexed [x, y]: 0..100, or -1 for unknown.
        x, y: the cell of the grid that values[0, 0] replaces.
    Raises:
        ValueError: not two axes, or a value outside -1..100.
    """
    values = np.asarray(values)
    _check_cells(values)
    head = _Bytes()
    head.header(stamp_ns, frame_id)
    head.pack("i", x, y)
    head.pack("I", *values.shape)
    head.pack("I", values.size)
    rows = np.ascontiguousarray(values.T, np.int8)  # x runs fastest in the message
    return b"".join((head.data, rows.data))


def write_image(stamp_ns: int, frame_id: str, array: ArrayLike, encoding: str) -> bytes:
    """A serialised sensor_msgs/Image without padding between rows.

    Args:
        stamp_ns: stamp in nanoseconds.
        frame_id: frame of the camera.
        array: (H, W, 3) uint8 for rgb8 and bgr8; (H, W) of uint8 for mono8, uint16 for mono16 and 16UC1, float32
            for 32FC1.
        encoding: one of `IMAGE_ENCODINGS`.
    Raises:
        ValueError: another encoding, or an array of another type or shape (numbers are not converted in silence).
    """
    if encoding not in IMAGE_ENCODINGS:
        raise ValueError(f"encoding '{encoding}' cannot be written; choose one of {', '.join(IMAGE_ENCODINGS)}")
    kind, channels = IMAGE_ENCODINGS[encoding]
    array = np.asarray(array)
    shape = array.shape[:2] + (channels,) if channels > 1 else array.shape[:2]
    if array.dtype != np.dtype(kind) or array.ndim < 2 or array.shape != shape:
        raise ValueError(
            f"{encoding} image: got {array.dtype} {array.shape}; expected {np.dtype(kind)} "
            + (f"(height, width, {channels})" if channels > 1 else "(height, width)")
        )
    height, width = array.shape[:2]
    step = width * channels * array.dtype.itemsize
    head = _Bytes()
    head.header(stamp_ns, frame_id)
    head.pack("I", height, width)
    head.string(encoding)
    head.pack("B", 0)  # is_bigendian
    head.pack("I", step)
    head.pack("I", array.nbytes)
    return b"".join((head.data, np.ascontiguousarray(array, kind).data))


def write_compressed_image(stamp_ns: int, frame_id: str, format: str, data: bytes) -> bytes:
    """A serialised sensor_msgs/CompressedImage.

    Args:
        stamp_ns: stamp in nanoseconds.
        frame_id: frame of the camera.
        format: as image_transport writes it, such as "mono8; png compressed ".
        data: the file, JPEG or PNG.
    """
    head = _Bytes()
    head.header(stamp_ns, frame_id)
    head.string(format)
    head.pack("I", len(data))
    return b"".join((head.data, data))


def _check_cells(values: np.ndarray) -> None:
    if values.ndim != 2:
        raise ValueError(f"values has the shape {values.shape}; expected (X, Y)")
    if values.size and not (values.min() >= -1 and values.max() <= 100):
        raise ValueError(
            f"values reach from {values.min()} to {values.max()}; an occupancy grid holds -1 (unknown) and 0..100"
        )


def _check_shapes(expected: dict[str, tuple[int, ...]], **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise ValueError(f"{name} has the shape {array.shape}; expected {expected[name]}")
