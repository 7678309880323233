"""The loops of ray termination for CPUs, compiled by Numba when they are first called (and kept on disk).

For each ray, the cells and fractions of all samples are computed first; they take some kilobytes that stay in the
core's first-level cache. This loop and the forward sum have no branches, so the compiler can use vector and gather
instructions. The renderer's walk from voxel to voxel (`ops.render.cpu_loops`) does not allow that: it pays where a
voxel is a row of logits, but here it is one number. The backward pass adds eight numbers for each sample. It adds in
float64, because near a sensor many rays meet in one voxel and float32 sums would lose small terms. It does not read the
field, as the depths are linear in it.
"""

from __future__ import annotations

import numpy as np

from ...base.compiling import compiler

__all__ = ["follow_back", "march_backward", "march_forward"]

_summed = compiler(fastmath=("reassoc", "contract", "nsz", "arcp"))
# Positions are always finite. Summed values may not be, and the result must show it.
_placed = compiler(fastmath=("reassoc", "contract", "nsz", "arcp", "nnan", "ninf"))
_exact = compiler()


@_placed
def _place(ray, count, shape, strides, cells, fractions):
    """The cell of each of `count` samples, and how far the sample is from its lower corner.

    Args:
        ray: (6,) float64, position of the first sample in voxels from the first centre, and the step to the next.
        shape: (X, Y, Z).
        strides: of the density, from a voxel to the next along x, y, z.
        cells: (n,) int64, written: the voxel at the cell's lower corner.
        fractions: (3, n) float32, written.
    """
    x_start, y_start, z_start, x_step, y_step, z_step = ray[0], ray[1], ray[2], ray[3], ray[4], ray[5]
    x_last, y_last, z_last = shape[0] - 1.0, shape[1] - 1.0, shape[2] - 1.0
    x_cell, y_cell, z_cell = max(shape[0] - 2, 0), max(shape[1] - 2, 0), max(shape[2] - 2, 0)
    for i in range(count):
        x = min(max(x_start + i * x_step, 0.0), x_last)
        y = min(max(y_start + i * y_step, 0.0), y_last)
        z = min(max(z_start + i * z_step, 0.0), z_last)
        x_low, y_low, z_low = min(np.int64(x), x_cell), min(np.int64(y), y_cell), min(np.int64(z), z_cell)
        cells[i] = x_low * strides[0] + y_low * strides[1] + z_low * strides[2]
        fractions[0, i] = np.float32(x - x_low)
        fractions[1, i] = np.float32(y - y_low)
        fractions[2, i] = np.float32(z - z_low)


@_exact
def _hops(shape):
    """From a cell's lower corner to the upper one along x, y, z; on an axis of one voxel there is no other."""
    return (
        np.int64(shape[1] * shape[2] if shape[0] > 1 else 0),
        np.int64(shape[2] if shape[1] > 1 else 0),
        np.int64(1 if shape[2] > 1 else 0),
    )


@_summed
def _total(density, hops, cells, fractions, begin, end):
    """Sum of the trilinear densities of samples begin ... end - 1."""
    dx, dy, dz = hops
    total = 0.0
    for i in range(begin, end):
        at, x, y, z = cells[i], fractions[0, i], fractions[1, i], fractions[2, i]
        low, far_low = density[at], density[at + dx]
        low += z * (density[at + dz] - low)
        far_low += z * (density[at + dx + dz] - far_low)
        high, far_high = density[at + dy], density[at + dx + dy]
        high += z * (density[at + dy + dz] - high)
        far_high += z * (density[at + dx + dy + dz] - far_high)
        low += y * (high - low)
        far_low += y * (far_high - far_low)
        total += low + x * (far_low - low)
    return total


@_summed
def march_forward(density, shape, rays, chosen, first, last, delta, before, window):
    """Write the depths of some rays into their rows of the results.

    Args:
        density: (V,) float32.
        shape: (X, Y, Z).
        rays: (R, 6) float64, see `_place`.
        chosen: (r,) int64, the rays to walk along.
        first, last: (R,) int64, samples before the window, and before its end.
        delta: metres between samples.
        before, window: (R,) float32, written.
    """
    strides, hops = (shape[1] * shape[2], shape[2], 1), _hops(shape)
    cells, fractions = _room(chosen, last)
    for row in chosen:
        _place(rays[row], last[row], shape, strides, cells, fractions)
        before[row] = delta * _total(density, hops, cells, fractions, 0, first[row])
        window[row] = delta * _total(density, hops, cells, fractions, first[row], last[row])


@_exact
def _room(chosen, last):
    """Arrays for the cells and fractions of the longest ray."""
    longest = 0
    for row in chosen:
        longest = max(longest, last[row])
    return np.empty(longest, np.int64), np.empty((3, longest), np.float32)


@_summed
def _scatter(into, hops, cells, fractions, begin, end, push):
    """Add `push`, shared out by the trilinear weights of samples begin ... end - 1, to their voxels."""
    dx, dy, dz = hops
    for i in range(begin, end):
        at, x, y, z = cells[i], fractions[0, i], fractions[1, i], fractions[2, i]
        far = push * x
        far_high, high = far * y, (push - far) * y
        far_low, low = far - far_high, push - far - high
        part = low * z
        into[at + dz] += part
        into[at] += low - part
        part = high * z
        into[at + dy + dz] += part
        into[at + dy] += high - part
        part = far_low * z
        into[at + dx + dz] += part
        into[at + dx] += far_low - part
        part = far_high * z
        into[at + dx + dy + dz] += part
        into[at + dx + dy] += far_high - part


@_summed
def march_backward(shape, rays, chosen, first, last, delta, g_before, g_window, into):
    """Add what some rays contribute to the gradient of the density.

    Args:
        shape, rays, chosen, first, last, delta: as for `march_forward`.
        g_before, g_window: (R,) float32, gradients of the results.
        into: (V,) float64, added to.
    """
    strides, hops = (shape[1] * shape[2], shape[2], 1), _hops(shape)
    cells, fractions = _room(chosen, last)
    for row in chosen:
        begin = first[row]
        end = begin if g_window[row] == 0.0 else last[row]
        _place(rays[row], end, shape, strides, cells, fractions)
        if g_before[row] != 0.0:
            _scatter(into, hops, cells, fractions, 0, begin, np.float32(delta * g_before[row]))
        _scatter(into, hops, cells, fractions, begin, end, np.float32(delta * g_window[row]))


@_exact
def follow_back(marks, shape, lower, size, rays, begin, steps, delta, runs):
    """Count the steps back towards the sensor until the first one outside marked voxels, as `reference` rounds.

    Args:
        marks: (V,) uint8.
        lower: corner of the grid, metres.
        size: of a voxel, metres.
        rays: (R, 6) float64, origins in metres and directions.
        begin: (R,) float64, where the steps begin, metres along the ray.
        steps: (R,) int64, the most to count.
        delta: metres of a step.
        runs: (R,) int64, written.
    """
    for row in range(len(runs)):
        run = 0
        while run < steps[row]:
            place = begin[row] - (run + 0.5) * delta
            voxel = 0
            for axis in range(3):
                cell = np.int64(np.floor((rays[row, axis] + place * rays[row, axis + 3] - lower[axis]) / size))
                if cell < 0 or cell >= shape[axis]:
                    voxel = -1
                    break
                voxel = voxel * shape[axis] + cell
            if voxel < 0 or not marks[voxel]:
                break
            run += 1
        runs[row] = run
