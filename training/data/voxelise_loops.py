"""The loops of `voxelise`, compiled by Numba when they are first called (a second or two) and cached on disk."""

from __future__ import annotations

import numpy as np

from renderocc_model.base.compiling import compiler

__all__ = ["MOST_VOTES", "elect", "mark"]

compiled = compiler()

MOST_VOTES = 65_535  # the largest number of votes that is counted


@compiled
def mark(
    shape: tuple[int, int, int],
    places: np.ndarray,
    rotation: np.ndarray,
    origin: np.ndarray,
    starts: np.ndarray,
    left_out: np.ndarray,
    first: int,
    stride: int,
    pixels: np.ndarray,
    distances: np.ndarray,
    votes: np.ndarray,
) -> None:
    """Count votes for the voxels that hold returns of one image's labelled pixels.

    Args:
        shape: voxels in x, y, z.
        places: (H, W, 3) float32 unit directions of the image's pixels in the camera's frame.
        rotation, origin: (3, 3), (3,) float64, voxels from metres of the camera's frame: rotation @ place + origin.
        starts: (rows + 1,) first row of each class in `pixels`, as in the tables.
        left_out: (rows,) bool, classes that are not used.
        first, stride: of each class, every `stride`-th pixel is used, beginning with number `first`.
        pixels: (M, 2) column and row.
        distances: (M,) float32 metres; pixels whose distance is not above 0 are left out.
        votes: (rows, voxels) uint16, incremented at the voxel of each return in the grid.
    """
    for name in range(len(left_out)):
        if left_out[name]:
            continue
        for row in range(starts[name] + first, starts[name + 1], stride):
            distance = distances[row]
            if not distance > 0:
                continue
            along = places[pixels[row, 1], pixels[row, 0]]
            x, y, z = along[0] * distance, along[1] * distance, along[2] * distance
            i = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z + origin[0]
            j = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z + origin[1]
            k = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z + origin[2]
            if 0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]:
                voxel = (int(i) * shape[1] + int(j)) * shape[2] + int(k)
                if votes[name, voxel] < MOST_VOTES:
                    votes[name, voxel] += 1


@compiled
def elect(votes: np.ndarray, occupied: np.ndarray, semantics: np.ndarray) -> None:
    """Find the voxels with votes, and their class with the most votes.

    Args:
        votes: (C + 1, voxels) uint16; the last row is the unknown class.
        occupied: (voxels,) bool, all false; set where there are votes.
        semantics: (voxels,) uint8, receives the class with the most votes, the lowest id of several; not changed where
            only the unknown class has votes.
    """
    most = np.zeros(votes.shape[1], np.uint16)
    for name in range(len(votes) - 1):
        for voxel in range(votes.shape[1]):
            if votes[name, voxel] > most[voxel]:
                most[voxel], semantics[voxel] = votes[name, voxel], name
    for voxel in range(votes.shape[1]):
        occupied[voxel] = most[voxel] > 0 or votes[-1, voxel] > 0
