"""Accumulates sweeps into the voxels around the vehicle at one moment: occupied with a class, free, or unobserved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import GROUND_OBSTACLE, UNLABELLED, ClassTable
from renderocc_model.field.conversion import converted_ids
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import transform_points
from training.data.traversal_loops import walk

from .sweeps import Sweep

__all__ = ["Accumulated", "accumulate", "covered", "filled_ground", "fullest", "mark_cells"]

_PASSES = 2  # an obstacle's voxel that more than this many times as many sweeps pass as hit has been left: it is free
_STANDING_PASSES = 3  # the same for obstacles that stand still: such a voxel holds only an edge or a part of a surface
_MOVER_WEIGHT = 4  # of a moving object's returns, where those of the ground in the same voxel have 1
_HOLE = 5  # voxels from a column without ground to ground on both of its sides
_SIDE = 4  # a face of a voxel has so many cells on each side, to measure how much of it a surface covers
_SHADOW = 4.0  # metres behind a moving object's near side that it may fill


@dataclass(frozen=True, eq=False)
class Accumulated:
    """Both (X, Y, Z): class ids uint8, `free` also where nothing was observed, and which voxels were observed, bool."""

    semantics: np.ndarray
    observed: np.ndarray


def accumulate(
    grid: VoxelGrid, classes: ClassTable, base_from_odom: np.ndarray, own: list[Sweep], others: Iterable[Sweep]
) -> Accumulated:
    """The volume at one moment.

    Standing surfaces come from all sweeps, dynamic classes from the moment's own alone. The rays of all sweeps carve:
    points of classes that may move (`obstacle`), and points without a class, stay only where at most twice as many
    sweeps pass as hit, other obstacles where at most three times as many do. A surface is one voxel thick along the
    axis that it mostly faces.

    Args:
        grid: in base_link of the moment.
        classes: the table of the points' classes.
        base_from_odom: (4, 4) at the moment.
        own: the sweeps of the moment itself.
        others: sweeps of other moments; those of `own` among them are left out. A sweep whose sensor is outside of the
            grid is not used.
    """
    marks = _Marks(grid, classes)
    done = {(sweep.source, sweep.stamp_ns) for sweep in own}
    for sweep in own:
        marks.add(sweep, base_from_odom, own=True)
    for sweep in others:
        if (sweep.source, sweep.stamp_ns) not in done:
            marks.add(sweep, base_from_odom, own=False)
    return marks.volume()


class _Marks:
    """Counts of returns and passes by voxel."""

    def __init__(self, grid: VoxelGrid, classes: ClassTable) -> None:
        self.grid, self.classes = grid, classes
        self.rows = len(classes) + 1  # the last row: points without a class
        self.votes = np.zeros((self.rows, grid.size), np.int32)  # of standing surfaces
        self.movers = np.zeros((self.rows, grid.size), np.int32)  # the moment's own points of dynamic classes
        self.near = np.zeros(grid.size, np.int32)  # the moment's own points of standing classes
        self.hit, self.passed = np.zeros(grid.size, np.int32), np.zeros(grid.size, np.int32)
        self.own, self.shadow = np.zeros(grid.size, bool), np.zeros(grid.size, bool)
        # Sums of 1, x, y, z, xx, yy, zz, xy, xz, yz of the points in `votes` and of those in `movers`.
        self.moments, self.moving_moments = np.zeros((10, grid.size)), np.zeros((10, grid.size))
        # Bits of the cells of a face that points fall into, as seen along x, y and z.
        self.cells, self.moving_cells = (np.zeros((3, grid.size), np.uint16) for _ in range(2))

    def add(self, sweep: Sweep, base_from_odom: np.ndarray, own: bool) -> None:
        """Count one sweep."""
        grid = self.grid
        origin = (transform_points(base_from_odom, sweep.origin[None])[0] - grid.lower) / grid.voxel_size
        if ((origin < 0) | (origin >= grid.shape)).any():
            return
        ends = (transform_points(base_from_odom, sweep.points) - grid.lower) / grid.voxel_size
        rays = ends - origin
        far = np.linalg.norm(rays, axis=1)
        kept = far > 0
        ends, far, names = ends[kept], far[kept], np.minimum(sweep.classes[kept], self.rows - 1).astype(np.int64)
        rays = rays[kept] / far[:, None]
        passed = self._walked(np.broadcast_to(origin, rays.shape), rays, far)
        inside = ((ends >= 0) & (ends < grid.shape)).all(axis=1)
        place = np.zeros(len(ends), np.int64)
        place[inside] = np.ravel_multi_index(tuple(ends[inside].astype(int).T), grid.shape)
        moves = np.isin(names, self.classes.dynamic)
        standing, moving = inside & ~moves, inside & moves
        np.add.at(self.votes, (names[standing], place[standing]), 1)
        hit = np.zeros(grid.size, bool)
        hit[place[standing]] = True
        if own:
            np.add.at(self.movers, (names[moving], place[moving]), 1)
            np.add.at(self.near, place[standing], 1)
            self.own |= passed | hit
            self.own[place[moving]] = True
            behind = np.full(np.count_nonzero(moving), _SHADOW / grid.voxel_size)
            self.shadow |= self._walked(ends[moving], rays[moving], behind)
            self._add_moments(self.moving_moments, ends[moving], place[moving])
            mark_cells(self.moving_cells, ends[moving], place[moving])
        self.hit += hit
        self.passed += passed & ~hit
        self._add_moments(self.moments, ends[standing], place[standing])
        mark_cells(self.cells, ends[standing], place[standing])

    def _walked(self, origins: np.ndarray, rays: np.ndarray, far: np.ndarray) -> np.ndarray:
        """(voxels,) bool, those that rays pass before their ends."""
        votes, passed = np.zeros((1, self.grid.size), np.uint16), np.zeros(self.grid.size, bool)
        names = np.zeros(len(rays), np.int64)
        walk(self.grid.shape, np.ascontiguousarray(origins), np.ascontiguousarray(rays), far, names, votes, passed)
        return passed

    def _add_moments(self, moments: np.ndarray, ends: np.ndarray, place: np.ndarray) -> None:
        x, y, z = (ends - np.array(self.grid.shape) / 2).T
        for row, weights in enumerate((None, x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)):
            moments[row] += np.bincount(place, weights, minlength=self.grid.size)

    def _fullest(self, moments: np.ndarray, cells: np.ndarray, occupied: np.ndarray) -> np.ndarray:
        shape = self.grid.shape
        faces = covered(cells).reshape(3, *shape)
        return fullest(moments.reshape(10, *shape), faces, occupied.reshape(shape)).ravel()

    def volume(self) -> Accumulated:
        """The volume of what was counted."""
        shape, free = self.grid.shape, self.classes.free
        winner = self.votes.argmax(axis=0)
        standing = self.hit > 0
        ground = np.append(converted_ids(self.classes, GROUND_OBSTACLE)[: self.rows - 1] == 0, False)
        nameless = np.arange(self.rows) == self.rows - 1
        movable = nameless.copy()
        movable[list(self.classes.may_move)] = True
        standing &= ~(movable[winner] & (self.passed > _PASSES * self.hit))
        standing &= ~(~ground[winner] & (self.passed > _STANDING_PASSES * self.hit))
        standing &= self._fullest(self.moments, self.cells, standing)
        winner[winner == self.rows - 1] = UNLABELLED
        semantics = np.where(standing, winner, free).astype(np.uint8)
        is_ground = np.zeros(256, bool)
        is_ground[: self.rows] = ground
        filled = filled_ground(semantics.reshape(shape), is_ground, free).ravel()
        semantics = np.where(self.passed > 0, filled, semantics)
        moving = _MOVER_WEIGHT * self.movers.sum(axis=0) > self.near
        moving &= self._fullest(self.moving_moments, self.moving_cells, moving)
        semantics[moving] = self.movers[:, moving].argmax(axis=0)
        observed = (self.hit > 0) | (self.passed > 0) | self.own
        observed &= ~(self.shadow & ~self.own & (semantics == free))
        semantics[~observed] = free
        return Accumulated(semantics.reshape(shape), observed.reshape(shape))


def mark_cells(cells: np.ndarray, points: np.ndarray, place: np.ndarray) -> None:
    """Set the bits of the cells of voxel faces that points fall into.

    Args:
        cells: (3, voxels) uint16, one bit for each of the 4 x 4 cells of a face as seen along x, y and z; is changed.
        points: (N, 3) in voxels.
        place: (N,) flat number of the voxel of each.
    """
    inside = points - np.floor(points)
    column = np.minimum((inside * _SIDE).astype(np.uint16), _SIDE - 1)
    for axis in range(3):
        row, other = (column[:, index] for index in range(3) if index != axis)
        np.bitwise_or.at(cells[axis], place, np.left_shift(1, row * _SIDE + other, dtype=np.uint16))


def covered(cells: np.ndarray) -> np.ndarray:
    """How many cells of each face have a bit that is set: uint8 in 0..16, in the shape of `cells` (uint16)."""
    count = np.zeros(cells.shape, np.uint8)
    for bit in range(_SIDE * _SIDE):
        count += (cells >> bit & 1).astype(np.uint8)
    return count


def fullest(moments: np.ndarray, faces: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """The voxels that have the larger part of a surface, so that it is one voxel thick.

    The plane through the points of a voxel and its 26 neighbours tells which axis the surface mostly faces. A voxel is
    left out if, as seen along this axis, points cover more of the face of one of its two neighbours on it. Covered
    cells are counted, not points, because a near surface has many points and a far one few.

    Args:
        moments: (10, X, Y, Z) sums over the points in each voxel: 1, x, y, z, xx, yy, zz, xy, xz, yz, in voxels.
        faces: (3, X, Y, Z) how much of its faces is covered, as seen along x, y and z.
        occupied: (X, Y, Z) bool, the voxels in question.
    Returns:
        (X, Y, Z) bool, part of `occupied`.
    """
    facing = np.pad(_facing(moments, occupied), 1, constant_values=-1)
    kept = np.pad(occupied, 1)
    for axis in range(3):
        area = np.pad(np.where(occupied, faces[axis], 0), 1)
        for step in (1, -1):
            kept &= ~((facing == axis) & (np.roll(area, step, axis) > area))
    return kept[1:-1, 1:-1, 1:-1]


def _facing(moments: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """(X, Y, Z) the axis that the surface in each occupied voxel mostly faces: 0, 1 or 2; -1 in the others."""
    around = np.pad(moments, ((0, 0), (1, 1), (1, 1), (1, 1)))
    for axis in (1, 2, 3):
        around = around + np.roll(around, 1, axis) + np.roll(around, -1, axis)
    n, x, y, z, xx, yy, zz, xy, xz, yz = around[:, 1:-1, 1:-1, 1:-1][:, occupied]
    x, y, z = x / n, y / n, z / n
    spread = np.stack(
        [
            np.stack([xx / n - x * x, xy / n - x * y, xz / n - x * z], -1),
            np.stack([xy / n - x * y, yy / n - y * y, yz / n - y * z], -1),
            np.stack([xz / n - x * z, yz / n - y * z, zz / n - z * z], -1),
        ],
        -2,
    )
    facing = np.full(occupied.shape, -1)
    facing[occupied] = np.abs(np.linalg.eigh(spread)[1][..., 0]).argmax(-1)
    return facing


def filled_ground(semantics: np.ndarray, is_ground: np.ndarray, free: int) -> np.ndarray:
    """A volume whose ground has no small holes.

    Between the rings of a LiDAR there are columns of voxels without a return of the ground, which rays pass at a
    grazing angle. Such a column gets ground if there is some on opposite sides of it, up to 5 voxels off along x or y,
    at heights that differ by one voxel at most. It has the mean height, and the class of the nearer side.

    Args:
        semantics: (X, Y, Z) uint8.
        is_ground: (256,) bool by class id.
        free: only voxels of this id are filled.
    """
    filled, ground = semantics.copy(), is_ground[semantics]
    height = np.where(ground.any(axis=2), ground.argmax(axis=2), -1)
    name = np.take_along_axis(semantics, np.maximum(height, 0)[..., None], axis=2)[..., 0]
    empty = height < 0
    for low, high in sorted(np.ndindex(_HOLE, _HOLE), key=sum):
        for axis in (0, 1):
            one, other = _beside(height, low + 1, axis), _beside(height, -high - 1, axis)
            fits = empty & (one >= 0) & (other >= 0) & (np.abs(one - other) <= 1)
            nearer = np.where(low <= high, _beside(name, low + 1, axis), _beside(name, -high - 1, axis))
            x, y = np.nonzero(fits)
            z = (one + other)[x, y] // 2
            into = filled[x, y, z] == free
            filled[x[into], y[into], z[into]] = nearer[x[into], y[into]]
            empty &= ~fits
    return filled


def _beside(image: np.ndarray, step: int, axis: int) -> np.ndarray:
    """What is `step` places before each place of an (X, Y) image along an axis; -1 (255 of uint8) beyond its edge."""
    moved = np.roll(image, step, axis)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(0, step) if step > 0 else slice(step, None)
    moved[tuple(edge)] = -1 if image.dtype != np.uint8 else UNLABELLED
    return moved
