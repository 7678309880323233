"""The loops that read heights along rays on CPUs, compiled by Numba when they are first called (and kept on disk).

A row's logits of all heights fit into a core's first-level cache; depths are the outer loop, so that writes follow
memory.
"""

from __future__ import annotations

import numpy as np

from ...base.compiling import compiler

__all__ = ["push_back", "read"]

_exact = compiler()


@_exact
def _place(start, slope, depth, lowest, scale, last):
    """The height below a ray's height, and the share of the one above it."""
    place = min(max((start + depth * slope - lowest) * scale, np.float32(0)), last)
    below = min(np.int64(place), np.int64(last) - 1)
    return below, place - np.float32(below)


@_exact
def read(logits, start, slope, depths, lowest, scale, into, image, row):
    """Read one row of pixels of one image.

    Args:
        logits: (M, H, W, K) float32.
        start, slope, depths: (M,), (M, H, W) and (D,) float32.
        lowest, scale: float32, metres, and steps between heights for each metre.
        into: (M, D, H, W) float32, written.
    """
    last, slopes = np.float32(logits.shape[3] - 1), slope[image, row]
    for number in range(len(depths)):
        for column in range(len(slopes)):
            below, share = _place(start[image], slopes[column], depths[number], lowest, scale, last)
            of_pixel = logits[image, row, column]
            into[image, number, row, column] = of_pixel[below] * (np.float32(1) - share) + of_pixel[below + 1] * share


@_exact
def push_back(upstream, start, slope, depths, lowest, scale, into, image, row):
    """Gradients of one row; arguments as of `read`.

    Args:
        upstream: (M, D, H, W) float32, gradients of its result.
        into: (M, H, W, K) float32, added to.
    """
    last, slopes = np.float32(into.shape[3] - 1), slope[image, row]
    for number in range(len(depths)):
        for column in range(len(slopes)):
            below, share = _place(start[image], slopes[column], depths[number], lowest, scale, last)
            gradient = upstream[image, number, row, column]
            into[image, row, column, below] += gradient * (np.float32(1) - share)
            into[image, row, column, below + 1] += gradient * share
