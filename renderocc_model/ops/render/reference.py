"""Volume rendering of a semantic density field, in plain PyTorch.

For a ray r(t) = o + t d, cut to the grid's box at [t_near, t_far] with t_near >= 0, samples stand at the middles of
equal steps delta, t_i = t_near + (i + 1/2) delta while t_i < t_far, and (RenderOcc, as in NeRF, Mildenhall et al. 2020)

    alpha_i = 1 - exp(-sigma_i delta)        opacity of one step
    T_i     = exp(-sum_{j<i} sigma_j delta)  transmittance: light left before the step, = prod_{j<i} (1 - alpha_j)
    w_i     = T_i alpha_i                    weight
    D = sum w_i t_i,   S = sum w_i s_i,   O = sum w_i

The density of a step is even within it, so half of the light has been stopped after sum_{j<i} sigma_j delta + sigma_i x
= ln 2, x metres into a step: the median of where a ray's light ends.

The distortion loss of a ray (mip-NeRF 360, Barron et al. 2022, eq. 15), in metres, for samples that stand for
intervals of width delta:

    sum_ij w_i w_j |t_i - t_j| + delta / 3 sum_i w_i^2  =  delta (2 sum_i w_i R_i + 1/3 sum_i w_i^2),
    R_i = sum_{j<i} (i - j) w_j = sum_{k<i} sum_{j<=k} w_j

as |t_i - t_j| = |i - j| delta: two running sums instead of all pairs, and no differences of large numbers. (The paper
measures along rays of length 1; divide by a length of your choice for a loss without a unit.)

How it is computed: S is linear in the logits of the voxels, so w_i is multiplied into the eight trilinear weights and
the sum over samples *and* corners is one weighted sum of rows of the logit table (`embedding_bag`). Logits for each
sample, the largest tensor of the textbook form, are never made. Rays are handled in chunks of similar sample counts,
and under autograd each chunk is computed again in the backward pass: memory is that of one chunk plus O(rays).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.rays import Rays

__all__ = ["RenderResult", "intersect_box", "render", "runs_of_similar_length", "sample_weights", "trilinear"]


@dataclass(frozen=True, eq=False)
class RenderResult:
    """Rendered distance, semantics and opacity of R rays.

    distance: (R,) sum w_i t_i in metres from the ray's origin. It is the plain sum, not divided by the opacity: where
        light remains (opacity < 1) it is shorter than the distance of what was hit, and 0 for a ray that hits nothing.
        `mean_distance` is divided by it.
    semantics: (R, C) sum w_i s_i, plus (1 - O) * background if one was given. It composites whatever the field's
        `semantics` hold: logits give composited logits (softmax comes *after* rendering, as in the paper),
        probabilities give expected probabilities.
    opacity: (R,) sum w_i = 1 - transmittance behind the last sample, in [0, 1].
    median: (R,) metres from the ray's origin to where half of the light has been stopped; infinite where less of it is.
        Some light that passes a surface and ends far behind it moves the mean, and not this. It has no gradient.
    weights: (R, N) w_i if asked for, 0 behind a ray's last sample.
    sample_distances: (R, N) t_i if weights were asked for; behind a ray's last sample they go on in equal steps.
    distortion: (R,) in metres if asked for: how far apart the light of a ray ends, 0 where a ray hits nothing (module
        docstring of `reference`). Light that leaves the grid is not counted.
    """

    distance: Tensor
    semantics: Tensor
    opacity: Tensor
    median: Tensor
    weights: Tensor | None = None
    sample_distances: Tensor | None = None
    distortion: Tensor | None = None

    def mean_distance(self) -> Tensor:
        """(R,) distance / opacity: mean distance of what a ray hits; NaN where it hits nothing (opacity 0)."""
        return self.distance / self.opacity


def render(
    field: SemanticDensityField,
    rays: Rays,
    step: float = 0.5,
    background: Tensor | None = None,
    return_weights: bool = False,
    return_distortion: bool = False,
    samples_per_chunk: int = 2**19,
) -> RenderResult:
    """Render distance, semantics and opacity along rays (module docstring for the equations).

    Differentiable in the field's density and semantics and in the background; rays are data and get no gradient.
    Half-precision fields are rendered in float32, others in their own type.

    Args:
        field: what to render.
        rays: R >= 0 rays on the field's device; those that miss the grid are transparent.
        step: distance between samples, in voxels.
        background: (C,) or (R, C) semantics behind the grid, composited with the light that is left.
        return_weights: also return (R, N) weights and sample distances (R * N numbers of memory each).
        return_distortion: also return (R,) the distortion loss of each ray in metres.
        samples_per_chunk: number of samples processed at once; about 150 bytes of memory each.

    Raises:
        ValueError: step or samples_per_chunk is not positive, the devices differ, or the background has another shape.
    """
    if samples_per_chunk < 1:
        raise ValueError(f"samples_per_chunk is {samples_per_chunk}; expected 1 or more")
    dtype = torch.float64 if field.dtype == torch.float64 else torch.float32
    background = checked_inputs(field, rays, step, background, dtype)
    density = field.density.to(dtype).reshape(-1)
    table = field.semantics.to(dtype).reshape(field.grid.size, field.class_count)
    delta = step * field.grid.voxel_size
    origins, directions = rays.origins.detach().to(dtype), rays.directions.detach().to(dtype)
    near, counts = sample_counts(origins, directions, field.grid, delta)

    order = counts.argsort(stable=True)
    parts = []
    for first, last, samples in runs_of_similar_length(counts[order].cpu().numpy(), samples_per_chunk):
        rows = order[first:last]
        chunk = (origins[rows], directions[rows], near[rows], counts[rows])
        arguments = (density, table, field.grid, *chunk, delta, samples, return_distortion)
        if torch.is_grad_enabled() and (density.requires_grad or table.requires_grad):
            parts.append(checkpoint(_render_chunk, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_render_chunk(*arguments))
    distance, semantics, opacity, median, spread, weights = _gather_parts(parts, order, density, table, return_weights)
    if background is not None:
        semantics = semantics + (1 - opacity)[:, None] * background
    sample_distances = None
    if weights is not None:
        sample_distances = _sample_distances(near, delta, weights.shape[1])
    spread = spread * delta if return_distortion else None
    return RenderResult(distance, semantics, opacity, median.detach(), weights, sample_distances, spread)


def checked_inputs(
    field: SemanticDensityField, rays: Rays, step: float, background: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """The background as a tensor of the type rendered in, after everything that `render` is given has been checked.

    Raises:
        ValueError: step is not positive, the devices differ, or the background has another shape.
    """
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"step is {step}; expected voxels between samples, more than 0, usually 0.5")
    if rays.origins.device != field.device:
        raise ValueError(f"rays are on {rays.origins.device} but the field is on {field.device}; move one with .to()")
    if background is None:
        return None
    background, shapes = torch.as_tensor(background), ((field.class_count,), (len(rays), field.class_count))
    if tuple(background.shape) not in shapes:
        raise ValueError(f"background has shape {tuple(background.shape)}; expected {shapes[0]} or {shapes[1]}")
    if background.device != field.device:
        raise ValueError(f"background is on {background.device} but the field is on {field.device}; move it with .to()")
    return background.to(dtype)


def sample_counts(origins: Tensor, directions: Tensor, grid: VoxelGrid, delta: float) -> tuple[Tensor, Tensor]:
    """Where each ray enters the grid and how many samples delta metres apart it takes there.

    Returns:
        near: (R,) metres, of the origins' type.
        counts: (R,) int64, 0 for rays that miss.
    """
    near, far = intersect_box(origins, directions, grid.lower, grid.upper)
    return near, ((far - near) / delta - 0.5).ceil().clamp_(min=0).to(torch.int64)


def intersect_box(
    origins: Tensor, directions: Tensor, lower: tuple[float, ...], upper: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave an axis-aligned box (the slab method), in front of their origin.

    A ray that lies in a face of the box is inside; one that misses gets near = far = 0.

    Returns:
        near, far: (R,), 0 <= near <= far.
    """
    low = torch.tensor(lower, dtype=origins.dtype, device=origins.device)
    high = torch.tensor(upper, dtype=origins.dtype, device=origins.device)
    parallel = directions == 0
    # (face - o) / 0 would be NaN for an origin in that face, so parallel axes are decided by the origin alone.
    inverse = 1 / torch.where(parallel, torch.ones_like(directions), directions)
    at_low, at_high = (low - origins) * inverse, (high - origins) * inverse
    enter = torch.minimum(at_low, at_high).masked_fill(parallel, -math.inf)
    leave = torch.maximum(at_low, at_high).masked_fill(parallel, math.inf)
    outside = (parallel & ((origins < low) | (origins > high))).any(dim=1)
    near, far = enter.amax(dim=1).clamp(min=0), leave.amin(dim=1)
    misses = outside | (far <= near)
    return near.masked_fill(misses, 0), far.masked_fill(misses, 0)


