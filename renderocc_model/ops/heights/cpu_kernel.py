"""Logits of heights at the depths of rays on the CPU's cores: the loops of `cpu_loops`, as a PyTorch function.

A thread works on a row of pixels of an image: the same input gives the same bytes for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..execution import cpu_loops_of, float32_array, in_threads

__all__ = ["height_logits"]

NUMBERS_WORTH_A_THREAD = 2**17  # of depths of pixels


def height_logits(
    logits: Tensor, start: Tensor, slope: Tensor, depths: Tensor, lowest: float, highest: float
) -> Tensor:
    """What `ops.heights.height_logits` does, for tensors that `ops.heights.choose` gives it."""
    return _HeightLogits.apply(logits, start, slope, depths, lowest, highest).to(logits.dtype)


class _HeightLogits(torch.autograd.Function):
    """(M, D, H, W) float32 of logits (M, K, H, W)."""

    @staticmethod
    def forward(
        ctx, logits: Tensor, start: Tensor, slope: Tensor, depths: Tensor, lowest: float, highest: float
    ) -> Tensor:
        loops = cpu_loops_of(__package__, "reading heights along rays")
        images, count, height, width = logits.shape
        scale = np.float32((count - 1) / (highest - lowest))
        ctx.rays = float32_array(start), float32_array(slope), float32_array(depths), np.float32(lowest), scale
        ctx.count, ctx.type = count, logits.dtype
        rows = float32_array(logits.movedim(1, -1))
        written = torch.empty(images, len(depths), height, width, dtype=torch.float32)
        into = written.numpy()
        _in_threads(lambda row: loops.read(rows, *ctx.rays, into, *divmod(row, height)), images * height, into.size)
        return written

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        loops = cpu_loops_of(__package__, "reading heights along rays")
        upstream = float32_array(gradient)
        images, _, height, width = upstream.shape
        result = torch.zeros(images, height, width, ctx.count, dtype=torch.float32)
        into = result.numpy()
        _in_threads(
            lambda row: loops.push_back(upstream, *ctx.rays, into, *divmod(row, height)), images * height, upstream.size
        )
        return result.movedim(-1, 1).to(ctx.type), None, None, None, None, None


def _in_threads(work: Callable[[int], None], items: int, numbers: int) -> None:
    in_threads(work, range(items), max(1, min(torch.get_num_threads(), numbers // NUMBERS_WORTH_A_THREAD)))
