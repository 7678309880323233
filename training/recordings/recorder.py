"""Writes recordings: images, camera_info, TF, clouds and 2D labels as a rosbag2."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.geometry.rig import Camera
from renderocc_model.geometry.transforms import quaternion_from_matrix

__all__ = ["Cloud", "LidarMount", "Recorder", "offered_qos"]

_FOREVER = QosTime(9223372036, 854775807)
_UINT8, _FLOAT32 = 2, 7  # sensor_msgs/PointField
_FORMATS = {
    "image_raw": {b"\xff\xd8": "rgb8; jpeg compressed bgr8", b"\x89P": "bgr8; png compressed bgr8"},
    "semantic": {b"\x89P": "mono8; png compressed "},
    "depth": {b"\x89P": "16UC1; png compressed "},
}


@dataclass(frozen=True)
class LidarMount:
    """A LiDAR on a vehicle: the name of its frame, and its pose base_from_lidar (4, 4)."""

    frame_id: str
    base_from_lidar: np.ndarray


@dataclass(frozen=True)
class Cloud:
    """One cloud: points (N, 3) in the LiDAR's frame, intensity (N,), and class ids (N,) uint8 or None.

    time: (N,) seconds from the stamp to each point; None for a cloud that was seen in one moment.
    """

    points: np.ndarray
    intensity: np.ndarray
    label: np.ndarray | None
    time: np.ndarray | None = None


def offered_qos(durability: QosDurability, depth: int) -> list[Qos]:
    """The QoS profile of a reliable publisher that keeps its last `depth` messages."""
    return [
        Qos(
            QosHistory.KEEP_LAST,
            depth,
            QosReliability.RELIABLE,
            durability,
            _FOREVER,
            _FOREVER,
            QosLiveliness.AUTOMATIC,
            _FOREVER,
            False,
        )
    ]


class Recorder:
    """Writes a rosbag2; to be used as a context manager. After an exception the bag has no metadata.yaml.

    Args:
        folder: a path that does not exist yet; see `training.recordings.new_bag.new_bag`.
        cameras: each has topics for its images, camera_info and labels.
        storage: "mcap" or "sqlite3".
        lidar: None for a vehicle without LiDAR.
        labels: whether there are label topics, <camera>/semantic and <camera>/depth.
    """

    def __init__(
        self, folder: Path, cameras: Iterable[Camera], storage: str, lidar: LidarMount | None, labels: bool
    ) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()])
        self._cameras, self._lidar, self._labels = tuple(cameras), lidar, labels
        self._topics: dict[str, Connection] = {}
        self.count = 0

    def __enter__(self) -> Recorder:
        self._writer.__enter__()
        self._add("/tf_static", "tf2_msgs/msg/TFMessage", offered_qos(QosDurability.TRANSIENT_LOCAL, 1))
        self._add("/tf", "tf2_msgs/msg/TFMessage", offered_qos(QosDurability.VOLATILE, 100))
        for name in (camera.name for camera in self._cameras):
            self._add(f"/{name}/image_raw/compressed", "sensor_msgs/msg/CompressedImage")
            self._add(f"/{name}/camera_info", "sensor_msgs/msg/CameraInfo")
            if self._labels:
                self._add(f"/{name}/semantic/compressed", "sensor_msgs/msg/CompressedImage")
                self._add(f"/{name}/depth/compressed", "sensor_msgs/msg/CompressedImage")
        if self._lidar:
            self._add("/lidar/points", "sensor_msgs/msg/PointCloud2")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def _add(self, topic: str, kind: str, qos: list[Qos] | None = None) -> None:
        qos = offered_qos(QosDurability.VOLATILE, 10) if qos is None else qos
        self._topics[topic] = self._writer.add_connection(topic, kind, typestore=self._store, offered_qos_profiles=qos)

    def _write(self, topic: str, stamp_ns: int, kind: str, **fields: Any) -> None:
        message = self._store.types[kind](**fields)
        self._writer.write(self._topics[topic], stamp_ns, self._store.serialize_cdr(message, kind))
        self.count += 1

    def _header(self, stamp_ns: int, frame_id: str):
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._store.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return self._store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def write_static(self, stamp_ns: int) -> None:
        """Write /tf_static: the pose of each sensor on the vehicle."""
        mounts = [(camera.frame_id or f"{camera.name}_optical", camera.base_from_camera) for camera in self._cameras]
        if self._lidar:
            mounts.append((self._lidar.frame_id, self._lidar.base_from_lidar))
        self._transforms("/tf_static", stamp_ns, [("base_link", child, mount) for child, mount in mounts])

    def write_pose(self, stamp_ns: int, odom_from_base: np.ndarray) -> None:
        """Write /tf: the vehicle's pose."""
        self._transforms("/tf", stamp_ns, [("odom", "base_link", odom_from_base)])

    def _transforms(self, topic: str, stamp_ns: int, edges: list[tuple[str, str, np.ndarray]]) -> None:
        kinds = self._store.types
        transforms = []
        for parent, child, parent_from_child in edges:
            x, y, z = map(float, parent_from_child[:3, 3])
            qx, qy, qz, qw = map(float, quaternion_from_matrix(parent_from_child[:3, :3]))
            transforms.append(
                kinds["geometry_msgs/msg/TransformStamped"](
                    header=self._header(stamp_ns, parent),
                    child_frame_id=child,
                    transform=kinds["geometry_msgs/msg/Transform"](
                        translation=kinds["geometry_msgs/msg/Vector3"](x=x, y=y, z=z),
                        rotation=kinds["geometry_msgs/msg/Quaternion"](x=qx, y=qy, z=qz, w=qw),
                    ),
                )
            )
        self._write(topic, stamp_ns, "tf2_msgs/msg/TFMessage", transforms=transforms)

    def write_camera(self, stamp_ns: int, camera: Camera, files: dict[str, bytes]) -> None:
        """Write one camera's messages with a stamp.

        Args:
            files: {"image_raw": JPEG or PNG} and, with labels, {"semantic": PNG, "depth": PNG}.
        """
        frame_id = camera.frame_id or f"{camera.name}_optical"
        for topic, forms in _FORMATS.items():
            if topic in files:
                self._write(
                    f"/{camera.name}/{topic}/compressed",
                    stamp_ns,
                    "sensor_msgs/msg/CompressedImage",
                    header=self._header(stamp_ns, frame_id),
                    format=forms[files[topic][:2]],
                    data=np.frombuffer(files[topic], np.uint8),
                )
        model = camera.model
        region = self._store.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        P = np.concatenate([model.K, np.zeros((3, 1))], 1)
        self._write(
            f"/{camera.name}/camera_info",
            stamp_ns,
            "sensor_msgs/msg/CameraInfo",
            header=self._header(stamp_ns, frame_id),
            height=model.height,
            width=model.width,
            distortion_model=model.distortion_model,
            d=np.array(model.coefficients, np.float64),
            k=model.K.ravel(),
            r=np.eye(3).ravel(),
            p=P.ravel(),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def write_sweep(self, stamp_ns: int, sweep: Cloud) -> None:
        """Write the LiDAR's cloud: x, y, z, intensity and, with times, time as float32; with labels, label as uint8."""
        assert self._lidar is not None, "a recording without a LiDAR has no sweeps"
        names = ["x", "y", "z", "intensity"]
        columns = [np.asarray(sweep.points, "<f4"), np.asarray(sweep.intensity, "<f4")[:, None]]
        if sweep.time is not None:
            names.append("time")
            columns.append(np.asarray(sweep.time, "<f4")[:, None])
        rows = np.ascontiguousarray(np.concatenate(columns, 1)).view(np.uint8)
        layout = [(name, 4 * k, _FLOAT32) for k, name in enumerate(names)]
        if sweep.label is not None:
            rows = np.concatenate([rows, np.asarray(sweep.label, np.uint8)[:, None]], 1)
            layout.append(("label", 4 * len(names), _UINT8))
        kind = self._store.types["sensor_msgs/msg/PointField"]
        count, step = rows.shape
        self._write(
            "/lidar/points",
            stamp_ns,
            "sensor_msgs/msg/PointCloud2",
            header=self._header(stamp_ns, self._lidar.frame_id),
            height=1,
            width=count,
            fields=[kind(name=name, offset=offset, datatype=form, count=1) for name, offset, form in layout],
            is_bigendian=False,
            point_step=step,
            row_step=step * count,
            data=rows.ravel(),
            is_dense=True,
        )
