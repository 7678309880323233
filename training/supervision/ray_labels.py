"""Sorts labelled rays by what they are labels of."""

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
    """What each of R rays is a label of; float32 weights, 0 where it is none.

    distances: (R,) measured metres; 1 where there is none.
    exits: (R,) metres to where the ray leaves the grid.
    channels: (R,) int64, the logit of its class; -1 for none.
    returned: (R,) it met something in the grid.
    beyond: (R,) it left the grid.
    classified: (R,) its class is that of something in the grid.
    """

    distances: Tensor
    exits: Tensor
    channels: Tensor
    returned: Tensor
    beyond: Tensor
    classified: Tensor

    @staticmethod
    def of(config: SupervisionConfig, grid: VoxelGrid, channel_table: Tensor, rays: Rays) -> RayLabels:
        """Sort rays by what they say (`Supervision`), with `channel_table` (256,) the logit of each class id."""
        assert rays.distances is not None, "labelled rays have distances"
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
        """(R,) weights of rays that are a label of anything."""
        return self.classified + self.beyond
