"""The loops of the renderer for GPUs, in Triton, in the notation of `reference`.

One warp works on one ray (on RAYS rays, where tuning chose more), SAMPLES samples of it at a time (a *tile*):

- The numbers of a sample (position, eight trilinear weights, density, optical depth, weight w_i) are computed with one
  sample in each lane. Prefix sums run over the lanes of a warp; nothing waits for another warp.
- The numbers of a class are computed with one class in each lane: a row of logits is one access of neighbouring
  addresses, and SAMPLES of these loads are in flight at once. Each corner's index is computed once for its density and
  its logits.
- A ray ends with the tile in which its light falls below NEGLIGIBLE_LIGHT, and rows of negligible weight are not read:
  in empty space only densities are read.
- Positions are fixed-point numbers, 32 bits of voxel and 32 of fraction: a sum of integers is exact, while float32
  would leave 16 bits of fraction at the far end of 200 voxels, and few GPUs have fast float64.

The backward pass takes tiles from back to front. The forward pass has stored the optical depth and the moment at each
tile's beginning (8 bytes for SAMPLES samples); weights are computed again. What a ray adds to one voxel in neighbouring
samples is summed between lanes before it is written: at half a voxel a step, a voxel is a corner of three or four
samples, and atomic additions take the longest. For this, corners are numbered by the parity of (x, y, z), so that a
voxel keeps its number, as in `cpu_loops`.

Bytes, for 17 classes: a sample reads 8 corners of 4 (1 + 17) bytes in float32, 576 bytes, mostly from the caches, as
neighbouring samples share corners. Main memory has to read the field once and write the gradients once: for 200 x 200 x
16 voxels 46 MB forward, and backward 46 MB read and 46 MB written (field in float32; 23 MB, 23 MB and 46 MB in
bfloat16). At an H100's 3.35 TB/s that takes at least 14 and 28 us. The H100's second-level cache holds the whole field,
and its bandwidth is the next bound: the 5 million samples of the bench's 38,400 rays read 2.9 GB, less what the
first-level cache keeps; at some 5.5 TB/s that is 0.2 to 0.5 ms forward. Instructions, as compiled for an H100: for each
sample 58 warp instructions forward and 212 backward (counted, with 32 samples a tile and 17 classes in float32; half of
those backward belong to the additions). On 132 multiprocessors with four instructions a cycle at 1.7 GHz they take at
least 0.3 and 1.2 ms. These are estimates: `renderocc bench render` measures.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "VOXEL",
    "add_to",
    "cells_of",
    "corner_of",
    "densities",
    "enter",
    "gather_runs",
    "march_backward",
    "march_forward",
    "slab",
]

if not hasattr(tl, "gather"):
    raise ImportError(
        f"rendering on a GPU needs Triton 3.2 or newer, which comes with PyTorch 2.6, and this is {triton.__version__} "
        "(backend='reference' works without it, slowly)"
    )

# As in `cpu_loops`: what a ray loses is a tenth of float32's rounding.
NEGLIGIBLE_WEIGHT = tl.constexpr(1e-11)
OPAQUE_DEPTH = tl.constexpr(20.7)  # -ln of a NEGLIGIBLE_LIGHT of 1e-9
# A sample of this optical depth lets 1e-14 of the light through. Larger depths would swamp the others in a tile's sum.
DEEPEST = tl.constexpr(32.0)
LN_2 = tl.constexpr(0.6931471805599453)  # half of the light has been stopped at this optical depth
VOXEL = tl.constexpr(2**32)  # one voxel, in fixed point


# --- where rays enter ------------------------------------------------------------------------------------------------


@triton.jit
def slab(origin, direction, LOW: tl.constexpr, HIGH: tl.constexpr, near, far):
    """[near, far] cut to LOW <= origin + t direction <= HIGH; far = -1 where there is nothing left."""
    parallel = direction == 0.0
    inverse = 1.0 / tl.where(parallel, 1.0, direction)
    at_low, at_high = (LOW - origin) * inverse, (HIGH - origin) * inverse
    enter_at, leave_at = tl.minimum(at_low, at_high), tl.maximum(at_low, at_high)
    inside = (origin >= LOW) & (origin <= HIGH)
    near = tl.where(parallel, near, tl.maximum(near, enter_at))
    far = tl.where(parallel, tl.where(inside, far, -1.0), tl.minimum(far, leave_at))
    return near, far


@triton.jit
def enter(
    origins,
    directions,
    nears,
    counts,
    walk,
    rays,
    LOWER: tl.constexpr,
    UPPER: tl.constexpr,
    SIZE: tl.constexpr,
    DELTA: tl.constexpr,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find each ray's samples in the grid: counts as `reference.sample_counts` in float64, positions in fixed point.

    Compile without fused multiply-add: other rounding of the far end can add a sample.

    Args:
        origins, directions: (R, 3) of any floating-point type.
        nears: (R,) float32, written, metres.
        counts: (R,) int32, written: samples of each ray, at most LIMIT; 0 also where a number is NaN.
        walk: (R, 6) int64, written: position of the first sample in voxels from the first centre, and the step.
        LOWER, UPPER, SIZE, DELTA: the grid's box, its voxel and the distance between samples, metres.
    """
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = ray < rays
    near, far = tl.zeros([BLOCK], tl.float64), tl.full([BLOCK], float("inf"), tl.float64)
    for axis in tl.static_range(3):
        origin = tl.load(origins + 3 * ray + axis, mask=exists, other=0.0).to(tl.float64)
        direction = tl.load(directions + 3 * ray + axis, mask=exists, other=1.0).to(tl.float64)
        near, far = slab(origin, direction, LOWER[axis], UPPER[axis], near, far)
        far = tl.where((origin == origin) & (direction == direction), far, -1.0)
    hit = (far > near) & (far < float("inf"))
    near = tl.where(hit, near, 0.0)
    count = tl.where(hit, tl.minimum(tl.ceil((far - near) / DELTA - 0.5), LIMIT), 0.0)
    tl.store(nears + ray, near.to(tl.float32), mask=exists)
    tl.store(counts + ray, tl.maximum(count, 0.0).to(tl.int32), mask=exists)
    for axis in tl.static_range(3):
        origin = tl.load(origins + 3 * ray + axis, mask=exists, other=0.0).to(tl.float64)
        direction = tl.load(directions + 3 * ray + axis, mask=exists, other=0.0).to(tl.float64)
        step = tl.where(hit, direction * (DELTA / SIZE), 0.0)
        start = tl.where(hit, (origin + near * direction - LOWER[axis]) / SIZE - 0.5 + 0.5 * step, 0.0)
        tl.store(walk + 6 * ray + axis, (start * VOXEL).to(tl.int64), mask=exists)
        tl.store(walk + 6 * ray + 3 + axis, (step * VOXEL).to(tl.int64), mask=exists)


