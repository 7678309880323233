"""The loops that walk rays through voxels, compiled by Numba when they are first called (seconds) and kept on disk.

The arithmetic is that of `traversal.traverse`, step for step, but one ray is processed after the other. The loops stand
together, because Numba compiles a loop again only when its own file has changed.
"""

from __future__ import annotations

import numpy as np

from renderocc_model.base.compiling import compiler

from .voxelise_loops import MOST_VOTES

__all__ = ["cast", "climb", "walk"]

compiled = compiler()


@compiled
def crossings(voxel, origin, direction):
    """The planes that a ray crosses next, on each axis, from a voxel on.

    A ray along an axis never crosses planes of the other axes.

    Returns:
        steps, 1 or -1; planes; and the distances at which they are crossed. All are (x, y, z), in voxels.
    """
    (x, y, z), (ox, oy, oz), (dx, dy, dz) = voxel, origin, direction
    px, py, pz = x + (dx > 0), y + (dy > 0), z + (dz > 0)
    steps = (1 if dx > 0 else -1), (1 if dy > 0 else -1), (1 if dz > 0 else -1)
    tx = (px - ox) / dx if dx != 0 else np.inf
    ty = (py - oy) / dy if dy != 0 else np.inf
    tz = (pz - oz) / dz if dz != 0 else np.inf
    return steps, (px, py, pz), (tx, ty, tz)


@compiled
def crossed(voxel, planes, times, place, steps, origin, direction, shape, strides):
    """Cross the nearest plane: of equally near ones that of z before that of y, and y before x.

    Args:
        voxel, planes, times: the state of the ray, as of `crossings`.
        place: the voxel's place in a flat volume with these `strides`.
        shape: voxels in x, y, z.
    Returns:
        whether the ray is still in the grid, and the voxel, planes, times and place after the crossing.
    """
    (x, y, z), (px, py, pz), (tx, ty, tz) = voxel, planes, times
    left = min(tx, ty, tz)
    if tz == left:
        z, pz, place = z + steps[2], pz + steps[2], place + steps[2] * strides[2]
        inside = 0 <= z < shape[2]
        tz = (pz - origin[2]) / direction[2]
    elif ty == left:
        y, py, place = y + steps[1], py + steps[1], place + steps[1] * strides[1]
        inside = 0 <= y < shape[1]
        ty = (py - origin[1]) / direction[1]
    else:
        x, px, place = x + steps[0], px + steps[0], place + steps[0] * strides[0]
        inside = 0 <= x < shape[0]
        tx = (px - origin[0]) / direction[0]
    return inside, (x, y, z), (px, py, pz), (tx, ty, tz), place


@compiled
def walk(
    shape: tuple[int, int, int],
    origins: np.ndarray,
    directions: np.ndarray,
    distances: np.ndarray,
    names: np.ndarray,
    votes: np.ndarray,
    passed: np.ndarray,
) -> None:
    """Walk each ray until the voxel of its return, or out of the grid, for `voxelise`.

    Args:
        shape: voxels in x, y, z.
        origins, directions: (R, 3) float64; origins in voxels from the lower corner.
        distances: (R,) float64 of the returns in voxels, infinite if the ray leaves the grid. Rays without a distance
            (0, negative, NaN) and rays that begin outside of the grid are left out.
        names: (R,) int64, the row of `votes` in which a return counts.
        votes: (rows, voxels) uint16, incremented at the voxel of each return.
        passed: (voxels,) bool, set at the voxels that a ray passes before its return.
    """
    strides = (shape[1] * shape[2], shape[2], 1)
    for ray in range(len(origins)):
        origin = origins[ray, 0], origins[ray, 1], origins[ray, 2]
        direction = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        ox, oy, oz = origin
        distance = distances[ray]
        if not (distance > 0 and 0 <= ox < shape[0] and 0 <= oy < shape[1] and 0 <= oz < shape[2]):
            continue
        voxel = int(ox), int(oy), int(oz)
        steps, planes, times = crossings(voxel, origin, direction)
        place = (voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]
        inside = True
        while inside:
            if distance < min(times[0], times[1], times[2]):
                if votes[names[ray], place] < MOST_VOTES:
                    votes[names[ray], place] += 1
                break
            passed[place] = True
            inside, voxel, planes, times, place = crossed(
                voxel, planes, times, place, steps, origin, direction, shape, strides
            )


