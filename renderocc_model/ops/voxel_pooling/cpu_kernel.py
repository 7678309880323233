"""Voxel pooling on the CPU's cores: the compiled loops of `cpu_loops`, run by threads, as a PyTorch function.

One thread computes a cell's sum or a pixel's gradients, in a fixed order: the same input gives the same bytes for any
number of threads (`torch.set_num_threads`). As in the renderer, threads end before a call returns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..execution import cpu_loops_of, in_threads
from .plan import PoolingPlan

__all__ = ["pool"]

# About half a millisecond each; starting a thread takes a tenth of one.
NUMBERS_WORTH_A_THREAD = 2**20  # of depth times context
RUNS_A_THREAD = 4  # several for each thread, so that others take over work of a delayed one


def pool(depth: Tensor, context: Tensor, plan: PoolingPlan) -> Tensor:
    """What `ops.voxel_pooling.pool` does, for tensors that `ops.voxel_pooling.choose` gives it.

    Memory beyond the result: copies of float16 tensors, and of depth and context if their memory has another order.
    """
    return _Pool.apply(depth, context, plan)


class _Pool(torch.autograd.Function):
    """(cells, C) of depth (N, D, H, W) and context (N, C, H, W)."""

    @staticmethod
    def forward(ctx, depth: Tensor, context: Tensor, plan: PoolingPlan) -> Tensor:
        ctx.save_for_backward(depth, context)
        ctx.plan = plan
        loops, channels = _loops(), context.shape[1]
        short = context.dtype == torch.bfloat16
        pooled = torch.empty(plan.cells, channels, dtype=torch.bfloat16 if short else torch.float32)
        loop = loops.pool_cells_to_bfloat16 if short else loops.pool_cells
        weights, rows, into = _weights(depth), _rows(context), _array(pooled)
        start, point, pixel = plan.start.numpy(), plan.point.numpy(), plan.pixel.numpy()

        def work(first: int, last: int) -> None:
            loop(weights, rows, start, point, pixel, into, first, last)

        # An empty cell is about as much work as a point.
        _spread(work, plan.cells, len(point) * channels, lambda: start + np.arange(plan.cells + 1))
        return pooled.to(context.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (depth, context), plan, loops = ctx.saved_tensors, ctx.plan, _loops()
        views, bins, height, width = plan.shape
        area, channels = height * width, context.shape[1]
        columns = (views, bins, area)
        weights, rows, cell = _weights(depth).reshape(columns), _rows(context), plan.cell.numpy().reshape(columns)
        upstream = _array(gradient)
        if channels == 0:
            return torch.zeros_like(depth), torch.zeros_like(context), None
        into_depth = torch.empty(depth.shape, dtype=torch.float32)
        into_context = torch.empty(views, height, width, channels, dtype=torch.float32)
        written = into_depth.view(columns).numpy(), into_context.view(views * area, channels).numpy()

        def work(first: int, last: int) -> None:
            loops.push_back(weights, rows, cell, upstream, *written, first, last)

        _spread(work, views * area, 2 * cell.size * channels, lambda: np.arange(views * area + 1))
        return into_depth.to(depth.dtype), into_context.permute(0, 3, 1, 2).to(context.dtype), None


def _spread(work: Callable[[int, int], None], items: int, numbers: int, before: Callable[[], np.ndarray]) -> None:
    """Call work(first, last) for runs of the items with equal work.

    Args:
        numbers: how much work there is at most, as NUMBERS_WORTH_A_THREAD.
        before: returns (items + 1,) how much comes before each of the items, in any unit.
    """
    threads = max(1, min(torch.get_num_threads(), numbers // NUMBERS_WORTH_A_THREAD))
    if threads == 1:
        work(0, items)
        return
    ends, runs = before(), RUNS_A_THREAD * threads
    cuts = np.searchsorted(ends, np.linspace(0, ends[-1], runs + 1)[1:-1])
    edges = [0, *(int(cut) for cut in cuts), items]
    in_threads(lambda run: work(edges[run], edges[run + 1]), range(runs), threads)


def _weights(depth: Tensor) -> np.ndarray:
    """(points,) float32."""
    return depth.detach().to(torch.float32).reshape(-1).numpy()


def _rows(context: Tensor) -> np.ndarray:
    """(pixels, C) as `_array`."""
    return _array(context.detach().permute(0, 2, 3, 1).flatten(0, 2))


def _array(rows: Tensor) -> np.ndarray:
    """(rows, C) float32, C-contiguous; of bfloat16, which NumPy does not have, its bits as uint16."""
    rows = rows.contiguous()
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view(np.uint16)
    return rows.to(torch.float32).numpy()


def _loops():
    """The module of the loops, which loads Numba."""
    return cpu_loops_of(__package__, "voxel pooling")
