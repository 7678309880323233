"""The rule by which a ray's label is read, the same one in training, evaluation and pictures.

How its rendering is read: `renderocc_model.ops.render.surfaces`.
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
    """What the measured distance d of each of R rays says; a ray that begins outside of the grid says nothing.

    far: (R,) float32 metres to where the ray leaves the grid.
    inside: (R,) bool, it begins in the grid.
    measured: (R,) d is a distance: neither 0 nor NaN nor infinite.
    returned: (R,) it met something in the grid: d < far.
    beyond: (R,) it left the grid: d >= far.
    """

    far: Tensor
    inside: Tensor
    measured: Tensor
    returned: Tensor
    beyond: Tensor

    @staticmethod
    def of(rays: Rays, grid: VoxelGrid) -> RayKinds:
        assert rays.distances is not None, "labelled rays have distances"
        origins, directions, distances = (
            tensor.to(torch.float32) for tensor in (rays.origins, rays.directions, rays.distances)
        )
        near, far = intersect_box(origins, directions, grid.lower, grid.upper)
        inside, measured = (near == 0) & (far > 0), (distances > 0) & (distances < math.inf)
        told, within = inside & measured, distances < far
        return RayKinds(far, inside, measured, told & within, told & ~within)
