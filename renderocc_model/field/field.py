"""The semantic density field: what the network predicts, what the renderer draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.grid import VoxelGrid

__all__ = ["SemanticDensityField", "occupancy_probability"]


@dataclass(frozen=True, eq=False)
class SemanticDensityField:
    """Density and class logits at the centres of a grid's voxels (RenderOcc, section III-B).

    Args:
        grid: where the voxels are.
        density: (X, Y, Z) floating point, sigma >= 0 in 1/m.
        semantics: (X, Y, Z, C) class logits, C without the free class; same dtype and device as the density.
            The field does not say which class a channel is; `ClassTable.occupied_ids` does.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or a density on the CPU is negative or not finite. (Values on
            a GPU are not looked at: reading the answer would make the CPU wait for the GPU in every frame.)
    """

    grid: VoxelGrid
    density: Tensor
    semantics: Tensor

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
        if density.device.type == "cpu" and density.numel():
            lowest, highest = (float(value) for value in torch.aminmax(density.detach()))  # NaN if any is NaN
            if not (lowest >= 0 and highest < float("inf")):
                raise ValueError(
                    f"density runs from {lowest} to {highest}; expected finite values >= 0 in 1/m, e.g. softplus(x)"
                )

    @property
    def class_count(self) -> int:
        return self.semantics.shape[-1]

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
        )

    def detach(self) -> SemanticDensityField:
        """The same values without their history."""
        return SemanticDensityField(self.grid, self.density.detach(), self.semantics.detach())

    def occupancy_probability(self) -> Tensor:
        """(X, Y, Z) in [0, 1]: 1 - exp(-sigma * voxel_size), the chance that light stops on one voxel length."""
        return occupancy_probability(self.density, self.grid.voxel_size)


def occupancy_probability(density: Tensor, voxel_size: float) -> Tensor:
    """1 - exp(-sigma * voxel_size) of densities in 1/m, of any shape.

    >>> occupancy_probability(torch.tensor([0.0, 1.0, 10.0]), voxel_size=0.4).tolist()  # doctest: +ELLIPSIS
    [0.0, 0.3296..., 0.9816...]
    """
    return -torch.expm1(-density * voxel_size)