# --- samples ---------------------------------------------------------------------------------------------------------


@triton.jit
def _axis(start, step, along, SIZE: tl.constexpr):
    """Along one axis, the even and the odd voxel that samples lie between, and the weight of the odd one.

    Positions are clamped to the centres. On an axis of one voxel, that voxel stands for the odd one, too, with weight
    0.
    """
    place = start[:, None] + along.to(tl.int64) * step[:, None]
    place = tl.minimum(tl.maximum(place, 0), (SIZE - 1) * VOXEL)
    cell = (place >> 32).to(tl.int32)
    if SIZE > 1:
        cell = tl.minimum(cell, SIZE - 2)
    fraction = (place - (cell.to(tl.int64) << 32)).to(tl.float32) * (1.0 / VOXEL)
    weight = tl.where((cell & 1) == 1, 1.0 - fraction, fraction)
    return cell + (cell & 1), tl.minimum(cell | 1, SIZE - 1), weight


@triton.jit
def cells_of(walk, ray, exists, along, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, WIDE: tl.constexpr):
    """The input of `corner_of` for samples number `along`, (rays, samples): offsets and weights along the three
    axes."""
    walk += 6 * ray
    start, step = tl.load(walk, mask=exists, other=0), tl.load(walk + 3, mask=exists, other=0)
    x_even, x_odd, x = _axis(start, step, along, X)
    start, step = tl.load(walk + 1, mask=exists, other=0), tl.load(walk + 4, mask=exists, other=0)
    y_even, y_odd, y = _axis(start, step, along, Y)
    start, step = tl.load(walk + 2, mask=exists, other=0), tl.load(walk + 5, mask=exists, other=0)
    z_even, z_odd, z = _axis(start, step, along, Z)
    if WIDE:  # with this many voxels or logits, indices need 64 bits
        x_even, x_odd = x_even.to(tl.int64), x_odd.to(tl.int64)
    return x_even * (Y * Z), x_odd * (Y * Z), y_even * Z, y_odd * Z, z_even, z_odd, x, y, z


