"""Feature pyramid: maps of several scales joined at the finest of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from renderocc_model.network.layers import convolution, resize

__all__ = ["FeaturePyramid"]


class FeaturePyramid(nn.Module):
    """Top-down pathway of a feature pyramid (Lin et al., 2017) with one output, in 2 or 3 dimensions.

    Takes maps (B, C_i, ...), finest first; returns (B, outputs, ...) of the finest map's size.
    """

    def __init__(self, dimensions: int, inputs: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(convolution(dimensions, channels, outputs, kernel=1) for channels in inputs)
        self.smooth = convolution(dimensions, outputs, outputs)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        joined = self.laterals[-1](maps[-1])
        for lateral, level in zip(reversed(self.laterals[:-1]), reversed(maps[:-1])):
            fine = lateral(level)
            joined = fine + resize(joined, fine.shape[2:])
        return self.smooth(joined)
