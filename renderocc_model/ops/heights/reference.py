"""Logits of heights at the depths of rays in plain PyTorch: two gathers for each depth of each pixel."""

from __future__ import annotations

from torch import Tensor

__all__ = ["height_logits"]


def height_logits(
    logits: Tensor, start: Tensor, slope: Tensor, depths: Tensor, lowest: float, highest: float
) -> Tensor:
    """What `ops.heights.height_logits` does."""
    count = logits.shape[1]
    height = start[:, None, None, None] + depths[:, None, None] * slope[:, None]
    place = (height - lowest) * ((count - 1) / (highest - lowest))
    place = place.clamp(0, count - 1)
    below = place.floor().clamp(max=count - 2)
    index, share = below.long(), (place - below).to(logits.dtype)
    return logits.gather(1, index) * (1 - share) + logits.gather(1, index + 1) * share
