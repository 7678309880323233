"""The volume encoder: residual convolutions at several scales, joined at the finest."""

from __future__ import annotations

from torch import Tensor, nn

from renderocc_model.network.config import EncoderConfig
from renderocc_model.network.layers import ResidualBlock, convolution
from renderocc_model.network.neck import FeaturePyramid

__all__ = ["VolumeEncoder"]


class VolumeEncoder(nn.Module):
    """Residual network with a feature pyramid, over the ground plane (2 dimensions) or over voxels (3).

    Takes (B, C_in, X, Y[, Z]); returns (B, config.out_channels, X, Y[, Z]). Any size works: a scale is half the one
    before, rounded up.
    """

    def __init__(self, dimensions: int, inputs: int, config: EncoderConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        for number, (channels, blocks) in enumerate(zip(config.channels, config.blocks)):
            # The first scale only changes the number of channels; its blocks look around.
            enter = convolution(dimensions, inputs, channels, *((1, 1) if number == 0 else (3, 2)))
            self.scales.append(nn.Sequential(enter, *(ResidualBlock(dimensions, channels) for _ in range(blocks))))
            inputs = channels
        self.pyramid = FeaturePyramid(dimensions, config.channels, config.out_channels)

    def forward(self, volume: Tensor) -> Tensor:
        maps = []
        for scale in self.scales:
            volume = scale(volume)
            maps.append(volume)
        return self.pyramid(maps)