def trilinear(points: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """The eight voxel centres around each point and their weights.

    Within half a voxel of a face, and beyond it, the coordinate is clamped to the nearest plane of centres.

    Args:
        points: (..., 3) in the grid's frame.

    Returns:
        indices: (..., 8) int32 (int64 for grids of 2^31 voxels and more) into the flattened grid.
        weights: (..., 8) of the points' type, each >= 0, their sum 1.
    """
    shape = tuple(grid.shape)
    strides = (shape[1] * shape[2], shape[2], 1)
    index_type = torch.int32 if math.prod(shape) < 2**31 else torch.int64
    base, sides = torch.zeros(points.shape[:-1], dtype=index_type, device=points.device), []
    for axis in range(3):
        coordinate = (points[..., axis] - grid.lower[axis]) / grid.voxel_size - 0.5
        coordinate = coordinate.clamp(0, shape[axis] - 1)
        cell = coordinate.floor().clamp_(max=max(shape[axis] - 2, 0))
        fraction = coordinate - cell
        sides.append(torch.stack((1 - fraction, fraction), dim=-1))
        offset = cell.to(index_type) * strides[axis]
        base = base + offset
    # An axis of one voxel has no second plane: its fraction is 0 and both of its corners are the same voxel.
    hop = [stride if size > 1 else 0 for stride, size in zip(strides, shape)]
    corners = [x * hop[0] + y * hop[1] + z * hop[2] for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    indices = base[..., None] + torch.tensor(corners, dtype=index_type, device=points.device)
    weights = sides[0][..., :, None, None] * sides[1][..., None, :, None] * sides[2][..., None, None, :]
    return indices, weights.flatten(-3)


def sample_weights(density: Tensor, delta: float) -> Tensor:
    """w_i = T_i alpha_i of samples delta apart.

    Args:
        density: (R, N) sigma_i >= 0 in 1/m, 0 where there is no sample.
        delta: metres.

    Returns:
        (R, N), each >= 0, a row's sum 1 - exp(-sum_i sigma_i delta).
    """
    depth = density * delta
    # Shift, then sum: subtracting depth_i from the inclusive sum would lose what lies in front of a very dense sample.
    before = functional.pad(depth, (1, 0))[:, :-1].cumsum(dim=1)
    return torch.exp(-before) * -torch.expm1(-depth)


def distortion_in_steps(weights: Tensor) -> Tensor:
    """The distortion loss of rays of equal steps, in steps: 2 sum_i w_i R_i + 1/3 sum_i w_i^2 (module docstring).

    Args:
        weights: (R, N) w_i, 0 where there is no sample.

    Returns:
        (R,); times delta it is mip-NeRF 360's eq. 15 in metres.
    """
    moments = weights.cumsum(dim=1).cumsum(dim=1)  # of sample i: R_{i+1}
    between = (weights[:, 1:] * moments[:, :-1]).sum(dim=1)
    return 2 * between + weights.square().sum(dim=1) / 3


def half_way(density: Tensor, near: Tensor, delta: float) -> Tensor:
    """(R,) metres at which half of the light has been stopped, infinite where less of it is; without gradient.

    Args:
        density: (R, N) sigma_i >= 0 in 1/m of samples delta apart, 0 where there is no sample.
        near: (R,) metres to the beginning of the first sample's step.
    """
    density = density.detach()
    passed = (density * delta).cumsum(dim=1)
    reached = passed >= math.log(2)
    if not reached.numel():
        return torch.full_like(near, math.inf)
    step = reached.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first
    beyond = (passed.gather(1, step) - math.log(2)) / density.gather(1, step)  # metres before the step's end
    found = near + ((step + 1) * delta - beyond)[:, 0]
    return torch.where(reached.any(dim=1), found, math.inf)


def _sample_distances(near: Tensor, delta: float, samples: int) -> Tensor:
    steps = torch.arange(samples, dtype=near.dtype, device=near.device) + 0.5
    return near[:, None] + steps * delta


def _render_chunk(
    density: Tensor,
    table: Tensor,
    grid: VoxelGrid,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    counts: Tensor,
    delta: float,
    samples: int,
    distortion: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(distance (r,), semantics (r, C), opacity (r,), median (r,), distortion in steps (r,) or zeros, weights (r,
    samples)) of r rays of at most `samples` samples."""
    distances = _sample_distances(near, delta, samples)
    points = origins[:, None] + distances[..., None] * directions[:, None]
    indices, corner_weights = trilinear(points, grid)
    at_corners = density.index_select(0, indices.view(-1)).view(indices.shape)
    exists = torch.arange(samples, device=counts.device) < counts[:, None]
    sigma = (at_corners * corner_weights).sum(dim=-1).masked_fill(~exists, 0)
    weights = sample_weights(sigma, delta)
    semantics = functional.embedding_bag(
        indices.flatten(1), table, per_sample_weights=(weights[..., None] * corner_weights).flatten(1), mode="sum"
    )
    opacity = weights.sum(dim=1)
    spread = distortion_in_steps(weights) if distortion else torch.zeros_like(opacity)
    return (weights * distances).sum(dim=1), semantics, opacity, half_way(sigma, near, delta), spread, weights


def runs_of_similar_length(counts: np.ndarray, limit: int) -> list[tuple[int, int, int]]:
    """Cut rays, sorted by their number of samples, into runs that fit into dense (rays, longest) arrays.

    Args:
        counts: (R,) ascending integers on the host, as they decide the sizes of tensors.
        limit: most elements of one array; a single ray may exceed it.

    Returns:
        (first, last, longest) of each run, ascending; rays without samples are in none.
    """
    runs, first = [], int(counts.searchsorted(1))
    while first < len(counts):
        # The longest ray of a run is its last one: find the farthest end that still fits.
        low, high = first + 1, len(counts)
        while low < high:
            middle = (low + high + 1) // 2
            if (middle - first) * int(counts[middle - 1]) <= limit:
                low = middle
            else:
                high = middle - 1
        runs.append((first, low, int(counts[low - 1])))
        first = low
    return runs


def _gather_parts(
    parts: list[tuple[Tensor, ...]], order: Tensor, density: Tensor, table: Tensor, return_weights: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Put the chunks' rays back into the caller's order; rays without samples, first in `order`, get zeros and
    an infinite median."""
    empty = len(order) - sum(len(part[0]) for part in parts)
    # The sum of no elements: zeros that depend on the field, so that backward() works when every ray misses.
    zero = density[:0].sum() + table[:0].sum()
    longest = max((part[-1].shape[1] for part in parts), default=0) if return_weights else 0
    single = zero.expand(empty)
    columns = [[single], [zero.expand(empty, table.shape[1])], [single], [single + math.inf], [single]]
    for column, values in zip(columns, zip(*parts)):
        column.extend(values)
    position = order.argsort()
    results = tuple(torch.cat(column)[position] for column in columns)
    if not return_weights:
        return *results, None
    padded = [functional.pad(part[-1], (0, longest - part[-1].shape[1])) for part in parts]
    return *results, torch.cat([zero.expand(empty, longest), *padded])[position]
