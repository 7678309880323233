"""The loop that finds the surface of each ray on the CPU, compiled by Numba when it is first called (kept on disk).

It is for pictures at steps of a voxel. There a ray changes its cell at nearly every sample, and keeping voxels in
slots as in `cpu_loops` does not pay. So only density is read along the ray, eight voxels for a sample. Logits are read
afterwards, for opaque rays and for samples that have weight.
"""

from __future__ import annotations

import math

import numpy as np

from .cpu_loops import _add_scaled, _alpha, compiled

__all__ = ["march_surfaces"]

# Smaller weights are left out of the composited logits, which matters only where two classes are all but equal. A ray
# ends where less light than this is left.
NEGLIGIBLE_WEIGHT = np.float32(1e-5)
NEGLIGIBLE_LIGHT = 1e-6


@compiled
def _cell(position, size):
    """Lower corner of the cell along one axis, and the weight of its upper corner; clamped to the voxels' centres."""
    position = min(max(position, 0.0), size - 1.0)
    cell = max(min(np.int64(position), size - 2), 0)
    return cell, np.float32(position - cell)


@compiled
def _enter_and_leave(origin, direction, upper):
    """Metres at which a ray enters and leaves the box from 0 to `upper`; (0, 0) if it misses. As `intersect_box`."""
    near, far = 0.0, np.inf
    for axis in range(3):
        if direction[axis] == 0.0:
            if origin[axis] < 0.0 or origin[axis] > upper[axis]:
                return 0.0, 0.0
            continue
        low, high = -origin[axis] / direction[axis], (upper[axis] - origin[axis]) / direction[axis]
        near, far = max(near, min(low, high)), min(far, max(low, high))
    return (near, far) if far > near else (0.0, 0.0)


@compiled
def march_surfaces(
    density, table, shape, layers, size, origins, directions, first, last, delta, half, distance, mass, channel
):
    """Find the surfaces of the rays first ... last - 1, and write them into the rays' rows of the results.

    Args:
        density, table: (V,) and (V / layers, C) float32.
        shape: (X, Y, Z).
        layers: neighbours along z that have the same logits.
        size: metres of a voxel.
        origins: (R, 3) float64, metres from the grid's lower corner.
        directions: (R, 3) float64, of unit length, or stretched along z with the layers.
        delta: metres between samples.
        half: opacity from which on a ray is opaque.
        distance: (R,) float32, written: where half of the light has been stopped, or where the ray leaves the grid.
        mass: (R,) float32, written: the opacity, sum w_i.
        channel: (R,) int64, written: channel of the largest composited logit; 0 for rays that are not opaque.
    """
    upper = (shape[0] * size, shape[1] * size, shape[2] * size)
    most = 2 + np.int64((upper[0] + upper[1] + upper[2]) / delta)  # samples of a ray
    weights, cells, shares = np.empty(most, np.float32), np.empty(most, np.int64), np.empty((most, 3), np.float32)
    logits = np.empty((1, table.shape[1]), np.float32)
    # An axis of one voxel has no second corner.
    x_hop = shape[1] * shape[2] if shape[0] > 1 else 0
    y_hop = shape[2] if shape[1] > 1 else 0
    z_hop = 1 if shape[2] > 1 else 0
    for row in range(first, last):
        near, far = _enter_and_leave(origins[row], directions[row], upper)
        x_step, y_step, z_step = directions[row, 0] / size, directions[row, 1] / size, directions[row, 2] / size
        x_start, y_start, z_start = origins[row, 0] / size, origins[row, 1] / size, origins[row, 2] / size
        count = np.int64(max(np.ceil((far - near) / delta - 0.5), 0.0))
        light, half_way, kept, i = 1.0, far, 0, 0
        while i < count and light > NEGLIGIBLE_LIGHT:
            t = near + (i + 0.5) * delta
            x, fx = _cell(x_start + t * x_step - 0.5, shape[0])
            y, fy = _cell(y_start + t * y_step - 0.5, shape[1])
            z, fz = _cell(z_start + t * z_step - 0.5, shape[2])
            at = (x * shape[1] + y) * shape[2] + z
            side, back = at + y_hop, at + x_hop
            d00 = density[at] + fz * (density[at + z_hop] - density[at])
            d01 = density[side] + fz * (density[side + z_hop] - density[side])
            d10 = density[back] + fz * (density[back + z_hop] - density[back])
            back += y_hop
            d11 = density[back] + fz * (density[back + z_hop] - density[back])
            d0, d1 = d00 + fy * (d01 - d00), d10 + fy * (d11 - d10)
            here = d0 + fx * (d1 - d0)
            weight = light * _alpha(here * delta)
            if light > 0.5 and light - weight <= 0.5:
                half_way = min(near + i * delta + min(math.log(2.0 * light) / here, delta), far)
            light -= weight
            if weight > NEGLIGIBLE_WEIGHT:
                weights[kept], cells[kept] = weight, at
                shares[kept, 0], shares[kept, 1], shares[kept, 2] = fx, fy, fz
                kept += 1
            i += 1
        distance[row], mass[row], channel[row] = half_way, 1.0 - light, 0
        if mass[row] >= half:
            _composite(logits, table, layers, weights, cells, shares, kept, (x_hop, y_hop, z_hop))
            channel[row] = np.argmax(logits[0])


@compiled
def _composite(logits, table, layers, weights, cells, shares, kept, hops):
    """Write the composited logits of a ray's `kept` samples into the only row of `logits`."""
    one = np.float32(1.0)
    logits[0, :] = 0.0
    for k in range(kept):
        fx, fy, fz = shares[k, 0], shares[k, 1], shares[k, 2]
        for corner in range(8):
            share = weights[k] * (fx if corner & 4 else one - fx)
            share *= (fy if corner & 2 else one - fy) * (fz if corner & 1 else one - fz)
            if share > NEGLIGIBLE_WEIGHT:
                voxel = cells[k] + (hops[0] if corner & 4 else 0) + (hops[1] if corner & 2 else 0)
                voxel += hops[2] if corner & 1 else 0
                _add_scaled(logits, 0, share, table, voxel // layers)
