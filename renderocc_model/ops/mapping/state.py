"""The arrays of a map, and the numbers that rule how frames change them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...field.classes import UNLABELLED, ClassTable

__all__ = ["ClassRoles", "FusionLimits", "MapState"]


@dataclass(frozen=True, eq=False)
class MapState:
    """A map in a ring: scrolling moves its corner and clears what is left behind, and moves nothing in memory.

    Voxel (x, y, z) of the map, counted from its lower corner, lies in the arrays at (start + (x, y, z)) modulo their
    shape.

    Attributes:
        log_odds: (X, Y, Z) float32, log(p / (1 - p)) of being occupied; exactly 0 where nothing is known.
        votes: (X, Y, Z, C) uint8, frames that gave the voxel each of the C classes other than free.
        labels: (X, Y, Z) uint8, id of the class with the most votes; it counts where log_odds is above 0.
        seen: (X, Y, Z) int32, time at which the voxel was last seen occupied, milliseconds.
        start: (3,) int64, place of the map's first voxel, within the shape.
    """

    log_odds: np.ndarray
    votes: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    start: np.ndarray

    @staticmethod
    def empty(shape: tuple[int, int, int], classes: int) -> MapState:
        """A map in which nothing is known, for this number of classes other than free."""
        return MapState(
            np.zeros(shape, np.float32),
            np.zeros((*shape, classes), np.uint8),
            np.full(shape, UNLABELLED, np.uint8),
            np.zeros(shape, np.int32),
            np.zeros(3, np.int64),
        )


@dataclass(frozen=True)
class FusionLimits:
    """Attributes:
    lowest: least log-odds of a voxel, below 0.
    highest: most log-odds of a voxel, above 0.
    dynamic_highest: most log-odds of a voxel whose class moves or may move, above 0.
    dynamic_frames: votes for such a class with which a voxel may reach dynamic_highest; with fewer, its limit is as
        much lower. From 1 to half of `votes`.
    memory: share of its log-odds that a voxel keeps when a frame sees it again, 0 to 1.
    votes: number of a class's votes at which all votes of the voxel are halved, 2 to 255.
    """

    lowest: float
    highest: float
    dynamic_highest: float
    memory: float = 1.0
    dynamic_frames: int = 1
    votes: int = 32

    def numbers(self) -> np.ndarray:
        """(5,) float32: lowest, highest, dynamic_highest, memory, dynamic_frames."""
        numbers = [self.lowest, self.highest, self.dynamic_highest, self.memory, self.dynamic_frames]
        return np.array(numbers, np.float32)


@dataclass(frozen=True, eq=False)
class ClassRoles:
    """What the loops need to know of a class table.

    Attributes:
        free: id of the class free.
        dynamic: (256,) bool, ids of classes that move.
        movable: (256,) bool, ids of classes that move or may move.
        channels: (256,) uint8, the place of each id other than free among the votes.
    """

    free: int
    dynamic: np.ndarray
    movable: np.ndarray
    channels: np.ndarray

    @staticmethod
    def of(classes: ClassTable) -> ClassRoles:
        dynamic, channels = np.zeros(256, np.bool_), np.zeros(256, np.uint8)
        dynamic[list(classes.dynamic)] = True
        movable = dynamic.copy()
        movable[list(classes.may_move)] = True
        channels[list(classes.occupied_ids)] = np.arange(len(classes.occupied_ids))
        return ClassRoles(classes.free, dynamic, movable, channels)
