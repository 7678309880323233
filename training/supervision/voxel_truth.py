"""Turns 3D truth into targets for a model, whose grid may be a part of the truth's grid."""

from __future__ import annotations

import torch
from torch import Tensor

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.geometry.grid import VoxelGrid

__all__ = ["crop_slices", "voxel_targets"]

_ALIGNED = 1e-3  # largest distance between faces of the two grids, in voxels


def crop_slices(whole: VoxelGrid, part: VoxelGrid) -> tuple[slice, slice, slice]:
    """The slices of `part` in volumes of `whole`, which contains it and has voxels of the same size.

    Raises:
        ValueError: the voxel sizes differ, the faces do not coincide, or `part` reaches beyond `whole`.
    """
    if whole.frame != part.frame:
        raise ValueError(f"truth is in frame '{whole.frame}', the model's grid in '{part.frame}'; give both one frame")
    if abs(whole.voxel_size - part.voxel_size) > _ALIGNED * part.voxel_size / max(part.shape):
        raise ValueError(
            f"truth has voxels of {whole.voxel_size} m and the model of {part.voxel_size} m; train on 3D labels with "
            f"grid.voxel_size={whole.voxel_size}"
        )
    slices = []
    for axis, name in enumerate("xyz"):
        offset = (part.lower[axis] - whole.lower[axis]) / whole.voxel_size
        first, count = round(offset), part.shape[axis]
        if abs(offset - first) > _ALIGNED:
            raise ValueError(
                f"the model's grid begins {offset:.3f} voxels from the truth's in {name}; shift grid.lower and "
                f"grid.upper so that it is a whole number"
            )
        if first < 0 or first + count > whole.shape[axis]:
            raise ValueError(
                f"the model's grid runs from {part.lower[axis]} to {part.upper[axis]} m in {name} but the truth's from "
                f"{whole.lower[axis]} to {whole.upper[axis]} m; use a grid within it, or train without 3D labels"
            )
        slices.append(slice(first, first + count))
    x, y, z = slices
    return x, y, z


def voxel_targets(
    truth: dict[str, Tensor], whole: VoxelGrid, part: VoxelGrid, channels: Tensor, classes: ClassTable
) -> tuple[Tensor, Tensor, Tensor]:
    """Targets for the voxels of `part`, from 3D truth.

    Args:
        truth: "semantics" (X, Y, Z) class ids of `whole`, 255 unknown; "mask_camera" (X, Y, Z), the voxels that
            cameras see. Without a mask every known voxel counts.
        channels: (256,) logit of each class id, -1 for none.
    Returns:
        channels (x, y, z) int64, occupied and counted (x, y, z) bool, for `losses.voxel_cross_entropy`.
    Raises:
        ValueError: the truth is not of grid `whole`, or the grids do not fit.
    """
    slices = crop_slices(whole, part)
    for name, volume in truth.items():
        if tuple(volume.shape) != whole.shape:
            raise ValueError(
                f"3D truth '{name}' has shape {tuple(volume.shape)} but truth_grid has {whole.shape}; set "
                f"supervision.truth_grid to the grid of the truth"
            )
    semantics = truth["semantics"][slices].to(torch.int64)
    known = semantics != UNLABELLED
    counted = known & (truth["mask_camera"][slices] > 0) if "mask_camera" in truth else known
    return channels[semantics], semantics != classes.free, counted
