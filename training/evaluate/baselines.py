"""What can be had without a network, to be compared with: the same volume for every frame."""

from __future__ import annotations

import numpy as np

from renderocc_model.classes import ClassTable
from renderocc_model.grid import VoxelGrid

from ..dataset import RayDataset
from .frame_truth import truth_of

__all__ = ["flat_ground", "most_frequent"]

_ROADS = ("driveable_surface", "road")


def most_frequent(dataset: RayDataset, grid: VoxelGrid, truth_grid: VoxelGrid | None = None) -> np.ndarray:
    """(X, Y, Z) uint8: of each voxel, the class that it most often has in the truth of the training recordings.

    Counted where the cameras see it, free among the classes; free where they never do. Of equally frequent ones the
    first.

    Raises:
        ValueError: the recordings have no 3D truth.
    """
    classes = dataset.classes
    counts = np.zeros((len(classes), grid.size), np.int32)
    frames = 0
    for index in range(len(dataset)):
        tables, frame = dataset.recording_of(index)
        truth = truth_of(tables, frame, grid, truth_grid)
        if truth is None:
            continue
        frames += 1
        seen = truth.semantics < len(classes)
        if truth.mask is not None:
            seen &= truth.mask
        voxels = np.flatnonzero(seen)
        counts[truth.semantics.ravel()[voxels], voxels] += 1
        tables.release()
    if not frames:
        names = ", ".join(dataset.recordings)
        raise ValueError(f"{dataset.folder}: no frame of {names} has 3D truth; leave this baseline out")
    most = np.where(counts.any(axis=0), counts.argmax(axis=0), classes.free)
    return most.astype(np.uint8).reshape(grid.shape)


def flat_ground(grid: VoxelGrid, classes: ClassTable, height: float = 0.0) -> np.ndarray:
    """(X, Y, Z) uint8: road in the layer of voxels that holds `height`, metres in the grid's frame; all else free.

    Raises:
        ValueError: the height is outside of the grid, or the classes have no road.
    """
    name = next((name for name in _ROADS if name in classes.names), None)
    if name is None:
        raise ValueError(f"none of the classes is {' or '.join(_ROADS)}; leave this baseline out")
    if not grid.lower[2] <= height < grid.upper[2]:
        raise ValueError(f"ground at {height} m is not in the grid, {grid.lower[2]} to {grid.upper[2]} m")
    # Half a thousandth of a voxel: a height on a face belongs to the voxel above, whatever the rounding.
    layer = int((height - grid.lower[2]) / grid.voxel_size + 5e-4)
    volume = np.full(grid.shape, classes.free, np.uint8)
    volume[:, :, min(layer, grid.shape[2] - 1)] = classes.id_of(name)
    return volume
