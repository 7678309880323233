"""A recording of the town as a rosbag2: messages from pictures, sweeps and poses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.geometry import quaternion_from_matrix
from renderocc_model.rig import Camera, Rig

from .sensors import Lidar, Sweep

__all__ = ["Recording"]

_FOREVER = QosTime(9223372036, 854775807)
_JPEG_QUALITY = 92


def _qos(durability: QosDurability, depth: int) -> list[Qos]:
    return [
        Qos(QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability, _FOREVER, _FOREVER,
            QosLiveliness.AUTOMATIC, _FOREVER, False)
    ]  # fmt: skip


class Recording:
    """A rosbag2 being written; use as a context manager. What is left by an exception has no metadata.yaml.

    Args:
        folder: does not exist yet.
        rig: its cameras' images, labels and camera_info are the topics.
        storage: "mcap" or "sqlite3".
        lidar: None for a car without one.
        labels: also write <camera>/semantic and <camera>/depth.
    """

    def __init__(self, folder: Path, rig: Rig, storage: str, lidar: Lidar | None, labels: bool) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()])
        self._rig, self._lidar, self._labels = rig, lidar, labels
        self._topics = {}

    def __enter__(self) -> Recording:
        self._writer.__enter__()
        self._add("/tf_static", "tf2_msgs/msg/TFMessage", _qos(QosDurability.TRANSIENT_LOCAL, 1))
        self._add("/tf", "tf2_msgs/msg/TFMessage", _qos(QosDurability.VOLATILE, 100))
        for name in self._rig.names:
            self._add(f"/{name}/image_raw/compressed", "sensor_msgs/msg/CompressedImage")
            self._add(f"/{name}/camera_info", "sensor_msgs/msg/CameraInfo")
            if self._labels:
                self._add(f"/{name}/semantic/compressed", "sensor_msgs/msg/CompressedImage")
                self._add(f"/{name}/depth/compressed", "sensor_msgs/msg/CompressedImage")
        if self._lidar:
            self._add("/lidar/points", "sensor_msgs/msg/PointCloud2")
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def _add(self, topic: str, kind: str, qos: list[Qos] | None = None) -> None:
        qos = _qos(QosDurability.VOLATILE, 10) if qos is None else qos
        self._topics[topic] = self._writer.add_connection(topic, kind, typestore=self._store, offered_qos_profiles=qos)

    def _write(self, topic: str, stamp_ns: int, kind: str, **fields: object) -> None:
        message = self._store.types[kind](**fields)
        self._writer.write(self._topics[topic], stamp_ns, self._store.serialize_cdr(message, kind))

    def _header(self, stamp_ns: int, frame_id: str):
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._store.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return self._store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def write_static(self, stamp_ns: int) -> None:
        """/tf_static: where each sensor sits on the vehicle."""
        mounts = [(camera.frame_id or f"{camera.name}_optical", camera.base_from_camera) for camera in self._rig]
        if self._lidar:
            mounts.append((self._lidar.frame_id, self._lidar.base_from_lidar))
        self._transforms("/tf_static", stamp_ns, [("base_link", child, mount) for child, mount in mounts])

    def write_pose(self, stamp_ns: int, odom_from_base: np.ndarray) -> None:
        """/tf: where the vehicle is."""
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
        """One camera's messages; `files` is what `encode` made of the picture."""
        frame_id = camera.frame_id or f"{camera.name}_optical"
        for topic, form in (("image_raw", "rgb8; jpeg compressed bgr8"), ("semantic", "mono8; png compressed "),
                            ("depth", "16UC1; png compressed ")):  # fmt: skip
            if topic in files:
                self._write(
                    f"/{camera.name}/{topic}/compressed", stamp_ns, "sensor_msgs/msg/CompressedImage",
                    header=self._header(stamp_ns, frame_id), format=form, data=np.frombuffer(files[topic], np.uint8),
                )  # fmt: skip
        model = camera.model
        region = self._store.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        P = np.concatenate([model.K, np.zeros((3, 1))], 1)
        self._write(
            f"/{camera.name}/camera_info", stamp_ns, "sensor_msgs/msg/CameraInfo",
            header=self._header(stamp_ns, frame_id), height=model.height, width=model.width,
            distortion_model=model.distortion_model, d=np.array(model.coefficients, np.float64), k=model.K.ravel(),
            r=np.eye(3).ravel(), p=P.ravel(), binning_x=0, binning_y=0, roi=region,
        )  # fmt: skip

    def write_sweep(self, stamp_ns: int, sweep: Sweep) -> None:
        """The LiDAR's cloud: x, y, z, intensity float32 and label uint8, 17 bytes a point."""
        kind = self._store.types["sensor_msgs/msg/PointField"]
        fields = [
            kind(name=name, offset=4 * k, datatype=7, count=1) for k, name in enumerate(("x", "y", "z", "intensity"))
        ]
        fields.append(kind(name="label", offset=16, datatype=2, count=1))
        count = len(sweep.label)
        rows = np.empty((count, 17), np.uint8)
        rows[:, :16] = (
            np.concatenate([sweep.points, sweep.intensity[:, None]], 1).astype("<f4").view(np.uint8).reshape(count, 16)
        )
        rows[:, 16] = sweep.label
        self._write(
            "/lidar/points", stamp_ns, "sensor_msgs/msg/PointCloud2",
            header=self._header(stamp_ns, self._lidar.frame_id), height=1, width=count, fields=fields,
            is_bigendian=False, point_step=17, row_step=17 * count,
            data=rows.ravel(), is_dense=True,
        )  # fmt: skip


def encode(image: np.ndarray, semantic: np.ndarray | None, depth: np.ndarray | None) -> dict[str, bytes]:
    """A picture as files: JPEG of the image, PNG of the labels (depth in millimetres, 0 beyond 65.5 m)."""
    files = {
        "image_raw": cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    }
    if semantic is not None:
        files["semantic"] = cv2.imencode(".png", semantic, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
    if depth is not None:
        millimetres = np.where(depth < 65.535, np.rint(depth * 1000), 0).astype(np.uint16)
        files["depth"] = cv2.imencode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return files
