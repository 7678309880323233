"""The semantic density field: what the network predicts, what the renderer draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.grid import VoxelGrid

__all__ = ["SemanticDensityField", "layers_of", "mean_of_layers", "occupancy_probability"]


@dataclass(frozen=True, eq=False)
class SemanticDensityField:
    """Density and class logits at the centres of a grid's voxels (RenderOcc, section III-B).

    Args:
        grid: where the voxels are.
        density: (X, Y, Z) floating point, sigma >= 0 in 1/m.
        semantics: (X, Y, Z, C) class logits, C without the free class; same dtype and device as the density.
            The field does not say which class a channel is; `ClassTable.occupied_ids` does.
        layers: (X, Y, Z * L) densities of L layers of each voxel, the lowest first, whose mean `density` is. They are
            what light meets on rendered rays, so that a surface has a height within its voxel; None: all of a voxel
            has its density. Made by `of_layers`.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or a density on the CPU is negative or not finite. (Values on
            a GPU are not looked at: reading the answer would make the CPU wait for the GPU in every frame.)
    """

    grid: VoxelGrid
    density: Tensor
    semantics: Tensor
    layers: Tensor | None = None

    @staticmethod
    def of_layers(grid: VoxelGrid, layers: Tensor, semantics: Tensor) -> SemanticDensityField:
        """The field of a network's density (X, Y, Z * L); one without layers where L is 1.

        Raises:
            ValueError: as for the class, or the density is not of whole layers.
        """
        count = layers_of(grid, layers)
        density = mean_of_layers(layers, count)
        return SemanticDensityField(grid, density, semantics, None if count == 1 else layers)

    def __post_init__(self) -> None:
        density, semantics = torch.as_tensor(self.density), torch.as_tensor(self.semantics)
        object.__setattr__(self, "density", density)
        object.__setattr__(self, "semantics", semantics)
        shape = tuple(self.grid.shape)
        if tuple(density.shape) != shape:
            raise ValueError(f"density has shape {tuple(density.shape)} but the grid has {shape}; make it (X, Y, Z)")
        if semantics.ndim != 4 or tuple(semantics.shape[:3]) != shape:
            raise ValueError(
                f"semantics has shape {tuple(semantics.shape)} but the grid has {shape}; make it (X, Y, Z, classes)"
            )
        if not density.is_floating_point() or density.dtype != semantics.dtype:
            raise ValueError(
                f"density is {density.dtype} and semantics {semantics.dtype}; give both the same floating-point type"
            )
        if density.device != semantics.device:
            raise ValueError(f"density is on {density.device} and semantics on {semantics.device}; move one with .to()")
        if self.layers is not None and layers_of(self.grid, self.layers) == 1:
            raise ValueError("one layer is the density itself; leave `layers` out")
        if density.device.type == "cpu" and density.numel():
            lowest, highest = (float(value) for value in torch.aminmax(self.met.detach()))  # NaN if any is NaN
            if not (lowest >= 0 and highest < float("inf")):
                raise ValueError(
                    f"density runs from {lowest} to {highest}; expected finite values >= 0 in 1/m, e.g. softplus(x)"
                )

    @property
    def class_count(self) -> int:
        return self.semantics.shape[-1]

    @property
    def layer_count(self) -> int:
        """L, densities of a voxel."""
        return 1 if self.layers is None else layers_of(self.grid, self.layers)

    @property
    def met(self) -> Tensor:
        """What rays meet, (X, Y, Z * L): the density of the layers, of a field without layers that of its voxels."""
        return self.density if self.layers is None else self.layers

    @property
    def device(self) -> torch.device:
        return self.density.device

    @property
    def dtype(self) -> torch.dtype:
        return self.density.dtype

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SemanticDensityField:
        """The same field on another device or in another floating-point type; gradients flow through."""
        return SemanticDensityField(
            self.grid,
            self.density.to(device=device, dtype=dtype),
            self.semantics.to(device=device, dtype=dtype),
            None if self.layers is None else self.layers.to(device=device, dtype=dtype),
        )

    def detach(self) -> SemanticDensityField:
        """The same values without their history."""
        layers = None if self.layers is None else self.layers.detach()
        return SemanticDensityField(self.grid, self.density.detach(), self.semantics.detach(), layers)

    def occupancy_probability(self) -> Tensor:
        """(X, Y, Z) in [0, 1]: 1 - exp(-sigma * voxel_size), the chance that light stops on one voxel length."""
        return occupancy_probability(self.density, self.grid.voxel_size)


def layers_of(grid: VoxelGrid, layers: Tensor) -> int:
    """L of densities (X, Y, Z * L).

    Raises:
        ValueError: they are not of whole layers of the grid's voxels.
    """
    x, y, z = grid.shape
    if layers.ndim != 3 or tuple(layers.shape[:2]) != (x, y) or layers.shape[2] % z or not layers.shape[2]:
        raise ValueError(
            f"density has shape {tuple(layers.shape)} but the grid has {(x, y, z)}; make it (X, Y, Z), or "
            f"(X, Y, Z * L) with L layers of each voxel"
        )
    return layers.shape[2] // z


def mean_of_layers(layers: Tensor, count: int) -> Tensor:
    """(..., Z) density of voxels from that of their `count` layers, (..., Z * count)."""
    return layers if count == 1 else layers.unflatten(-1, (-1, count)).mean(-1)


def occupancy_probability(density: Tensor, voxel_size: float) -> Tensor:
    """1 - exp(-sigma * voxel_size) of densities in 1/m, of any shape.

    >>> occupancy_probability(torch.tensor([0.0, 1.0, 10.0]), voxel_size=0.4).tolist()  # doctest: +ELLIPSIS
    [0.0, 0.3296..., 0.9816...]
    """
    return -torch.expm1(-density * voxel_size)
