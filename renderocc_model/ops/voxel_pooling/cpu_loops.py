"""The loops of voxel pooling for CPUs, compiled by Numba when they are first called (a second each; kept on disk).

Numba looks at this file alone to tell whether what it has on disk is up to date: who changes the operations on rows in
the renderer's loops, which are used here, touches this file, too.
"""

from __future__ import annotations

import numpy as np

from ..render.cpu_loops import add_scaled, compiled, dot

__all__ = ["count_points", "pool_cells", "pool_cells_to_bfloat16", "push_back", "share_out", "write_points"]


# --- the plan --------------------------------------------------------------------------------------------------------


@compiled
def count_points(index, cells, per_frame, cell, counts, first, last):
    """Cells of the points first ... last - 1 in a batch, and how many of these points each cell has.

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
    """From how many points each part of them puts into each cell, where it puts them.

    Args:
        counts: (parts, cells) int32; becomes the place of the first point of each.
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
    """Put the points first ... last - 1 to the others of their cells.

    Args:
        cell: (points,) int32.
        places: (cells,) int32, where the next point of each cell goes; counted up.
        point, pixel: (points,) int32, written where points of these go.
        per_view, area: points and pixels of a view.
    """
    begin = first
    while begin < last:  # in rows of one bin of one view, in which pixels are numbered as points are
        end = min(last, begin - begin % area + area)
        shift = begin // per_view * area - (begin - begin % area)
        for one in range(begin, end):
            into = cell[one]
            if into >= 0:
                place = places[into]
                places[into] = place + 1
                point[place], pixel[place] = one, one + shift
        begin = end


# --- forward ---------------------------------------------------------------------------------------------------------


@compiled
def pool_cells(depth, context, start, point, pixel, pooled, first, last):
    """Sum up the cells first ... last - 1.

    Args:
        depth: (points,) float32.
        context: (pixels, C) float32.
        start, point, pixel: see `PoolingPlan`.
        pooled: (cells, C) float32, written.
    """
    for cell in range(first, last):
        for channel in range(pooled.shape[1]):
            pooled[cell, channel] = 0.0
        for place in range(start[cell], start[cell + 1]):
            add_scaled(pooled, cell, depth[point[place]], context, pixel[place])


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
        for channel in range(channels):
            total[0, channel] = 0.0
        for place in range(start[cell], start[cell + 1]):
            add_scaled(total, 0, depth[point[place]], context, pixel[place])
        for channel in range(channels):
            exact = bits[0, channel]
            half = np.uint32(0x7FFF) + ((exact >> np.uint32(16)) & np.uint32(1))
            # Adding to the bits of a number that is none could make one of it.
            none = (exact & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            pooled[cell, channel] = np.uint16(0x7FC0) if none else np.uint16((exact + half) >> np.uint32(16))


# --- backward --------------------------------------------------------------------------------------------------------


@compiled
def push_back(depth, context, cell, upstream, into_depth, into_context, first, last):
    """Gradients of the pixels first ... last - 1: dL/ddepth = context . g_cell, dL/dcontext = sum_d depth g_cell.

    Args:
        depth, cell: (N, D, pixels of a view), float32 and int32.
        context: (N * pixels of a view, C) float32.
        upstream: (cells, C) float32, g.
        into_depth, into_context: as depth and context, written.
    """
    bins, area = depth.shape[1], depth.shape[2]
    for pixel in range(first, last):
        view = pixel // area
        place = pixel - view * area
        for channel in range(into_context.shape[1]):
            into_context[pixel, channel] = 0.0
        for each in range(bins):
            one = cell[view, each, place]
            if one >= 0:
                into_depth[view, each, place] = dot(context, pixel, upstream, one)
                add_scaled(into_context, pixel, depth[view, each, place], upstream, one)
            else:
                into_depth[view, each, place] = 0.0
