"""The loops of voxel pooling for CPUs, compiled by Numba when they are first called (a second each; kept on disk).

A cell's sum, and a pixel's gradient, stay in registers, up to 64 channels at a time, until they are complete.

Numba checks this file alone to decide whether its cache on disk is up to date. This file uses row operations of the
renderer's loops: after a change of those, change this file, too.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ...base.compiling import compiler
from ..render.cpu_loops import LANES, compiled, repeated

__all__ = [
    "count_points",
    "place_points",
    "pool_cells",
    "pool_cells_to_bfloat16",
    "push_back",
    "share_out",
    "write_points",
]


# --- where points lie ------------------------------------------------------------------------------------------------


def _place_points(start, step, depths, sizes, index, first, last):
    """Find the cells of the points of planes first ... last - 1; a plane is one depth bin of one view.

    Rounded as PyTorch rounds, after each operation, so that points fall into the same cells on every device.

    Args:
        start, step: (N, 3) and (N, 3, pixels of a view) float32: points are start + step * depth, in cells.
        depths: (D,) float32.
        sizes: (X, Y, S), numbers of cells.
        index: (N * D, pixels of a view) int64, written: (x * Y + y) * S + s, -1 outside.
    """
    for plane in range(first, last):
        view, depth = plane // depths.size, depths[plane % depths.size]
        x0, y0, z0 = start[view, 0], start[view, 1], start[view, 2]
        for pixel in range(index.shape[1]):
            x = np.floor(x0 + step[view, 0, pixel] * depth)
            y = np.floor(y0 + step[view, 1, pixel] * depth)
            z = np.floor(z0 + step[view, 2, pixel] * depth)
            inside = (x >= 0) & (x < sizes[0]) & (y >= 0) & (y < sizes[1]) & (z >= 0) & (z < sizes[2])
            cell = (np.int64(x) * sizes[1] + np.int64(y)) * sizes[2] + np.int64(z)
            index[plane, pixel] = cell if inside else -1


place_points = compiler()(_place_points)


# --- the plan --------------------------------------------------------------------------------------------------------


@compiled
def count_points(index, cells, per_frame, cell, counts, first, last):
    """Find the cells of the points first ... last - 1 in a batch, and count these points in each cell.

    Args:
        index: (points,) int64, cells of a frame or -1.
        cells, per_frame: of a frame, cells and points.
        cell: (points,) int32, written.
        counts: (frames * cells,) int32, zero at first.
    Returns:
        a number in `index` that is neither a cell nor -1, or -1.
    """
    wrong = -1
    for frame in range(first // per_frame, (last - 1) // per_frame + 1):
        offset = frame * cells
        for point in range(max(first, frame * per_frame), min(last, (frame + 1) * per_frame)):
            here = index[point]
            if 0 <= here < cells:
                here += offset
                counts[here] += 1
            elif here != -1:
                wrong = here
            cell[point] = here
    return wrong


@compiled
def share_out(counts, start):
    """From the number of points that each part has in each cell, compute where the part writes them.

    Args:
        counts: (parts, cells) int32; overwritten with the place of the first point of each part in each cell.
        start: (cells + 1,) int32, written: where each cell begins.
    """
    parts, cells = counts.shape
    total = np.int32(0)
    for cell in range(cells):
        start[cell] = total
        for part in range(parts):
            count = counts[part, cell]
            counts[part, cell] = total
            total += count
    start[cells] = total


@compiled
def write_points(cell, places, point, pixel, per_view, area, first, last):
    """Write the points first ... last - 1 into the lists of their cells.

    Args:
        cell: (points,) int32.
        places: (cells,) int32, where the next point of each cell is written; advanced for each point.
        point, pixel: (points,) int32, written at the places of these points.
        per_view, area: points and pixels of a view.
    """
    begin = first
    while begin < last:  # bin by bin of each view: within one, pixel minus point is constant
        end = min(last, begin - begin % area + area)
        shift = begin // per_view * area - (begin - begin % area)
        for one in range(begin, end):
            into = cell[one]
            if into >= 0:
                place = places[into]
                places[into] = place + 1
                point[place], pixel[place] = one, one + shift
        begin = end


# --- sums in registers -----------------------------------------------------------------------------------------------

_VECTORS = (8, 4, 2, 1)  # vectors of LANES channels in a block, largest block first
_CONTRACT = ("contract",)


class _Rows:
    """A C-contiguous (rows, columns) array of float32, or of bfloat16 as uint16, which is widened when it is read."""

    def __init__(self, context, builder, kind, array) -> None:
        structure = context.make_array(kind)(context, builder, array)
        self.builder, self.data = builder, structure.data
        self.columns = builder.extract_value(structure.shape, 1)
        self.short = kind.dtype == types.uint16

    def _pointer(self, row, column, kind):
        place = self.builder.add(self.builder.mul(row, self.columns), column)
        return self.builder.bitcast(self.builder.gep(self.data, [place]), kind.as_pointer())

    def read(self, row, block: _Block) -> list:
        """The numbers of a block in a row, as vectors, or as one number."""
        if not self.short:
            return [self.builder.load(self._pointer(row, part, block.kind), align=4) for part in block.parts]
        half, whole = (_like(block.kind, ir.IntType(bits)) for bits in (16, 32))
        parts = (self.builder.load(self._pointer(row, part, half), align=2) for part in block.parts)
        sixteen = ir.Constant(whole, [16] * LANES if isinstance(whole, ir.VectorType) else 16)
        bits = (self.builder.shl(self.builder.zext(part, whole), sixteen) for part in parts)
        return [self.builder.bitcast(part, block.kind) for part in bits]

    def write(self, row, block: _Block, totals) -> None:
        for part, total in zip(block.parts, totals):
            self.builder.store(self.builder.load(total), self._pointer(row, part, block.kind), align=4)


class _Block:
    """Neighbouring channels that are processed together, as vectors; or a single channel."""

    def __init__(self, context, builder, column, kind, count: int) -> None:
        self.builder, self.kind = builder, kind
        self.zero = ir.Constant(kind, [0.0] * LANES if isinstance(kind, ir.VectorType) else 0.0)
        self.parts = [builder.add(column, context.get_constant(types.intp, LANES * part)) for part in range(count)]

    def zeros(self) -> list:
        totals = [cgutils.alloca_once(self.builder, self.kind) for _ in self.parts]
        for total in totals:  # at run time, in every pass of a caller's loop
            self.builder.store(self.zero, total)
        return totals

    def add_scaled(self, totals, share, values) -> None:
        share = repeated(self.builder, share, self.kind)
        for total, part in zip(totals, values):
            product = self.builder.fmul(share, part, flags=_CONTRACT)
            self.builder.store(self.builder.fadd(self.builder.load(total), product, flags=_CONTRACT), total)

    def dot(self, left, right):
        total = self.zero
        for one, other in zip(left, right):
            product = self.builder.fmul(one, other, flags=_CONTRACT)
            total = self.builder.fadd(total, product, flags=_CONTRACT)
        if not isinstance(self.kind, ir.VectorType):
            return total
        lanes = [self.builder.extract_element(total, ir.IntType(32)(lane)) for lane in range(LANES)]
        while len(lanes) > 1:
            lanes = [self.builder.fadd(one, other, flags=("reassoc",)) for one, other in zip(lanes[::2], lanes[1::2])]
        return lanes[0]


def _like(kind, element):
    """The element type, or a vector of it if `kind` is a vector."""
    return ir.VectorType(element, LANES) if isinstance(kind, ir.VectorType) else element


def _each_block(context, builder, columns, work) -> None:
    """Emit work(block, first column) for all channels of a row."""
    constant, single = functools.partial(context.get_constant, types.intp), ir.FloatType()
    done = constant(0)
    for count in _VECTORS:
        whole = builder.and_(columns, constant(-LANES * count))
        with cgutils.for_range_slice(builder, done, whole, constant(LANES * count), inc=True) as (column, _):
            work(_Block(context, builder, column, ir.VectorType(single, LANES), count), column)
        done = whole
    with cgutils.for_range_slice(builder, done, columns, constant(1), inc=True) as (column, _):
        work(_Block(context, builder, column, single, 1), column)


def _entry(context, builder, kind, array):
    """Function of an index: pointer to that element of a C-contiguous array, counted through all its axes."""
    data = context.make_array(kind)(context, builder, array).data
    return lambda index: builder.gep(data, [index])


def _integer(builder, pointer):
    """An int32 of an array as an index."""
    return builder.sext(builder.load(pointer), ir.IntType(64))


@intrinsic
def _sum_rows(typing, into, row, depth, table, point, pixel, begin, end):
    """into[row] = sum of depth[point[i]] * table[pixel[i]] over begin <= i < end.

    Args:
        into, table: (rows, C) float32, and float32 or bfloat16 as uint16.
        depth: float32.
        point, pixel: int32.
    """

    def generate(context, builder, signature, arguments):
        target, rows = (_Rows(context, builder, signature.args[k], arguments[k]) for k in (0, 3))
        depth, point, pixel = (_entry(context, builder, signature.args[k], arguments[k]) for k in (2, 4, 5))
        row, begin, end = arguments[1], arguments[6], arguments[7]

        def work(block, _):
            totals, one = block.zeros(), context.get_constant(types.intp, 1)
            with cgutils.for_range_slice(builder, begin, end, one, inc=True) as (place, _):
                weight = builder.load(depth(_integer(builder, point(place))))
                block.add_scaled(totals, weight, rows.read(_integer(builder, pixel(place)), block))
            target.write(row, block, totals)

        _each_block(context, builder, target.columns, work)
        return context.get_dummy_value()

    return types.void(into, types.intp, depth, table, point, pixel, types.intp, types.intp), generate


@intrinsic
def _push_rows(typing, depth, table, cell, upstream, into_depth, into, row, first, last, step):
    """The gradients of one pixel, `row`, whose points are first, first + step, ... before last; see `push_back`.

    Args:
        depth, cell, into_depth: of all points; float32, int32 and float32.
        table, upstream: (rows, C) float32, or bfloat16 as uint16.
        into: (rows, C) float32, C at least one.
    """

    def generate(context, builder, signature, arguments):
        features, gradients, target = (_Rows(context, builder, signature.args[k], arguments[k]) for k in (1, 3, 5))
        depth, cell, into_depth = (_entry(context, builder, signature.args[k], arguments[k]) for k in (0, 2, 4))
        row, first, last, step = arguments[6:]

        def work(block, column):
            totals, values = block.zeros(), features.read(row, block)
            beginning = builder.icmp_signed("==", column, context.get_constant(types.intp, 0))
            with cgutils.for_range_slice(builder, first, last, step, inc=True) as (point, _):
                number, written = _integer(builder, cell(point)), into_depth(point)
                before = builder.select(beginning, ir.FloatType()(0.0), builder.load(written))
                builder.store(before, written)
                with builder.if_then(builder.icmp_signed(">=", number, context.get_constant(types.intp, 0))):
                    parts = gradients.read(number, block)
                    builder.store(builder.fadd(before, block.dot(values, parts)), written)
                    block.add_scaled(totals, builder.load(depth(point)), parts)
            target.write(row, block, totals)

        _each_block(context, builder, target.columns, work)
        return context.get_dummy_value()

    place = types.intp
    return types.void(depth, table, cell, upstream, into_depth, into, place, place, place, place), generate


# --- forward ---------------------------------------------------------------------------------------------------------


@compiled
def pool_cells(depth, context, start, point, pixel, pooled, first, last):
    """Sum up the cells first ... last - 1.

    Args:
        depth: (points,) float32.
        context: (pixels, C) float32, or bfloat16 as uint16.
        start, point, pixel: see `PoolingPlan`.
        pooled: (cells, C) float32, written.
    """
    for cell in range(first, last):
        _sum_rows(pooled, cell, depth, context, point, pixel, start[cell], start[cell + 1])


@compiled
def pool_cells_to_bfloat16(depth, context, start, point, pixel, pooled, first, last):
    """As `pool_cells`, rounded to bfloat16, ties to even: `pooled` is (cells, C) uint16."""
    channels = pooled.shape[1]
    total = np.empty((1, channels), np.float32)
    bits = total.view(np.uint32)
    for cell in range(first, last):
        if start[cell] == start[cell + 1]:
            for channel in range(channels):
                pooled[cell, channel] = 0
            continue
        _sum_rows(total, 0, depth, context, point, pixel, start[cell], start[cell + 1])
        for channel in range(channels):
            exact = bits[0, channel]
            half = np.uint32(0x7FFF) + ((exact >> np.uint32(16)) & np.uint32(1))
            # Rounding up the bits of a NaN could turn it into a number.
            none = (exact & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            pooled[cell, channel] = np.uint16(0x7FC0) if none else np.uint16((exact + half) >> np.uint32(16))


# --- backward --------------------------------------------------------------------------------------------------------


@compiled
def push_back(depth, context, cell, upstream, into_depth, into_context, first, last):
    """Gradients of the pixels first ... last - 1: dL/ddepth = context . g_cell, dL/dcontext = sum_d depth g_cell.

    Args:
        depth, cell: (N, D, pixels of a view), float32 and int32.
        context: (N * pixels of a view, C) float32, or bfloat16 as uint16; C at least one.
        upstream: (cells, C), g, of the same type.
        into_depth, into_context: as depth and context, float32, written.
    """
    points, area = depth.shape[1] * depth.shape[2], depth.shape[2]
    for pixel in range(first, last):
        begin = pixel // area * points + pixel % area
        _push_rows(
            depth, context, cell, upstream, into_depth, into_context, pixel, begin, begin - pixel % area + points, area
        )
