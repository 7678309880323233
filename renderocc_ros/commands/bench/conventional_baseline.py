"""A conventional baseline for the node's byte paths: typed callbacks, cv2 and message objects.

Most ROS 2 nodes in Python are written like this. The baseline is written with care: maps are computed once, NumPy views
are used where they are customary, and loops only where messages need one object for each point. Only `renderocc bench
node` uses it.
"""

from __future__ import annotations

import array
import struct

import cv2
import numpy as np
from geometry_msgs.msg import Point
from nav_msgs.msg import OccupancyGrid
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.undistortion import View


class ConventionalInput:
    """Turns the typed images of one camera into normalised network input."""

    def __init__(self, info: bytes, view: View) -> None:
        message = deserialize_message(info, CameraInfo)
        K, D = np.array(message.k).reshape(3, 3), np.array(message.d)
        maps = cv2.initUndistortRectifyMap(K, D, None, view.K, (view.width, view.height), cv2.CV_32FC1)
        self._maps = [(part - 1.5) / 4 for part in maps]  # into a picture of a quarter the size

    def network_input(self, message: Image) -> np.ndarray:
        """(3, height, width) float32 from a bgr8 Image."""
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        smaller = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        view = cv2.remap(smaller, *self._maps, cv2.INTER_LINEAR)
        normalised = (view.astype(np.float32) / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        return np.ascontiguousarray(normalised.transpose(2, 0, 1), np.float32)


def conventional_transforms(buffer: bytes) -> list[np.ndarray]:
    """The transforms of a serialised TFMessage as (4, 4) matrices, through message objects."""
    matrices = []
    for transform in deserialize_message(buffer, TFMessage).transforms:
        q, t = transform.transform.rotation, transform.transform.translation
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - 2 * (q.y * q.y + q.z * q.z), 2 * (q.x * q.y - q.z * q.w), 2 * (q.x * q.z + q.y * q.w)],
            [2 * (q.x * q.y + q.z * q.w), 1 - 2 * (q.x * q.x + q.z * q.z), 2 * (q.y * q.z - q.x * q.w)],
            [2 * (q.x * q.z - q.y * q.w), 2 * (q.y * q.z + q.x * q.w), 1 - 2 * (q.x * q.x + q.y * q.y)],
        ]
        matrix[:3, 3] = t.x, t.y, t.z
        matrices.append(matrix)
    return matrices


def conventional_outputs(occupancy: Occupancy) -> tuple[bytes, bytes, bytes]:
    """MarkerArray, PointCloud2 and OccupancyGrid of a volume, with one object or one `pack` per voxel."""
    grid, palette = occupancy.grid, occupancy.classes.palette()
    i, j, k = np.nonzero(occupancy.surface())
    centres = np.array(grid.lower) + (np.stack([i, j, k], axis=1) + 0.5) * grid.voxel_size
    labels, confidences = occupancy.semantics[i, j, k], occupancy.confidence[i, j, k]
    marker = Marker(type=Marker.CUBE_LIST, ns="occupancy")
    marker.header.frame_id = "base_link"
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = float(grid.voxel_size)
    packed = bytearray()
    rows = zip(centres.tolist(), labels.tolist(), confidences.tolist(), palette[labels].tolist())
    for (x, y, z), label, confidence, (red, green, blue) in rows:
        marker.points.append(Point(x=x, y=y, z=z))
        marker.colors.append(ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0))
        packed += struct.pack("<fffIfI", x, y, z, red << 16 | green << 8 | blue, confidence, label)
    cloud = PointCloud2(height=1, width=len(labels), point_step=24, row_step=24 * len(labels), is_dense=True)
    cloud.header.frame_id = "base_link"
    names = ("x", "y", "z", "rgb", "confidence", "label")
    kinds = (PointField.FLOAT32,) * 5 + (PointField.UINT32,)
    cloud.fields = [
        PointField(name=name, offset=4 * n, datatype=kind, count=1) for n, (name, kind) in enumerate(zip(names, kinds))
    ]
    cloud.data = array.array("B", bytes(packed))

    cells = OccupancyGrid()
    cells.header.frame_id = "base_link"
    cells.info.resolution, (cells.info.width, cells.info.height) = float(grid.voxel_size), grid.shape[:2]
    known = occupancy.semantics[:, :, 4:8]
    values = np.where((known < occupancy.classes.free).any(axis=2), 100, np.where((known == 255).any(axis=2), -1, 0))
    cells.data = array.array("b", values.T.ravel().astype(np.int8).tolist())
    return serialize_message(MarkerArray(markers=[marker])), serialize_message(cloud), serialize_message(cells)
