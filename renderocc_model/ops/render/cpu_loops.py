"""The loops of the renderer for CPUs, compiled by Numba when they are first called (two seconds each; kept on disk).

One ray at a time, sample after sample, in the notation of `reference`. What makes it fast:

- A ray that moves on by half a voxel stays between the same eight voxels or exchanges about half of them. They are kept
  in eight *slots*, one for each parity of (x, y, z), so that a voxel keeps its slot as long as it is a corner of the
  ray's cell: one *visit*. Density is read when a visit begins, and the weight sum_i w_i c_i that the voxel gathers from
  the ray's samples (c_i: trilinear weights) is used once, when it ends: S += (sum_i w_i c_i) s_voxel.
- The backward pass reads one row of logits and writes one row of gradients for each visit: g_S . s_voxel, interpolated,
  is the semantic part of dL/dw_i, and g_S sum_i w_i c_i is the voxel's gradient. Weights are computed again. Samples
  and visits are kept for one ray at a time, in some 50 kB that stay in the core's cache.
- Logits are not read for visits of negligible weight, and a ray ends where its transmittance is negligible.

Positions, transmittance and sums along a ray are float64, as they are few; all else is float32. The functions that emit
LLVM instructions are in this file too, because Numba checks this file alone to decide whether its cache on disk is up
to date.
"""

from __future__ import annotations

import functools
import math
from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ...base.compiling import compiler

__all__ = ["LANES", "add_columns", "compiled", "march_backward", "march_forward", "repeated"]

# A ray of 500 samples loses less than 5e-9 of weight and 1e-9 of light: a tenth of float32's rounding.
NEGLIGIBLE_WEIGHT = np.float32(1e-11)
NEGLIGIBLE_LIGHT = 1e-9
PREFETCH = 12  # a row is prefetched this many visits before it is used
LANES = 8  # numbers in a vector

compiled = compiler(fastmath=("reassoc", "contract", "nsz", "arcp"))


# --- rows of a table -------------------------------------------------------------------------------------------------


def _row(context, builder, array_type, array, row):
    """Pointer to a row of a C-contiguous (rows, columns) float32 array, and how many columns it has."""
    structure = context.make_array(array_type)(context, builder, array)
    columns = builder.extract_value(structure.shape, 1)
    offset = builder.mul(builder.mul(row, columns), context.get_constant(types.intp, 4))
    return cgutils.pointer_add(builder, structure.data, offset), columns


def _each_part(context, builder, columns, work):
    """Emit work(byte offset, type) for all of a row: vectors of eight, then single numbers.

    Rows are short (17 classes, for example), and the compiler does not know their length. Its own vector loops take 32
    numbers at a time and would process such a row one number at a time.
    """
    constant, single = functools.partial(context.get_constant, types.intp), ir.FloatType()
    whole = builder.and_(columns, constant(-LANES))
    with cgutils.for_range_slice(builder, constant(0), whole, constant(LANES), inc=True) as (column, _):
        work(builder.mul(column, constant(4)), ir.VectorType(single, LANES))
    with cgutils.for_range_slice(builder, whole, columns, constant(1), inc=True) as (column, _):
        work(builder.mul(column, constant(4)), single)


def _load(builder, row, offset, kind):
    pointer = cgutils.pointer_add(builder, row, offset, return_type=kind.as_pointer())
    return pointer, builder.load(pointer, align=4)


def repeated(builder, number, kind):
    """The number itself, or a vector of it."""
    if not isinstance(kind, ir.VectorType):
        return number
    nothing, lane = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(nothing, number, lane(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))