@triton.jit
def corner_of(cells, corner):
    """(voxel, trilinear weight) of the corner that is odd along x, y, z where `corner` has bits 4, 2, 1."""
    x_even, x_odd, y_even, y_odd, z_even, z_odd, x, y, z = cells
    odd = (corner & 4) != 0
    voxel, weight = tl.where(odd, x_odd, x_even), tl.where(odd, x, 1.0 - x)
    odd = (corner & 2) != 0
    voxel, weight = voxel + tl.where(odd, y_odd, y_even), weight * tl.where(odd, y, 1.0 - y)
    odd = (corner & 1) != 0
    return voxel + tl.where(odd, z_odd, z_even), weight * tl.where(odd, z, 1.0 - z)


@triton.jit
def densities(density, cells, exists):
    """sigma_i of a tile's samples, 0 where there is none; NaN stays."""
    sigma = tl.zeros(exists.shape, tl.float32)
    for corner in tl.static_range(8):  # unrolled, so that all eight loads are in flight at once
        voxel, weight = corner_of(cells, corner)
        sigma += weight * tl.load(density + voxel, mask=exists, other=0.0).to(tl.float32)
    return sigma


@triton.jit
def _optical_depth(density, cells, exists, delta):
    """sigma_i delta of a tile's samples, 0 where there is none; NaN stays."""
    depth = densities(density, cells, exists) * delta
    return tl.where(depth > DEEPEST, DEEPEST, depth)