@compiled
def climb(
    shape: tuple[int, int, int],
    levels: np.ndarray,
    classes: np.ndarray,
    origins: np.ndarray,
    directions: np.ndarray,
    starts: np.ndarray,
    left: np.ndarray,
    names: np.ndarray,
) -> None:
    """Walk each ray until it has met a voxel of the highest level, or leaves the grid, for `evaluate.threshold`.

    Args:
        shape: voxels in x, y, z.
        levels: (voxels,) uint8, how many thresholds each is above.
        classes: (voxels,) uint8.
        origins, directions: (R, 3) in voxels.
        starts: (R, 3) int64 first voxel of each ray, x below 0 for a ray that misses.
        left: (K, R) receives the distance in voxels at which the first voxel above threshold k is left; holds -1.
        names: (K, R) uint8, receives that voxel's class.
    """
    strides = (shape[1] * shape[2], shape[2], 1)
    for ray in range(len(origins)):
        voxel = starts[ray, 0], starts[ray, 1], starts[ray, 2]
        if voxel[0] < 0:
            continue
        origin = origins[ray, 0], origins[ray, 1], origins[ray, 2]
        direction = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        steps, planes, times = crossings(voxel, origin, direction)
        place = (voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]
        reached = 0
        inside = True
        while inside:
            for level in range(reached, levels[place]):
                left[level, ray], names[level, ray] = min(times[0], times[1], times[2]), classes[place]
            reached = max(reached, levels[place])
            if reached == len(left):
                break
            inside, voxel, planes, times, place = crossed(
                voxel, planes, times, place, steps, origin, direction, shape, strides
            )


@compiled
def cast(
    codes: np.ndarray,
    everything: int,
    shape: tuple[int, int, int],
    origins: np.ndarray,
    directions: np.ndarray,
    starts: np.ndarray,
    cells: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Walk each ray until it has met a set voxel of every volume, or leaves the grid, for `evaluate.rayiou`.

    Args:
        codes: `padded` volume, flat, uint8: bit k is set where volume k is set; the border has no bits.
        everything: the bits of all volumes.
        shape: voxels in x, y, z, without the border.
        origins, directions: (R, 3) in voxels.
        starts: (R, 3) int64 first voxel of each ray; x is negative for a ray that misses the grid.
        cells: (K, R) int64, filled with -1; receives indices into `codes`.
        lengths: (K, R) receives the distance in voxels at which that cell is left.
    """
    strides = ((shape[1] + 2) * (shape[2] + 2), shape[2] + 2, 1)
    for ray in range(len(origins)):
        voxel = starts[ray, 0], starts[ray, 1], starts[ray, 2]
        if voxel[0] < 0:
            continue
        origin = origins[ray, 0], origins[ray, 1], origins[ray, 2]
        direction = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        steps, planes, times = crossings(voxel, origin, direction)
        place = (voxel[0] + 1) * strides[0] + (voxel[1] + 1) * strides[1] + voxel[2] + 1
        pending = everything
        inside = True
        while inside:
            met = codes[place] & pending
            if met:
                for volume in range(len(cells)):
                    if met >> volume & 1:
                        cells[volume, ray], lengths[volume, ray] = place, min(times[0], times[1], times[2])
                pending &= ~met
                if not pending:
                    break
            inside, voxel, planes, times, place = crossed(
                voxel, planes, times, place, steps, origin, direction, shape, strides
            )
