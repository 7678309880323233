"""Voxel pooling in plain PyTorch: a bag of weighted pixels for every cell, and no frustum tensor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .plan import PoolingPlan

__all__ = ["pool"]


def pool(depth: Tensor, context: Tensor, plan: PoolingPlan) -> Tensor:
    """What `ops.voxel_pooling.pool` does, on any device, in any type; differentiable once in depth and context.

    The largest temporaries have one number for each frustum point, never one for each point and channel. The order of
    the sums is fixed: the same input gives the same output, bit for bit, on the same machine.
    """
    channels = context.shape[1]
    kept = int(plan.start[-1]) if plan.cells else 0
    if kept == 0 or channels == 0:
        # Still a function of both, so that a backward pass finds zero gradients.
        return context.new_zeros(plan.cells, channels) + (context[:0].sum() + depth[:0].sum().to(context.dtype)) * 0
    compute = torch.promote_types(torch.promote_types(depth.dtype, context.dtype), torch.float32)
    pixel_context = context.permute(0, 2, 3, 1).flatten(0, 2).to(compute)
    weight = depth.reshape(-1).to(compute)[plan.point[:kept].long()]
    with torch.autocast(device_type=depth.device.type, enabled=False):
        pooled = F.embedding_bag(
            plan.pixel[:kept], pixel_context, plan.start[:-1], mode="sum", per_sample_weights=weight
        )
    return pooled.to(context.dtype)
