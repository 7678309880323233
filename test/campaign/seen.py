"""Which cells of ~/grid and voxels of ~/save a camera can have seen: plain geometry, with a margin.

Nothing of the node's own geometry is used here. A cell counts as perhaps seen if any of a set of points in and around
it, over the height band and a voxel more, lies in front of the camera and within the widest rectangle of its normalised
image, with a margin. Of a voxel, the points reach half a voxel beyond it on every side.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["composed", "columns", "columns_perhaps_seen", "perhaps_seen", "voxels_perhaps_seen"]

MARGIN = 0.05  # of the normalised image's extent, on each side
WIDEST = 5.0  # tangent beyond which a lens is taken to see everything in front of it
_NEAR = 0.02  # metres in front of the camera


def perhaps_seen(info, translation, quaternion, grid_info, low: float, high: float) -> np.ndarray:
    """(height, width) bool, as OccupancyGrid's data: cells that this camera can have seen some of.

    Args:
        info: a CameraInfo message.
        translation, quaternion: (3,), (x, y, z, w) of the optical frame in the grid's frame.
        grid_info: the OccupancyGrid's `info`.
        low, high: the height band, metres.
    """
    size = grid_info.resolution
    x0, y0 = grid_info.origin.position.x, grid_info.origin.position.y
    offsets = np.linspace(-1.0, 1.0, 5) * size  # half a voxel beyond the cell on every side
    heights = np.arange(low - size, high + size + 1e-6, size / 2)
    xs = x0 + (np.arange(grid_info.width) + 0.5) * size
    ys = y0 + (np.arange(grid_info.height) + 0.5) * size
    in_view = view(info, translation, quaternion)
    seen = np.zeros((len(ys), len(xs)), bool)
    for row, y in enumerate(ys):  # one at a time: a fine grid would take gigabytes
        x, dx, dy, z = np.meshgrid(xs, offsets, offsets, heights, indexing="ij")
        seen[row] = in_view(np.stack([x + dx, y + dy, z], axis=-1)).any(axis=(1, 2, 3))
    return seen


def voxels_perhaps_seen(info, translation, quaternion, lower, size: float, shape) -> np.ndarray:
    """(X, Y, Z) bool: voxels that this camera can have seen some of.

    Args:
        info, translation, quaternion: as in `perhaps_seen`.
        lower, size, shape: lower corner in metres, voxel size in metres, number of voxels of each axis.
    """
    offsets = np.linspace(-1.0, 1.0, 5) * size
    xs, ys, zs = (low + (np.arange(count) + 0.5) * size for low, count in zip(lower, shape, strict=True))
    in_view = view(info, translation, quaternion)
    seen = np.zeros(shape, bool)
    for row, x in enumerate(xs):
        y, z, dx, dy, dz = np.meshgrid(ys, zs, offsets, offsets, offsets, indexing="ij")
        seen[row] = in_view(np.stack([x + dx, y + dy, z + dz], axis=-1)).any(axis=(2, 3, 4))
    return seen


def columns(places: np.ndarray, size: float, low: float, high: float) -> np.ndarray:
    """(N, K, 3) points in and around the cells of a grid whose centres (N, 2) are given, as `perhaps_seen` has them."""
    offsets = np.linspace(-1.0, 1.0, 5) * size
    heights = np.arange(low - size, high + size + 1e-6, size / 2)
    around = np.stack(np.meshgrid(offsets, offsets, heights, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.column_stack([places, np.zeros(len(places))])[:, None] + around


def columns_perhaps_seen(info, translation, quaternion, points: np.ndarray) -> np.ndarray:
    """(N,) bool, for points (N, K, 3) of `columns`: some of these are in the camera's view."""
    return view(info, translation, quaternion)(points).any(axis=1)


def composed(outer, inner) -> tuple[np.ndarray, np.ndarray]:
    """The pose a_from_c of a_from_b and b_from_c, each (translation, quaternion)."""
    (t, q), (u, r) = outer, inner
    x, y, z, w = np.asarray(q, np.float64) / np.linalg.norm(q)
    a, b, c, d = np.asarray(r, np.float64)
    product = (
        w * a + x * d + y * c - z * b,
        w * b - x * c + y * d + z * a,
        w * c + x * b - y * a + z * d,
        w * d - x * a - y * b - z * c,
    )
    return rotation(q) @ np.asarray(u, np.float64) + t, np.array(product)


def view(info, translation, quaternion):
    """A function of points (..., 3) in the grid's frame: (...) bool, whether a point lies in the widened image."""
    left, right, top, bottom = normalised_extent(info)
    base_from_camera = rotation(quaternion)

    def inside(points: np.ndarray) -> np.ndarray:
        camera = (points - np.asarray(translation)) @ base_from_camera  # rows times R are R^T times columns
        depth = camera[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = camera[..., 0] / depth, camera[..., 1] / depth
            return (depth > _NEAR) & (u >= left) & (u <= right) & (v >= top) & (v <= bottom)

    return inside


def normalised_extent(info) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the widest rectangle of directions (x/z, y/z) in a camera's image."""
    import cv2

    K, d = np.array(info.k, np.float64).reshape(3, 3), np.array(info.d, np.float64)
    u, v = np.linspace(-0.5, info.width - 0.5, 33), np.linspace(-0.5, info.height - 0.5, 33)
    border = [(x, y) for x in u for y in (v[0], v[-1])] + [(x, y) for x in (u[0], u[-1]) for y in v]
    pixels = np.array(border, np.float64).reshape(-1, 1, 2)
    if info.distortion_model in ("equidistant", "fisheye"):
        rays = cv2.fisheye.undistortPoints(pixels, K, d[:4] if len(d) >= 4 else np.zeros(4))
    else:
        rays = cv2.undistortPoints(pixels, K, d if len(d) else None)
    rays = np.nan_to_num(rays.reshape(-1, 2), nan=math.inf, posinf=math.inf, neginf=-math.inf)
    low, high = rays.min(axis=0), rays.max(axis=0)
    if max(abs(low).max(), abs(high).max()) > WIDEST:
        return -math.inf, math.inf, -math.inf, math.inf
    more = MARGIN * (high - low)
    return low[0] - more[0], high[0] + more[0], low[1] - more[1], high[1] + more[1]


def rotation(quaternion) -> np.ndarray:
    """3x3 of a quaternion (x, y, z, w) of any length but zero."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
