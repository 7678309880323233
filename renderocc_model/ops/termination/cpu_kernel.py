"""Ray termination on the CPU's cores: the compiled loops of `cpu_loops`, run by threads, as a PyTorch function.

Depths do not depend on the number of threads. Each thread sums gradients of its own in float64; these are then added in
a fixed order. The same input gives the same bytes for the same number of threads, and the same numbers up to float32's
rounding for another number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.rays import Rays
from ..execution import PRIVATE_BYTES, cpu_loops_of, in_threads, runs_of_equal_work
from .reference import (
    OpticalDepths,
    SampleRanges,
    mark_voxels,
    sample_ranges,
    walk_back,
    windows_of,
)

__all__ = ["return_windows", "termination"]

SAMPLES_WORTH_A_THREAD = 2**17  # about half a millisecond
RUNS_A_THREAD = 8  # forward: several for each thread, so that others take over work of a delayed one


def termination(
    field: SemanticDensityField,
    rays: Rays,
    starts: Tensor,
    ends: Tensor,
    step: float = 0.5,
    offsets: Tensor | None = None,
) -> OpticalDepths:
    """What `ops.termination.termination` does, for fields that `ops.termination.choose` gives it.

    Memory beyond results and gradients: twelve numbers of 64 bits a ray; backward, for every thread, gradients in
    float64 of the voxels that its rays pass.
    """
    delta = step * field.grid.voxel_size
    ranges = sample_ranges(field.grid, rays, starts, ends, delta, offsets)
    walk = _walk(field.grid, rays, ranges, delta, offsets)
    return OpticalDepths(*_March.apply(field.density.to(torch.float32).reshape(-1).contiguous(), walk))


@dataclass(frozen=True, eq=False)
class _Walk:
    """The samples of rays in a grid, see `cpu_loops.march_forward`.

    shape: (X, Y, Z).
    rays: (R, 6) float64.
    first, last: (R,) int64.
    delta: metres between samples.
    """

    shape: tuple[int, int, int]
    rays: np.ndarray
    first: np.ndarray
    last: np.ndarray
    delta: float

    def runs(self, parts: int) -> list[np.ndarray]:
        return runs_of_equal_work(np.arange(len(self.last)), self.last, parts)

    @property
    def threads(self) -> int:
        """Number of threads that pays for so many samples."""
        return max(1, min(torch.get_num_threads(), int(self.last.sum()) // SAMPLES_WORTH_A_THREAD))


def _walk(grid: VoxelGrid, rays: Rays, ranges: SampleRanges, delta: float, offsets: Tensor | None) -> _Walk:
    origins, directions = rays.origins.detach().double(), rays.directions.detach().double()
    place = ranges.near + delta * (0.5 if offsets is None else offsets.detach().double())
    start = origins + place[:, None] * directions - torch.tensor(grid.lower, dtype=torch.float64)
    table = torch.cat([start / grid.voxel_size - 0.5, directions * (delta / grid.voxel_size)], dim=1)
    return _Walk(grid.shape, table.numpy(), ranges.first.numpy(), ranges.last.numpy(), float(delta))


class _March(torch.autograd.Function):
    """Depths before and in the window, (R,) and (R,) float32, of density (V,) float32."""

    @staticmethod
    def forward(ctx, density: Tensor, walk: _Walk) -> tuple[Tensor, Tensor]:
        loops, threads = _loops(), walk.threads
        results = [torch.empty(len(walk.last), dtype=torch.float32) for _ in range(2)]
        values, written = density.detach().numpy(), [result.numpy() for result in results]

        def work(run: np.ndarray) -> None:
            loops.march_forward(values, walk.shape, walk.rays, run, walk.first, walk.last, walk.delta, *written)

        in_threads(work, walk.runs(RUNS_A_THREAD * threads if threads > 1 else 1), threads)
        ctx.walk = walk
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        loops, walk = _loops(), ctx.walk
        upstream = [gradient.contiguous().numpy() for gradient in gradients]
        voxels = math.prod(walk.shape)
        parts = min(walk.threads, max(1, PRIVATE_BYTES // (8 * voxels)))
        runs = walk.runs(parts)
        own = [np.zeros(voxels) for _ in runs]

        def work(part: int) -> None:
            where = (walk.shape, walk.rays, runs[part], walk.first, walk.last, walk.delta)
            loops.march_backward(*where, *upstream, own[part])

        in_threads(work, range(parts), parts)
        return torch.from_numpy(_sum_of(own)), None


def _sum_of(own: list[np.ndarray]) -> np.ndarray:
    """(V,) float32: all parts' gradients, added up one after the other, each thread a piece of the voxels."""
    total = np.empty(len(own[0]), np.float32)
    edges = np.linspace(0, len(total), len(own) + 1).astype(np.int64)

    def work(piece: int) -> None:
        place = slice(edges[piece], edges[piece + 1])
        for values in own[1:]:
            own[0][place] += values[place]
        total[place] = own[0][place]

    in_threads(work, range(len(own)), len(own))
    return total


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
    """What `ops.termination.return_windows` does, for rays on the CPU."""
    delta, loops = step * grid.voxel_size, _loops()
    begin, steps = walk_back(grid, rays, distances, returned, margin, delta)
    runs = torch.zeros_like(steps)
    if follow:
        marked = mark_voxels(grid, rays, distances, returned, marks).view(-1)
        table = torch.cat([rays.origins.detach().double(), rays.directions.detach().double()], dim=1)
        shape, lower = grid.shape, tuple(map(float, grid.lower))
        arrays = (table.numpy(), begin.numpy(), steps.numpy())
        loops.follow_back(marked.numpy(), shape, lower, float(grid.voxel_size), *arrays, delta, runs.numpy())
    return windows_of(grid, distances, returned, margin, begin, runs, delta)


def _loops():
    """The module of the loops, which loads Numba."""
    return cpu_loops_of(__package__, "ray termination")
