"""Distances by parallax: the images of now compared with those of the same cameras before the vehicle moved on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderocc_model.network.config import StereoConfig
from renderocc_model.network.layers import convolution, without_effect
from renderocc_model.ops.epipolar import epipolar_similarity

__all__ = ["EarlierImages", "TemporalStereo", "earlier_pixels", "no_images"]

_HIDDEN = 8  # channels between similarities and logits
_REACH = 5  # depth bins that a layer looks at


class EarlierImages(NamedTuple):
    """What is compared with the images of now.

    Attributes:
        keys: (M, C, h, w), `TemporalStereo.keys_of` the earlier images of the same cameras.
        pixels: (M, 3, 4) float32, from (u d, v d, d, 1) of a feature pixel (u, v) at z-depth d to the homogeneous
            feature pixel that showed the same place then; zeros for cameras without an earlier image.
    """

    keys: Tensor
    pixels: Tensor


def no_images(shape: Sequence[int], like: Tensor) -> EarlierImages:
    """What there is to compare where there is no earlier frame: zeros, keys of this shape, of a tensor's kind."""
    return EarlierImages(like.new_zeros(*shape), torch.zeros(shape[0], 3, 4, device=like.device))


def earlier_pixels(base_from_pixel: Tensor, earlier_base_from_pixel: Tensor, base_from_earlier: Tensor) -> Tensor:
    """`EarlierImages.pixels` (B * N, 3, 4) from the geometry of both frames.

    Args:
        base_from_pixel, earlier_base_from_pixel: (B, N, 4, 4) float64, as in `LiftGeometry`; zeros for cameras that are
            not there.
        base_from_earlier: (B, 4, 4) float64, from the base frame then to that of now.
    """
    there = (base_from_pixel[..., 3, 3] != 0) & (earlier_base_from_pixel[..., 3, 3] != 0)
    then = base_from_earlier[:, None] @ earlier_base_from_pixel
    identity = torch.eye(4, dtype=then.dtype, device=then.device)
    pixels = torch.linalg.inv(torch.where(there[..., None, None], then, identity)) @ base_from_pixel
    return torch.where(there[..., None, None], pixels, 0.0)[..., :3, :].float().flatten(0, 1)


class TemporalStereo(nn.Module):
    """Logits of depth bins from how alike a pixel and its places in an earlier image are (as in BEVStereo).

    A few convolutions along the bins turn similarities, each pixel's own and the mean of its neighbourhood, into
    logits. They begin as zeros: a network that learned without them can learn on with them.

    Args:
        inputs: channels of the backbone's finest maps.
    """

    def __init__(self, inputs: int, config: StereoConfig) -> None:
        super().__init__()
        self.groups = config.groups
        self.describe = nn.Sequential(
            convolution(2, inputs, config.channels), nn.Conv2d(config.channels, config.channels, 1)
        )
        self.read = nn.Sequential(
            nn.Conv2d(2 * config.groups + 1, _HIDDEN, (_REACH, 1), padding=(_REACH // 2, 0)),
            nn.ReLU(inplace=True),
            nn.Conv2d(_HIDDEN, _HIDDEN, (_REACH, 1), padding=(_REACH // 2, 0)),
            nn.ReLU(inplace=True),
        )
        self.logits = without_effect(nn.Conv2d(_HIDDEN, 1, (3, 1), padding=(1, 0)))

    def keys_of(self, maps: Tensor) -> Tensor:
        """What is compared, (M, C, h, w), of the backbone's finest maps (M, C_in, h, w); each group of length 1."""
        keys = self.describe(maps)
        groups = keys.unflatten(1, (self.groups, -1))
        return F.normalize(groups.float(), dim=2).to(keys.dtype).flatten(1, 2)

    def forward(self, keys: Tensor, earlier: EarlierImages | None, depths: Tensor, backend: str = "auto") -> Tensor:
        """Logits (M, D, h, w), to be added to those of one image.

        Args:
            keys: of the images of now.
            earlier: None: there are none.
            depths: (D,), what the depth bins stand for, metres.
            backend: of `epipolar_similarity`.
        """
        earlier = earlier or no_images(keys.shape, keys)
        alike = epipolar_similarity(keys, earlier.keys.to(keys.dtype), earlier.pixels, depths, self.groups, backend)
        similarities = alike[:, :-1].flatten(1, 2)
        around = F.avg_pool2d(similarities, 3, stride=1, padding=1, count_include_pad=False)
        joined = torch.cat([alike, around.unflatten(1, (self.groups, -1))], dim=1)
        return self.logits(self.read(joined.flatten(3))).unflatten(3, keys.shape[2:]).squeeze(1)
