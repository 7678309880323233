"""Voxel pooling on GPUs: the loops of `triton_loops` as a PyTorch function, without waiting for the device.

Nothing is scattered: the same input gives the same bytes. Calls with plans of equal size differ only in the numbers in
memory, so a CUDA graph can record them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..execution import on_device, triton_loops_of
from .plan import PoolingPlan

__all__ = ["LAUNCH", "Launch", "pool"]


@dataclass(frozen=True)
class Launch:
    """Launch sizes; all are powers of two.

    cells: neighbours that share a program.
    points: of each of them at a time.
    channels: at a time at most.
    numbers: backward, numbers of the gradient at a time; divided by the channels this is the number of bins.
    warps: that share a program.
    """

    cells: int = 4
    points: int = 8
    channels: int = 64
    numbers: int = 2048
    warps: int = 1


LAUNCH = Launch()


def pool(depth: Tensor, context: Tensor, plan: PoolingPlan, launch: Launch | None = None) -> Tensor:
    """What `ops.voxel_pooling.pool` does, for tensors that `ops.voxel_pooling.choose` gives it.

    Numbers of 16 bits are read as they are. Context is read in place where channels lie last in memory, also as a part
    of more channels, and copied otherwise. Memory beyond the result: one float32 for each channel and PIECE points.
    """
    return _Pool.apply(depth, context, plan, launch or LAUNCH)


class _Pool(torch.autograd.Function):
    """(cells, C) of depth (N, D, H, W) and context (N, C, H, W)."""

    @staticmethod
    def forward(ctx, depth: Tensor, context: Tensor, plan: PoolingPlan, launch: Launch) -> Tensor:
        depth, (rows, stride) = depth.detach().contiguous(), _rows(context.detach())
        ctx.save_for_backward(depth, rows)
        ctx.stride, ctx.plan, ctx.launch, ctx.dtypes = stride, plan, launch, (depth.dtype, context.dtype)
        channels, cells = context.shape[1], plan.cells
        pooled = torch.empty((cells, channels), dtype=context.dtype, device=context.device)
        if cells == 0 or channels == 0:
            return pooled
        loops, (before, cell_of_piece) = _loops(), plan.further
        block = _block(channels, launch.channels)
        constants = {
            "WIDE": _wide(plan, stride, channels),
            "CHANNELS": channels,
            "PIECE": plan.piece,
            "CELLS": launch.cells,
            "POINTS": launch.points,
            "BLOCK": block,
            "num_warps": launch.warps,
        }
        blocks, pieces = -(-channels // block), len(cell_of_piece)
        sums = torch.empty((pieces, channels), dtype=torch.float32, device=context.device)
        with on_device(context.device):
            if pieces:
                loops.pool_pieces[(-(-pieces // launch.cells), blocks)](
                    depth,
                    rows,
                    plan.point,
                    plan.pixel,
                    plan.start,
                    before,
                    cell_of_piece,
                    sums,
                    stride,
                    cells,
                    PIECES=pieces,
                    **constants,
                )
            loops.pool_cells[(-(-cells // launch.cells), blocks)](
                depth, rows, plan.point, plan.pixel, plan.start, before, sums, pooled, stride, cells, **constants
            )
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (depth, rows), plan, launch = ctx.saved_tensors, ctx.plan, ctx.launch
        views, bins, height, width = plan.shape
        channels, area, device = gradient.shape[1], height * width, gradient.device
        into_depth = torch.empty(plan.shape, dtype=ctx.dtypes[0], device=device)
        into_context = torch.empty((views, height, width, channels), dtype=ctx.dtypes[1], device=device)
        upstream = gradient.contiguous()
        block = max(1, 1 << max(channels - 1, 0).bit_length())
        if views * area:
            with on_device(device):
                _loops().push_back[(views * area,)](
                    depth,
                    rows,
                    plan.cell,
                    upstream,
                    into_depth,
                    into_context,
                    ctx.stride,
                    WIDE=_wide(plan, ctx.stride, channels),
                    CHANNELS=channels,
                    NUMBER=bins,
                    AREA=area,
                    BINS=max(1, min(launch.numbers // block, 1 << max(bins - 1, 0).bit_length())),
                    BLOCK=block,
                    num_warps=launch.warps,
                )
        return into_depth, into_context.permute(0, 3, 1, 2), None, None


def _rows(context: Tensor) -> tuple[Tensor, int]:
    """Context in which the channels of a pixel are neighbours, and the stride from pixel to pixel."""
    _, channels, height, width = context.shape
    view, channel, row, stride = context.stride()
    if channel != 1 or stride < channels or row != stride * width or view != row * height:
        return context.permute(0, 2, 3, 1).contiguous(), channels
    return context, stride


def _wide(plan: PoolingPlan, stride: int, channels: int) -> bool:
    """Whether places in context, or in the result, need 64 bits."""
    views, _, height, width = plan.shape
    return max(views * height * width * stride, plan.cells * channels) >= 2**31


def _block(channels: int, most: int) -> int:
    """Channels at a time: the largest power of two that leaves few lanes idle."""
    block = most
    while block > 16 and -(-channels // block) * block > 1.25 * channels:
        block //= 2
    return block


def _loops():
    """The module of the loops, which loads Triton."""
    return triton_loops_of(__package__, "voxel pooling")
