"""Finds the ground below the vehicle: its height and tilt in base_link, from points around the vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["GroundError", "Level", "find_level", "fit_plane", "level_of", "level_of_planes"]

_NEAR, _FAR = 1.5, 15.0  # metres from the vehicle: nearer is the vehicle itself, farther the ground bends
_CELL = 1.0  # metres; the lowest point of each cell stands for it
_TRIALS = 300
_STEEPEST = np.cos(np.radians(25.0))  # of the angle between base_link's z and the ground's normal
_THICK = 0.15  # metres from the plane within which a point lies on it
_LEAST_CELLS = 8  # cells that a plane needs
_ON_GROUND = 0.15  # metres between base_link and the ground up to which base_link counts as on the ground
_UNSTEADY = 0.3  # metres of spread of the height between moments, above which it is worth a warning


class GroundError(ValueError):
    """There is no ground in the points. The text says what was looked for."""


@dataclass(frozen=True, eq=False)
class Level:
    """The ground around the vehicle.

    Attributes:
        level_from_base: (4, 4). In the level frame z is the height above the ground, and z = 0 is the ground below
            base_link's origin. The axes are base_link's, turned by the ground's tilt.
        height: metres of base_link's origin above the ground.
        tilt: radians between base_link's z axis and the ground's normal.
        spread: metres, half of the range that holds the middle 80 % of the heights at different moments.
        moments: number of moments that the ground was found at.
    """

    level_from_base: np.ndarray
    height: float
    tilt: float
    spread: float
    moments: int

    @property
    def plane(self) -> np.ndarray:
        """(4,) unit normal and offset of the ground in base_link, as `fit_plane` gives them."""
        return self.level_from_base[2]

    def text(self, base_frame: str) -> str:
        """One line for people: where the ground is, and what is odd about it."""
        where = "above" if self.height > -0.005 else "below"
        line = (
            f"{base_frame} is {abs(self.height):.2f} m {where} the ground (from {self.moments} moments, spread "
            f"{self.spread:.2f} m), which is tilted by {np.degrees(self.tilt):.1f} degrees"
        )
        if abs(self.height) > _ON_GROUND:
            line += f"; '{base_frame}' is not on the ground, so heights are measured from the ground that was found"
        if self.spread > _UNSTEADY:
            line += "; the height is unsteady: hills, or few points of the ground"
        return line


def fit_plane(points: np.ndarray, near: float = _NEAR, far: float = _FAR) -> np.ndarray | None:
    """The ground plane in points around the vehicle, by RANSAC over the lowest points of cells, then least squares.

    A plane is scored by the cells whose lowest point lies on it, less twice those whose lowest point is below it,
    because nothing is below the ground.

    Args:
        points: (N, 3), metres, in a frame whose z axis points up, within 25 degrees.
        near, far: horizontal distances from the origin, metres, between which points are used.
    Returns:
        (4,) unit normal (pointing up) and offset d with n . p + d = 0, or None if the points hold no such plane.
    """
    distance = np.hypot(points[:, 0], points[:, 1])
    points = points[(distance > near) & (distance < far)]
    lowest = _lowest_of_cells(points)
    if len(lowest) < _LEAST_CELLS:
        return None
    generator = np.random.default_rng(0)
    corners = lowest[np.stack([generator.permutation(len(lowest))[:3] for _ in range(_TRIALS)])]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    good = lengths > 1e-6
    normals = normals[good] / lengths[good, None]
    normals *= np.where(normals[:, 2:] < 0, -1.0, 1.0)
    offsets = -(normals * corners[good, 0]).sum(axis=1)
    level = normals[:, 2] > _STEEPEST
    if not level.any():
        return None
    normals, offsets = normals[level], offsets[level]
    heights = normals @ lowest.T + offsets[:, None]
    scores = (np.abs(heights) < _THICK).sum(axis=1) - 2 * (heights < -2 * _THICK).sum(axis=1)
    best = int(scores.argmax())
    plane = np.append(normals[best], offsets[best])
    for thick in (_THICK, _THICK / 2):
        on = points[np.abs(points @ plane[:3] + plane[3]) < thick]
        if len(on) < _LEAST_CELLS:
            return None
        plane = _least_squares(on)
    on_plane = np.abs(lowest @ plane[:3] + plane[3]) < _THICK
    return plane if np.count_nonzero(on_plane) >= _LEAST_CELLS and plane[2] > _STEEPEST else None


def _lowest_of_cells(points: np.ndarray) -> np.ndarray:
    cells = np.floor(points[:, :2] / _CELL).astype(np.int64)
    order = np.lexsort((points[:, 2], cells[:, 1], cells[:, 0]))
    cells = cells[order]
    first = np.ones(len(cells), bool)
    first[1:] = (cells[1:] != cells[:-1]).any(axis=1)
    return points[order[first]]


def _least_squares(points: np.ndarray) -> np.ndarray:
    centre = points.mean(axis=0)
    normal = np.linalg.svd(points - centre, full_matrices=False)[2][2]
    normal = normal if normal[2] > 0 else -normal
    return np.append(normal, -normal @ centre)


def level_of(plane: np.ndarray) -> np.ndarray:
    """level_from_base (4, 4) of a plane (4,): the shortest turn that brings its normal up, and z = 0 on the plane."""
    normal = plane[:3]
    axis = np.cross(normal, (0.0, 0.0, 1.0))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    level = np.eye(4)
    level[:3, :3] = np.eye(3) + cross + cross @ cross / (1 + normal[2])
    level[2, 3] = plane[3]
    return level


def find_level(clouds: Sequence[np.ndarray], what: str = "the clouds") -> Level:
    """The ground around the vehicle, from the points at several moments; see `level_of_planes`.

    Args:
        clouds: (N, 3) points in base_link at each moment, metres.
        what: what the points come from, for error texts.
    Raises:
        GroundError: there is no ground at any moment.
    """
    planes = [plane for plane in map(fit_plane, clouds) if plane is not None]
    return level_of_planes(planes, what, sum(map(len, clouds)), len(clouds))


def level_of_planes(found: Sequence[np.ndarray], what: str, points: int, moments: int) -> Level:
    """The ground below the vehicle, from the planes at several moments.

    The height is the median over the moments, and the normal their mean, so that a single odd moment does not count.

    Args:
        found: (4,) planes in base_link.
        what: what they come from, for error texts.
        points, moments: number of points and of moments that were looked at, for error texts.
    Raises:
        GroundError: there is no plane.
    """
    if not len(found):
        raise GroundError(
            f"no ground in {what}: among {points} points of {moments} moments there is no plane within 25 degrees of "
            f"level, {_NEAR:g} to {_FAR:g} m from the vehicle; is z of the base frame up, and are there points on the "
            "ground?"
        )
    planes = np.array(found)
    normal = planes[:, :3].mean(axis=0)
    normal /= np.linalg.norm(normal)
    heights = planes[:, 3] / planes[:, 2]  # of base_link's origin, along its own z axis
    low, height, high = np.quantile(heights, (0.1, 0.5, 0.9))
    level = level_of(np.append(normal, height * normal[2]))
    tilt = float(np.arccos(min(normal[2], 1.0)))
    return Level(level, float(height), tilt, float(high - low) / 2, len(planes))
