"""Epipolar similarity on the CPU's cores: the compiled loops of `cpu_loops`, run by threads, as a PyTorch function.

A thread works on a row of pixels of an image, backward on an image: the same input gives the same bytes for any number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..execution import cpu_loops_of, float32_array, in_threads
from .reference import NEAREST

__all__ = ["epipolar_similarity"]

NUMBERS_WORTH_A_THREAD = 2**20  # of depths of pixels times channels


def epipolar_similarity(queries: Tensor, keys: Tensor, earlier_pixels: Tensor, depths: Tensor, groups: int) -> Tensor:
    """What `ops.epipolar.epipolar_similarity` does, for tensors that `ops.epipolar.choose` gives it."""
    return _Similarity.apply(queries, keys, earlier_pixels, depths, groups).to(queries.dtype)


class _Similarity(torch.autograd.Function):
    """(M, G + 1, D, h, w) float32 of queries (M, C, h, w) and keys (M, V, C, h, w)."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, earlier_pixels: Tensor, depths: Tensor, groups: int) -> Tensor:
        loops = cpu_loops_of(__package__, "comparing earlier images")
        images, _, height, width = queries.shape
        given = _rows(queries), _rows(keys), float32_array(earlier_pixels), float32_array(depths)
        written = torch.empty(images, groups + 1, len(depths), height, width, dtype=torch.float32)
        into = written.numpy()

        def work(row: int) -> None:
            loops.compare(*given, NEAREST, into, *divmod(row, height))

        _in_threads(work, images * height, written.numel() * queries.shape[1])
        ctx.given, ctx.groups, ctx.types = given, groups, (queries.dtype, keys.dtype)
        return written

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        loops = cpu_loops_of(__package__, "comparing earlier images")
        upstream = gradient.contiguous().numpy()
        # Earlier features mostly have no gradient: theirs are then of no size.
        shapes = [rows.shape if needed else (0,) * rows.ndim for rows, needed in zip(ctx.given, ctx.needs_input_grad)]
        results = [torch.zeros(shape, dtype=torch.float32) for shape in shapes[:2]]
        into = [result.numpy() for result in results]

        def work(image: int) -> None:
            loops.push_back(*ctx.given, NEAREST, upstream, *into, image)

        _in_threads(work, len(upstream), upstream.size * ctx.given[0].shape[-1])
        gradients = (rows.movedim(-1, -3).to(kind) for rows, kind in zip(results, ctx.types))
        wanted = zip(gradients, ctx.needs_input_grad)
        return *(gradient if needed else None for gradient, needed in wanted), None, None, None


def _in_threads(work: Callable[[int], None], items: int, numbers: int) -> None:
    in_threads(work, range(items), max(1, min(torch.get_num_threads(), numbers // NUMBERS_WORTH_A_THREAD)))


def _rows(features: Tensor) -> np.ndarray:
    """(M, [V,] h, w, C) float32, C-contiguous."""
    return float32_array(features.movedim(-3, -1))
