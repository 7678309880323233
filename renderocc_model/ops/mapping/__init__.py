"""A map that remembers: frames of an occupancy network are added to voxels fixed to the ground, as log-odds.

A frame says of each of its voxels that it is occupied, free or unknown. `weigh` turns that into evidence, the change
of log(p / (1 - p)): above 0 for occupied, below 0 for free, exactly 0 for unknown. `fuse` reads the evidence at the
centres of the map's voxels, through the exact pose of the frame, and adds it:

    L <- clamp(memory * L + evidence)        occupied where L > 0, free where L < 0, unknown where L is exactly 0

(Moravec and Elfes 1985; the limits after OctoMap, Hornung et al. 2013). Where the frame's own voxel is unknown, nothing
is changed: what no camera sees stays what it was, and what none has seen stays unknown. Beside it the frames vote for
the voxel's class; its votes begin anew when it becomes occupied. The map is a ring (`MapState`): when the vehicle
moves on, voxels are cleared and none is moved or resampled.

All arrays are NumPy's, on the CPU. Implementations of one signature, compared with each other in the tests:

    reference       plain NumPy
    cpu             compiled loops (`cpu_loops`)
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..execution import choose_backend, cpu_loops_of
from . import reference
from .state import ClassRoles, FusionLimits, MapState

__all__ = [
    "ClassRoles",
    "FusionLimits",
    "MapState",
    "expire",
    "fuse",
    "occupied_voxels",
    "read_out",
    "sample",
    "weigh",
]


def weigh(
    semantics: np.ndarray,
    confidence: np.ndarray,
    threshold: np.ndarray | None,
    free: int,
    gain: float,
    hit: float,
    miss: float,
    backend: str = "auto",
) -> np.ndarray:
    """Weigh what a frame says of its voxels.

    With p the confidence and t the threshold, the evidence is gain * (logit(p) - logit(t)), within hit above and -miss
    below: a voxel that is just occupied, or just free, says little. Its sign is always that of the frame's own verdict.

    Args:
        semantics: (X, Y, Z) uint8 class ids; `free` and 255 (unknown) as in `Occupancy`.
        confidence: (X, Y, Z) float32, probability of being occupied.
        threshold: (X, Y) float32 logit(t); None if it is not known. Then all evidence is hit or -miss.
        free: id of the class free.
        gain: how much of the network's log-odds counts.
        hit, miss: largest evidence for occupied and for free, above 0.
        backend: "reference", "cpu", or "auto", which is "cpu".
    Returns:
        (X, Y, Z) float32.
    Raises:
        ValueError: shapes differ, or the backend is unknown.
        ModuleNotFoundError: Numba, which compiles the loops, is not installed.
    """
    expected = semantics.shape if threshold is None else (*threshold.shape, semantics.shape[2])
    if not semantics.shape == confidence.shape == expected:
        raise ValueError(
            f"semantics have shape {semantics.shape}, confidence {confidence.shape}, thresholds "
            f"{None if threshold is None else threshold.shape}; expected (X, Y, Z), (X, Y, Z) and (X, Y)"
        )
    if (loops := _loops(backend)) is None:
        return reference.weigh(semantics, confidence, threshold, free, gain, hit, miss)
    evidence = np.empty(semantics.shape, np.float32)
    middle = np.empty((0, 0), np.float32) if threshold is None else np.ascontiguousarray(threshold, np.float32)
    numbers = (np.float32(number) for number in (gain, hit, miss))
    loops.weigh(np.ascontiguousarray(semantics), np.ascontiguousarray(confidence), middle, free, *numbers, evidence)
    return evidence


def fuse(
    state: MapState,
    evidence: np.ndarray,
    semantics: np.ndarray,
    frame_from_map: np.ndarray,
    now: int,
    limits: FusionLimits,
    roles: ClassRoles,
    backend: str = "auto",
) -> None:
    """Add a frame to a map, in place.

    The evidence at a voxel's centre is interpolated between the frame's voxels around it, of those that are seen; the
    class is that of the occupied one among them that counts most. A voxel whose centre lies in a voxel of the frame
    that is unknown, or outside the frame's grid, stays as it is.

    Args:
        state: the map.
        evidence: (FX, FY, FZ) float32 of the frame, from `weigh`.
        semantics: (FX, FY, FZ) uint8 of the frame.
        frame_from_map: (3, 4) float64, takes a map voxel's number (x, y, z) to its centre's place in the frame, counted
            in voxels from the centre of the frame's first voxel.
        now: time of the frame, milliseconds.
        limits, roles: the limits, and what is known of the classes.
        backend: as in `weigh`.
    Raises:
        ValueError: shapes differ, or the backend is unknown.
        ModuleNotFoundError: as in `weigh`.
    """
    if evidence.shape != semantics.shape or evidence.ndim != 3 or np.shape(frame_from_map) != (3, 4):
        raise ValueError(
            f"evidence has shape {evidence.shape}, semantics {semantics.shape}, frame_from_map "
            f"{np.shape(frame_from_map)}; expected twice (X, Y, Z), and (3, 4)"
        )
    if (loops := _loops(backend)) is None:
        reference.fuse(state, evidence, semantics, frame_from_map, now, limits, roles)
        return
    loops.fuse(
        state.log_odds,
        state.votes,
        state.labels,
        state.seen,
        state.start,
        evidence,
        np.ascontiguousarray(semantics),
        np.ascontiguousarray(frame_from_map, np.float64),
        now,
        limits.numbers(),
        roles.movable,
        limits.votes,
        roles.channels,
    )


def expire(state: MapState, dynamic: np.ndarray, before: int, backend: str = "auto") -> None:
    """Make occupied voxels unknown whose class moves and that nobody has seen occupied for long, in place.

    Args:
        state: the map.
        dynamic: (256,) bool, ids of classes that move.
        before: milliseconds; voxels last seen occupied earlier than this are forgotten.
        backend: as in `weigh`.
    """
    if (loops := _loops(backend)) is None:
        reference.expire(state, dynamic, before)
    else:
        loops.expire(state.log_odds, state.labels, state.seen, dynamic, before)


def read_out(state: MapState, free: int, backend: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Copy a map out of its ring.

    Returns:
        semantics (X, Y, Z) uint8 as in `Occupancy`, and log-odds (X, Y, Z) float32.
    """
    if (loops := _loops(backend)) is None:
        return reference.read_out(state, free)
    semantics, values = np.empty(state.log_odds.shape, np.uint8), np.empty(state.log_odds.shape, np.float32)
    loops.read_out(state.log_odds, state.labels, state.start, free, semantics, values)
    return semantics, values


