"""The walk of `threshold`, compiled by Numba when it is first called (a second or two; kept on disk).

Step for step the arithmetic of `data.traversal.traverse`, one ray after the other.
"""

from __future__ import annotations

import numpy as np

from renderocc_model.base.compiling import compiler

__all__ = ["climb"]

compiled = compiler()


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
    """Walk each ray until it has met a voxel of the highest level, or leaves the grid.

    Args:
        shape: voxels in x, y, z.
        levels: (voxels,) uint8, how many thresholds each is above.
        classes: (voxels,) uint8.
        origins, directions: (R, 3) in voxels.
        starts: (R, 3) int64 first voxel of each ray, x below 0 for a ray that misses.
        left: (K, R) receives the distance in voxels at which the first voxel above threshold k is left; holds -1.
        names: (K, R) uint8, receives that voxel's class.
    """
    for ray in range(len(origins)):
        x, y, z = starts[ray]
        if x < 0:
            continue
        ox, oy, oz = origins[ray]
        dx, dy, dz = directions[ray]
        # The plane that is crossed next on each axis; a ray along an axis never crosses those of the others.
        px, py, pz = x + (dx > 0), y + (dy > 0), z + (dz > 0)
        sx, sy, sz = (1 if dx > 0 else -1), (1 if dy > 0 else -1), (1 if dz > 0 else -1)
        tx = (px - ox) / dx if dx != 0 else np.inf
        ty = (py - oy) / dy if dy != 0 else np.inf
        tz = (pz - oz) / dz if dz != 0 else np.inf
        place = (x * shape[1] + y) * shape[2] + z
        reached = 0
        while True:
            end = min(tx, ty, tz)
            for step in range(reached, levels[place]):
                left[step, ray], names[step, ray] = end, classes[place]
            reached = max(reached, levels[place])
            if reached == len(left):
                break
            if tz == end:
                z, pz, place = z + sz, pz + sz, place + sz
                if z < 0 or z >= shape[2]:
                    break
                tz = (pz - oz) / dz
            elif ty == end:
                y, py, place = y + sy, py + sy, place + sy * shape[2]
                if y < 0 or y >= shape[1]:
                    break
                ty = (py - oy) / dy
            else:
                x, px, place = x + sx, px + sx, place + sx * shape[1] * shape[2]
                if x < 0 or x >= shape[0]:
                    break
                tx = (px - ox) / dx
