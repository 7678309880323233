"""Loops over pixels for the CPU, compiled by Numba when they are first called (a second each; kept on disk).

Only work that OpenCV cannot do in one pass: halving pictures that are not interleaved colours yet, and normalising.
They run in one thread without the interpreter's lock: the node decodes several cameras at the same time.
"""

from __future__ import annotations

import numpy as np

from ..base.compiling import compiler

__all__ = ["LANES", "halve_mosaic", "normalise"]

LANES = 48  # numbers a turn of `normalise`: whole pixels, and whole vectors of any machine

compiled = compiler()


@compiled
def normalise(values, scale, offset, into):
    """into = values * scale + offset, channel by channel.

    Args:
        values: (N,) uint8, channels last.
        scale, offset: (LANES,) float32, a pixel's repeated.
        into: (N,) float32, written.
    """
    whole = values.size // LANES
    for turn in range(whole):
        start = turn * LANES
        for lane in range(LANES):
            into[start + lane] = np.float32(values[start + lane]) * scale[lane] + offset[lane]
    for lane in range(values.size - whole * LANES):
        into[whole * LANES + lane] = np.float32(values[whole * LANES + lane]) * scale[lane] + offset[lane]


# Numba makes 64 bits of what integers add up to; cut back to 32 at each step, twice as many go into a vector. A loop
# that reads and writes few arrays, all without gaps, is one that the compiler makes vectors of.


@compiled
def _split(data, step, row, parts):
    """parts (2, W) uint8 = even and odd bytes of a row of 2 W."""
    even, odd = parts[0], parts[1]
    words = data[row * step : row * step + 2 * even.size].view(np.uint16)
    for column in range(words.size):
        even[column], odd[column] = words[column] & 255, words[column] >> 8


@compiled
def _halve_cells(own, across, along, aslant, into):
    """Mean of a cell's pixels in red or blue: its own, and those between it and its three neighbours."""
    for column in range(into.size):
        a, b = np.int32(own[column]), np.int32(across[column])
        c, d = np.int32(along[column]), np.int32(aslant[column])
        pairs = np.int32(np.int32(np.int32(a + b) + 1) >> 1) + np.int32(np.int32(np.int32(a + c) + 1) >> 1)
        four = np.int32(np.int32(np.int32(np.int32(a + b) + np.int32(c + d)) + 2) >> 2)
        into[column] = np.int32(np.int32(np.int32(a + 2) + np.int32(pairs)) + four) >> 2


@compiled
def _halve_green(one, two, above, beside, below, further, into):
    """The same of green: a cell's two pixels, and those between them and two neighbours in each of its rows."""
    for column in range(into.size):
        own = np.int32(np.int32(one[column]) + np.int32(two[column]))
        before = np.int32(own + np.int32(np.int32(above[column]) + np.int32(beside[column])))
        after = np.int32(own + np.int32(np.int32(below[column]) + np.int32(further[column])))
        means = np.int32(np.int32(np.int32(before + 2) >> 2) + np.int32(np.int32(after + 2) >> 2))
        into[column] = np.int32(np.int32(own + 2) + means) >> 2


@compiled
def halve_mosaic(data, step, red_row, red_column, into):
    """Mean of 2 x 2 pixels of a mosaic that is interpolated bilinearly first: one pixel for a cell.

    Args:
        data: (bytes,) uint8, 2 H rows of 2 W bytes.
        step: bytes from one row to the next.
        red_row, red_column: 0 or 1, where a cell has its red pixel; blue is opposite.
        into: (3, H, W) uint8 RGB; written without its outermost ring, whose cells lack neighbours.
    """
    height, width = into.shape[1:]
    inner, left, right = slice(1, width - 1), slice(0, width - 2), slice(2, width)
    green = 1 if red_row == red_column else 0  # the column of the first row's green
    lines = np.empty((4, 2, width), np.uint8)
    above, first, second, below = lines[0], lines[1], lines[2], lines[3]
    for row in range(1, height - 1):
        if row == 1:
            _split(data, step, 1, above)
            _split(data, step, 2, first)
        else:
            above, first, second, below = second, below, above, first
        _split(data, step, 2 * row + 1, second)
        _split(data, step, 2 * row + 2, below)
        for colour in range(2):  # red, blue
            at_row, column = (red_row, red_column) if colour == 0 else (1 - red_row, 1 - red_column)
            # Of the same colour, the nearest lie right of and below a cell's first pixel, left of and above its last.
            own, other = (first[column], below[column]) if at_row == 0 else (second[column], above[column])
            side = right if column == 0 else left
            _halve_cells(own[inner], own[side], other[inner], other[side], into[2 * colour, row, 1 : width - 1])
        _halve_green(
            first[green][inner],
            second[1 - green][inner],
            above[1 - green][inner],
            first[green][left if green == 1 else right],
            below[green][inner],
            second[1 - green][right if green == 1 else left],
            into[1, row, 1 : width - 1],
        )
