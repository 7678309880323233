"""From encoder features to density and class logits of every voxel."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderocc_model.network.config import HeadsConfig

__all__ = ["CLASS_LAYER", "VoxelFeatures", "VoxelHeads", "spread_over_layers"]

CLASS_LAYER = "heads.semantics.3."  # names of the parameters whose shapes depend on the number of classes


class VoxelFeatures(nn.Module):
    """Encoder features as one vector for each voxel, (B, X, Y, Z, C').

    Over the ground plane (2 dimensions) a 1x1 convolution gives each column Z * C' channels (channel-to-height,
    FlashOcc); over voxels (3) it gives each voxel C'.
    """

    def __init__(self, dimensions: int, inputs: int, heights: int, channels: int) -> None:
        super().__init__()
        self._split = (heights, channels)
        self.project = nn.Conv2d(inputs, heights * channels, 1) if dimensions == 2 else nn.Conv3d(inputs, channels, 1)

    def forward(self, volume: Tensor) -> Tensor:
        features = self.project(volume).movedim(1, -1)  # without a copy: the convolution works channels-last
        return features.unflatten(-1, self._split) if volume.ndim == 4 else features


class VoxelHeads(nn.Module):
    """Density and semantics of each voxel, two small networks side by side (RenderOcc's heads).

    Takes features (..., Z, C'); returns density (..., Z * L), >= 0, in 1/m, of L = `config.density_layers` layers of
    each voxel, the lowest first, and class logits (..., Z, classes), both at least float32.
    """

    def __init__(self, config: HeadsConfig, classes: int) -> None:
        super().__init__()
        inputs, hidden = config.voxel_channels, config.hidden_channels
        self.density = nn.Sequential(
            nn.ReLU(), nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, config.density_layers)
        )
        self.semantics = nn.Sequential(
            nn.ReLU(), nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes)
        )
        # softplus(log(exp(d) - 1)) = d
        nn.init.constant_(self.density[-1].bias, math.log(math.expm1(config.initial_density)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.density_of(features), self.logits_of(features)

    def density_of(self, features: Tensor) -> Tensor:
        """The density alone. It decides which voxels need a class."""
        return F.softplus(_single(self.density(features).flatten(-2)))

    def logits_of(self, features: Tensor) -> Tensor:
        """The class logits alone, of any voxels: (..., C') to (..., classes)."""
        return _single(self.semantics(features))


def spread_over_layers(heads: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The parameters of heads with this many layers of density from those of heads with one; all layers begin alike.

    Args:
        heads: parameters by name, of `VoxelHeads`.
    """
    return {
        name: one.repeat_interleave(layers, dim=0) if name.startswith("density.3.") else one
        for name, one in heads.items()
    }


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
