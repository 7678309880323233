"""What can be had without a network, to be compared with: the same volume for every frame."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.grid import VoxelGrid

from ..data.dataset import RayDataset
from .frame_truth import truth_of
from .volumes import flat_ground

__all__ = ["flat_ground", "most_frequent"]


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
