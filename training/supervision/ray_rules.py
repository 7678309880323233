"""The rule for a ray's label. It is the same in training, evaluation and drawings.

The rule for a ray's rendering is in `renderocc_model.ops.render.surfaces`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.ops.render import intersect_box

__all__ = ["RayKinds"]


@dataclass(frozen=True, eq=False)
class RayKinds:
    """The kinds of R rays, by their measured distance d. A ray whose origin is outside the grid has no kind.

    Attributes:
        far: (R,) float32, distance at which the ray leaves the grid, metres.
        inside: (R,) bool, the origin is in the grid.
        measured: (R,) bool, d is a distance: not 0, NaN or infinite.
        returned: (R,) bool, the ray has a return in the grid: d < far.
        beyond: (R,) bool, the ray leaves the grid: d >= far.
    """

    far: Tensor
    inside: Tensor
    measured: Tensor
    returned: Tensor
    beyond: Tensor

    @staticmethod
    def of(rays: Rays, grid: VoxelGrid) -> RayKinds:
        assert rays.distances is not None, "labelled rays need distances"
        origins, directions, distances = (
            tensor.to(torch.float32) for tensor in (rays.origins, rays.directions, rays.distances)
        )
        near, far = intersect_box(origins, directions, grid.lower, grid.upper)
        inside, measured = (near == 0) & (far > 0), (distances > 0) & (distances < math.inf)
        told, within = inside & measured, distances < far
        return RayKinds(far, inside, measured, told & within, told & ~within)
