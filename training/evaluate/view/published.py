"""Reads what the node published, where a recording has it: the outputs that `ros2 bag record` or the demo kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.undistortion import View
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from training.recordings.frames import FrameIndex, Recording
from training.recordings.label_images import depth_image
from training.recordings.stamped_topic import StampedTopic

from .contents import RenderedView, Voxels

__all__ = ["PublishedOutputs", "classes_of_json", "node_of", "spacing"]

_CLOUD, _IMAGE, _INFO = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
_STRING = "std_msgs/msg/String"
_FINEST = 0.01  # metres; smaller differences between coordinates come from rounding
_UNKNOWN_SIZE = 0.2  # metres, edge of the voxels of a cloud from which it cannot be found


class PublishedOutputs:
    """The outputs of a node in a recording.

    Args:
        recording: an open recording.
        node: the node's name with its namespace, see `node_of`.
    Attributes:
        classes: the node's class table.
        stamps: of the volumes, ascending.
        notes: nothing; for likeness with `PredictedOutputs`.
    Raises:
        ValueError: the topic of the classes cannot be read.
    """

    def __init__(self, recording: Recording, node: str) -> None:
        self._recording, self.notes = recording, list[str]()
        bag = recording.bag
        _, _, data = next(iter(bag.messages([f"{node}/classes"])))
        self.classes = classes_of_json(cdr.read_string(data), f"{recording.path}: {node}/classes")
        self._points = StampedTopic(bag, f"{node}/points", tolerant=True)
        self._map = self._topic(f"{node}/map/points", _CLOUD)
        self._rendered = {
            camera: {
                kind: self._topic(f"{node}/rendered/{camera}/{kind}", _INFO if kind == "camera_info" else _IMAGE)
                for kind in ("semantic", "depth", "camera_info")
            }
            for camera in recording.cameras
        }
        self.stamps = self._points.stamps

    def _topic(self, name: str, kind: str) -> StampedTopic | None:
        topic = self._recording.bag.topics.get(name)
        there = topic is not None and topic.count and topic.type == kind
        return StampedTopic(self._recording.bag, name, tolerant=True) if there else None

    def of_frame(
        self,
        frame: FrameIndex,
        images: Mapping[str, np.ndarray],
        poses: Mapping[str, np.ndarray],
        odom_from_base: np.ndarray,
    ) -> tuple[Voxels | None, Voxels | None, dict[str, RenderedView]]:
        """What the node published with the frame's stamp. Arguments and results as in `PredictedOutputs`.

        Raises:
            ValueError: a message cannot be read.
        """
        rendered = {}
        for camera in poses:
            header_ns = self._recording.header_stamp(camera, frame.images[camera])
            stamp_ns = next((stamp for stamp in (frame.images[camera], header_ns) if self._has(camera, stamp)), None)
            if stamp_ns is not None:
                rendered[camera] = self._view(camera, stamp_ns, poses[camera])
        return _voxels(self._points, frame.stamp_ns), _voxels(self._map, frame.stamp_ns), rendered

    def _has(self, camera: str, stamp_ns: int) -> bool:
        topics = self._rendered[camera]
        info, views = topics["camera_info"], (topics["semantic"], topics["depth"])
        return info is not None and stamp_ns in info and any(view is not None and stamp_ns in view for view in views)

    def _view(self, camera: str, stamp_ns: int, base_from_camera: np.ndarray) -> RenderedView:
        topics = self._rendered[camera]
        images: dict[str, np.ndarray | None] = {"semantic": None, "depth": None}
        for kind in images:
            topic = topics[kind]
            if topic is not None and stamp_ns in topic:
                images[kind] = _pixels(kind, cdr.read_image(topic.read(stamp_ns)))
        topic = topics["camera_info"]
        assert topic is not None  # `_has` looked
        info = cdr.read_camera_info(topic.read(stamp_ns))
        return RenderedView(
            View(info.width, info.height, info.K), base_from_camera, images["semantic"], images["depth"]
        )


def node_of(bag: Bag) -> str | None:
    """The name of the node whose outputs a recording has: volumes as points, and their classes. None without."""
    for name, topic in bag.topics.items():
        node, _, last = name.rpartition("/")
        points = bag.topics.get(f"{node}/points")
        if last == "classes" and topic.type == _STRING and topic.count and points is not None:
            if points.type == _CLOUD and points.count:
                return node
    return None


def classes_of_json(text: str, where: str) -> ClassTable:
    """The class table that the node published on `~/classes`.

    Raises:
        ValueError: the text is something else; the error begins with `where`.
    """
    try:
        told = json.loads(text)
        rows = sorted(told["classes"], key=lambda row: row["id"])
        if [row["id"] for row in rows] != list(range(len(rows))):
            raise ValueError("its ids are not 0, 1, 2, ...")
        return ClassTable(
            tuple(row["name"] for row in rows),
            tuple(tuple(row["color"]) for row in rows),
            tuple(row["id"] for row in rows if row["dynamic"]),
            told["free"],
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: is no class table of the node ({error}); run a network with --checkpoint") from None


def spacing(points: np.ndarray) -> float | None:
    """The edge of the voxels whose centres these are: the smallest step between their coordinates on an axis.

        >>> spacing(np.array([[0.2, 0.2, 0.2], [1.0, 0.2, 0.2], [0.6, 1.0, 0.2]]))
        0.4

    Args:
        points: (N, 3) metres.
    Returns:
        metres, to the millimetre; None if all points are one.
    """
    steps = []
    for column in points.T:
        values = np.unique(column)
        steps += [step for step in (b - a for a, b in pairwise(values.tolist())) if step > _FINEST]
    return round(min(steps), 3) if steps else None


def _voxels(topic: StampedTopic | None, stamp_ns: int) -> Voxels | None:
    if topic is None or stamp_ns not in topic:
        return None
    cloud = cdr.read_point_cloud(topic.read(stamp_ns))
    points = cloud.xyz()
    labels = cloud.column("label").astype(np.uint8)
    return Voxels(points.astype(np.float32), labels, spacing(points) or _UNKNOWN_SIZE)


def _pixels(kind: str, message: cdr.ImageMessage) -> np.ndarray:
    if kind == "depth":
        return depth_image(message, message.height, message.width)
    return decode_raw(*message.pixel_arguments)
