"""Distances by parallax: the images of now compared with those from before the vehicle moved on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderocc_model.network.config import StereoConfig
from renderocc_model.network.layers import convolution, without_effect
from renderocc_model.ops.epipolar import epipolar_similarity

__all__ = ["EarlierImages", "TemporalStereo", "earlier_images", "no_images"]

_HIDDEN = 8  # channels between similarities and logits
_REACH = 5  # depth bins that a layer looks at


class EarlierImages(NamedTuple):
    """What the images of M cameras are compared with: V earlier images each, of any cameras.

    Attributes:
        keys: (M, V, C, h, w), `TemporalStereo.keys_of` the earlier images.
        pixels: (M, V, 3, 4) float32, from (u d, v d, d, 1) of a feature pixel (u, v) at z-depth d to the homogeneous
            feature pixel that showed the same place then; zeros where there is no image.
    """

    keys: Tensor
    pixels: Tensor


def no_images(shape: Sequence[int], like: Tensor) -> EarlierImages:
    """What there is to compare where there is no earlier frame: zeros, keys of this shape, of a tensor's kind."""
    return EarlierImages(like.new_zeros(*shape), torch.zeros(*shape[:2], 3, 4, device=like.device))


def earlier_images(base_from_pixel: Tensor, keys: Tensor, base_from_earlier_pixel: Tensor, views: int) -> EarlierImages:
    """Choose the earlier images for each camera: those that look most in its direction, as a rule its own first.

    At 8 m/s a place at the side is seen half a second later by the next camera further back, so one camera's own
    earlier image shows only half of what it sees.

    Args:
        base_from_pixel: (B, N, 4, 4) float64, as in `LiftGeometry`; zeros for cameras that are not there.
        keys: (B, N', C, h, w) of the earlier images; their cameras may be others.
        base_from_earlier_pixel: (B, N', 4, 4), the same of the earlier images, to the base frame of now.
        views: V, for each camera.
    Returns:
        of the M = B * N cameras; zeros where there are fewer earlier images than V.
    """
    height, width = keys.shape[-2:]
    middle = base_from_pixel.new_tensor([(width - 1) / 2, (height - 1) / 2, 1, 0])
    now, then = (F.normalize((one @ middle)[..., :3], dim=-1) for one in (base_from_pixel, base_from_earlier_pixel))
    there = (base_from_pixel[..., 3, 3] != 0)[:, :, None] & (base_from_earlier_pixel[..., 3, 3] != 0)[:, None]
    alike = torch.where(there, now @ then.transpose(1, 2), -2.0)  # (B, N, N')
    count = min(views, alike.shape[2])
    places = alike.topk(count, dim=2).indices
    there = there.gather(2, places)
    batch = torch.arange(len(keys), device=keys.device)[:, None, None]
    identity = torch.eye(4, dtype=base_from_pixel.dtype, device=keys.device)
    chosen = torch.where(there[..., None, None], base_from_earlier_pixel[batch, places], identity)
    pixels = torch.where(there[..., None, None], torch.linalg.inv_ex(chosen).inverse @ base_from_pixel[:, :, None], 0.0)
    found = EarlierImages(keys[batch, places].flatten(0, 1), pixels[..., :3, :].float().flatten(0, 1))
    if count == views:
        return found
    lacking = no_images((len(found.keys), views - count, *keys.shape[2:]), keys)
    return EarlierImages(*(torch.cat(parts, dim=1) for parts in zip(found, lacking)))


class TemporalStereo(nn.Module):
    """Logits of depth bins from how alike a pixel and its places in earlier images are (as in BEVStereo).

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
        return F.normalize(groups.float(), dim=2, eps=1e-4).to(keys.dtype).flatten(1, 2)

    def forward(self, keys: Tensor, earlier: EarlierImages | None, depths: Tensor, backend: str = "auto") -> Tensor:
        """Logits (M, D, h, w), to be added to those of one image.

        Args:
            keys: of the images of now.
            earlier: None: there are none.
            depths: (D,), what the depth bins stand for, metres.
            backend: of `epipolar_similarity`.
        """
        # Without a gradient nothing has to be compared to find zeros; with one every weight shall have a part in it.
        views = int(torch.is_grad_enabled())
        earlier = earlier or no_images((keys.shape[0], views, *keys.shape[1:]), keys)
        alike = epipolar_similarity(keys, earlier.keys.to(keys.dtype), earlier.pixels, depths, self.groups, backend)
        similarities = alike[:, :-1].flatten(1, 2)
        joined = torch.cat([alike, _mean_around(similarities).unflatten(1, (self.groups, -1))], dim=1)
        return self.logits(self.read(joined.flatten(3))).unflatten(3, keys.shape[2:]).squeeze(1)


def _mean_around(values: Tensor) -> Tensor:
    """The mean of each pixel and its neighbours in the picture, (M, C, h, w).

    As `avg_pool2d(values, 3, 1, 1, count_include_pad=False)`, of which CPUs make 8 ms what a convolution does in 1.
    """
    ones = values.new_ones(values.shape[1], 1, 3, 3)
    counts = F.conv2d(values.new_ones(1, 1, *values.shape[2:]), ones[:1], padding=1)
    return (F.conv2d(values, ones, padding=1, groups=len(ones)) / counts).to(values.dtype)
