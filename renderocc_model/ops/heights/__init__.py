"""Logits of heights as logits of depths: each depth of a pixel takes what its ray's height there has.

The ray of a pixel is at height z = start + slope * d at z-depth d. The heights' logits belong to evenly spaced heights;
in between they are linear, and beyond the ends constant:

    found[m, d, v, u] = logits[m, :, v, u] at z(d), z(d) = start[m] + slope[m, v, u] * depths[d]

Implementations of one signature, compared with each other in the tests:

    reference       plain PyTorch, any device and type; also what is exported
    cpu             compiled loops on the CPU's cores, float32 (`cpu_kernel`)
"""

from __future__ import annotations

from torch import Tensor

from ..execution import choose_without_triton
from . import cpu_kernel, reference

__all__ = ["choose", "height_logits"]


def height_logits(
    logits: Tensor,
    start: Tensor,
    slope: Tensor,
    depths: Tensor,
    lowest: float,
    highest: float,
    backend: str = "auto",
) -> Tensor:
    """Read the logits of heights at the heights of each pixel's ray. Differentiable in the logits, once.

    Args:
        logits: (M, K, H, W), of K >= 2 heights from `lowest` to `highest`, floating point.
        start: (M,), height of each camera, metres.
        slope: (M, H, W), metres that a pixel's ray rises for each metre of z-depth.
        depths: (D,), metres of z-depth.
        lowest, highest: metres.
        backend: "reference", "cpu", or "auto", which is "cpu" for numbers of at most 32 bits on the CPU.
    Returns:
        (M, D, H, W) in the type of `logits`.
    Raises:
        ValueError: shapes or devices do not fit together, or the backend is unknown or cannot do what is asked.
        ImportError: Numba, which compiles the loops, is not installed.
    """
    _check(logits, start, slope, depths)
    implementation = {"cpu": cpu_kernel}.get(choose(logits, backend), reference)
    return implementation.height_logits(logits, start, slope, depths, lowest, highest)


def choose(logits: Tensor, backend: str) -> str:
    """Which implementation is taken; whether what it needs is installed does not count.

    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """
    return choose_without_triton(backend, logits, "logits")


def _check(logits: Tensor, start: Tensor, slope: Tensor, depths: Tensor) -> None:
    images, heights, *size = logits.shape if logits.ndim == 4 else (0, 0)
    if heights < 2 or start.shape != (images,) or tuple(slope.shape) != (images, *size) or depths.ndim != 1:
        raise ValueError(
            f"height logits: logits are {tuple(logits.shape)}, start {tuple(start.shape)}, slope {tuple(slope.shape)} "
            f"and depths {tuple(depths.shape)}; expected (M, K, H, W) with K >= 2, (M,), (M, H, W) and (D,)"
        )
    if not logits.device == start.device == slope.device == depths.device:
        raise ValueError(
            f"height logits: logits are on {logits.device}, start on {start.device}, slope on {slope.device}, depths "
            f"on {depths.device}; bring them to one device"
        )
