"""Sorts labelled rays by the kind of their label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays

from .config import SupervisionConfig
from .ray_rules import RayKinds

__all__ = ["RayLabels"]


@dataclass(frozen=True, eq=False)
class RayLabels:
    """The labels of R rays. `returned`, `beyond` and `classified` are float32 weights, 0 for rays that are not such.

    Attributes:
        distances: (R,) measured distance, metres; 1 without a distance.
        exits: (R,) distance at which the ray leaves the grid, metres.
        channels: (R,) int64, index of the logit of the ray's class; -1 for none.
        returned: (R,) the ray has a return in the grid.
        beyond: (R,) the ray leaves the grid.
        classified: (R,) the ray has a class, of a surface in the grid.
    """

    distances: Tensor
    exits: Tensor
    channels: Tensor
    returned: Tensor
    beyond: Tensor
    classified: Tensor

    @staticmethod
    def of(config: SupervisionConfig, grid: VoxelGrid, channel_table: Tensor, rays: Rays) -> RayLabels:
        """Sort rays as described in `Supervision`. `channel_table` (256,) has the logit of each class id."""
        assert rays.distances is not None, "labelled rays need distances"
        distances, kinds = rays.distances.to(torch.float32), RayKinds.of(rays, grid)
        weights = torch.ones_like(distances) if rays.weights is None else rays.weights.to(torch.float32)
        if not config.auxiliary_rays and rays.frame_offsets is not None:
            weights = weights * (rays.frame_offsets == 0)
        weights = weights * kinds.inside
        distances = torch.where(kinds.measured, distances, torch.ones_like(distances))
        if rays.classes is None:
            channels = torch.full_like(distances, -1, dtype=torch.int64)
        else:
            channels = channel_table[rays.classes.to(torch.int64)]
        returned = weights * kinds.returned
        unmeasured = torch.zeros_like(weights)
        if config.class_only_rays:
            unmeasured = weights * (~kinds.measured & (channels >= 0))
        return RayLabels(distances, kinds.far, channels, returned, weights * kinds.beyond, returned + unmeasured)

    @property
    def used(self) -> Tensor:
        """(R,) weights of rays that have any label."""
        return self.classified + self.beyond
