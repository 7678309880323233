"""Ray termination on GPUs: the loops of `triton_loops` as a PyTorch function, without waiting for the device.

Gradients are scattered by atomic additions, as in the renderer: under `torch.use_deterministic_algorithms(True)`
integers are added, and the same input gives the same bytes (`ops.render.triton_kernel`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.rays import Rays
from ..execution import on_device, triton_loops_of
from ..render.triton_kernel import fixed_point_scales
from .reference import OpticalDepths

__all__ = ["LAUNCH", "Launch", "return_windows", "termination"]


@dataclass(frozen=True)
class Launch:
    """Launch sizes, as in `ops.render.triton_kernel.Launch`.

    rays: that share a program, a power of two.
    samples: of a ray at a time, a power of two.
    run: backward, how many neighbouring samples are searched for the same voxel; a power of two, 1: not at all.
    warps: that share a program.
    """

    rays: int = 1
    samples: int = 32
    run: int = 8
    warps: int = 1


LAUNCH = Launch()
_RAYS_A_PROGRAM = 128  # where they enter the grid, and for windows


def termination(
    field: SemanticDensityField,
    rays: Rays,
    starts: Tensor,
    ends: Tensor,
    step: float = 0.5,
    offsets: Tensor | None = None,
    launch: Launch | None = None,
) -> OpticalDepths:
    """What `ops.termination.termination` does, for fields that `ops.termination.choose` gives it.

    Fields of half precision are read as they are; sums are float32. Memory beyond results and gradients: 56 bytes a
    ray.
    """
    walk = _enter(field.grid, rays, starts, ends, step * field.grid.voxel_size, offsets)
    return OpticalDepths(*_March.apply(field.density.reshape(-1).contiguous(), walk, launch or LAUNCH))


@dataclass(frozen=True, eq=False)
class _Walk:
    """The samples of rays in a grid, see `triton_loops.enter`.

    shape: (X, Y, Z).
    places: (R, 6) int64.
    first, last: (R,) int32.
    delta: metres between samples.
    limit: most samples of a ray.
    """

    shape: tuple[int, int, int]
    places: Tensor
    first: Tensor
    last: Tensor
    delta: float
    limit: int

    def constants(self, launch: Launch) -> dict:
        """Compile-time constants of both loops."""
        return {
            **dict(zip("XYZ", self.shape)),
            "WIDE": math.prod(self.shape) >= 2**31,
            "RAYS": launch.rays,
            "SAMPLES": launch.samples,
            "num_warps": launch.warps,
            "enable_fp_fusion": True,
        }


def _box(grid: VoxelGrid) -> dict:
    return {
        "LOWER": tuple(map(float, grid.lower)),
        "UPPER": tuple(map(float, grid.upper)),
        "SIZE": float(grid.voxel_size),
    }


def _enter(grid: VoxelGrid, rays: Rays, starts: Tensor, ends: Tensor, delta: float, offsets: Tensor | None) -> _Walk:
    count, device = len(rays), rays.origins.device
    columns = [tensor.detach().contiguous() for tensor in (rays.origins, rays.directions, starts, ends)]
    moved = columns[2] if offsets is None else offsets.detach().contiguous()
    places = torch.empty((count, 6), dtype=torch.int64, device=device)
    first, last = (torch.empty(count, dtype=torch.int32, device=device) for _ in range(2))
    if count:
        with on_device(device):
            _loops().enter[(-(-count // _RAYS_A_PROGRAM),)](
                *columns,
                moved,
                first,
                last,
                places,
                count,
                **_box(grid),
                DELTA=float(delta),
                MOVED=offsets is not None,
                BLOCK=_RAYS_A_PROGRAM,
                enable_fp_fusion=False,
            )
    # Directions may be a little short of unit length (`Rays`), so that a diagonal takes a little longer.
    limit = math.ceil(1.01 * math.dist(grid.lower, grid.upper) / delta) + 1
    return _Walk(grid.shape, places, first, last, float(delta), limit)


class _March(torch.autograd.Function):
    """Depths before and in the window, (R,) and (R,) float32, of density (V,)."""

    @staticmethod
    def forward(ctx, density: Tensor, walk: _Walk, launch: Launch) -> tuple[Tensor, Tensor]:
        rays, device = len(walk.last), density.device
        results = [torch.empty(rays, dtype=torch.float32, device=device) for _ in range(2)]
        if rays:
            with on_device(device):
                _loops().march_forward[(-(-rays // launch.rays),)](
                    density, walk.places, walk.first, walk.last, *results, walk.delta, rays, **walk.constants(launch)
                )
        ctx.walk, ctx.launch, ctx.dtype, ctx.device = walk, launch, density.dtype, device
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        walk, launch, rays = ctx.walk, ctx.launch, len(ctx.walk.last)
        fixed = torch.are_deterministic_algorithms_enabled()
        kind = torch.int64 if fixed else torch.float32
        into = torch.zeros(math.prod(walk.shape), dtype=kind, device=ctx.device)
        upstream = [gradient.contiguous() for gradient in gradients]
        scale = upstream[0].new_empty(1)
        if fixed and rays:
            # What all rays together can add to one voxel.
            largest = torch.stack([gradient.abs().max() for gradient in upstream]).max()
            scale = fixed_point_scales(largest * walk.delta * float(rays * walk.limit)).reshape(1)
        if rays:
            with on_device(ctx.device):
                _loops().march_backward[(-(-rays // launch.rays),)](
                    walk.places,
                    walk.first,
                    walk.last,
                    *upstream,
                    into,
                    scale,
                    walk.delta,
                    rays,
                    FIXED=fixed,
                    RUN=launch.run,
                    **walk.constants(launch),
                )
        if fixed and rays:
            into = into.to(torch.float32) * (1 / scale)
        return into.to(ctx.dtype), None, None


def return_windows(
    grid: VoxelGrid,
    rays: Rays,
    distances: Tensor,
    returned: Tensor,
    margin: float = 1.0,
    follow: bool = True,
    step: float = 0.5,
    marks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `ops.termination.return_windows` does, for rays on CUDA devices."""
    count, device, shape = len(rays), distances.device, grid.shape
    marked = torch.zeros(math.prod(shape) if follow else 1, dtype=torch.uint8, device=device)
    if follow and marks is not None:
        marked.copy_(marks.reshape(-1))
    windows = [torch.empty(count, dtype=torch.float32, device=device) for _ in range(2)]
    if not count:
        return tuple(windows)
    columns = [tensor.detach().contiguous() for tensor in (rays.origins, rays.directions, distances)]
    columns += [returned.contiguous().view(torch.uint8), marked]
    options = {"SHAPE": shape, "BLOCK": _RAYS_A_PROGRAM, "enable_fp_fusion": False}
    lengths = {"DELTA": float(step * grid.voxel_size), "MARGIN": float(margin * grid.voxel_size)}
    box, programs = _box(grid), (-(-count // _RAYS_A_PROGRAM),)
    with on_device(device):
        if follow:
            _loops().mark_returns[programs](*columns, count, LOWER=box["LOWER"], SIZE=box["SIZE"], **options)
        _loops().follow_back[programs](*columns, *windows, count, **box, **lengths, FOLLOW=follow, **options)
    return tuple(windows)


def _loops():
    """The module of the loops, which loads Triton."""
    return triton_loops_of(__package__, "ray termination")