@intrinsic
def _add_scaled(typing, into, into_row, share, table, row):
    """into[into_row] += share * table[row], of C-contiguous float32 arrays of as many columns."""

    def generate(context, builder, signature, arguments):
        target, columns = _row(context, builder, signature.args[0], arguments[0], arguments[1])
        source, _ = _row(context, builder, signature.args[3], arguments[3], arguments[4])

        def work(offset, kind):
            pointer, before = _load(builder, target, offset, kind)
            scale, values = repeated(builder, arguments[2], kind), _load(builder, source, offset, kind)[1]
            product = builder.fmul(scale, values, flags=("contract",))
            builder.store(builder.fadd(before, product, flags=("contract",)), pointer, align=4)

        _each_part(context, builder, columns, work)
        return context.get_dummy_value()

    return types.void(into, types.intp, types.float32, table, types.intp), generate


@intrinsic
def _dot(typing, one, one_row, other, other_row):
    """sum_c one[one_row, c] * other[other_row, c], of C-contiguous float32 arrays of as many columns."""

    def generate(context, builder, signature, arguments):
        left, columns = _row(context, builder, signature.args[0], arguments[0], arguments[1])
        right, _ = _row(context, builder, signature.args[2], arguments[2], arguments[3])
        single, vector = ir.FloatType(), ir.VectorType(ir.FloatType(), LANES)
        tail = cgutils.alloca_once_value(builder, ir.Constant(single, 0.0))
        lanes = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * LANES))

        def work(offset, kind):
            total = lanes if isinstance(kind, ir.VectorType) else tail
            values = (_load(builder, row, offset, kind)[1] for row in (left, right))
            product = builder.fmul(*values, flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)

        # Written at run time, so that the sums start from zero in every pass of a caller's loop.
        builder.store(ir.Constant(single, 0.0), tail)
        builder.store(ir.Constant(vector, [0.0] * LANES), lanes)
        _each_part(context, builder, columns, work)
        result, values = builder.load(tail), builder.load(lanes)
        for lane in range(LANES):
            result = builder.fadd(result, builder.extract_element(values, ir.IntType(32)(lane)), flags=("reassoc",))
        return result

    return types.float32(one, types.intp, other, types.intp), generate


