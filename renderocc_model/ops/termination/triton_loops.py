"""The loops of ray termination for GPUs, in Triton, with the walk of `ops.render.triton_loops`.

As there, one warp works on one ray with one sample in each lane, positions are fixed-point numbers, and what a ray adds
to one voxel in neighbouring samples is summed between lanes before it is written. Both depths are plain sums: no sample
waits for those before it, the forward pass stores nothing for the backward pass, and the backward pass does not read
the field.

Bytes: a sample reads, or adds to, eight numbers, mostly in the caches. Main memory has to read the density once and
write its gradient once: 2.6 MB each for 200 x 200 x 16 voxels in float32, less than a microsecond of an H100's 3.35
TB/s. So the bound is instructions and atomic additions. None of this has been measured on a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..render.triton_loops import VOXEL, add_to, cells_of, corner_of, densities, gather_runs, slab

__all__ = ["enter", "follow_back", "mark_returns", "march_backward", "march_forward"]


# --- where rays enter, and which samples are in their windows --------------------------------------------------------


@triton.jit
def _samples_before(place, far, near, offset, DELTA: tl.constexpr):
    """Number of samples of a ray that lie in the grid and before a distance along it, as float64."""
    return tl.maximum(tl.ceil((tl.minimum(place, far) - near) / DELTA - offset), 0.0)


@triton.jit
def _way(origins, directions, ray, exists, LOWER: tl.constexpr, UPPER: tl.constexpr):
    """(near, far, whether a ray passes the grid) in float64, as `ops.render.reference.intersect_box`; false if a number
    is NaN."""
    near, far = tl.zeros(ray.shape, tl.float64), tl.full(ray.shape, float("inf"), tl.float64)
    for axis in tl.static_range(3):
        origin = tl.load(origins + 3 * ray + axis, mask=exists, other=0.0).to(tl.float64)
        direction = tl.load(directions + 3 * ray + axis, mask=exists, other=1.0).to(tl.float64)
        near, far = slab(origin, direction, LOWER[axis], UPPER[axis], near, far)
        far = tl.where((origin == origin) & (direction == direction), far, -1.0)
    hit = (far > near) & (far < float("inf"))
    return tl.where(hit, near, 0.0), tl.where(hit, far, 0.0), hit


@triton.jit
def enter(
    origins,
    directions,
    starts,
    ends,
    offsets,
    first,
    last,
    walk,
    rays,
    LOWER: tl.constexpr,
    UPPER: tl.constexpr,
    SIZE: tl.constexpr,
    DELTA: tl.constexpr,
    MOVED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find each ray's samples: ranges as `reference.sample_ranges` in float64, positions in fixed point.

    Compile without fused multiply-add: other rounding of a border can add a sample.

    Args:
        origins, directions: (R, 3) of any floating-point type.
        starts, ends, offsets: (R,) of any floating-point type; offsets are read if MOVED.
        first, last: (R,) int32, written: samples before the window, and before its end.
        walk: (R, 6) int64, written: position of the first sample in voxels from the first centre, and the step.
        LOWER, UPPER, SIZE, DELTA: the grid's box, its voxel and the distance between samples, metres.
    """
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = ray < rays
    near, far, hit = _way(origins, directions, ray, exists, LOWER, UPPER)
    offset = tl.full([BLOCK], 0.5, tl.float64)
    if MOVED:
        offset = tl.load(offsets + ray, mask=exists, other=0.5).to(tl.float64)
    start = tl.load(starts + ray, mask=exists, other=0.0).to(tl.float64)
    end = tl.load(ends + ray, mask=exists, other=0.0).to(tl.float64)
    start, end = tl.where(start == start, start, float("inf")), tl.where(end == end, end, float("inf"))
    total = _samples_before(far, far, near, offset, DELTA)
    before = _samples_before(start, far, near, offset, DELTA)
    until = tl.maximum(_samples_before(end, far, near, offset, DELTA), before)
    low, high = tl.maximum(start, near), tl.minimum(end, far)
    bare = (before == until) & (low < high) & (total > 0.0)
    middle = tl.minimum(tl.floor(((low + high) / 2 - near) / DELTA), total - 1.0)
    before, until = tl.where(bare, middle, before), tl.where(bare, middle + 1.0, until)
    tl.store(first + ray, tl.where(hit, before, 0.0).to(tl.int32), mask=exists)
    tl.store(last + ray, tl.where(hit, until, 0.0).to(tl.int32), mask=exists)
    for axis in tl.static_range(3):
        origin = tl.load(origins + 3 * ray + axis, mask=exists, other=0.0).to(tl.float64)
        direction = tl.load(directions + 3 * ray + axis, mask=exists, other=0.0).to(tl.float64)
        step = tl.where(hit, direction * (DELTA / SIZE), 0.0)
        place = (origin + near * direction - LOWER[axis]) / SIZE - 0.5 + offset * step
        tl.store(walk + 6 * ray + axis, (tl.where(hit, place, 0.0) * VOXEL).to(tl.int64), mask=exists)
        tl.store(walk + 6 * ray + 3 + axis, (step * VOXEL).to(tl.int64), mask=exists)


