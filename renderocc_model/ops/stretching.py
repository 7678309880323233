"""Fields in layers, for loops over cubic voxels.

Space is stretched along z until a layer is as high as a voxel is wide. A ray's direction is stretched with it and is no
longer of unit length, so that every point of the ray keeps its distance from the origin, in metres of the vehicle.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from ..field.field import SemanticDensityField
from ..geometry.grid import VoxelGrid
from ..geometry.rays import Rays

__all__ = ["stretched", "stretched_density", "stretched_field", "stretched_grid", "stretched_rays"]


class _StretchedRays(Rays):
    """Rays that were checked before they were stretched."""

    def __post_init__(self) -> None:
        pass


def stretched_grid(grid: VoxelGrid, layers: int) -> VoxelGrid:
    """The grid whose voxels are the layers of a grid's voxels."""
    lower, upper = ((*corner[:2], corner[2] * layers) for corner in (grid.lower, grid.upper))
    return VoxelGrid(lower, upper, grid.voxel_size, grid.frame)


def stretched_rays(rays: Rays, layers: int) -> Rays:
    """The rays in the space of `stretched_grid`; columns other than the geometry are the same."""
    columns = {field.name: getattr(rays, field.name) for field in fields(Rays)}
    columns |= {name: stretched(columns[name], layers) for name in ("origins", "directions")}
    return _StretchedRays(**columns)


def stretched_field(field: SemanticDensityField) -> SemanticDensityField:
    """A field in layers as one whose voxels are the layers; all layers of a voxel have its class logits."""
    assert field.layers is not None, "a field in layers"
    layers = field.layer_count
    semantics = field.semantics.repeat_interleave(layers, dim=2)
    return SemanticDensityField(stretched_grid(field.grid, layers), field.layers, semantics)


def stretched_density(field: SemanticDensityField) -> SemanticDensityField:
    """The same without classes; a field without layers is its own only layer."""
    grid = stretched_grid(field.grid, field.layer_count)
    return SemanticDensityField(grid, field.met, field.met.new_zeros(*field.met.shape, 0))


def stretched(vectors: Tensor, layers: int) -> Tensor:
    """Vectors (..., 3) with z times `layers`, at least in float32: half precision would lose a tenth of a voxel."""
    if layers == 1:
        return vectors
    scale = torch.tensor(
        [1.0, 1.0, layers], dtype=torch.promote_types(vectors.dtype, torch.float32), device=vectors.device
    )
    return vectors * scale
