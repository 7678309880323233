"""Feature pyramid: the backbone's maps joined at the finest of them."""

from __future__ import annotations

from torch import Tensor, nn

from renderocc_model.layers import convolution, resize

__all__ = ["FeaturePyramid"]


class FeaturePyramid(nn.Module):
    """Top-down pathway of a feature pyramid (Lin et al., 2017), one output.

    Takes maps (M, C_i, h_i, w_i), finest first; returns (M, channels, h_0, w_0).
    """

    def __init__(self, inputs: list[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(convolution(2, count, channels, kernel=1) for count in inputs)
        self.smooth = convolution(2, channels, channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        joined = self.laterals[-1](maps[-1])
        for lateral, level in zip(reversed(self.laterals[:-1]), reversed(maps[:-1])):
            fine = lateral(level)
            joined = fine + resize(joined, fine.shape[2:])
        return self.smooth(joined)