def occupied_voxels(log_odds: np.ndarray, backend: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Find the voxels (X, Y, Z) above 0.

    Returns:
        flat places (M,) int32, ascending, and (M,) bool: one of the voxel's 6 neighbours is not above 0, or missing.
    """
    if (loops := _loops(backend)) is None:
        return reference.occupied_voxels(log_odds)
    index, surface = np.empty(log_odds.size, np.int32), np.empty(log_odds.size, np.bool_)
    count = loops.occupied_voxels(np.ascontiguousarray(log_odds), index, surface)
    return index[:count].copy(), surface[:count].copy()


def sample(
    log_odds: np.ndarray, map_from_frame: np.ndarray, shape: tuple[int, int, int], backend: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Read a map, as `read_out` gives it, at the voxels of another grid; interpolated as in `fuse`.

    Args:
        log_odds: (X, Y, Z) float32.
        map_from_frame: (3, 4) float64, the inverse of `fuse`'s frame_from_map.
        shape: of the other grid.
    Returns:
        log-odds of that shape, 0 where the map's own voxel has 0; and flat places in the map, int64, of the voxel that
        gives the class where the log-odds are above 0.
    """
    if (loops := _loops(backend)) is None:
        return reference.sample(log_odds, map_from_frame, shape)
    values, places = np.empty(shape, np.float32), np.empty(shape, np.int64)
    loops.sample(np.ascontiguousarray(log_odds), np.ascontiguousarray(map_from_frame, np.float64), values, places)
    return values, places


def _loops(backend: str) -> ModuleType | None:
    """The compiled loops; None for the reference."""
    chosen = choose_backend(backend, lambda name: None if name == "cpu" else "is for GPUs, and a map is on the CPU")
    return None if chosen == "reference" else cpu_loops_of(__package__, "keeping a map")
