"""Sum per-pixel features, weighted by the depth distribution, into the cells their frustum points fall in.

    out[v] = sum over (n, d, h, w) with voxel_index[n, d, h, w] = v of depth[n, d, h, w] * context[n, :, h, w]

(Lift, Splat, Shoot; without its frustum of features, as BEVPoolv2.) Which points are summed where is sorted beforehand,
in a `PoolingPlan`, once for a calibration and its poses. Implementations of one signature, compared with each other in
the tests:

    reference       plain PyTorch, any device and type
    cpu             compiled loops on the CPU's cores, float32 sums (`cpu_kernel`)
    triton          fused loops on CUDA devices, float32 sums (`triton_kernel`)

All give the same bytes for the same input, however many threads there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..execution import choose_backend, device_obstacle
from . import cpu_kernel, reference, triton_kernel
from .plan import PoolingPlan, make_plan, place_points

__all__ = ["PoolingPlan", "choose", "make_plan", "place_points", "pool", "voxel_pooling"]

_KERNELS = {"cpu": cpu_kernel, "triton": triton_kernel}


def pool(depth: Tensor, context: Tensor, plan: PoolingPlan, backend: str = "auto") -> Tensor:
    """Pool a depth distribution times context into cells.

    Differentiable in depth and context, once: the gradients themselves have none. No temporary has a number for each
    point and channel.

    Args:
        depth: (N, D, H, W) weights; cheapest where contiguous.
        context: (N, C, H, W) features; cheapest where channels lie last in memory.
        plan: where the points go, on the same device.
        backend: "reference"; "cpu" and "triton", for numbers of at most 32 bits on the CPU and on CUDA devices; or
            "auto", the one of these that can do what is asked, and "reference" where none can.
    Returns:
        (plan.cells, C) in the type of `context`, summed in float32 at least; cells with no point are zero.
    Raises:
        ValueError: shapes or devices do not fit together, or the backend is unknown or cannot do what is asked.
        ImportError: what compiles the loops of a CPU or a GPU, Numba or Triton, is not installed.
    """
    _check(depth, context, plan)
    backend = choose(depth, context, backend)
    if backend == "reference":
        return reference.pool(depth, context, plan)
    return _KERNELS[backend].pool(depth, context, plan)


def voxel_pooling(
    depth: Tensor, context: Tensor, voxel_index: Tensor, voxel_count: int, backend: str = "auto"
) -> Tensor:
    """`pool` by a plan that is made for this one call.

    Args:
        voxel_index: (N, D, H, W) int64, the cell of each frustum point in 0..voxel_count-1, or -1 for none.
        voxel_count: number of cells.
    """
    return pool(depth, context, make_plan(voxel_index, voxel_count), backend)


def choose(depth: Tensor, context: Tensor, backend: str) -> str:
    """Which implementation `pool` takes; whether what it needs is installed does not count.

    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """
    return choose_backend(backend, lambda name: _obstacle(name, depth, context), "voxel_pooling")


def _obstacle(backend: str, depth: Tensor, context: Tensor) -> str | None:
    """What keeps "cpu" or "triton" from what is asked, None if nothing does."""
    if obstacle := device_obstacle(backend, context.device, "the context is"):
        return obstacle
    if torch.float64 in (depth.dtype, context.dtype):
        return "sums in float32, and depth or context is float64"
    return None


def _check(depth: Tensor, context: Tensor, plan: PoolingPlan) -> None:
    if depth.ndim != 4 or context.ndim != 4:
        raise ValueError(
            f"voxel pooling: depth is {tuple(depth.shape)} and context {tuple(context.shape)}; "
            f"expected (N, D, H, W) and (N, C, H, W)"
        )
    if depth.shape[0] != context.shape[0] or depth.shape[2:] != context.shape[2:]:
        raise ValueError(
            f"voxel pooling: depth is {tuple(depth.shape)} but context {tuple(context.shape)}; N, H and W must agree"
        )
    if tuple(depth.shape) != plan.shape:
        raise ValueError(
            f"voxel pooling: the plan's points are {plan.shape}; expected the depth's shape {tuple(depth.shape)}: "
            f"make the plan of the same views"
        )
    if not depth.device == context.device == plan.device:
        raise ValueError(
            f"voxel pooling: depth is on {depth.device}, context on {context.device} and the plan on {plan.device}; "
            f"bring them to one device"
        )
