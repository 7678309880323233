"""The loops of voxel pooling for GPUs, in Triton.

Forward, one warp works on CELLS neighbouring cells, POINTS points of each at a time, with one channel in each lane. All
rows of a tile are in flight at once, so that the warp does not wait for one row after the other in cells with few
points. Some cells in front of a camera have a thousand points, most cells a few. To keep programs short, a program sums
only the first PIECE points of a cell. Other programs (`pool_pieces`) have summed the further pieces before, and their
sums, one row each, are added. The order of all sums is fixed.

Backward, one warp works on one pixel, BINS bins at a time. The gradient's row at a bin's cell is read once and used
twice: for the gradient of the bin's depth (product with the pixel's context) and of the context (product with the
depth).

Bytes, for six views of 40 x 100 features, 118 bins, 80 channels of 16 bits and 200 x 200 cells: main memory reads point
and pixel of the 1.2 million points inside the grid (9 MB), depths (11 MB) and context (4 MB) and writes the result (6
MB): 30 MB, or 9 us at an H100's 3.35 TB/s. Each point reads a row of context from the second-level cache,
160 bytes: 0.2 GB, at some 5.5 TB/s 35 us. These are estimates: `renderocc bench pool` measures.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["pool_cells", "pool_pieces", "push_back"]


@triton.jit
def _sum_points(
    depth,
    context,
    point,
    pixel,
    begin,
    end,
    channel,
    stride,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(CELLS, BLOCK) float32: sum of depth * context over begin <= place < end, for each of CELLS runs of points."""
    total = tl.zeros([CELLS, POINTS, BLOCK], tl.float32)
    number, known = tl.arange(0, POINTS), channel < CHANNELS
    longest = tl.max(end - begin, axis=0)
    for first in range(0, longest, POINTS):
        place = begin[:, None] + first + number[None, :]
        exists = place < end[:, None]
        weight = tl.load(depth + tl.load(point + place, mask=exists, other=0), mask=exists, other=0.0).to(tl.float32)
        row = tl.load(pixel + place, mask=exists, other=0)
        row = (row.to(tl.int64) if WIDE else row) * stride
        values = tl.load(
            context + row[:, :, None] + channel[None, None, :],
            mask=exists[:, :, None] & known[None, None, :],
            other=0.0,
        )
        total += weight[:, :, None] * values.to(tl.float32)
    return tl.sum(total, axis=1)


@triton.jit
def pool_pieces(
    depth,
    context,
    point,
    pixel,
    start,
    before,
    cell_of_piece,
    sums,
    stride,
    cells,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIECE: tl.constexpr,
    CELLS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Sum the pieces of points beyond the first PIECE of each cell.

    Args:
        depth, context, point, pixel, start, stride: as for `pool_cells`.
        before, cell_of_piece: `PoolingPlan.further`.
        sums: (pieces, CHANNELS) float32, written for the pieces that there are.
        cells: number of cells.
        PIECES: length of cell_of_piece.
    """
    piece = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    cell = tl.load(cell_of_piece + piece, mask=piece < PIECES, other=cells)
    exists = cell < cells
    if tl.max(exists.to(tl.int32), axis=0) > 0:
        rank = piece - tl.load(before + cell, mask=exists, other=0)
        begin = tl.load(start + cell, mask=exists, other=0) + (rank + 1) * PIECE
        end = tl.minimum(tl.load(start + cell + 1, mask=exists, other=0), begin + PIECE)
        begin, end = tl.where(exists, begin, 0), tl.where(exists, end, 0)
        channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        total = _sum_points(
            depth, context, point, pixel, begin, end, channel, stride, WIDE, CHANNELS, CELLS, POINTS, BLOCK
        )
        into = piece.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        tl.store(sums + into, total, mask=exists[:, None] & (channel < CHANNELS)[None, :])


@triton.jit
def pool_cells(
    depth,
    context,
    point,
    pixel,
    start,
    before,
    sums,
    pooled,
    stride,
    cells,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIECE: tl.constexpr,
    CELLS: tl.constexpr,
    POINTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum all cells.

    Args:
        depth: (points,) of any floating-point type.
        context: pixels with CHANNELS neighbouring numbers each, `stride` numbers from one pixel to the next.
        point, pixel, start: see `PoolingPlan`.
        before, sums: `PoolingPlan.further` and the sums that `pool_pieces` wrote.
        pooled: (cells, CHANNELS), written.
        WIDE: whether offsets in context need 64 bits.
    """
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    exists = cell < cells
    begin = tl.load(start + cell, mask=exists, other=0)
    end = tl.load(start + cell + 1, mask=exists, other=0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    whole = tl.minimum(end, begin + PIECE)
    total = _sum_points(
        depth, context, point, pixel, begin, whole, channel, stride, WIDE, CHANNELS, CELLS, POINTS, BLOCK
    )
    known = channel < CHANNELS
    if tl.max(end - begin, axis=0) > PIECE:
        piece = tl.load(before + cell, mask=exists, other=0)
        last = tl.load(before + cell + 1, mask=exists, other=0)
        for number in range(0, tl.max(last - piece, axis=0)):
            mask = (piece + number < last)[:, None] & known[None, :]
            place = (piece + number).to(tl.int64)[:, None] * CHANNELS + channel[None, :]
            total += tl.load(sums + place, mask=mask, other=0.0)
    into = cell.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(pooled + into, total.to(pooled.dtype.element_ty), mask=exists[:, None] & known[None, :])


@triton.jit
def push_back(
    depth,
    context,
    cell,
    upstream,
    into_depth,
    into_context,
    stride,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    NUMBER: tl.constexpr,
    AREA: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of one pixel: dL/ddepth = context . g_cell of each bin, dL/dcontext = sum of depth g_cell over bins.

    Args:
        depth, cell: (views, NUMBER, AREA), any floating-point type and int32.
        context: as for `pool_cells`.
        upstream: (cells, CHANNELS), g.
        into_depth: as depth, written.
        into_context: (pixels, CHANNELS), written.
        NUMBER, AREA: depth bins, pixels of a view.
        BLOCK: at least CHANNELS, as all channels are processed at once.
    """
    pixel = tl.program_id(0)
    channel, number = tl.arange(0, BLOCK), tl.arange(0, BINS)
    known = channel < CHANNELS
    row = (pixel.to(tl.int64) if WIDE else pixel) * stride
    features = tl.load(context + row + channel, mask=known, other=0.0).to(tl.float32)
    first_point = pixel // AREA * (NUMBER * AREA) + pixel % AREA
    total = tl.zeros([BINS, BLOCK], tl.float32)
    for first in range(0, NUMBER, BINS):
        each = first + number
        point = first_point + each * AREA
        here = tl.load(cell + point, mask=each < NUMBER, other=-1)
        inside = here >= 0
        weight = tl.load(depth + point, mask=inside, other=0.0).to(tl.float32)
        place = (here.to(tl.int64) if WIDE else here) * CHANNELS
        g = tl.load(upstream + place[:, None] + channel[None, :], mask=inside[:, None] & known[None, :], other=0.0).to(
            tl.float32
        )
        toward = tl.sum(g * features[None, :], axis=1)
        tl.store(into_depth + point, toward.to(into_depth.dtype.element_ty), mask=each < NUMBER)
        total += weight[:, None] * g
    into = pixel.to(tl.int64) * CHANNELS + channel
    tl.store(into_context + into, tl.sum(total, axis=0).to(into_context.dtype.element_ty), mask=known)
