"""Where light ends along rays, in plain PyTorch: optical depths, and how far back a return's window begins.

In a field of density sigma, light of a ray r(t) = o + t d ends like the first event of a Poisson process (Max 1995; the
model under volume rendering). The probability that it ends in a window [a, b) is

    p = exp(-tau_before) (1 - exp(-tau_window)),    tau_before = sum_{t_i < a} sigma_i delta,
    -log p = tau_before - log(1 - exp(-tau_window)),    tau_window = sum_{a <= t_i < b} sigma_i delta

and the probability that it leaves the grid is exp(-tau), with tau of the whole way. Samples follow the renderer's rule
(`ops.render.reference`), but may be moved along the ray: t_i = t_near + (i + offset) delta while t_i < t_far. The
offset 1/2 gives the middles of the steps, and then 1 - exp(-tau of the whole way) is the renderer's opacity.

Both depths are linear in the density: the gradient of voxel v is delta times the sum of v's trilinear weights at the
samples before the window, times dL/dtau_before, and likewise in the window. So nothing has to be stored for each
sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.rays import Rays
from ..render.reference import intersect_box, runs_of_similar_length, trilinear

__all__ = ["OpticalDepths", "SampleRanges", "mark_voxels", "return_windows", "sample_ranges", "termination"]


class OpticalDepths(NamedTuple):
    """Optical depths along R rays, without unit.

    before: (R,) >= 0, from the sensor to the window; of the whole way where the window begins behind the grid.
    window: (R,) >= 0, in the window.
    """

    before: Tensor
    window: Tensor


class SampleRanges(NamedTuple):
    """Which samples of R rays lie before and in the window.

    near: (R,) float64, metres to where a ray enters the grid.
    first: (R,) int64, samples before the window.
    last: (R,) int64 >= first, samples before the window's end.
    """

    near: Tensor
    first: Tensor
    last: Tensor


def termination(
    field: SemanticDensityField,
    rays: Rays,
    starts: Tensor,
    ends: Tensor,
    step: float = 0.5,
    offsets: Tensor | None = None,
    samples_per_chunk: int = 2**19,
) -> OpticalDepths:
    """What `ops.termination.termination` does, on any device and of any type.

    Args:
        samples_per_chunk: number of samples processed at once; about 150 bytes of memory each.
    Raises:
        ValueError: samples_per_chunk is not positive.
    """
    if samples_per_chunk < 1:
        raise ValueError(f"samples_per_chunk is {samples_per_chunk}; expected 1 or more")
    dtype = torch.float64 if field.dtype == torch.float64 else torch.float32
    density = field.density.to(dtype).reshape(-1)
    delta = step * field.grid.voxel_size
    near, first, last = sample_ranges(field.grid, rays, starts, ends, delta, offsets)
    places = near + delta * (0.5 if offsets is None else offsets.detach().double())
    origins, directions, places = rays.origins.detach().to(dtype), rays.directions.detach().to(dtype), places.to(dtype)

    order, parts = last.argsort(stable=True), []
    for begin, end, samples in runs_of_similar_length(last[order].cpu().numpy(), samples_per_chunk):
        rows = order[begin:end]
        chunk = (origins[rows], directions[rows], places[rows], first[rows], last[rows])
        arguments = (density, field.grid, *chunk, delta, samples)
        if torch.is_grad_enabled() and density.requires_grad:
            parts.append(checkpoint(_sum_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_sum_chunk(*arguments))
    # Rays without samples come first in `order`. An empty sum gives a zero with a gradient (of zeros) in the field.
    nothing = density[:0].sum().expand(len(order) - sum(len(part) for part in parts), 2)
    depths = torch.cat([nothing, *parts])[order.argsort()]
    return OpticalDepths(depths[:, 0], depths[:, 1])


def _sum_chunk(
    density: Tensor,
    grid: VoxelGrid,
    origins: Tensor,
    directions: Tensor,
    places: Tensor,
    first: Tensor,
    last: Tensor,
    delta: float,
    samples: int,
) -> Tensor:
    """(r, 2) optical depths of r rays of at most `samples` samples, the first of which stand at `places` (r,)."""
    index = torch.arange(samples, dtype=places.dtype, device=places.device)  # an integer times delta is float32
    distances = places[:, None] + index * delta
    indices, weights = trilinear(origins[:, None] + distances[..., None] * directions[:, None], grid)
    sigma = (density.index_select(0, indices.view(-1)).view(indices.shape) * weights).sum(dim=-1)
    before = index < first[:, None]
    in_window = ~before & (index < last[:, None])
    return delta * torch.stack([sigma.masked_fill(~chosen, 0).sum(dim=1) for chosen in (before, in_window)], dim=1)


def sample_ranges(
    grid: VoxelGrid, rays: Rays, starts: Tensor, ends: Tensor, delta: float, offsets: Tensor | None = None
) -> SampleRanges:
    """Which samples lie before and in each ray's window, in float64: every implementation takes the same ones.

    A sample lies in the window [start, end) if its t_i does. If a window reaches into the grid but holds no sample, it
    gets the sample in whose step its middle lies, so that light can end there. Only rays without any sample have none.
    """
    origins, directions, starts, ends = (
        tensor.detach().double() for tensor in (rays.origins, rays.directions, starts, ends)
    )
    starts, ends = (place.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf) for place in (starts, ends))
    offset = 0.5 if offsets is None else offsets.detach().double()
    near, far = intersect_box(origins, directions, grid.lower, grid.upper)

    def samples_before(place: Tensor) -> Tensor:
        return ((torch.minimum(place, far) - near) / delta - offset).ceil().clamp(min=0)

    total, first = samples_before(far), samples_before(starts)
    last = torch.maximum(samples_before(ends), first)
    low, high = torch.maximum(starts, near), torch.minimum(ends, far)
    bare = (first == last) & (low < high) & (total > 0)
    middle = torch.minimum((((low + high) / 2 - near) / delta).floor(), total - 1)
    first = torch.where(bare, middle, first)
    last = torch.where(bare, middle + 1, last)
    return SampleRanges(near, first.to(torch.int64), last.to(torch.int64))


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
    """What `ops.termination.return_windows` does, on any device."""
    begin, steps = walk_back(grid, rays, distances, returned, margin, step * grid.voxel_size)
    runs = torch.zeros_like(steps)
    if follow:
        marked = mark_voxels(grid, rays, distances, returned, marks).view(-1)
        origins, directions, delta = rays.origins.double(), rays.directions.double(), step * grid.voxel_size
        order = steps.argsort(stable=True)
        for first, last, longest in runs_of_similar_length(steps[order].cpu().numpy(), 2**20):
            rows = order[first:last]
            index = torch.arange(longest, dtype=torch.float64, device=steps.device)
            places = begin[rows, None] - (index + 0.5) * delta
            voxels, inside = voxels_of(origins[rows, None] + places[..., None] * directions[rows, None], grid)
            holds = (marked[voxels] > 0) & inside & (index < steps[rows, None])
            runs[rows] = holds.cumprod(dim=1).sum(dim=1)
    return windows_of(grid, distances, returned, margin, begin, runs, step * grid.voxel_size)


def walk_back(
    grid: VoxelGrid, rays: Rays, distances: Tensor, returned: Tensor, margin: float, delta: float
) -> tuple[Tensor, Tensor]:
    """Where each ray's way back towards the sensor begins, and how many steps of it lie in the grid.

    Returns:
        begin: (R,) float64 metres, `margin` voxels before the return; 0 where there is none.
        steps: (R,) int64; step k is checked in its middle, begin - (k + 1/2) delta.
    """
    near, far = intersect_box(rays.origins.double(), rays.directions.double(), grid.lower, grid.upper)
    begin = torch.where(returned, distances.double() - margin * grid.voxel_size, 0).clamp(min=0)
    within = returned & (begin < far)
    return begin, ((begin - near) / delta - 0.5).ceil().clamp(min=0).where(within, 0).to(torch.int64)


def windows_of(
    grid: VoxelGrid, distances: Tensor, returned: Tensor, margin: float, begin: Tensor, runs: Tensor, delta: float
) -> tuple[Tensor, Tensor]:
    """Windows (R,), (R,) float32 that begin `runs` steps before `begin` and end `margin` voxels behind the return."""
    starts, ends = (begin - runs.double() * delta).clamp(min=0), distances.double() + margin * grid.voxel_size
    return tuple(torch.where(returned, place, math.inf).float() for place in (starts, ends))


def mark_voxels(
    grid: VoxelGrid, rays: Rays, distances: Tensor, returned: Tensor, marks: Tensor | None = None
) -> Tensor:
    """(X, Y, Z) uint8: 1 in voxels that hold the end of a ray that `returned` (R,), and not 0 in voxels that were
    marked before."""
    distances = torch.where(returned, distances, 0).double()
    voxels, inside = voxels_of(rays.origins.double() + distances[:, None] * rays.directions.double(), grid)
    # Points that do not count are written to one extra place, which is then cut off.
    voxels = torch.where(returned & inside, voxels, grid.size)
    marked = torch.zeros(grid.size + 1, dtype=torch.uint8, device=voxels.device)
    if marks is not None:
        marked[:-1] = marks.reshape(-1)
    return marked.index_fill_(0, voxels, 1)[:-1].view(grid.shape)


def voxels_of(points: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """Index (...) int64 into the flattened grid of the voxel that holds each point (..., 3), the nearest one for points
    outside; and whether a point is inside (a voxel owns its lower faces and not its upper ones)."""
    index = torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)
    inside = torch.ones_like(index, dtype=torch.bool)
    for axis, count in enumerate(grid.shape):
        cell = ((points[..., axis] - grid.lower[axis]) / grid.voxel_size).floor()
        inside &= (cell >= 0) & (cell < count)
        index = index * count + cell.clamp(0, count - 1).to(torch.int64)
    return index, inside
