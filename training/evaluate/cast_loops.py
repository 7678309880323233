"""`rayiou.first_hits`, compiled by Numba when it is first called (a second or two; kept on disk).

The arithmetic is that of `data.traversal.traverse`, but rays are handled one after the other.
"""

from __future__ import annotations

import numpy as np

from renderocc_model.base.compiling import compiler

__all__ = ["cast"]

compiled = compiler()


@compiled
def cast(
    codes: np.ndarray,
    everything: int,
    strides: np.ndarray,
    origins: np.ndarray,
    directions: np.ndarray,
    starts: np.ndarray,
    cells: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Walk each ray until it has met a set voxel of every volume, or the border.

    Args:
        codes: padded volume, flat, uint8: bit k is set where volume k is set; the border has no bits.
        everything: the bits of all volumes.
        strides: (3,) strides of x, y and z in `codes`.
        origins, directions: (R, 3) in voxels.
        starts: (R, 3) int64 first voxel of each ray; x is negative for a ray that misses the grid.
        cells: (K, R) int64, filled with -1; receives indices into `codes`.
        lengths: (K, R) receives the distance in voxels at which that cell is left.
    """
    last = (codes.size // strides[0] - 2, strides[0] // strides[1] - 2, strides[1] - 2)
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
        place = (x + 1) * strides[0] + (y + 1) * strides[1] + z + 1
        pending = everything
        while True:
            left = min(tx, ty, tz)
            met = codes[place] & pending
            if met:
                for volume in range(len(cells)):
                    if met >> volume & 1:
                        cells[volume, ray], lengths[volume, ray] = place, left
                pending &= ~met
                if not pending:
                    break
            if tz == left:
                z, pz, place = z + sz, pz + sz, place + sz
                if z < 0 or z >= last[2]:
                    break
                tz = (pz - oz) / dz
            elif ty == left:
                y, py, place = y + sy, py + sy, place + sy * strides[1]
                if y < 0 or y >= last[1]:
                    break
                ty = (py - oy) / dy
            else:
                x, px, place = x + sx, px + sx, place + sx * strides[0]
                if x < 0 or x >= last[0]:
                    break
                tx = (px - ox) / dx
