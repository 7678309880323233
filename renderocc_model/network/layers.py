"""Convolution blocks in two and three dimensions, shared by neck, lift, fusion and encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WITHOUT_EFFECT", "ResidualBlock", "convolution", "resize", "without_effect"]

# Parts of a network whose last layer begins as zeros: with or without them a network is the same function at first.
WITHOUT_EFFECT = ("lift.rays.", "lift.predict_height.", "fusion.", "stereo.")


def convolution(dimensions: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the size is kept (divided by the stride, rounded up)."""
    conv, norm = _LAYERS[dimensions]
    return nn.Sequential(
        conv(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), norm(outputs), nn.ReLU(inplace=True)
    )


class ResidualBlock(nn.Module):
    """Two convolutions with a skip connection (He et al., 2016), in `dimensions` dimensions.

    `begin_without_effect` makes it pass on what a ReLU gave, until it has learned: so a deeper network can go on from a
    trained one.
    """

    def __init__(self, dimensions: int, channels: int) -> None:
        super().__init__()
        conv, norm = _LAYERS[dimensions]
        self.first = convolution(dimensions, channels, channels)
        self.second = nn.Sequential(conv(channels, channels, 3, padding=1, bias=False), norm(channels))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.second(self.first(features)), inplace=True)

    def begin_without_effect(self) -> None:
        """Set the last normalisation's scale to zero (Goyal et al., 2017)."""
        nn.init.zeros_(self.second[1].weight)
        nn.init.zeros_(self.second[1].bias)


def resize(features: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Linear interpolation of (B, C, ...) features to a spatial size; cells keep their physical extent."""
    if features.shape[2:] == torch.Size(size):
        return features
    mode = "bilinear" if features.ndim == 4 else "trilinear"
    return F.interpolate(features, size=tuple(size), mode=mode, align_corners=False)


def without_effect(layer: nn.Conv2d | nn.Conv3d) -> nn.Conv2d | nn.Conv3d:
    """The layer with weights and biases of zero: what it is added to does not change until it has learned."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


_LAYERS = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}
