"""The loops of epipolar similarity for CPUs, compiled by Numba when they are first called (and kept on disk).

The earlier features of an image fit into a core's second-level cache, and neighbouring depths read neighbouring pixels.
"""

from __future__ import annotations

import numpy as np

from ...base.compiling import compiler

__all__ = ["compare", "push_back"]

_summed = compiler(fastmath=("reassoc", "contract", "nsz", "arcp"))
_exact = compiler()


@_exact
def _place(views, row, column, depth, nearest, height, width):
    """Where a pixel at a depth was seen before.

    Args:
        views: (V, 3, 4) float32.
    Returns:
        the first view that showed it, -1 for none; the pixel left above it (top, left), and how far below and right of
        that one it lies, 0 to 1.
    """
    u, v, nearest, half = np.float32(column), np.float32(row), np.float32(nearest), np.float32(0.5)
    for view in range(len(views)):
        pixels = views[view]
        c = (pixels[2, 0] * u + pixels[2, 1] * v + pixels[2, 2]) * depth + pixels[2, 3]
        if not c > nearest:
            continue
        x = ((pixels[0, 0] * u + pixels[0, 1] * v + pixels[0, 2]) * depth + pixels[0, 3]) / c
        y = ((pixels[1, 0] * u + pixels[1, 1] * v + pixels[1, 2]) * depth + pixels[1, 3]) / c
        if not (x >= -half and x <= width - half and y >= -half and y <= height - half):
            continue
        x, y = min(max(x, np.float32(0)), np.float32(width - 1)), min(max(y, np.float32(0)), np.float32(height - 1))
        left, top = max(min(np.int64(x), width - 2), 0), max(min(np.int64(y), height - 2), 0)
        return view, top, left, np.float32(y - top), np.float32(x - left)
    return -1, 0, 0, np.float32(0), np.float32(0)


@_summed
def compare(queries, keys, earlier_pixels, depths, nearest, into, image, row):
    """Compare the pixels of one row of one image.

    Args:
        queries, keys: (M, h, w, C) and (M, V, h, w, C) float32.
        earlier_pixels: (M, V, 3, 4) float32.
        depths: (D,) float32.
        nearest: metres.
        into: (M, G + 1, D, h, w) float32, written.
    """
    height, width, channels = queries.shape[1:]
    groups = into.shape[1] - 1
    each = channels // groups
    below_step, right_step = min(height - 1, 1), min(width - 1, 1)
    views = earlier_pixels[image]
    for column in range(width):
        query = queries[image, row, column]
        for number in range(depths.size):
            view, top, left, down, right = _place(views, row, column, depths[number], nearest, height, width)
            into[image, groups, number, row, column] = view >= 0
            if view < 0:
                for group in range(groups):
                    into[image, group, number, row, column] = 0
                continue
            one = np.float32(1)
            w00, w01, w10, w11 = (one - down) * (one - right), (one - down) * right, down * (one - right), down * right
            k00, k01 = keys[image, view, top, left], keys[image, view, top, left + right_step]
            k10, k11 = keys[image, view, top + below_step, left], keys[image, view, top + below_step, left + right_step]
            for group in range(groups):
                total = np.float32(0)
                for channel in range(group * each, (group + 1) * each):
                    between = w00 * k00[channel] + w01 * k01[channel] + w10 * k10[channel] + w11 * k11[channel]
                    total += query[channel] * between
                into[image, group, number, row, column] = total


@_summed
def push_back(queries, keys, earlier_pixels, depths, nearest, upstream, into_queries, into_keys, image):
    """Gradients of one image; arguments as of `compare`.

    Args:
        upstream: (M, G + 1, D, h, w) float32, gradients of its result.
        into_queries, into_keys: of the shapes of both, float32, added to; of size 0 where nobody wants them.
    """
    height, width, channels = queries.shape[1:]
    groups = upstream.shape[1] - 1
    each = channels // groups
    below_step, right_step = min(height - 1, 1), min(width - 1, 1)
    views = earlier_pixels[image]
    for row in range(height):
        for column in range(width):
            query, to_query = queries[image, row, column], into_queries[image, row, column]
            for number in range(depths.size):
                view, top, left, down, right = _place(views, row, column, depths[number], nearest, height, width)
                if view < 0:
                    continue
                one = np.float32(1)
                w00, w01 = (one - down) * (one - right), (one - down) * right
                w10, w11 = down * (one - right), down * right
                k00, k01 = keys[image, view, top, left], keys[image, view, top, left + right_step]
                k10, k11 = (
                    keys[image, view, top + below_step, left],
                    keys[image, view, top + below_step, left + right_step],
                )
                for group in range(groups):
                    gradient = upstream[image, group, number, row, column]
                    for channel in range(group * each, (group + 1) * each):
                        between = w00 * k00[channel] + w01 * k01[channel] + w10 * k10[channel] + w11 * k11[channel]
                        to_query[channel] += gradient * between
                if not into_keys.size:
                    continue
                t00, t01 = into_keys[image, view, top, left], into_keys[image, view, top, left + right_step]
                t10 = into_keys[image, view, top + below_step, left]
                t11 = into_keys[image, view, top + below_step, left + right_step]
                for group in range(groups):
                    gradient = upstream[image, group, number, row, column]
                    for channel in range(group * each, (group + 1) * each):
                        product = gradient * query[channel]
                        t00[channel] += w00 * product
                        t01[channel] += w01 * product
                        t10[channel] += w10 * product
                        t11[channel] += w11 * product
