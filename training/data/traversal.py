"""Walks rays through voxels (Amanatides and Woo, A Fast Voxel Traversal Algorithm for Ray Tracing, 1987).

All rays step together, one voxel at a time. A ray crosses plane k at t = (k - o) / d. This is computed for each plane
separately, so that errors do not add up along a ray. A ray begins in the voxel that owns its origin
(`VoxelGrid.index_of`: lower faces belong to a voxel), even if it only touches that voxel. At an edge or a corner, it
crosses planes of z before those of y, and y before x, as in the renderer that SparseOcc's metric uses. It passes the
voxels in between on a length of zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from renderocc_model.geometry.grid import VoxelGrid

__all__ = ["cell_indices", "checked_rays", "entry", "padded", "traverse"]

_TOGETHER = 1 << 14  # rays that step together, so few that their arrays stay in the cache
_SPARSE = 0.75  # if a smaller share of the rays is still in the grid, the finished ones are removed

Visit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def padded(volume: np.ndarray) -> np.ndarray:
    """A volume with a layer of zeros around it, flattened. The cells of `traverse` are indices into it."""
    return np.pad(volume, 1).ravel()


def cell_indices(cells: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Indices into the flattened volume without padding, for cells that lie in it."""
    x, rest = np.divmod(cells, (shape[1] + 2) * (shape[2] + 2))
    y, z = np.divmod(rest, shape[2] + 2)
    return ((x - 1) * shape[1] + y - 1) * shape[2] + z - 1


def traverse(grid: VoxelGrid, origins: np.ndarray, directions: np.ndarray, visit: Visit) -> np.ndarray:
    """Walk rays through a grid.

    Args:
        grid: where the voxels are.
        origins: (R, 3) metres in the grid's frame, inside or outside of it.
        directions: (R, 3) unit vectors.
        visit: called at each step with the rays' numbers (n,), their cells (n,) (indices into `padded` volumes), and
            the distances (n,) in metres at which the rays enter and leave the cells. It returns which rays are done,
            (n,) bool. Rays that are done or outside may come again, with cell 0, where padded volumes are zero.
    Returns:
        (R,) distance in metres at which each ray leaves the grid, also if the ray was done before; 0 for a ray that
        misses the grid.
    Raises:
        ValueError: shapes do not fit, or a number is not finite.
    """
    origins, directions = checked_rays(origins, directions)
    exits = np.zeros(len(origins))
    for first in range(0, len(origins), _TOGETHER):
        rows = np.arange(first, min(first + _TOGETHER, len(origins)))
        _walk(grid, rows, origins[rows], directions[rows], visit, exits)
    return exits


def checked_rays(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (R, 3) float64. ValueError if a shape is different, or a number is not finite."""
    origins, directions = np.asarray(origins, np.float64), np.asarray(directions, np.float64)
    if origins.ndim != 2 or origins.shape[1] != 3 or origins.shape != directions.shape:
        raise ValueError(f"origins have shape {origins.shape}, directions {directions.shape}; expected (R, 3) for both")
    if not (np.isfinite(origins).all() and np.isfinite(directions).all()):
        raise ValueError("an origin or a direction of a ray is not finite; leave out rays without a known pose")
    return origins, directions


def _walk(
    grid: VoxelGrid, rays: np.ndarray, origins: np.ndarray, directions: np.ndarray, visit: Visit, exits: np.ndarray
) -> None:
    # Everything below is in voxels, and (3, n) in the order z, y, x, because the first of equal crossings is taken.
    shape = np.array(grid.shape[::-1], np.float64)[:, None]
    origin = ((origins - grid.lower) / grid.voxel_size).T[::-1].copy()
    direction = directions.T[::-1].copy()
    near, far, cell = entry(shape, origin, direction)
    hits = far >= 0
    exits[rays[hits]] = far[hits] * grid.voxel_size
    rays, origin, direction, entered, cell = rays[hits], origin[:, hits], direction[:, hits], near[hits], cell[:, hits]

    strides = np.array([1, grid.shape[2] + 2, (grid.shape[1] + 2) * (grid.shape[2] + 2)])[:, None]
    border = np.pad(np.zeros(grid.shape, bool), 1, constant_values=True).ravel()
    place = (strides * (cell.astype(np.int64) + 1)).sum(axis=0)
    step = np.sign(direction)
    plane = cell + (direction > 0)
    # A ray along an axis never crosses planes of the other axes.
    along = direction == 0
    plane[along], origin[along], direction[along] = np.inf, 0, 1
    hop = strides * step.astype(np.int64)
    crossing = (plane - origin) / direction
    while len(rays):
        left = crossing.min(axis=0)
        done = visit(rays, place, entered * grid.voxel_size, left * grid.voxel_size)
        crossed = crossing == left
        crossed[1] &= ~crossed[0]
        crossed[2] = ~(crossed[0] | crossed[1])
        place = place + np.where(crossed, hop, 0).sum(axis=0)
        done = done | border[place]
        plane += np.where(crossed, step, 0)
        crossing = (plane - origin) / direction
        entered = left
        if not done.any():
            continue
        kept = ~done
        if kept.sum() < _SPARSE * len(done):
            rays, place, entered = rays[kept], place[kept], entered[kept]
            plane, origin, direction, step, hop, crossing = (
                part[:, kept] for part in (plane, origin, direction, step, hop, crossing)
            )
        else:  # removing few rays costs more than keeping them
            place[done], step[:, done], hop[:, done] = 0, 0, 0


def entry(shape: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entry of rays into a grid of `shape` (3, 1) voxels. All lengths are in voxels, origins and directions (3, n).

    Returns:
        distances (n,) at which rays enter and leave the grid, the latter -1 for rays that miss it; and the first cells
        (3, n).
    """
    cell = np.floor(origin)
    inside = ((cell >= 0) & (cell < shape)).all(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        at_low, at_high = -origin / direction, (shape - origin) / direction
    along = direction == 0
    enter = np.where(along, -np.inf, np.minimum(at_low, at_high))
    near = np.where(inside, 0, np.maximum(enter.max(axis=0), 0))
    far = np.where(along, np.inf, np.maximum(at_low, at_high)).min(axis=0)
    beside = (along & ((cell < 0) | (cell >= shape))).any(axis=0)
    misses = ~inside & (beside | (far <= near))
    entry = np.clip(np.floor(origin + near * direction), 0, shape - 1)
    # Rounding must not decide in which layer a ray begins that enters through a face.
    first = np.where(direction > 0, 0, shape - 1)
    entry = np.where((enter == near) & ~along, first, entry)
    return near, np.where(misses, -1, far), np.where(inside, cell, entry)