# --- optical depths --------------------------------------------------------------------------------------------------


@triton.jit
def march_forward(
    density,
    walk,
    first,
    last,
    before,
    window,
    delta,
    rays,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    WIDE: tl.constexpr,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Depths of RAYS rays, the first being program_id(0) * RAYS.

    Args:
        density: (V,), of 16 or 32 bits.
        walk, first, last: what `enter` wrote.
        before, window: (R,) float32, written.
        delta: metres between samples.
        rays: R.
    """
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    exists = ray < rays
    lane = tl.zeros([RAYS, SAMPLES], tl.int32) + tl.arange(0, SAMPLES)[None, :]
    begin, end = tl.load(first + ray, mask=exists, other=0), tl.load(last + ray, mask=exists, other=0)
    head, rest = tl.zeros([RAYS, SAMPLES], tl.float32), tl.zeros([RAYS, SAMPLES], tl.float32)
    longest, tile = tl.max(end, 0), 0
    while tile * SAMPLES < longest:
        along = tile * SAMPLES + lane
        sigma = densities(density, cells_of(walk, ray, exists, along, X, Y, Z, WIDE), along < end[:, None])
        ahead = along < begin[:, None]
        head += tl.where(ahead, sigma, 0.0)
        rest += tl.where(ahead, 0.0, sigma)
        tile += 1
    tl.store(before + ray, tl.sum(head, 1) * delta, mask=exists)
    tl.store(window + ray, tl.sum(rest, 1) * delta, mask=exists)


@triton.jit
def march_backward(
    walk,
    first,
    last,
    g_before,
    g_window,
    into,
    scales,
    delta,
    rays,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    WIDE: tl.constexpr,
    FIXED: tl.constexpr,
    RUN: tl.constexpr,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Add what RAYS rays contribute to the gradient of the density.

    Args:
        walk ... rays: as for `march_forward`.
        g_before, g_window: (R,) float32, gradients of the results.
        into: (V,) float32, or int64 if FIXED; added to.
        scales: (1,) float32, read if FIXED: the integer that means 1 in `into`.
        RUN: how many neighbouring samples are searched for the same voxel, a power of two.
    """
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    exists = ray < rays
    lane = tl.zeros([RAYS, SAMPLES], tl.int32) + tl.arange(0, SAMPLES)[None, :]
    begin, end = tl.load(first + ray, mask=exists, other=0), tl.load(last + ray, mask=exists, other=0)
    push_before = tl.load(g_before + ray, mask=exists, other=0.0) * delta
    push_window = tl.load(g_window + ray, mask=exists, other=0.0) * delta
    end = tl.where(push_window == 0.0, begin, end)
    end = tl.where((push_before == 0.0) & (push_window == 0.0), 0, end)  # such rays add nothing
    scale = 1.0
    if FIXED:
        scale = tl.load(scales)
    longest, tile = tl.max(end, 0), 0
    while tile * SAMPLES < longest:
        along = tile * SAMPLES + lane
        cells = cells_of(walk, ray, exists, along, X, Y, Z, WIDE)
        push = tl.where(along < begin[:, None], push_before[:, None], push_window[:, None])
        push = tl.where(along < end[:, None], push, 0.0)
        for corner in range(8):
            voxel, share = corner_of(cells, corner)
            part = share * push
            pushed, _, leads = gather_runs(voxel, part, part, lane, RUN, SAMPLES)
            add_to(into + voxel, pushed, leads & (pushed != 0.0), scale, FIXED)
        tile += 1


# --- windows ---------------------------------------------------------------------------------------------------------


@triton.jit
def _voxel_at(origins, directions, ray, wanted, place, LOWER: tl.constexpr, SIZE: tl.constexpr, SHAPE: tl.constexpr):
    """(index of the voxel at `place` metres along a ray as int64, whether it is in the grid)."""
    voxel, inside = tl.zeros(ray.shape, tl.int64), wanted
    for axis in tl.static_range(3):
        origin = tl.load(origins + 3 * ray + axis, mask=wanted, other=0.0).to(tl.float64)
        direction = tl.load(directions + 3 * ray + axis, mask=wanted, other=0.0).to(tl.float64)
        cell = tl.floor((origin + place * direction - LOWER[axis]) / SIZE)
        inside = inside & (cell >= 0.0) & (cell < SHAPE[axis])
        voxel = voxel * SHAPE[axis] + tl.where(inside, cell, 0.0).to(tl.int64)
    return voxel, inside


@triton.jit
def mark_returns(
    origins,
    directions,
    distances,
    returned,
    marks,
    rays,
    LOWER: tl.constexpr,
    SIZE: tl.constexpr,
    SHAPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write 1 for the voxels that hold the end of a ray that returned; arguments as for `follow_back`."""
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    counts = tl.load(returned + ray, mask=ray < rays, other=0) != 0
    place = tl.load(distances + ray, mask=counts, other=0.0).to(tl.float64)
    voxel, inside = _voxel_at(origins, directions, ray, counts, place, LOWER, SIZE, SHAPE)
    tl.store(marks + voxel, 1, mask=inside)


@triton.jit
def follow_back(
    origins,
    directions,
    distances,
    returned,
    marks,
    starts,
    ends,
    rays,
    LOWER: tl.constexpr,
    UPPER: tl.constexpr,
    SIZE: tl.constexpr,
    SHAPE: tl.constexpr,
    DELTA: tl.constexpr,
    MARGIN: tl.constexpr,
    FOLLOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`reference.return_windows` in float64; compile without fused multiply-add.

    Args:
        origins, directions: (R, 3) of any floating-point type.
        distances: (R,) of any floating-point type.
        returned: (R,) uint8.
        marks: (V,) uint8, what `mark_returns` wrote, read if FOLLOW.
        starts, ends: (R,) float32, written.
        LOWER, UPPER, SIZE, SHAPE: the grid's box, its voxel, metres, and (X, Y, Z).
        DELTA, MARGIN: a step back, and the window's reach before and behind the return, metres.
    """
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = ray < rays
    counts = tl.load(returned + ray, mask=exists, other=0) != 0
    distance = tl.load(distances + ray, mask=counts, other=0.0).to(tl.float64)
    begin = tl.maximum(distance - MARGIN, 0.0)
    run = tl.zeros([BLOCK], tl.int32)
    if FOLLOW:
        near, far, hit = _way(origins, directions, ray, exists, LOWER, UPPER)
        steps = tl.where(hit & counts & (begin < far), tl.ceil((begin - near) / DELTA - 0.5), 0.0)
        going = steps > 0.0
        while tl.max(going.to(tl.int32), 0) > 0:
            place = begin - (run.to(tl.float64) + 0.5) * DELTA
            voxel, inside = _voxel_at(origins, directions, ray, going, place, LOWER, SIZE, SHAPE)
            going = going & (tl.load(marks + voxel, mask=inside, other=0) != 0)
            run += going.to(tl.int32)
            going = going & (run < steps)
    start = tl.maximum(begin - run.to(tl.float64) * DELTA, 0.0)
    tl.store(starts + ray, tl.where(counts, start, float("inf")).to(tl.float32), mask=exists)
    tl.store(ends + ray, tl.where(counts, distance + MARGIN, float("inf")).to(tl.float32), mask=exists)