@triton.jit
def _rows(table, voxel, wanted, column, CLASSES: tl.constexpr):
    """Logits (rays, samples, columns) of voxels (rays, samples). A row that is not wanted repeats that of a wanted
    sample of the same ray; without such a sample it is 0. Columns beyond the classes are 0.

    Masking single rows would take as many instructions as all the rest.
    """
    stand_in = tl.max(tl.where(wanted, voxel, -1), 1)[:, None]
    voxel = tl.maximum(tl.where(wanted, voxel, stand_in), 0)
    places = (table + column)[None, None, :] + (voxel * CLASSES)[:, :, None]
    mask = ((stand_in >= 0)[:, :, None] & (column < CLASSES)[None, None, :]).broadcast_to(places.shape)
    return tl.load(places, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _alpha(depth):
    """1 - exp(-depth) to float32's rounding: near 0 by the Taylor series, whose first term left out is depth^9 / 9!."""
    series = 1.0 - depth * (1.0 / 6.0) * (1.0 - depth * (1.0 / 7.0) * (1.0 - depth * 0.125))
    series = 1.0 - depth * (1.0 / 3.0) * (1.0 - depth * 0.25 * (1.0 - depth * 0.2 * series))
    return tl.where(depth < 0.5, depth * (1.0 - depth * 0.5 * series), 1.0 - tl.exp(-depth))


@triton.jit
def _before(sums, lane):
    """Exclusive prefix sums, from inclusive ones. (Subtracting a sample's own number would lose small sums to
    rounding.)"""
    return tl.where(lane > 0, tl.gather(sums, tl.maximum(lane - 1, 0), axis=1), 0.0)


@triton.jit
def _behind(sums, lane, SAMPLES: tl.constexpr):
    """Exclusive suffix sums, from inclusive ones."""
    return tl.where(lane < SAMPLES - 1, tl.gather(sums, tl.minimum(lane + 1, SAMPLES - 1), axis=1), 0.0)


# --- forward ---------------------------------------------------------------------------------------------------------


@triton.jit
def march_forward(
    density,
    table,
    walk,
    counts,
    nears,
    distance,
    semantics,
    opacity,
    median,
    distortion,
    saved,
    tiles,
    delta,
    rays,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    CLASSES: tl.constexpr,
    LONGEST: tl.constexpr,
    SAVE: tl.constexpr,
    DISTORTION: tl.constexpr,
    WIDE: tl.constexpr,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Render RAYS rays, the first being program_id(0) * RAYS, and BLOCK of their classes, from program_id(1) * BLOCK
    on.

    Args:
        density, table: (V,) and (V, CLASSES), of 16 or 32 bits.
        walk, counts, nears: what `enter` wrote.
        distance, semantics, opacity, median, distortion: (R,), (R, CLASSES), (R,), (R,), (R,) float32, written
            (distortion: if DISTORTION).
        saved: (R, LONGEST, 2) float32, optical depth and moment R_i at the beginning of each tile, written if SAVE.
        tiles: (R,) int32, number of tiles until the light was negligible, written if SAVE.
        delta: metres between samples.
        rays: R.
    """
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    exists = ray < rays
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.zeros([RAYS, SAMPLES], tl.int32) + tl.arange(0, SAMPLES)[None, :]
    count, near = tl.load(counts + ray, mask=exists, other=0), tl.load(nears + ray, mask=exists, other=0.0)
    zero = tl.zeros([RAYS], tl.float32)
    tau, reach, mass, moment, spread, half = zero, zero, zero, zero, zero, zero + float("inf")
    logits = tl.zeros([RAYS, SAMPLES, BLOCK], tl.float32)
    tile, passed = 0, tl.zeros([RAYS], tl.int32)
    lit = count > 0
    while tl.max(lit.to(tl.int32), 0) > 0:
        if SAVE:
            tl.store(saved + (ray * LONGEST + tile) * 2, tau, mask=lit)
            tl.store(saved + (ray * LONGEST + tile) * 2 + 1, moment, mask=lit)
        along = tile * SAMPLES + lane
        cells = cells_of(walk, ray, exists, along, X, Y, Z, WIDE)
        depth = _optical_depth(density, cells, (along < count[:, None]) & lit[:, None], delta)
        before = tau[:, None] + _before(tl.cumsum(depth, 1), lane)
        weight = tl.exp(-before) * _alpha(depth)
        # Metres from the entry to where half of the light has been stopped, of the sample in whose step it is.
        rest = (LN_2 - before) / tl.where(depth > 0.0, depth, 1.0)
        holds = (before < LN_2) & (before + depth >= LN_2)
        half = tl.minimum(half, tl.min(tl.where(holds, (along + tl.minimum(rest, 1.0)) * delta, float("inf")), 1))
        tau += tl.sum(depth, 1)
        reach += tl.sum(weight * (along + 0.5), 1)
        if DISTORTION:
            masses = mass[:, None] + tl.cumsum(weight, 1)
            moments = moment[:, None] + _before(tl.cumsum(masses, 1), lane)
            spread += tl.sum(weight * (2.0 * moments + weight * (1.0 / 3.0)), 1)
            moment += tl.sum(masses, 1)
            mass += tl.sum(weight, 1)
        if CLASSES > 0:
            if tl.max(tl.max(weight, 1), 0) > NEGLIGIBLE_WEIGHT:
                for corner in range(8):
                    voxel, share = corner_of(cells, corner)
                    share *= weight
                    wanted = share > NEGLIGIBLE_WEIGHT
                    rows = _rows(table, voxel, wanted, column, CLASSES)
                    logits += tl.where(wanted, share, 0.0)[:, :, None] * rows
        tile += 1
        passed += lit.to(tl.int32)
        lit = (tile * SAMPLES < count) & (tau < OPAQUE_DEPTH)
    if CLASSES > 0:
        mask = exists[:, None] & (column < CLASSES)[None, :]
        tl.store(semantics + ray[:, None] * CLASSES + column[None, :], tl.sum(logits, 1), mask=mask)
    if tl.program_id(1) == 0:
        seen = _alpha(tau)  # in [0, 1]; a sum of weights may leave it by rounding
        tl.store(opacity + ray, seen, mask=exists)
        tl.store(distance + ray, near * seen + delta * reach, mask=exists)
        # By rounding, prefix sums and the sum of a tile may differ at the very half.
        tl.store(median + ray, tl.where(tau >= LN_2, near + half, float("inf")), mask=exists)
        if DISTORTION:
            tl.store(distortion + ray, spread * delta, mask=exists)
        if SAVE:
            tl.store(tiles + ray, passed, mask=exists)


# --- backward --------------------------------------------------------------------------------------------------------


@triton.jit
def gather_runs(voxel, one, other, lane, RUN: tl.constexpr, SAMPLES: tl.constexpr):
    """Sum two values over neighbouring samples with the same voxel (a run), into the run's first sample.

    The samples that have a voxel as a corner are neighbours, as they lie in a convex region. Runs end at multiples of
    RUN.

    Returns:
        one, other, whether a sample is the first of its run.
    """
    leads = lane >= 0
    if RUN > 1:
        for distance in tl.static_range(1, RUN):
            if (distance & (distance - 1)) == 0:  # 1, 2, 4, ...: each then holds the sum of 2 x distance samples
                ahead = tl.minimum(lane + distance, SAMPLES - 1)
                same = ((lane + distance) // RUN == lane // RUN) & (tl.gather(voxel, ahead, axis=1) == voxel)
                one += tl.where(same, tl.gather(one, ahead, axis=1), 0.0)
                other += tl.where(same, tl.gather(other, ahead, axis=1), 0.0)
        leads = (lane % RUN == 0) | (tl.gather(voxel, tl.maximum(lane - 1, 0), axis=1) != voxel)
    return one, other, leads


@triton.jit
def add_to(into, value, mask, scale, FIXED: tl.constexpr):
    """Atomic addition. If FIXED, it adds integers in units of 1 / scale, whose sum does not depend on the order."""
    if FIXED:
        tl.atomic_add(into, (value * scale).to(tl.int64), mask=mask, sem="relaxed")
    else:
        tl.atomic_add(into, value, mask=mask, sem="relaxed")


@triton.jit
def _upstream(g_semantics, ray, exists, column, CLASSES: tl.constexpr):
    """dL/dS, (rays, columns)."""
    mask = exists[:, None] & (column < CLASSES)[None, :]
    return tl.load(g_semantics + ray[:, None] * CLASSES + column[None, :], mask=mask, other=0.0)


@triton.jit
def march_backward(
    density,
    table,
    walk,
    counts,
    nears,
    saved,
    tiles,
    g_distance,
    g_semantics,
    g_opacity,
    g_distortion,
    into_density,
    into_table,
    scales,
    delta,
    rays,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    CLASSES: tl.constexpr,
    LONGEST: tl.constexpr,
    OF_DENSITY: tl.constexpr,
    OF_TABLE: tl.constexpr,
    SEMANTIC: tl.constexpr,
    DISTORTION: tl.constexpr,
    FIXED: tl.constexpr,
    WIDE: tl.constexpr,
    RUN: tl.constexpr,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add what RAYS rays contribute to the gradients of density and logits.

    With a_i = dL/dw_i, dL/dsigma_i = delta (T_{i+1} a_i - sum_{j>i} w_j a_j), and
    a_i = g_O + g_D t_i + g_S . s_i + g_spread (R_i + sum_{j>i} (j - i) w_j + w_i / 3) with
    g_spread = 2 delta dL/ddistortion.

    Args:
        density ... rays: as for `march_forward`, after it has written its results.
        g_distance, g_semantics, g_opacity, g_distortion: gradients of the results, shaped as these, float32; those of
            semantics and distortion are read if SEMANTIC and DISTORTION.
        into_density, into_table: as density and table, float32, or int64 if FIXED; added to if OF_DENSITY and OF_TABLE.
        scales: (2,) float32, read if FIXED: the integers that mean 1 in into_density and in into_table.
        RUN: how many neighbouring samples are searched for the same voxel, a power of two.
    """
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    exists = ray < rays
    lane = tl.zeros([RAYS, SAMPLES], tl.int32) + tl.arange(0, SAMPLES)[None, :]
    count, near = tl.load(counts + ray, mask=exists, other=0), tl.load(nears + ray, mask=exists, other=0.0)
    passed = tl.load(tiles + ray, mask=exists, other=0)
    zero = tl.zeros([RAYS], tl.float32)
    g_spread = zero
    g_reach = tl.load(g_distance + ray, mask=exists, other=0.0)
    g_mass = tl.load(g_opacity + ray, mask=exists, other=0.0)
    if DISTORTION:
        g_spread = 2.0 * delta * tl.load(g_distortion + ray, mask=exists, other=0.0)
    density_scale, table_scale = 1.0, 1.0
    if FIXED:
        density_scale, table_scale = tl.load(scales), tl.load(scales + 1)
    semantic = exists & False  # whether a ray has a gradient of semantics other than 0; others need no logits
    if SEMANTIC:
        for first_class in range(0, CLASSES, BLOCK):
            gradient = _upstream(g_semantics, ray, exists, first_class + tl.arange(0, BLOCK), CLASSES)
            semantic = semantic | (tl.max((gradient != 0.0).to(tl.int32), 1) > 0)
    any_semantic = tl.max(semantic.to(tl.int32), 0) > 0
    behind, mass, moment = zero, zero, zero  # of the tiles behind: sum w_j a_j, sum w_j, sum (j - i) w_j for the last i
    tile = tl.max(passed, 0)
    while tile > 0:
        tile -= 1
        lit = tile < passed
        tau = tl.load(saved + (ray * LONGEST + tile) * 2, mask=lit, other=0.0)
        along = tile * SAMPLES + lane
        sampled = (along < count[:, None]) & lit[:, None]
        cells = cells_of(walk, ray, exists, along, X, Y, Z, WIDE)
        depth = _optical_depth(density, cells, sampled, delta)
        depths = tl.cumsum(depth, 1)
        before = tau[:, None] + _before(depths, lane)
        weight = tl.exp(-before) * _alpha(depth)
        push = tl.zeros([RAYS, SAMPLES], tl.float32)
        if OF_DENSITY:
            toward = g_mass[:, None] + g_reach[:, None] * (near[:, None] + (along + 0.5) * delta)
            if DISTORTION:
                ahead = tl.load(saved + (ray * LONGEST + tile) * 2 + 1, mask=lit, other=0.0)[:, None]
                ahead += _before(tl.cumsum(_alpha(tau)[:, None] + tl.cumsum(weight, 1), 1), lane)
                masses = mass[:, None] + tl.cumsum(weight, 1, reverse=True)
                moments = moment[:, None] + _behind(tl.cumsum(masses, 1, reverse=True), lane, SAMPLES)
                toward += g_spread[:, None] * (ahead + moments + weight * (1.0 / 3.0))
                moment += tl.sum(masses, 1)
                mass += tl.sum(weight, 1)
            if SEMANTIC:
                if any_semantic:
                    wanted = sampled & semantic[:, None] & (before < OPAQUE_DEPTH)
                    for first_class in range(0, CLASSES, BLOCK):
                        column = first_class + tl.arange(0, BLOCK)
                        logits = tl.zeros([RAYS, SAMPLES, BLOCK], tl.float32)
                        for corner in range(8):
                            voxel, share = corner_of(cells, corner)
                            logits += share[:, :, None] * _rows(table, voxel, wanted, column, CLASSES)
                        gradient = _upstream(g_semantics, ray, exists, column, CLASSES)
                        toward += tl.where(wanted, tl.sum(logits * gradient[:, None, :], 2), 0.0)
            product = weight * toward
            hidden = behind[:, None] + _behind(tl.cumsum(product, 1, reverse=True), lane, SAMPLES)
            push = tl.where(sampled, delta * (tl.exp(-(tau[:, None] + depths)) * toward - hidden), 0.0)
            behind += tl.sum(product, 1)
        for corner in range(8):
            voxel, share = corner_of(cells, corner)
            pushed, gathered, leads = gather_runs(voxel, share * push, share * weight, lane, RUN, SAMPLES)
            if OF_DENSITY:
                add_to(into_density + voxel, pushed, leads & (pushed != 0.0), density_scale, FIXED)
            if OF_TABLE:
                if any_semantic:
                    wanted = (leads & semantic[:, None] & (gathered > NEGLIGIBLE_WEIGHT))[:, :, None]
                    for first_class in range(0, CLASSES, BLOCK):
                        column = first_class + tl.arange(0, BLOCK)
                        gradient = _upstream(g_semantics, ray, exists, column, CLASSES)
                        rows = (into_table + column)[None, None, :] + (voxel * CLASSES)[:, :, None]
                        mask = wanted & (column < CLASSES)[None, None, :]
                        add_to(rows, gathered[:, :, None] * gradient[:, None, :], mask, table_scale, FIXED)
