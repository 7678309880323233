"""Whether two recordings' ego poses are in one frame: how far apart lies what both have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from renderocc_model.field.classes import ClassTable
from renderocc_model.field.conversion import GROUND_CLASSES
from training.recordings.spread import evenly_spread

from .sweeps import Sweep, Sweeps

__all__ = ["Offset", "offset_at", "refuse_apart"]

_PLACES = 3  # at which two recordings are compared
_SWEEPS = 8  # of each recording at a place
_RADIUS = 25.0  # metres around a place
_CELL = 0.2  # metres
_FARTHEST = 3.0  # metres that recordings are looked for apart
_LEAST = 200  # cells with obstacles, or columns of ground, that both need
_COLUMN = 1.0  # metres, of the columns whose ground is compared
_CLEAR = 0.85  # share of the best overlap that there is where the poses say, if nothing lies clearly elsewhere
_SAME = 0.2  # least share of obstacles that meet, if it is the same place
_REFUSED, _DOUBTED = 0.4, 0.2  # metres: a voxel, and half of one


@dataclass(frozen=True)
class Offset:
    """How far what another recording has seen lies from what this one has seen.

    Attributes:
        shift: (3,) metres in the fixed frame.
        share: of this recording's cells with obstacles, those that the other one has too, after the shift.
    """

    shift: np.ndarray
    share: float

    @property
    def metres(self) -> float:
        return float(np.linalg.norm(self.shift))


def refuse_apart(ours: Sweeps, theirs: Sweeps, classes: ClassTable) -> list[str]:
    """Compare what two recordings have seen at a few places that both passed. Returns warnings.

    Raises:
        ValueError: it lies more than a voxel apart, or is not the same place.
    """
    one, other = ours.recording.path, theirs.recording.path
    far = [(theirs.distance(place), place) for place in ours.places()]
    nearest = min((metres for metres, _ in far), default=np.inf)
    # Places that both saw from nearly the same point say most.
    within = next((ours.reach / part for part in (8, 4, 2) if nearest < ours.reach / part), ours.reach)
    found = []
    for place in evenly_spread([place for metres, place in far if metres < within], _PLACES):
        offset = offset_at(place, ours.nearest(place, _SWEEPS), theirs.nearest(place, _SWEEPS), classes)
        found += [] if offset is None else [offset]
    if not found:
        return [f"{one} and {other}: what both saw is too little to tell whether their ego poses are in one frame"]
    remedy = "localise both in one map, or leave one of them out of --join"
    if np.median([offset.share for offset in found]) < _SAME:
        share = 100 * float(np.median([offset.share for offset in found]))
        raise ValueError(
            f"{one} and {other}: only {share:.0f} % of the obstacles that one has seen are where the other has some; "
            f"their ego poses are not in one frame; {remedy}"
        )
    middle = sorted(found, key=lambda offset: offset.metres)[len(found) // 2]
    if middle.metres > _REFUSED:
        raise ValueError(f"{one} and {other}: what both saw lies {_text(middle)} apart; {remedy}")
    worst = max(found, key=lambda offset: offset.metres)
    if worst.metres > _DOUBTED:
        return [f"{one} and {other}: what both saw lies up to {_text(worst)} apart; surfaces become thicker by that"]
    return []


def _text(offset: Offset) -> str:
    x, y, z = offset.shift
    return f"{offset.metres:.2f} m (x {x:+.2f}, y {y:+.2f}, z {z:+.2f} m)"


def offset_at(place: np.ndarray, ours: Sequence[Sweep], theirs: Sequence[Sweep], classes: ClassTable) -> Offset | None:
    """How far what other sweeps have seen lies from what some have seen; None if there is too little to compare.

    Seen from above, obstacles that do not move are shifted over each other until most of them meet. Where no shift is
    clearly better than none, as along a wall, there is none. Heights are those of the ground.

    Args:
        place: (3,) in the fixed frame, what is around it counts.
        ours, theirs: sweeps in the fixed frame.
        classes: of their points.
    """
    is_ground, is_obstacle = np.zeros(256, bool), np.zeros(256, bool)
    is_ground[[classes.id_of(name) for name in _ground_names(classes)]] = True
    is_obstacle[list(classes.occupied_ids)] = True
    is_obstacle[list(classes.dynamic)] = False
    is_obstacle &= ~is_ground
    (mine, my_ground), (other, other_ground) = (_around(place, part, is_obstacle, is_ground) for part in (ours, theirs))
    image, target = _image(mine), _image(other)
    if min(np.count_nonzero(image), np.count_nonzero(target)) < _LEAST:
        return None
    far = cv2.distanceTransform((~target).astype(np.uint8), cv2.DIST_L2, 3)
    meets = np.exp(-0.5 * np.square(far))  # 1 in the same cell, 0.6 in the next
    steps = round(_FARTHEST / _CELL)
    rows, columns = np.nonzero(image)
    kept = (np.minimum(rows, columns) >= steps) & (np.maximum(rows, columns) < image.shape[0] - steps)
    rows, columns = rows[kept], columns[kept]
    overlap = np.array(
        [[meets[rows + x, columns + y].mean() for y in range(-steps, steps + 1)] for x in range(-steps, steps + 1)]
    )
    row, column = divmod(int(overlap.argmax()), overlap.shape[1])
    best = row, column
    clear = overlap[steps, steps] < _CLEAR * overlap[best]
    shift = (_peak(overlap, best) - steps) * _CELL if clear else np.zeros(2)
    return Offset(np.append(shift, _height_apart(my_ground, other_ground)), float(overlap[best]))


def _peak(values: np.ndarray, best: tuple[int, int]) -> np.ndarray:
    """(2,) where values (N, N) are largest, between the cells: the top of the parabola through three on each axis."""
    peak = np.array(best, float)
    for axis, line in enumerate((values[:, best[1]], values[best[0]])):
        at = best[axis]
        if 0 < at < len(line) - 1:
            before, middle, after = line[at - 1 : at + 2]
            bend = before - 2 * middle + after
            peak[axis] += 0.5 * (before - after) / bend if bend < 0 else 0.0
    return peak


def _ground_names(classes: ClassTable) -> set[str]:
    """Names that ground has in any built-in table."""
    return {name for names in GROUND_CLASSES.values() for name in names} & set(classes.names)


def _around(
    place: np.ndarray, sweeps: Sequence[Sweep], is_obstacle: np.ndarray, is_ground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The obstacles' points (N, 3) and the ground's (M, 3) around a place, relative to it."""
    points = np.concatenate([sweep.points for sweep in sweeps]) - place
    names = np.concatenate([sweep.classes for sweep in sweeps])
    near = np.abs(points[:, :2]).max(axis=1) < _RADIUS
    return points[near & is_obstacle[names]], points[near & is_ground[names]]


def _image(points: np.ndarray) -> np.ndarray:
    """(S, S) bool, the cells around a place that hold points, as seen from above."""
    side = round(2 * _RADIUS / _CELL)
    image = np.zeros((side, side), bool)
    cells = np.floor((points[:, :2] + _RADIUS) / _CELL).astype(int)
    image[tuple(np.clip(cells, 0, side - 1).T)] = True
    return image


def _height_apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The median difference of the ground's heights where both have seen it; 0 if that is hardly anywhere."""
    side = round(2 * _RADIUS / _COLUMN)
    heights = []
    for points in (ours, theirs):
        cells = np.clip(np.floor((points[:, :2] + _RADIUS) / _COLUMN).astype(int), 0, side - 1)
        place = np.ravel_multi_index(tuple(cells.T), (side, side))
        count = np.bincount(place, minlength=side * side)
        total = np.bincount(place, points[:, 2], minlength=side * side)
        heights.append(np.divide(total, count, out=np.full(side * side, np.nan), where=count > 0))
    apart = heights[1] - heights[0]
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) if len(apart) >= _LEAST else 0.0
