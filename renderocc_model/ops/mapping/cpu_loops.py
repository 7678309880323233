"""The loops of `ops.mapping`, compiled by Numba when they are first called; kept on disk where possible.

They run in one thread, without the interpreter's lock. Only the order of additions may differ from `reference`.
"""

from __future__ import annotations

import math

import numpy as np

from ...base.compiling import compiler

__all__ = ["expire", "fuse", "occupied_voxels", "read_out", "sample", "weigh"]

_UNKNOWN = 255
_HALF, _ZERO, _ONE = np.float32(0.5), np.float32(0), np.float32(1)
_LEAST = np.float32(1e-6)  # probabilities nearer to 0 or 1 count as this far from them
_TINY = np.float32(1e-3)  # the least evidence of a voxel that is seen

compiled = compiler()


@compiled
def weigh(semantics, confidence, threshold, free, gain, hit, miss, evidence):
    """See `reference.weigh`. threshold: (X, Y) float32 log-odds; without columns, hit and miss alone count."""
    X, Y, Z = semantics.shape
    by_confidence = threshold.size > 0
    for x in range(X):
        for y in range(Y):
            middle = threshold[x, y] if by_confidence else _ZERO
            for z in range(Z):
                state = semantics[x, y, z]
                if state == _UNKNOWN:
                    evidence[x, y, z] = _ZERO
                    continue
                value = hit if state != free else -miss
                if by_confidence:
                    p = min(max(confidence[x, y, z], _LEAST), _ONE - _LEAST)
                    value = gain * (np.float32(math.log(p / (_ONE - p))) - middle)
                if state != free:
                    evidence[x, y, z] = min(max(value, _TINY), hit)
                else:
                    evidence[x, y, z] = max(min(value, -_TINY), -miss)


@compiled
def _span(at, along, size):
    """First and last z for which -1/2 <= at + along * z < size - 1/2; the loop still checks each of them."""
    low, high = -_HALF - at, size - _HALF - at
    if along == 0.0:
        return (-1e9, 1e9) if low <= 0.0 < high else (1.0, 0.0)
    return min(low / along, high / along) - 1.0, max(low / along, high / along) + 1.0


