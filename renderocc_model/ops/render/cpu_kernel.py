"""Volume rendering on the CPU's cores: the compiled loops of `cpu_loops`, run by threads, as a PyTorch function.

Each call starts its own threads (`torch.set_num_threads` sets their number) and ends them before it returns. So calls
from several threads do not disturb each other, and a process may be forked after rendering. The same input gives the
same bytes for the same number of threads.
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
from ..stretching import stretched_grid, stretched_rays
from .reference import RenderResult, checked_inputs, sample_counts
from .surfaces import OPAQUE, RaySurfaces

__all__ = ["render", "render_surfaces"]

SAMPLES_WORTH_A_THREAD = 2**15  # about two milliseconds
RUNS_A_THREAD = 8  # forward: several for each thread, so that others take over work of a delayed one
RAYS_WORTH_A_THREAD = 2**10  # of surfaces: about a millisecond
SECTORS = 512  # neighbouring rays are those in one of so many directions on the ground


def render(
    field: SemanticDensityField,
    rays: Rays,
    step: float = 0.5,
    background: Tensor | None = None,
    return_distortion: bool = False,
) -> RenderResult:
    """What `ops.render.render` does, for fields that `ops.render.choose` gives it.

    Memory beyond results and gradients: seven float64 a ray; backward, for every thread but the first, gradients of the
    voxels that its rays pass.
    """
    background = checked_inputs(field, rays, step, background, torch.float32)
    density = field.density.to(torch.float32).reshape(-1).contiguous()
    table = field.semantics.to(torch.float32).reshape(field.grid.size, field.class_count).contiguous()
    walk = _walk(field.grid, rays, step * field.grid.voxel_size)
    distance, semantics, opacity, median, distortion = _March.apply(density, table, walk)
    if background is not None:
        semantics = semantics + (1 - opacity)[:, None] * background
    return RenderResult(distance, semantics, opacity, median, distortion=distortion if return_distortion else None)


def render_surfaces(field: SemanticDensityField, rays: Rays, step: float) -> RaySurfaces:
    """What `ops.render.render_surfaces` does, for fields that `ops.render.choose` gives this implementation."""
    checked_inputs(field, rays, step, None, torch.float32)
    _loops()  # its error says what to install
    from .surface_loops import march_surfaces

    grid, count, layers, met = field.grid, len(rays), field.layer_count, field.density
    table = field.semantics.detach().to(torch.float32).reshape(grid.size, field.class_count).contiguous().numpy()
    if field.layers is not None:
        grid, rays, met = stretched_grid(grid, layers), stretched_rays(rays, layers), field.layers
    density = met.detach().to(torch.float32).reshape(-1).contiguous().numpy()
    origins = (rays.origins.detach().double() - torch.tensor(grid.lower, dtype=torch.float64)).numpy()
    directions = rays.directions.detach().double().contiguous().numpy()
    distance, mass, channel = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.int64)
    geometry, delta = (grid.shape, layers, grid.voxel_size, origins, directions), step * grid.voxel_size

    def work(run: tuple[int, int]) -> None:
        march_surfaces(density, table, *geometry, *run, delta, OPAQUE, distance, mass, channel)

    threads = max(1, min(torch.get_num_threads(), count // RAYS_WORTH_A_THREAD))
    edges = np.linspace(0, count, (RUNS_A_THREAD * threads if threads > 1 else 1) + 1).astype(np.int64).tolist()
    in_threads(work, list(zip(edges, edges[1:])), threads)
    return RaySurfaces(torch.from_numpy(mass) >= OPAQUE, torch.from_numpy(distance), torch.from_numpy(channel))


@dataclass(frozen=True, eq=False)
class _Walk:
    """The samples of rays in a grid, in the form that the loops take.

    shape: (X, Y, Z).
    rays: (R, 7) float64, see `cpu_loops.march_forward`.
    order: (R,) int64, rows of `rays`, sorted so that neighbours pass the same voxels.
    counts: (R,) int64 samples of a ray.
    delta: metres between samples.
    """

    shape: tuple[int, int, int]
    rays: np.ndarray
    order: np.ndarray
    counts: np.ndarray
    delta: float


def _walk(grid: VoxelGrid, rays: Rays, delta: float) -> _Walk:
    origins, directions = rays.origins.detach().double(), rays.directions.detach().double()
    near, counts = sample_counts(origins, directions, grid, delta)
    start = origins + near[:, None] * directions - torch.tensor(grid.lower, dtype=torch.float64)
    table = torch.cat([start / grid.voxel_size - 0.5, directions * (delta / grid.voxel_size), near[:, None]], dim=1)
    # By direction on the ground, then by slope. Cameras of a car are close to each other, whatever the frame. From -y
    # by -x and +y to +x: two threads share the grid along x, so that each writes to one contiguous piece of memory.
    sector = (torch.atan2(directions[:, 0], directions[:, 1]) * (SECTORS / math.tau)).floor()
    order = (sector + 0.5 * directions[:, 2].clamp(-0.99, 0.99)).argsort(stable=True)
    return _Walk(grid.shape, table.numpy(), order.numpy(), counts.numpy(), float(delta))


class _March(torch.autograd.Function):
    """(distance (R,), semantics (R, C), opacity (R,), median (R,), distortion (R,)) of density (V,) and logits (V, C),
    float32; no gradient goes through the median."""

    @staticmethod
    def forward(ctx, density: Tensor, table: Tensor, walk: _Walk) -> tuple[Tensor, ...]:
        loops = _loops()
        rays, classes = len(walk.order), table.shape[1]
        shapes = (rays, (rays, classes), rays, rays, rays)
        results = [torch.empty(shape, dtype=torch.float32) for shape in shapes]
        steps = np.empty(rays, np.int64)
        arrays = _arrays(density, table), [result.numpy() for result in results]

        def work(run: np.ndarray) -> None:
            (density, table), written = arrays
            loops.march_forward(density, table, walk.shape, walk.rays, run, walk.counts, walk.delta, *written, steps)

        threads = _threads(walk.counts)
        parts = RUNS_A_THREAD * threads if threads > 1 else 1
        in_threads(work, runs_of_equal_work(walk.order, walk.counts, parts), threads)
        ctx.save_for_backward(density, table)
        ctx.walk, ctx.steps = walk, steps
        ctx.mark_non_differentiable(results[3])
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        loops, walk = _loops(), ctx.walk
        density, table = _arrays(*ctx.saved_tensors)
        distance, semantics, opacity, _, distortion = (gradient.contiguous() for gradient in gradients)
        upstream = tuple(_arrays(distance, semantics, opacity, distortion))
        wanted = ctx.needs_input_grad[:2]
        parts = _backward_parts(ctx.steps, 4 * (density.size * wanted[0] + table.size * wanted[1]))
        runs = runs_of_equal_work(walk.order, ctx.steps, parts)
        # The system provides NumPy's zeros page by page, when they are first written.
        own = [
            (
                np.zeros(density.size if wanted[0] else 0, np.float32),
                np.zeros(table.shape if wanted[1] else (0, table.shape[1]), np.float32),
                np.zeros(walk.shape[0] * walk.shape[1], np.bool_),
            )
            for _ in runs
        ]

        def work(part: int) -> None:
            where = (density, table, walk.shape, walk.rays, runs[part], ctx.steps, walk.delta)
            loops.march_backward(*where, upstream, wanted, *own[part])

        in_threads(work, range(parts), parts)
        _add_up(loops, own, walk.shape)
        for_density, for_table = (torch.from_numpy(sum_) if want else None for sum_, want in zip(own[0], wanted))
        return for_density, for_table, None


def _add_up(loops, own: list[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, int, int]) -> None:
    """Add all parts' gradients to the first's, one after the other, in the columns of voxels that they have touched."""
    columns = shape[0] * shape[1]
    edges = np.linspace(0, columns, len(own) + 1).astype(np.int64)

    def work(piece: int) -> None:
        for density, table, touched in own[1:]:
            for into, values in ((own[0][0], density), (own[0][1], table)):
                loops.add_columns(into.reshape(-1), values.reshape(-1), touched, edges[piece], edges[piece + 1])

    if len(own) > 1:
        in_threads(work, range(len(own)), len(own))


def _threads(counts: np.ndarray) -> int:
    """Number of threads that pays for so many samples."""
    return max(1, min(torch.get_num_threads(), int(counts.sum()) // SAMPLES_WORTH_A_THREAD))


def _backward_parts(steps: np.ndarray, gradient_bytes: int) -> int:
    """Number of threads; each has its own gradients until the end, so memory limits it."""
    return min(_threads(steps), 1 + PRIVATE_BYTES // max(gradient_bytes, 1))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


def _loops():
    """The module of the loops, which loads Numba."""
    return cpu_loops_of(__package__, "rendering")
