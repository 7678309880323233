"""Baselines without a network: the same volume for every frame."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.grid import VoxelGrid

from ..data.dataset import RayDataset
from .frame_truth import truth_of
from .volumes import flat_ground

__all__ = ["flat_ground", "most_frequent"]


def most_frequent(dataset: RayDataset, grid: VoxelGrid, truth_grid: VoxelGrid | None = None) -> np.ndarray:
    """The most frequent class of each voxel in the 3D truth of the training recordings, (X, Y, Z) uint8.

    Only frames in which the cameras see the voxel count; free is one of the classes. A voxel that is never seen is
    free. Of equally frequent classes the first is taken.

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
