"""Epipolar similarity in plain PyTorch: a table of all pairs of pixels, read at four places for each depth."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NEAREST", "epipolar_similarity"]

NEAREST = 0.05  # metres in front of the earlier camera, from which on a place is looked at


def epipolar_similarity(queries: Tensor, keys: Tensor, earlier_pixels: Tensor, depths: Tensor, groups: int) -> Tensor:
    """What `ops.epipolar.epipolar_similarity` does. The table has groups * (h w)^2 numbers for each image."""
    images, _, height, width = queries.shape
    found = queries.new_zeros(images, groups + 1, height * width, depths.shape[0])
    for view in range(keys.shape[1]):
        one = _of_view(queries, keys[:, view].to(queries.dtype), earlier_pixels[:, view], depths, groups)
        found = found + one * (1 - found[:, -1:])
    return found.transpose(2, 3).reshape(images, groups + 1, depths.shape[0], height, width)


def _of_view(queries: Tensor, keys: Tensor, earlier_pixels: Tensor, depths: Tensor, groups: int) -> Tensor:
    """Similarities with one earlier image of each, and whether places lie there; (M, G + 1, h w, D)."""
    images, channels, height, width = queries.shape
    grouped = (images, groups, channels // groups, height * width)
    table = queries.reshape(grouped).transpose(2, 3) @ keys.reshape(grouped)  # (M, G, h w of now, h w of then)
    x, y, seen = _places(earlier_pixels, depths, height, width)
    left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
    right, down = int(width > 1), int(height > 1) * width
    first = top.long() * width + left.long()
    x, y, seen = (part.to(queries.dtype) for part in (x - left, y - top, seen))
    similarity = torch.zeros((), dtype=queries.dtype, device=queries.device)
    for step, weight in ((0, (1 - x) * (1 - y)), (right, x * (1 - y)), (down, (1 - x) * y), (right + down, x * y)):
        found = table.gather(3, (first + step)[:, None].expand(-1, groups, -1, -1))
        similarity = similarity + found * (weight * seen)[:, None]
    return torch.cat([similarity, seen[:, None]], dim=1)


def _places(earlier_pixels: Tensor, depths: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, y within the earlier image, and whether they lie there by themselves; (M, h w, D) each."""
    device = earlier_pixels.device
    earlier_pixels, depths = earlier_pixels.float(), depths.float()
    v = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
    u = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
    # Not a matrix product, which autocast would compute in half precision: places would be off by a pixel.
    directions = earlier_pixels[:, :, 0, None] * u + earlier_pixels[:, :, 1, None] * v + earlier_pixels[:, :, 2, None]
    a, b, c = (directions[..., None] * depths + earlier_pixels[:, :, 3, None, None]).unbind(1)
    front = c > NEAREST
    c = torch.where(front, c, 1.0)
    x, y = a / c, b / c
    # Not written with `&`: archives of torch.export are refused if they call an operator with such a name.
    across = (x >= -0.5).logical_and(x <= width - 0.5)
    seen = (y >= -0.5).logical_and(y <= height - 0.5).logical_and(across).logical_and(front)
    x, y = (torch.where(seen, place, 0.0) for place in (x, y))
    return x.clamp(0, width - 1), y.clamp(0, height - 1), seen
