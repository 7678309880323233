"""Where light ends along rays: optical depths before and in a window around each ray's return.

`termination(field, rays, starts, ends) -> OpticalDepths`, from which `negative_log_likelihood` makes a loss, and
`return_windows(grid, rays, distances, returned) -> (starts, ends)`, which says where to expect the end. Implementations
of one signature, compared with each other in the tests:

    reference       plain PyTorch, any device and type
    cpu             compiled loops over rays on the CPU's cores, float32 (`cpu_kernel`)
    triton          fused loops on CUDA devices, float32 sums of fields of 16 or 32 bits (`triton_kernel`)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.rays import Rays
from ..execution import choose_backend, device_obstacle
from ..stretching import stretched_density, stretched_grid, stretched_rays
from . import cpu_kernel, reference, triton_kernel
from .checks import check_inputs, check_returns
from .likelihood import log1mexp, negative_log_likelihood
from .reference import OpticalDepths, mark_voxels

__all__ = [
    "OpticalDepths",
    "choose",
    "log1mexp",
    "mark_voxels",
    "negative_log_likelihood",
    "return_windows",
    "termination",
]

_KERNELS = {"cpu": cpu_kernel, "triton": triton_kernel}


def termination(
    field: SemanticDensityField,
    rays: Rays,
    starts: Tensor,
    ends: Tensor,
    step: float = 0.5,
    offsets: Tensor | None = None,
    backend: str = "auto",
) -> OpticalDepths:
    """Optical depths before and in each ray's window (equations: `reference`).

    Differentiable in the field's density; rays and windows are data and get no gradient, and class logits are not read.
    Half-precision fields are summed in float32, others in their own type.

    A sample belongs to the window [start, end) if its t_i lies in it; samples behind the window are not counted.
    Windows are cut to the grid. A window that reaches into the grid holds at least one sample
    (`reference.sample_ranges`). If a ray misses the grid, both depths are 0 and their gradients are zeros. The window's
    depth is 0 if the window lies before or behind the grid. A window before the grid has a depth of 0 before it: leave
    such rays out.

    Args:
        field: the density along the rays; of a field in layers, theirs.
        rays: R >= 0 rays on the field's device.
        starts, ends: (R,) floating point, metres along the ray from its origin; inf, inf for rays that left the grid.
        step: distance between samples, in voxels.
        offsets: (R,) floating point in [0, 1), position of a ray's samples within their steps: `torch.rand` for
            jittered samples; None: the middle, as in the renderer.
        backend: "reference"; "cpu" and "triton", for fields on the CPU and on CUDA devices of at most 32 bits; or
            "auto", the one of these that can do what is asked, and "reference" where none can.

    Raises:
        ValueError: step is not positive, devices or shapes differ, a window is NaN or an offset is not in [0, 1)
            (values are checked on the CPU only), or the backend is unknown or cannot do what is asked.
        ImportError: the loops of a CPU or a GPU are wanted and what compiles them, Numba or Triton, is not installed.
    """
    implementation = _KERNELS.get(choose(field.density, backend), reference)
    check_inputs(field, rays, starts, ends, step, offsets)
    if field.layers is not None:
        field, rays = stretched_density(field), stretched_rays(rays, field.layer_count)
    return implementation.termination(field, rays, starts, ends, step, offsets)


def return_windows(
    grid: VoxelGrid,
    rays: Rays,
    distances: Tensor,
    returned: Tensor,
    margin: float = 1.0,
    follow: bool = True,
    step: float = 0.5,
    marks: Tensor | None = None,
    layers: int = 1,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Where along each ray its return may lie, for `termination`.

    The window reaches from `margin` voxels before the return to as many behind it. Near a surface seen at a low angle a
    ray spends metres in voxels that the surface fills before it returns: with `follow` the window is extended over the
    unbroken run of voxels before it that hold returns of these rays, or are marked. The run is followed step by step,
    back to the sensor at most.

    Args:
        grid: the voxels' grid.
        rays: R >= 0 rays.
        distances: (R,) floating point, measured metres along the ray; read where `returned`.
        returned: (R,) bool, whether something in the grid returned the ray.
        margin: voxels, more than 0.
        step: distance between the places checked on the way back, voxels.
        marks: (X, Y, Z * layers) bool or uint8, not 0 in voxels that hold returns beside those of these rays.
        layers: of the field's voxels; the run is then of layers, not of voxels.
        backend: as for `termination`.

    Returns:
        starts, ends: (R,) float32, 0 <= start < end, not cut to the grid; inf, inf for rays that did not return.
    Raises:
        ValueError: margin or step is not positive, or devices, types or shapes do not fit.
    """
    implementation = _KERNELS.get(choose(rays.origins, backend, float64=True), reference)
    if layers > 1:
        grid, rays = stretched_grid(grid, layers), stretched_rays(rays, layers)
    check_returns(grid, rays, distances, returned, margin, step, marks)
    return implementation.return_windows(grid, rays, distances, returned, margin, follow, step, marks)


def choose(data: Tensor, backend: str, float64: bool = False) -> str:
    """Which implementation works on tensors like `data`; whether what it needs is installed does not count.

    Args:
        data: a field's density or, for windows, rays' origins.
        float64: whether the loops can process float64, as for windows.
    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """

    def obstacle(name: str) -> str | None:
        if data.dtype == torch.float64 and not float64:
            return "sums in float32, and the field is float64"
        return device_obstacle(name, data.device, "this is")

    return choose_backend(backend, obstacle, "termination")