@intrinsic
def _prefetch(typing, table, row):
    """Prefetch the first and the last number of a row into the cache."""

    def generate(context, builder, signature, arguments):
        start, columns = _row(context, builder, signature.args[0], arguments[0], arguments[1])
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        four = context.get_constant(types.intp, 4)
        for offset in (context.get_constant(types.intp, 0), builder.sub(builder.mul(columns, four), four)):
            address = cgutils.pointer_add(builder, start, offset, return_type=byte)
            builder.call(prefetch, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(table, types.intp), generate


# --- one sample ------------------------------------------------------------------------------------------------------


@compiled
def _alpha(depth):
    """1 - exp(-depth) of a depth >= 0, with a relative error of 1e-10; the small depths of near-empty space need no
    exponential."""
    if depth < 0.125:  # the Taylor series; its first term left out is depth^8 / 8!
        series = 1.0 - depth * (1.0 / 5.0 - depth * (1.0 / 30.0 - depth * (1.0 / 210.0)))
        return depth * (1.0 - depth * (0.5 - depth * (1.0 / 6.0) * (1.0 - depth * 0.25 * series)))
    return -math.expm1(-depth)


@compiled
def _place(position, size):
    """Lower corner of the cell along one axis, and the weight of its odd-numbered corner.

    Args:
        position: in voxels from the first centre; clamped to the centres.
        size: voxels along the axis.
    """
    position = min(max(position, 0.0), size - 1.0)
    cell = max(min(np.int64(position), size - 2), 0)
    fraction = np.float32(position - cell)
    return cell, np.float32(1.0) - fraction if cell & 1 else fraction


@compiled
def _corners(x1, y1, z1):
    """The trilinear weights of the eight slots, from those of the odd numbers along each axis."""
    x0, y0, z0 = np.float32(1.0) - x1, np.float32(1.0) - y1, np.float32(1.0) - z1
    p00, p01, p10, p11 = x0 * y0, x0 * y1, x1 * y0, x1 * y1
    return p00 * z0, p00 * z1, p01 * z0, p01 * z1, p10 * z0, p10 * z1, p11 * z0, p11 * z1


@compiled
def _arrivals(x, y, z, shape, voxel, slots, arriving):
    """Find the slots whose voxels are not corners of the cell (x, y, z).

    An axis of one voxel has no second corner: the odd slots hold the same voxel, with weight 0.

    Args:
        voxel: (8,), the voxels in the slots.
        slots: (9,), written: the slots that change.
        arriving: (8,), written: the voxel that each slot has to hold.
    Returns:
        how many slots change.
    """
    x_even, x_odd = x + (x & 1), min(x | 1, shape[0] - 1)
    y_even, y_odd = y + (y & 1), min(y | 1, shape[1] - 1)
    z_even, z_odd = z + (z & 1), min(z | 1, shape[2] - 1)
    count = 0
    for slot in range(8):
        index = x_odd if slot & 4 else x_even
        index = index * shape[1] + (y_odd if slot & 2 else y_even)
        index = index * shape[2] + (z_odd if slot & 1 else z_even)
        arriving[slot] = index
        slots[count] = slot
        count += index != voxel[slot]
    return count


# --- forward ---------------------------------------------------------------------------------------------------------


@compiled
def march_forward(
    density, table, shape, rays, order, counts, delta, distance, semantics, opacity, median, distortion, steps
):
    """Render some rays into their rows of the results.

    Args:
        density, table: (V,) and (V, C) float32.
        shape: (X, Y, Z).
        rays: (R, 7) float64: where a ray enters the grid, in voxels from the first centre; its step from sample to
            sample, in voxels; and the distance from its origin to the entry, in metres.
        order: (r,) int64, the rays to render.
        counts: (R,) int64, samples of each ray.
        delta: metres between samples.
        distance, semantics, opacity, median, distortion: (R,), (R, C), (R,), (R,), (R,) float32, written.
        steps: (R,) int64, written: samples until the light was negligible.
    """
    voxel, arriving, slots = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(9, np.int64)
    sigma, gathered = np.empty(8, np.float32), np.empty(8, np.float32)
    for row in order:
        semantics[row, :] = 0.0
        voxel[:] = -1
        gathered[:] = 0.0
        old_x, old_y, old_z = -1, -1, -1
        x_start, y_start, z_start, near = rays[row, 0], rays[row, 1], rays[row, 2], rays[row, 6]
        x_step, y_step, z_step = rays[row, 3], rays[row, 4], rays[row, 5]
        light, reach, mass, moment, spread, half = 1.0, 0.0, 0.0, 0.0, 0.0, np.inf
        i, count = 0, counts[row]
        while i < count and light > NEGLIGIBLE_LIGHT:
            along = i + 0.5
            x, x1 = _place(x_start + along * x_step, shape[0])
            y, y1 = _place(y_start + along * y_step, shape[1])
            z, z1 = _place(z_start + along * z_step, shape[2])
            if x != old_x or y != old_y or z != old_z:
                old_x, old_y, old_z = x, y, z
                for k in range(_arrivals(x, y, z, shape, voxel, slots, arriving)):
                    slot = slots[k]
                    if gathered[slot] > NEGLIGIBLE_WEIGHT:
                        _add_scaled(semantics, row, gathered[slot], table, voxel[slot])
                    voxel[slot] = arriving[slot]
                    sigma[slot] = density[arriving[slot]]
                    gathered[slot] = 0.0
                    _prefetch(table, arriving[slot])
            c0, c1, c2, c3, c4, c5, c6, c7 = _corners(x1, y1, z1)
            here = c0 * sigma[0] + c1 * sigma[1] + c2 * sigma[2] + c3 * sigma[3]
            here += c4 * sigma[4] + c5 * sigma[5] + c6 * sigma[6] + c7 * sigma[7]
            weight = light * _alpha(here * delta)
            if light > 0.5 and light - weight <= 0.5:
                half = near + i * delta + min(math.log(2.0 * light) / here, delta)
            light -= weight
            share = np.float32(weight)
            gathered[0] += share * c0
            gathered[1] += share * c1
            gathered[2] += share * c2
            gathered[3] += share * c3
            gathered[4] += share * c4
            gathered[5] += share * c5
            gathered[6] += share * c6
            gathered[7] += share * c7
            reach += weight * (near + along * delta)
            spread += weight * (2.0 * moment + weight / 3.0)
            mass += weight
            moment += mass
            i += 1
        for slot in range(8):
            if gathered[slot] > NEGLIGIBLE_WEIGHT:
                _add_scaled(semantics, row, gathered[slot], table, voxel[slot])
        distance[row], opacity[row], median[row] = reach, mass, half
        distortion[row], steps[row] = spread * delta, i


# --- backward --------------------------------------------------------------------------------------------------------

# For each sample i of a ray (at most n): w_i, T_{i+1}, R_i; trilinear weights (n, 8), visits of the eight slots (n, 8).
Samples = namedtuple("Samples", ("weights", "lights", "moments", "corners", "visits"))
# For each visit (at most 8 n): its voxel; sum_i w_i c_i; g_S . s_voxel; the gradient of the voxel's density.
Visits = namedtuple("Visits", ("voxels", "gathered", "projected", "pushed"))


@compiled
def march_backward(
    density, table, shape, rays, order, steps, delta, upstream, wanted, into_density, into_table, touched
):
    """Add what some rays contribute to the gradients of density and logits.

    Args:
        density, table, shape, rays, order, delta: as for `march_forward`.
        steps: (R,) int64, as `march_forward` wrote them.
        upstream: gradients of distance, semantics, opacity and distortion, shaped as these, float32.
        wanted: (bool, bool), whether the gradients of density and logits are wanted.
        into_density, into_table: as density and table, or empty where not wanted; added to.
        touched: (X * Y,) bool, set for the columns of voxels that are added to.
    """
    longest = 0
    for row in order:
        longest = max(longest, steps[row])
    samples = Samples(
        np.empty(longest, np.float64),
        np.empty(longest, np.float64),
        np.empty(longest, np.float64),
        np.empty((longest, 8), np.float32),
        np.empty((longest, 8), np.int32),
    )
    visits = Visits(
        np.empty(8 * longest, np.int64),
        np.empty(8 * longest, np.float32),
        np.empty(8 * longest, np.float32),
        np.empty(8 * longest, np.float32),
    )
    distance_gradient, semantics_gradient, opacity_gradient, distortion_gradient = upstream
    for row in order:
        visit_count = _record(density, shape, rays[row], steps[row], delta, samples, visits, touched)
        semantic = _any(semantics_gradient[row])
        if semantic:
            _exchange(table, semantics_gradient, row, visit_count, visits, wanted, into_table)
        if wanted[0]:
            g_distance, g_opacity = np.float64(distance_gradient[row]), np.float64(opacity_gradient[row])
            g_spread = 2.0 * delta * distortion_gradient[row]
            _push(g_distance, g_opacity, g_spread, rays[row, 6], steps[row], delta, semantic, samples, visits)
            for visit in range(visit_count):
                into_density[visits.voxels[visit]] += visits.pushed[visit]


@compiled
def _any(numbers):
    for number in numbers:
        if number != 0.0:
            return True
    return False


@compiled
def _record(density, shape, ray, count, delta, samples, visits, touched):
    """March along a ray as `march_forward` does, and record its samples and visits. Returns the number of visits."""
    voxel, arriving, slots = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(9, np.int64)
    sigma, current = np.empty(8, np.float32), np.empty(8, np.int32)
    voxel[:] = -1
    old_x, old_y, old_z = -1, -1, -1
    light, mass, moment = 1.0, 0.0, 0.0
    visit = 0
    for i in range(count):
        along = i + 0.5
        x, x1 = _place(ray[0] + along * ray[3], shape[0])
        y, y1 = _place(ray[1] + along * ray[4], shape[1])
        z, z1 = _place(ray[2] + along * ray[5], shape[2])
        if x != old_x or y != old_y or z != old_z:
            old_x, old_y, old_z = x, y, z
            for k in range(_arrivals(x, y, z, shape, voxel, slots, arriving)):
                slot = slots[k]
                voxel[slot] = arriving[slot]
                sigma[slot] = density[arriving[slot]]
                current[slot] = visit
                visits.voxels[visit] = arriving[slot]
                visits.gathered[visit], visits.pushed[visit] = 0.0, 0.0
                visit += 1
            for x_end in range(x, min(x + 2, shape[0])):
                for y_end in range(y, min(y + 2, shape[1])):
                    touched[x_end * shape[1] + y_end] = True
        corner, place = samples.corners[i], samples.visits[i]
        corner[0], corner[1], corner[2], corner[3], corner[4], corner[5], corner[6], corner[7] = _corners(x1, y1, z1)
        here = corner[0] * sigma[0] + corner[1] * sigma[1] + corner[2] * sigma[2] + corner[3] * sigma[3]
        here += corner[4] * sigma[4] + corner[5] * sigma[5] + corner[6] * sigma[6] + corner[7] * sigma[7]
        weight = light * _alpha(here * delta)
        light -= weight
        samples.weights[i], samples.lights[i], samples.moments[i] = weight, light, moment
        mass += weight
        moment += mass
        share = np.float32(weight)
        for slot in range(8):
            place[slot] = current[slot]
            visits.gathered[current[slot]] += share * corner[slot]
    return visit


@compiled
def _exchange(table, gradient, row, count, visits, wanted, into_table):
    """Project each visited voxel's logits on the ray's gradient, and add the voxel's share of that gradient."""
    for visit in range(count):
        ahead = visits.voxels[min(visit + PREFETCH, count - 1)]
        if wanted[0]:
            _prefetch(table, ahead)
            visits.projected[visit] = _dot(gradient, row, table, visits.voxels[visit])
        if wanted[1]:
            _prefetch(into_table, ahead)
            if visits.gathered[visit] > NEGLIGIBLE_WEIGHT:
                _add_scaled(into_table, visits.voxels[visit], visits.gathered[visit], gradient, row)


@compiled
def _push(g_distance, g_opacity, g_spread, near, count, delta, semantic, samples, visits):
    """dL/dsigma_i = delta (T_{i+1} a_i - sum_{j>i} w_j a_j) of a ray's samples, added to its visits; a_i = dL/dw_i.

    The distortion's part of a_i is g_spread (R_i + sum_{j>i} (j - i) w_j + w_i / 3), g_spread = 2 delta dL/ddistortion.
    """
    behind, mass, moment = 0.0, 0.0, 0.0  # of the samples behind i: sum w_j a_j, sum w_j, sum (j - i) w_j
    for back in range(count):
        i = count - 1 - back
        weight, corner, place = samples.weights[i], samples.corners[i], samples.visits[i]
        moment += mass
        mass += weight
        toward = g_opacity + g_distance * (near + (i + 0.5) * delta)
        toward += g_spread * (samples.moments[i] + moment + weight / 3.0)
        if semantic:
            seen = np.float32(0.0)
            for slot in range(8):
                seen += corner[slot] * visits.projected[place[slot]]
            toward += seen
        push = np.float32(delta * (samples.lights[i] * toward - behind))
        behind += weight * toward
        for slot in range(8):
            visits.pushed[place[slot]] += push * corner[slot]


@compiled
def add_columns(into, values, touched, first, last):
    """into += values, in those of the columns first ... last - 1 that are touched.

    Args:
        into, values: (columns * n,) float32.
        touched: (columns,) bool.
    """
    size = into.size // touched.size
    for column in range(first, last):
        if touched[column]:
            for k in range(column * size, (column + 1) * size):
                into[k] += values[k]
