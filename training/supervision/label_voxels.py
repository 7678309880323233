"""Losses of occupancy and classes on the voxels that 2D labels mark (`data.voxelise`)."""

from __future__ import annotations

import torch
from torch import Tensor

from renderocc_model.field.field import SemanticDensityField

from . import losses
from .config import LabelVoxelConfig

__all__ = ["label_voxel_losses"]


def label_voxel_losses(
    config: LabelVoxelConfig,
    field: SemanticDensityField,
    voxels: dict[str, Tensor],
    channel_table: Tensor,
    class_weights: Tensor | None = None,
    occupancy_factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The losses of 3D supervision, over the voxels that labels mark.

    Args:
        voxels: "occupied" and "free" (X, Y, Z) bool, "semantics" (X, Y, Z) uint8 class ids, 255 if unknown.
        channel_table: (256,) logit of each class id, -1 for none.
        class_weights: (C,).
        occupancy_factor: see `SupervisionConfig`.
    Returns:
        occupancy: binary cross-entropy, the mean over occupied and free voxels.
        semantics: cross-entropy of classes, over occupied voxels of known class.
    Raises:
        ValueError: the voxels are of another grid.
    """
    occupied, free = voxels["occupied"], voxels["free"]
    if occupied.shape != field.density.shape:
        raise ValueError(
            f"labels mark voxels of shape {tuple(occupied.shape)}, the model's grid has {tuple(field.density.shape)}; "
            "give the dataset the model's grid (label_grid)"
        )
    layers = torch.arange(occupied.shape[2], device=occupied.device).expand(occupied.shape)
    weights = _shared_out(layers, occupied, occupied.shape[2], config.height_power) + free
    optical_depth = field.density * field.grid.voxel_size * occupancy_factor
    occupancy = losses.occupancy_cross_entropy(optical_depth, occupied, weights)
    channels = channel_table[voxels["semantics"].to(torch.int64)]
    named = occupied & (channels >= 0)
    weights = _shared_out(channels.clamp(min=0), named, field.class_count, config.class_power)
    logits, channels, weights = field.semantics.flatten(0, 2), channels.flatten(), weights.flatten()
    if logits.device.type == "cpu":  # the number of rows would be known only after waiting for the GPU
        rows = named.flatten().nonzero()[:, 0]
        logits, channels, weights = logits.index_select(0, rows), channels[rows], weights[rows]
    return occupancy, losses.semantic_cross_entropy(logits, channels, class_weights, weights)


def _shared_out(groups: Tensor, counted: Tensor, count: int, power: float) -> Tensor:
    """Weights (X, Y, Z) with mean 1: (share of a voxel's group) ^ -power for voxels that count, 0 for the others.

    Args:
        groups: (X, Y, Z) int64, 0 to count - 1.
        counted: (X, Y, Z) bool.
    """
    weights = counted.to(torch.float32)
    if power == 0:
        return weights
    sizes = torch.zeros(count, device=weights.device).index_add_(0, groups.flatten(), weights.flatten())
    weights = weights * sizes.clamp(min=1).pow(-power)[groups]
    return weights * (counted.sum() / weights.sum().clamp(min=losses.SMALLEST_WEIGHT))
