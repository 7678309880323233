"""The likelihood of where light ends, from optical depths."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .reference import OpticalDepths

__all__ = ["log1mexp", "negative_log_likelihood"]


def log1mexp(depth: Tensor) -> Tensor:
    """log(1 - exp(-depth)), to rounding for any depth, and so is its gradient 1 / (exp(depth) - 1).

    Below log 2 the difference is taken by expm1, above it the logarithm by log1p (Maechler 2012). A depth below the
    type's smallest normal number, also 0, counts as that number and gets no gradient: -87.3 in float32, and no
    infinity that would make NaN of a weight 0.

    Args:
        depth: (...) >= 0, float32 or float64.
    Returns:
        (...) < 0 (or 0, where exp(-depth) is less than the type can tell).
    """
    # Each branch sees only numbers that are good for it: the gradient of one that is not chosen would be NaN or inf.
    small = depth < math.log(2)
    low = torch.where(small, depth, math.log(2)).clamp(min=torch.finfo(depth.dtype).tiny)
    high = torch.where(small, math.log(2), depth)
    return torch.where(small, torch.log(-torch.expm1(-low)), torch.log1p(-torch.exp(-high)))


def negative_log_likelihood(depths: OpticalDepths, returned: Tensor) -> Tensor:
    """-log of the probability that light ends in the window, or, where nothing returned, that it leaves the grid.

    Args:
        depths: of R rays; those that left the grid have windows that begin behind it.
        returned: (R,) bool.
    Returns:
        (R,) >= 0; differentiable in the depths.
    """
    return depths.before - torch.where(returned, log1mexp(depths.window), 0)
