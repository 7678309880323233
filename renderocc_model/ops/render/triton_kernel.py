"""Volume rendering on GPUs: the loops of `triton_loops` as a PyTorch function, without waiting for the device.

Gradients are scattered by atomic additions in no fixed order. In float32, runs differ by rounding. Under
`torch.use_deterministic_algorithms(True)` integers are added instead, in units so small that the largest possible sum
just fits into 63 bits. Then the same input gives the same bytes; this takes a 64-bit integer for each gradient.
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
from .reference import RenderResult, checked_inputs

__all__ = ["LAUNCH", "Launch", "fixed_point_scales", "render"]


@dataclass(frozen=True)
class Launch:
    """Launch sizes: how the work is divided among programs.

    rays: that share a program, a power of two.
    samples: of a ray at a time, a power of two.
    classes: at a time at most, a power of two.
    run: backward, how many neighbouring samples are searched for the same voxel; a power of two, 1: not at all.
    warps: that share a program.
    """

    rays: int = 1
    samples: int = 32
    classes: int = 64
    run: int = 8
    warps: int = 1


LAUNCH = Launch()
_RAYS_A_PROGRAM = 128  # where they enter the grid


def render(
    field: SemanticDensityField,
    rays: Rays,
    step: float = 0.5,
    background: Tensor | None = None,
    return_distortion: bool = False,
    launch: Launch | None = None,
) -> RenderResult:
    """What `ops.render.render` does, for fields that `ops.render.choose` gives it.

    Fields of half precision are read as they are; sums are float32. Memory beyond results and gradients: 60 bytes a
    ray, and for gradients 8 bytes for `launch.samples` samples of a ray as long as the grid's diagonal.
    """
    background = checked_inputs(field, rays, step, background, torch.float32)
    loops = _loops()
    density = field.density.reshape(-1).contiguous()
    table = field.semantics.reshape(field.grid.size, field.class_count).contiguous()
    walk = _enter(loops, field.grid, rays, step * field.grid.voxel_size)
    with_gradients = torch.is_grad_enabled() and (density.requires_grad or table.requires_grad)
    arguments = (density, table, walk, launch or LAUNCH, return_distortion, with_gradients)
    distance, semantics, opacity, median, distortion = _March.apply(*arguments)
    if background is not None:
        semantics = semantics + (1 - opacity)[:, None] * background
    return RenderResult(distance, semantics, opacity, median, distortion=distortion if return_distortion else None)


@dataclass(frozen=True, eq=False)
class _Walk:
    """The samples of rays in a grid, see `triton_loops.enter`.

    shape: (X, Y, Z).
    places: (R, 6) int64.
    counts: (R,) int32 samples of a ray, at most `limit`.
    nears: (R,) float32.
    delta: metres between samples.
    """

    shape: tuple[int, int, int]
    places: Tensor
    counts: Tensor
    nears: Tensor
    delta: float
    limit: int

    def constants(self, table: Tensor, launch: Launch) -> dict:
        """Compile-time constants of both loops."""
        classes = table.shape[1]
        block = min(launch.classes, 1 << max(classes - 1, 0).bit_length())
        return {
            **dict(zip("XYZ", self.shape)),
            "CLASSES": classes,
            "LONGEST": max(1, -(-self.limit // launch.samples)),
            "WIDE": max(table.numel(), table.shape[0]) >= 2**31,
            "RAYS": launch.rays,
            "SAMPLES": launch.samples,
            "BLOCK": block,
            "num_warps": launch.warps,
            "enable_fp_fusion": True,
        }


def _enter(loops, grid: VoxelGrid, rays: Rays, delta: float) -> _Walk:
    origins, directions = rays.origins.detach().contiguous(), rays.directions.detach().contiguous()
    count, device = len(rays), origins.device
    # Directions may be a little short of unit length (`Rays`), so that a diagonal takes a little longer.
    limit = math.ceil(1.01 * math.dist(grid.lower, grid.upper) / delta)
    places = torch.empty((count, 6), dtype=torch.int64, device=device)
    counts = torch.empty(count, dtype=torch.int32, device=device)
    nears = torch.empty(count, dtype=torch.float32, device=device)
    if count:
        box = {"LOWER": tuple(map(float, grid.lower)), "UPPER": tuple(map(float, grid.upper))}
        with on_device(device):
            loops.enter[(-(-count // _RAYS_A_PROGRAM),)](
                origins,
                directions,
                nears,
                counts,
                places,
                count,
                **box,
                SIZE=float(grid.voxel_size),
                DELTA=float(delta),
                LIMIT=limit,
                BLOCK=_RAYS_A_PROGRAM,
                enable_fp_fusion=False,
            )
    return _Walk(grid.shape, places, counts, nears, float(delta), limit)


class _March(torch.autograd.Function):
    """(distance (R,), semantics (R, C), opacity (R,), median (R,), distortion (R,)) of density (V,) and logits (V, C);
    no gradient goes through the median."""

    @staticmethod
    def forward(
        ctx, density: Tensor, table: Tensor, walk: _Walk, launch: Launch, distortion: bool, with_gradients: bool
    ) -> tuple[Tensor, ...]:
        rays, classes, device = len(walk.counts), table.shape[1], density.device
        constants = walk.constants(table, launch)
        results = [
            torch.empty(shape, dtype=torch.float32, device=device) for shape in (rays, (rays, classes), rays, rays)
        ]
        results.append(torch.empty(rays if distortion else 0, dtype=torch.float32, device=device))
        kept = rays if with_gradients else 0
        saved = torch.empty((kept, constants["LONGEST"], 2), dtype=torch.float32, device=device)
        tiles = torch.empty(kept, dtype=torch.int32, device=device)
        if rays:
            with on_device(device):
                _loops().march_forward[(-(-rays // launch.rays), max(1, -(-classes // constants["BLOCK"])))](
                    density,
                    table,
                    walk.places,
                    walk.counts,
                    walk.nears,
                    *results,
                    saved,
                    tiles,
                    walk.delta,
                    rays,
                    SAVE=with_gradients,
                    DISTORTION=distortion,
                    **constants,
                )
        ctx.save_for_backward(density, table, saved, tiles)
        ctx.walk, ctx.launch = walk, launch
        ctx.mark_non_differentiable(results[3])
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        density, table, saved, tiles = ctx.saved_tensors
        walk, launch, wanted = ctx.walk, ctx.launch, ctx.needs_input_grad[:2]
        fixed = torch.are_deterministic_algorithms_enabled()
        into = [
            torch.zeros(value.shape if want else 0, dtype=torch.int64 if fixed else torch.float32, device=value.device)
            for value, want in zip((density, table), wanted)
        ]
        distance, semantics, opacity, _, distortion = (None if g is None else g.contiguous() for g in gradients)
        along = [torch.zeros_like(walk.nears) if g is None else g for g in (distance, opacity)]
        semantic, spread = semantics is not None and table.shape[1] > 0, distortion is not None and distortion.numel()
        scales = density.new_empty(2, dtype=torch.float32)
        if fixed and len(walk.counts):
            scales = _scales(walk, table, along[0], semantics if semantic else None, along[1], distortion)
        if len(walk.counts):
            with on_device(density.device):
                _loops().march_backward[(-(-len(walk.counts) // launch.rays),)](
                    density,
                    table,
                    walk.places,
                    walk.counts,
                    walk.nears,
                    saved,
                    tiles,
                    along[0],
                    semantics if semantic else along[0],
                    along[1],
                    distortion if spread else along[0],
                    *into,
                    scales,
                    walk.delta,
                    len(walk.counts),
                    OF_DENSITY=wanted[0],
                    OF_TABLE=wanted[1] and semantic,
                    SEMANTIC=semantic,
                    DISTORTION=bool(spread),
                    FIXED=fixed,
                    RUN=launch.run,
                    **walk.constants(table, launch),
                )
        if fixed:
            into = [sums.to(torch.float32) * (1 / scale) for sums, scale in zip(into, scales)]
        given = (sums.to(value.dtype) for sums, value in zip(into, (density, table)))
        return *(sums if want else None for sums, want in zip(given, wanted)), None, None, None, None


def _scales(
    walk: _Walk, table: Tensor, distance: Tensor, semantics: Tensor | None, opacity: Tensor, distortion: Tensor | None
) -> Tensor:
    """(2,) float32 powers of two that turn the gradients of density and logits into integers. The most that R rays can
    add to one voxel stays below 2^62; numbers below 2^-120 are lost. NaN where a gradient is not finite; then the
    result is NaN, too."""

    def largest(values: Tensor | None) -> Tensor:
        if values is None or not values.numel():
            return walk.nears.new_zeros(())
        low, high = torch.aminmax(values)
        return torch.maximum(-low, high).float()

    farthest = largest(walk.nears) + walk.limit * walk.delta
    logits = 0.0 if semantics is None else semantics.abs().sum(dim=1).max() * largest(table)
    toward = largest(opacity) + largest(distance) * farthest + logits
    toward = toward + largest(distortion) * 2 * walk.delta * (walk.limit + 1)
    bounds = torch.stack([2 * walk.delta * toward, largest(semantics)]) * float(len(walk.counts) * max(walk.limit, 1))
    return fixed_point_scales(bounds)


def fixed_point_scales(bounds: Tensor) -> Tensor:
    """Powers of two by which numbers, whose sums are at most as large as the bounds, become integers below 2^62.

    NaN where a bound is not finite.
    """
    exponents = 61 - torch.log2(bounds.clamp(min=2.0**-60)).ceil()
    return torch.where(torch.isfinite(bounds), torch.exp2(exponents.clamp(max=120)), math.nan)


def _loops():
    """The module of the loops, which loads Triton."""
    return triton_loops_of(__package__, "rendering")
