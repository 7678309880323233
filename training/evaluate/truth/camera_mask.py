"""Finds the voxels of an accumulated volume that cameras see."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.grid import VoxelGrid
from training.data.traversal import entry, padded
from training.data.traversal_loops import cast, walk

__all__ = ["pixel_rays", "seen_voxels"]


def pixel_rays(model: CameraModel, grid: VoxelGrid) -> np.ndarray:
    """(R, 3) unit directions in the optical frame, about half a voxel apart at the grid's farthest side."""
    reach = float(np.abs([grid.lower, grid.upper]).max())
    stride = max(int(0.5 * grid.voxel_size / reach * float(model.K[0, 0])), 1)
    row, column = np.mgrid[0 : model.height : stride, 0 : model.width : stride]
    rays = model.unproject(np.stack([column.ravel(), row.ravel()], -1).astype(float))
    return rays[np.isfinite(rays).all(axis=1)]


def seen_voxels(occupied: np.ndarray, grid: VoxelGrid, base_from_camera: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """The voxels that a camera's rays pass, and the first occupied one that each meets.

    Args:
        occupied: (X, Y, Z) bool.
        base_from_camera: (4, 4); a camera outside of the grid sees nothing.
        rays: (R, 3) unit directions in the optical frame.
    Returns:
        (X, Y, Z) bool.
    """
    directions = np.ascontiguousarray(rays @ base_from_camera[:3, :3].T)
    places = np.tile((base_from_camera[:3, 3] - grid.lower) / grid.voxel_size, (len(rays), 1))
    near, far, first = entry(np.array(grid.shape, np.float64)[:, None], places.T, directions.T)
    starts = np.ascontiguousarray(np.where(far >= 0, first, -1).T.astype(np.int64))
    cells = np.full((1, len(rays)), -1, np.int64)
    lengths = np.maximum(far, 0)[None].copy()
    cast(padded(occupied).astype(np.uint8), 1, grid.shape, places, directions, starts, cells, lengths)
    votes, passed = np.zeros((1, grid.size), np.uint16), np.zeros(grid.size, bool)
    # `lengths` is where a ray leaves the first occupied voxel, so that this voxel is passed, too.
    walk(grid.shape, places, directions, lengths[0], np.zeros(len(rays), np.int64), votes, passed)
    return passed.reshape(grid.shape)
