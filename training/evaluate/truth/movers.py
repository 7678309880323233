"""Moves the points of dynamic classes in a sweep to where their objects are at one moment.

A scan takes a tenth of a second. A car that drives 10 m/s is a metre further at its end, so that its sides are smeared.
The sweeps before and after the scan show the same objects: the velocity at which an object's points of all sweeps fall
upon each other is that of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from .sweeps import Sweep

__all__ = ["moved_to", "velocity"]

_NEAR_S = 0.35  # largest time between two sweeps that show an object as the same
_CELL = 0.4  # metres; points of one object are in cells that touch, as seen from above
_LEAST = 8  # points of an object whose velocity is measured
_POINTS = 300  # points of an object that are compared at most
_FASTEST = 35.0  # m/s
_FINEST = 0.1  # metres between places of an object that are told apart
_GAIN = 0.15  # a velocity counts if this share of the points more falls upon points than where the object stands


def moved_to(moment_ns: int, sweep: Sweep, others: Sequence[Sweep], dynamic: Sequence[int]) -> Sweep:
    """A sweep whose points of dynamic classes are where their objects are at a moment.

    Objects are groups of points that touch as seen from above. An object with few points, or that no other sweep shows,
    stays where it was seen.

    Args:
        moment_ns: the moment.
        sweep: the sweep.
        others: sweeps of the same LiDAR before and after it, in the same fixed frame.
        dynamic: ids of the dynamic classes.
    """
    moves = np.flatnonzero(np.isin(sweep.classes, dynamic))
    shown = [one for one in others if 0 < abs(one.stamp_ns - sweep.stamp_ns) <= _NEAR_S * 1e9]
    if not len(moves) or not shown:
        return sweep
    points, seconds = sweep.points[moves], _seconds(sweep, moment_ns)[moves]
    seen = []
    for one in shown:
        also = np.isin(one.classes, dynamic)
        seen.append(np.column_stack([one.points[also][:, :2], _seconds(one, moment_ns)[also]]))
    moved = sweep.points.copy()
    for rows in _objects(points[:, :2]):
        if len(rows) >= _LEAST:
            speed = velocity(np.column_stack([points[rows, :2], seconds[rows]]), seen)
            moved[moves[rows], :2] -= seconds[rows, None] * speed
    return replace(sweep, points=moved)


def _seconds(sweep: Sweep, moment_ns: int) -> np.ndarray:
    """(N,) seconds from a moment to the time at which each point was seen."""
    after = (sweep.stamp_ns - moment_ns) * 1e-9
    return np.full(len(sweep.points), after) if sweep.times is None else after + sweep.times


def _objects(places: np.ndarray) -> list[np.ndarray]:
    """The rows of places (N, 2), metres, that belong together."""
    cells = np.floor((places - places.min(axis=0)) / _CELL).astype(int)
    image = np.zeros(cells.max(axis=0) + 1, np.uint8)
    image[tuple(cells.T)] = 1
    names = cv2.connectedComponents(image, connectivity=8)[1][tuple(cells.T)]
    order = np.argsort(names, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(names[order])) + 1)


def velocity(points: np.ndarray, sweeps: Sequence[np.ndarray]) -> np.ndarray:
    """The velocity (2,), m/s, at which an object's points fall upon those of other sweeps; 0 if none fits better.

    It is searched in ever finer steps, from all directions.

    Args:
        points: (N, 3) x, y and time of the object's points.
        sweeps: the same of all moving points of other sweeps, (M, 3) each.
    """
    rng = np.random.default_rng(len(points))
    if len(points) > _POINTS:
        points = points[np.sort(rng.choice(len(points), _POINTS, replace=False))]
    middle, time = points[:, :2].mean(axis=0), float(points[:, 2].mean())
    radius = float(np.linalg.norm(points[:, :2] - middle, axis=1).max())
    near = []
    for sweep in sweeps:
        if len(sweep):
            reach = radius + 1 + _FASTEST * np.abs(sweep[:, 2] - time)
            near.append(sweep[np.linalg.norm(sweep[:, :2] - middle, axis=1) < reach])
    near = [one for one in near if len(one)]
    if not near:
        return np.zeros(2)
    apart = max(float(np.abs(np.median(one[:, 2]) - time)) for one in near)
    best, cell = np.zeros(2), 4 * _FINEST
    steps = int(_FASTEST * apart / cell)
    while cell >= _FINEST:
        grid = np.arange(-steps, steps + 1) * (cell / apart)
        offered = best + np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
        offered = offered[np.linalg.norm(offered, axis=1) <= _FASTEST]
        scores = np.array([_met(points, near, one, cell) for one in offered])
        scores -= 1e-3 * np.linalg.norm(offered, axis=1) / _FASTEST  # of equals the slowest
        best = offered[scores.argmax()]
        cell, steps = cell / 2, 2
    still = _met(points, near, np.zeros(2), _FINEST)
    return best if _met(points, near, best, _FINEST) > still + _GAIN else np.zeros(2)


def _met(points: np.ndarray, sweeps: Sequence[np.ndarray], speed: np.ndarray, cell: float) -> float:
    """How many of the points meet points of other sweeps, 0 to 1, if all are moved back by a velocity.

    A point in a cell with points counts 1, one in the next cell 0.6.
    """
    own = points[:, :2] - points[:, 2:] * speed
    low = own.min(axis=0) - 2 * cell
    shape = np.ceil((own.max(axis=0) + 2 * cell - low) / cell).astype(int) + 1
    places = tuple(((own - low) / cell).astype(int).T)
    total = 0.0
    for sweep in sweeps:
        other = np.floor((sweep[:, :2] - sweep[:, 2:] * speed - low) / cell).astype(int)
        other = other[((other >= 0) & (other < shape)).all(axis=1)]
        image = np.ones(shape, np.uint8)
        image[tuple(other.T)] = 0
        far = cv2.distanceTransform(image, cv2.DIST_L2, 3)[places]
        total += float(np.exp(-0.5 * np.minimum(far, 9) ** 2).mean())
    return total / len(sweeps)
