"""Voxel pooling in plain PyTorch: a bag of weighted pixels for every cell, and no frustum tensor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["voxel_pooling"]

_INT32_MAX = 2**31 - 1


def voxel_pooling(depth: Tensor, context: Tensor, voxel_index: Tensor, voxel_count: int) -> Tensor:
    """Pool a depth distribution times context into cells (Lift, Splat, Shoot; without its frustum, as BEVPoolv2).

    out[v] = sum over (n, d, h, w) with voxel_index[n, d, h, w] = v of depth[n, d, h, w] * context[n, :, h, w]

    The points are sorted by cell once and the products summed cell by cell, so that the largest temporaries have one
    number for each frustum point, never one for each point and channel. The order of the sums is fixed: the same input
    gives the same output, bit for bit, on the same machine. Half precision is summed in float32.

    Args:
        depth: (N, D, H, W) weights.
        context: (N, C, H, W) features; cheapest where it is channels-last.
        voxel_index: (N, D, H, W) int64, the cell of each frustum point in 0..voxel_count-1, or -1 for none.
        voxel_count: number of cells.
    Returns:
        (voxel_count, C) in the type of `context`; cells with no point are zero. Differentiable in depth and context.
    Raises:
        ValueError: shapes or types do not fit together.
    """
    _check(depth, context, voxel_index, voxel_count)
    bins, channels = depth.shape[1], context.shape[1]
    if depth.numel() == 0 or channels == 0 or voxel_count == 0:
        # Still a function of both, so that a backward pass finds zero gradients.
        return context.new_zeros(voxel_count, channels) + (context.sum() + depth.sum().to(context.dtype)) * 0

    compute = torch.promote_types(torch.promote_types(depth.dtype, context.dtype), torch.float32)
    pixel_context = context.permute(0, 2, 3, 1).reshape(-1, channels).to(compute)
    weight = depth.permute(0, 2, 3, 1).reshape(-1).to(compute)
    cell = voxel_index.permute(0, 2, 3, 1).reshape(-1)

    kept = torch.nonzero(cell >= 0).squeeze(1)
    # Sorting 32-bit keys takes half the time, and cells that need 64 bits do not fit in memory anyway.
    key = cell[kept].to(torch.int32) if voxel_count <= _INT32_MAX else cell[kept]
    cell_sorted, order = torch.sort(key, stable=True)
    point = kept[order]
    first = torch.searchsorted(cell_sorted, torch.arange(voxel_count, device=cell.device, dtype=cell_sorted.dtype))
    with torch.autocast(device_type=depth.device.type, enabled=False):
        pooled = F.embedding_bag(
            torch.div(point, bins, rounding_mode="floor"),
            pixel_context,
            first,
            mode="sum",
            per_sample_weights=weight[point],
        )
    return pooled.to(context.dtype)


def _check(depth: Tensor, context: Tensor, voxel_index: Tensor, voxel_count: int) -> None:
    if depth.ndim != 4 or context.ndim != 4:
        raise ValueError(
            f"voxel pooling: depth is {tuple(depth.shape)} and context {tuple(context.shape)}; "
            f"expected (N, D, H, W) and (N, C, H, W)"
        )
    if depth.shape[0] != context.shape[0] or depth.shape[2:] != context.shape[2:]:
        raise ValueError(
            f"voxel pooling: depth is {tuple(depth.shape)} but context {tuple(context.shape)}; N, H and W must agree"
        )
    if voxel_index.shape != depth.shape or voxel_index.dtype != torch.int64:
        raise ValueError(
            f"voxel pooling: voxel_index is {tuple(voxel_index.shape)} {voxel_index.dtype}; "
            f"expected int64 of the depth's shape {tuple(depth.shape)}"
        )
    if voxel_count < 0:
        raise ValueError(f"voxel pooling: voxel_count is {voxel_count}; expected zero or more")
