"""Turn an occupancy volume into the arrays and bytes of each output topic."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.undistortion import View
from renderocc_model.rosio import cdr

UNKNOWN_CELL, FREE_CELL, OCCUPIED_CELL = -1, 0, 100


@dataclass(frozen=True)
class SurfaceVoxels:
    """Occupied voxels with at least one open face, in the grid's frame.

    centres: (N, 3) float32, metres. labels: (N,) uint8 class ids. confidence: (N,) float32 occupancy probability.
    """

    centres: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(self, count: int, place: np.ndarray | None = None) -> SurfaceVoxels:
        """The `count` voxels nearest to a place (3,), by default the frame's origin; all voxels if there are fewer."""
        if len(self) <= count:
            return self
        if count <= 0:
            return SurfaceVoxels(self.centres[:0], self.labels[:0], self.confidence[:0])
        away = self.centres if place is None else self.centres - np.asarray(place, np.float32)
        squared = np.einsum("ij,ij->i", away, away)
        kept = np.argpartition(squared, count - 1)[:count]
        return SurfaceVoxels(self.centres[kept], self.labels[kept], self.confidence[kept])


def surface_voxels(occupancy: Occupancy) -> SurfaceVoxels:
    """The surface voxels of a volume."""
    return SurfaceVoxels(*occupancy.surface_points())


def points_message(surface: SurfaceVoxels, classes: ClassTable, stamp_ns: int, frame_id: str) -> bytes:
    """PointCloud2 of voxel centres with x, y, z, rgb, confidence and label (class id)."""
    colours = classes.palette()[surface.labels]
    return cdr.write_point_cloud(stamp_ns, frame_id, surface.centres, colours, surface.confidence, surface.labels)


def markers_message(
    surface: SurfaceVoxels,
    classes: ClassTable,
    voxel_size: float,
    stamp_ns: int,
    frame_id: str,
    namespace: str = "occupancy",
) -> bytes:
    """MarkerArray with one CUBE_LIST. All cubes are opaque: RViz would blend a list with one translucent cube as a
    whole, without sorting it by depth.
    """
    colours = np.ones((len(surface), 4), np.float32)
    colours[:, :3] = classes.palette()[surface.labels] / np.float32(255)
    return cdr.write_markers(stamp_ns, frame_id, surface.centres, colours, voxel_size, namespace)


def height_band_cells(occupancy: Occupancy, lowest: float, highest: float, ground: tuple[str, ...]) -> np.ndarray:
    """The state of each column of the grid within a band of heights.

    A cell is occupied if a voxel of the band is occupied by something that is not ground. It is free if every voxel of
    the band is known to be free, or is ground, or lies below ground that was seen in the band. Otherwise it is unknown.
    Ground above the band does not make a cell free: it may be a bridge with something unseen below. There are no values
    in between, because nav2's trinary maps read everything below 100 as free.

    Args:
        occupancy: the volume.
        lowest, highest: the band, metres in the grid's frame; voxels whose centre lies in it count.
        ground: names of classes that can be driven or walked on. Names that the class table lacks have no effect.
    Returns:
        (X, Y) int8: OCCUPIED_CELL, FREE_CELL or UNKNOWN_CELL; all unknown if the band holds no voxel.
    """
    heights = occupancy.grid.lower[2] + (np.arange(occupancy.grid.shape[2]) + 0.5) * occupancy.grid.voxel_size
    band = (heights >= lowest) & (heights <= highest)
    cells = np.full(occupancy.grid.shape[:2], UNKNOWN_CELL, np.int8)
    if not band.any():
        return cells
    semantics = occupancy.semantics[:, :, band]
    is_ground = np.zeros(256, bool)
    is_ground[[index for index, name in enumerate(occupancy.classes.names) if name in ground]] = True
    ground_voxels = is_ground[semantics]
    under_ground = np.logical_or.accumulate(ground_voxels[:, :, ::-1], axis=2)[:, :, ::-1]
    known_free = (semantics == occupancy.classes.free) | under_ground
    obstacle = (semantics != UNLABELLED) & (semantics != occupancy.classes.free) & ~ground_voxels
    cells[known_free.all(axis=2)] = FREE_CELL
    cells[obstacle.any(axis=2)] = OCCUPIED_CELL
    return cells


def grid_message(cells: np.ndarray, occupancy: Occupancy, lowest: float, stamp_ns: int, frame_id: str) -> bytes:
    """OccupancyGrid of (X, Y) cells; its origin is the grid's lower corner at the band's lower edge."""
    grid = occupancy.grid
    return cdr.write_occupancy_grid(stamp_ns, frame_id, cells, grid.voxel_size, grid.lower[0], grid.lower[1], lowest)


def classes_json(classes: ClassTable) -> str:
    """The class table as JSON: {"classes": [{"id", "name", "color": [r, g, b], "dynamic"}...], "free", "unknown"}."""
    rows = [
        {
            "id": index,
            "name": name,
            "color": [int(part) for part in classes.colours[index]],
            "dynamic": index in classes.dynamic,
        }
        for index, name in enumerate(classes.names)
    ]
    return json.dumps({"classes": rows, "free": classes.free, "unknown": UNLABELLED})


def rendered_camera_info(view: View, stride: int, stamp_ns: int, frame_id: str) -> CameraInfo:
    """The calibration of ~/rendered/<camera>/{semantic,depth}: a pinhole of one pixel for each ray.

    Its pixel (column, row) is the ray through pixel (stride - 1) // 2 + stride * (column, row) of the view.

    Args:
        view: the camera's undistorted view.
        stride: one ray for stride x stride pixels.
        stamp_ns, frame_id: those of the images, to the nanosecond.
    """
    first = (stride - 1) // 2
    K = view.K.copy()
    K[:2, 2] -= first
    K[:2] /= stride
    width, height = (max(0, -(-(size - first) // stride)) for size in (view.width, view.height))
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.header.frame_id = frame_id
    message.k, message.r = K.reshape(-1), np.eye(3).reshape(-1)
    message.p = np.hstack([K, np.zeros((3, 1))]).reshape(-1)
    return message