@compiled
def fuse(
    log_odds,
    votes,
    labels,
    seen,
    start,
    evidence,
    semantics,
    frame_from_map,
    now,
    limits,
    movable,
    most_votes,
    channel_of,
):
    """See `reference.fuse`."""
    X, Y, Z = log_odds.shape
    FX, FY, FZ = evidence.shape
    m = frame_from_map
    lowest, highest, dynamic_highest, memory, dynamic_frames = limits[0], limits[1], limits[2], limits[3], limits[4]
    for x in range(X):
        sx = start[0] + x - (X if start[0] + x >= X else 0)
        for y in range(Y):
            sy = start[1] + y - (Y if start[1] + y >= Y else 0)
            fx0 = m[0, 0] * x + m[0, 1] * y + m[0, 3]
            fy0 = m[1, 0] * x + m[1, 1] * y + m[1, 3]
            fz0 = m[2, 0] * x + m[2, 1] * y + m[2, 3]
            low, high = 0.0, Z - 1.0
            for axis in range(3):
                at, size = (fx0, FX) if axis == 0 else ((fy0, FY) if axis == 1 else (fz0, FZ))
                first, last = _span(at, m[axis, 2], size)
                low, high = max(low, first), min(high, last)
            if not low <= high:
                continue
            for z in range(int(low), int(math.ceil(high)) + 1):
                if z >= Z:
                    break
                fx, fy, fz = fx0 + m[0, 2] * z, fy0 + m[1, 2] * z, fz0 + m[2, 2] * z
                ix, iy, iz = int(math.floor(fx + 0.5)), int(math.floor(fy + 0.5)), int(math.floor(fz + 0.5))
                if not (0 <= ix < FX and 0 <= iy < FY and 0 <= iz < FZ):
                    continue
                if evidence[ix, iy, iz] == _ZERO:
                    continue
                value, nearest = _interpolated(evidence, fx, fy, fz)
                sz = start[2] + z - (Z if start[2] + z >= Z else 0)
                old = log_odds[sx, sy, sz]
                new = max(memory * old + value, lowest)
                if value > _ZERO:
                    label = semantics[nearest // (FY * FZ), nearest // FZ % FY, nearest % FZ]
                    channel = channel_of[label]
                    if old <= _ZERO:
                        for other in range(votes.shape[3]):
                            votes[sx, sy, sz, other] = 0
                    votes[sx, sy, sz, channel] += 1
                    _elect(votes[sx, sy, sz], channel, label, labels, sx, sy, sz, channel_of, most_votes)
                    seen[sx, sy, sz] = now
                if new > _ZERO:
                    own = labels[sx, sy, sz]
                    most = highest
                    if movable[own]:
                        share = np.float32(votes[sx, sy, sz, channel_of[own]]) / dynamic_frames
                        most = dynamic_highest * min(_ONE, share)
                    new = min(new, most)
                log_odds[sx, sy, sz] = new


@compiled
def _elect(votes, channel, label, labels, sx, sy, sz, channel_of, most_votes):
    """Give the voxel the class with the most votes; of equal ones it keeps its own. Halve votes that are too many."""
    own = labels[sx, sy, sz]
    if own == _UNKNOWN or votes[channel] > votes[channel_of[own]]:
        labels[sx, sy, sz] = label
    if votes[channel] >= most_votes:
        for other in range(votes.shape[0]):
            votes[other] //= 2


@compiled
def _interpolated(values, fx, fy, fz):
    """The value between the centres of voxels that have one (0: none), and the place of the positive one that counts
    most; of equal ones the first."""
    X, Y, Z = values.shape
    bx, by, bz = int(math.floor(fx)), int(math.floor(fy)), int(math.floor(fz))
    wx, wy, wz = np.float32(fx - bx), np.float32(fy - by), np.float32(fz - bz)
    total, weights, most, place = _ZERO, _ZERO, _ZERO, 0
    for corner in range(8):
        ox, oy, oz = corner >> 2, corner >> 1 & 1, corner & 1
        cx, cy, cz = min(max(bx + ox, 0), X - 1), min(max(by + oy, 0), Y - 1), min(max(bz + oz, 0), Z - 1)
        value = values[cx, cy, cz]
        if value == _ZERO:
            continue
        weight = (wx if ox else _ONE - wx) * (wy if oy else _ONE - wy) * (wz if oz else _ONE - wz)
        total += weight * value
        weights += weight
        if value > _ZERO and weight > most:
            most, place = weight, (cx * Y + cy) * Z + cz
    return total / weights, place


@compiled
def expire(log_odds, labels, seen, dynamic, before):
    """See `reference.expire`."""
    values, classes, times = log_odds.reshape(-1), labels.reshape(-1), seen.reshape(-1)
    for n in range(values.size):
        if values[n] > _ZERO and dynamic[classes[n]] and times[n] < before:
            values[n] = _ZERO


@compiled
def read_out(log_odds, labels, start, free, semantics, values):
    """See `reference.read_out`."""
    X, Y, Z = log_odds.shape
    for x in range(X):
        sx = start[0] + x - (X if start[0] + x >= X else 0)
        for y in range(Y):
            sy = start[1] + y - (Y if start[1] + y >= Y else 0)
            for z in range(Z):
                sz = start[2] + z - (Z if start[2] + z >= Z else 0)
                value = log_odds[sx, sy, sz]
                values[x, y, z] = value
                state = labels[sx, sy, sz] if value > _ZERO else np.uint8(free)
                semantics[x, y, z] = state if value != _ZERO else np.uint8(_UNKNOWN)


@compiled
def occupied_voxels(values, index, surface):
    """Write flat places of occupied voxels, and whether one of their 6 neighbours is not occupied.

    Args:
        values: (X, Y, Z) float32 log-odds.
        index: (at least as many as are occupied,) int32, written.
        surface: as many, bool, written.
    Returns:
        How many are occupied.
    """
    X, Y, Z = values.shape
    count = 0
    for x in range(X):
        for y in range(Y):
            for z in range(Z):
                if not values[x, y, z] > _ZERO:
                    continue
                inner = 0 < x < X - 1 and 0 < y < Y - 1 and 0 < z < Z - 1
                inner = inner and values[x - 1, y, z] > _ZERO and values[x + 1, y, z] > _ZERO
                inner = inner and values[x, y - 1, z] > _ZERO and values[x, y + 1, z] > _ZERO
                inner = inner and values[x, y, z - 1] > _ZERO and values[x, y, z + 1] > _ZERO
                index[count] = (x * Y + y) * Z + z
                surface[count] = not inner
                count += 1
    return count


@compiled
def sample(values, map_from_frame, wanted, places):
    """See `reference.sample`."""
    X, Y, Z = values.shape
    m = map_from_frame
    for x in range(wanted.shape[0]):
        for y in range(wanted.shape[1]):
            for z in range(wanted.shape[2]):
                fx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                fy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                fz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                ix, iy, iz = int(math.floor(fx + 0.5)), int(math.floor(fy + 0.5)), int(math.floor(fz + 0.5))
                wanted[x, y, z], places[x, y, z] = _ZERO, 0
                if 0 <= ix < X and 0 <= iy < Y and 0 <= iz < Z and values[ix, iy, iz] != _ZERO:
                    wanted[x, y, z], places[x, y, z] = _interpolated(values, fx, fy, fz)
