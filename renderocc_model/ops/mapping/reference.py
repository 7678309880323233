"""The operators of `ops.mapping` in plain NumPy: readable, and what the compiled loops are compared with."""

from __future__ import annotations

import numpy as np

from ...field.classes import UNLABELLED
from .state import ClassRoles, FusionLimits, MapState

__all__ = ["LEAST_EVIDENCE", "NEAREST_TO_CERTAIN", "expire", "fuse", "occupied_voxels", "read_out", "sample", "weigh"]

NEAREST_TO_CERTAIN = np.float32(1e-6)  # probabilities nearer to 0 or 1 count as this far from them
LEAST_EVIDENCE = np.float32(1e-3)  # of a voxel that is seen; 0 would say that nobody has seen it


def weigh(
    semantics: np.ndarray,
    confidence: np.ndarray,
    threshold: np.ndarray | None,
    free: int,
    gain: float,
    hit: float,
    miss: float,
) -> np.ndarray:
    """What `ops.mapping.weigh` does."""
    occupied, unknown = (semantics != free) & (semantics != UNLABELLED), semantics == UNLABELLED
    if threshold is None:
        value = np.where(occupied, np.float32(hit), np.float32(-miss))
    else:
        p = np.clip(confidence, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
        value = np.float32(gain) * (np.log(p / (1 - p)) - threshold[:, :, None])
    evidence = np.where(occupied, np.clip(value, LEAST_EVIDENCE, hit), np.clip(value, -miss, -LEAST_EVIDENCE))
    return np.where(unknown, 0, evidence).astype(np.float32)


def fuse(
    state: MapState,
    evidence: np.ndarray,
    semantics: np.ndarray,
    frame_from_map: np.ndarray,
    now: int,
    limits: FusionLimits,
    roles: ClassRoles,
) -> None:
    """What `ops.mapping.fuse` does."""
    shape = state.log_odds.shape
    voxels = np.stack(np.unravel_index(np.arange(state.log_odds.size), shape))
    places = frame_from_map[:, :3] @ voxels + frame_from_map[:, 3:]
    value, nearest = _interpolated(evidence, places)
    seen = value != 0
    value, nearest = value[seen], nearest[seen]
    at = tuple((voxels[:, seen] + state.start[:, None]) % np.array(shape)[:, None])

    old = state.log_odds[at]
    new = np.maximum(np.float32(limits.memory) * old + value, np.float32(limits.lowest))
    hit = value > 0
    at_hit, labels = tuple(axis[hit] for axis in at), semantics.reshape(-1)[nearest[hit]]
    votes = np.where((old[hit] <= 0)[:, None], 0, state.votes[at_hit]).astype(np.int64)
    channels, each = roles.channels[labels], np.arange(len(labels))
    votes[each, channels] += 1
    own = state.labels[at_hit]
    wins = (own == UNLABELLED) | (votes[each, channels] > votes[each, roles.channels[own]])
    state.labels[at_hit] = np.where(wins, labels, own)
    full = votes[each, channels] >= limits.votes
    state.votes[at_hit] = np.where(full[:, None], votes // 2, votes)
    state.seen[at_hit] = now

    own = state.labels[at]
    votes = np.take_along_axis(state.votes[at], roles.channels[own].astype(np.int64)[:, None], axis=1)[:, 0]
    share = np.minimum(np.float32(1), votes.astype(np.float32) / np.float32(limits.dynamic_frames))
    most = np.where(roles.movable[own], np.float32(limits.dynamic_highest) * share, np.float32(limits.highest))
    state.log_odds[at] = np.where(new > 0, np.minimum(new, most), new)


def expire(state: MapState, dynamic: np.ndarray, before: int) -> None:
    """What `ops.mapping.expire` does."""
    state.log_odds[(state.log_odds > 0) & dynamic[state.labels] & (state.seen < before)] = 0


def read_out(state: MapState, free: int) -> tuple[np.ndarray, np.ndarray]:
    """What `ops.mapping.read_out` does."""
    shift = tuple(int(-start) for start in state.start)
    values, labels = (np.roll(array, shift, (0, 1, 2)) for array in (state.log_odds, state.labels))
    semantics = np.where(values > 0, labels, np.where(values < 0, free, UNLABELLED)).astype(np.uint8)
    return semantics, values


def occupied_voxels(log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `ops.mapping.occupied_voxels` does."""
    occupied = np.pad(log_odds > 0, 1)
    inner = occupied.copy()
    for axis in range(3):
        inner &= np.roll(occupied, 1, axis) & np.roll(occupied, -1, axis)
    index = np.flatnonzero(log_odds > 0).astype(np.int32)
    return index, ~inner[1:-1, 1:-1, 1:-1].reshape(-1)[index]


def sample(
    log_odds: np.ndarray, map_from_frame: np.ndarray, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """What `ops.mapping.sample` does."""
    voxels = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape))
    values, places = _interpolated(log_odds, map_from_frame[:, :3] @ voxels + map_from_frame[:, 3:])
    return values.reshape(shape), places.reshape(shape)


def _interpolated(values: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,) at places (3, N), and of the eight voxels around each the flat place (N,) of the positive one that
    counts most, or 0. A value is 0 where the voxel that holds the place has none."""
    size = np.array(values.shape)[:, None]
    nearest = np.floor(places + 0.5)
    inside = ((nearest >= 0) & (nearest < size)).all(axis=0)
    known = np.zeros(places.shape[1], bool)
    known[inside] = values[tuple(nearest[:, inside].astype(np.int64))] != 0
    lower = np.floor(places).astype(np.int64)
    share = (places - lower).astype(np.float32)
    total, weights, most = (np.zeros(places.shape[1], np.float32) for _ in range(3))
    place = np.zeros(places.shape[1], np.int64)
    for corner in np.ndindex(2, 2, 2):
        offset = np.array(corner)[:, None]
        cell = np.clip(lower + offset, 0, size - 1)
        value = values[tuple(cell)]
        weight = np.where(offset == 1, share, 1 - share).prod(axis=0) * (value != 0)
        total += weight * value
        weights += weight
        better = (value > 0) & (weight > most)
        most = np.where(better, weight, most)
        place = np.where(better, np.ravel_multi_index(tuple(cell), values.shape), place)
    return np.where(known, total / np.where(weights > 0, weights, 1), 0).astype(np.float32), place
