"""RayIoU (SparseOcc, Liu et al., ECCV 2024): compares the first surfaces that rays meet, by class and distance.

Rays start at positions of the recording's LiDAR, in the directions of a spinning LiDAR. In truth and prediction, the
first voxel on a ray that is not free gives the ray's class, and the distance at which the ray *leaves* that voxel is
its distance. A ray does not count if the truth is free all along it. TP_c(d) is the number of rays whose classes are
both c and whose distances differ by less than d. Over all rays of all frames,

    IoU_c(d) = TP_c(d) / (N_truth_c + N_prediction_c - TP_c(d))

RayIoU is the mean over the classes other than free and over d = 1, 2, 4 m, without values that do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.grid import VoxelGrid

from ..data.traversal import cell_indices, checked_rays, entry, padded
from .confusion import known_ids, mean_of_known

__all__ = [
    "DEFAULT_ORIGIN",
    "THRESHOLDS",
    "RayIoU",
    "cast_frame",
    "first_hits",
    "lidar_directions",
    "select_origins",
]

THRESHOLDS = (1.0, 2.0, 4.0)  # metres
DEFAULT_ORIGIN = (0.0, 0.0, 1.84)  # the height of nuScenes' LiDAR above the road
MOST_ORIGINS = 8
MARGIN = 1.0  # metres; origins nearer to the sides of the grid are not used: 39 m of Occ3D's 40 m
_HIGHEST_PITCH = 0.21  # radians; nuScenes' LiDAR sees up to 0.2108


@cache
def lidar_directions() -> np.ndarray:
    """Unit vectors of 39 pitches times 360 azimuths, one degree apart, (14040, 3) float64; the azimuth varies fastest.

    Pitches are -(pi/2 - atan(k + 1)) for k = 0..9, whose rays meet the ground in equal steps. Then the last increment
    is repeated until 0.21 rad is reached.
    """
    pitches = [-(math.pi / 2 - math.atan(k + 1)) for k in range(10)]
    while pitches[-1] < _HIGHEST_PITCH:
        pitches.append(pitches[-1] + (pitches[-1] - pitches[-2]))
    pitch = np.array(pitches)[:, None]
    azimuth = np.deg2rad(np.arange(360.0))[None]
    x, y = np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth)
    directions = np.stack([x, y, np.broadcast_to(np.sin(pitch), x.shape)], axis=-1).reshape(-1, 3)
    directions.setflags(write=False)
    return directions


def select_origins(origins: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Select origins that are more than 1 m from the grid's sides; if there are more than 8, 8 of them, spread evenly.

    Args:
        origins: (N, 3) metres in the grid's frame, in the order of the recording.
        grid: the grid.
    Returns:
        (M, 3), M <= 8; M is 0 if no origin is in the grid.
    Raises:
        ValueError: the shape is not (N, 3), or a number is not finite.
    """
    origins = np.asarray(origins, np.float64)
    if origins.ndim != 2 or origins.shape[1] != 3 or not np.isfinite(origins).all():
        raise ValueError(f"origins have shape {origins.shape} or are not finite; expected [x, y, z] in metres for each")
    low, high = np.array(grid.lower[:2]) + MARGIN, np.array(grid.upper[:2]) - MARGIN
    origins = origins[((origins[:, :2] > low) & (origins[:, :2] < high)).all(axis=1)]
    if len(origins) > MOST_ORIGINS:
        origins = origins[np.round(np.linspace(0, len(origins) - 1, MOST_ORIGINS)).astype(int)]
    return origins


def first_hits(
    volumes: tuple[np.ndarray, ...], grid: VoxelGrid, origins: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find the first set voxel on each ray, in up to eight volumes at once.

    Args:
        grid: grid of the volumes.
        volumes: K volumes (X, Y, Z) bool.
        origins, directions: (R, 3).
    Returns:
        indices (K, R) int64 into the flattened volumes, -1 if a ray meets no set voxel; and distances (K, R) in metres
        at which the ray leaves that voxel, or the grid if there is none.
    """
    from ..data.traversal_loops import cast

    origins, directions = checked_rays(origins, directions)
    places = (origins - grid.lower) / grid.voxel_size
    near, far, first = entry(np.array(grid.shape, np.float64)[:, None], places.T, directions.T)
    codes = padded(sum((volume.astype(np.uint8) << bit for bit, volume in enumerate(volumes)), np.zeros((), np.uint8)))
    starts = np.where(far >= 0, first, -1).T.astype(np.int64)
    cells = np.full((len(volumes), len(origins)), -1, np.int64)
    lengths = np.tile(np.maximum(far, 0), (len(volumes), 1))
    cast(codes, (1 << len(volumes)) - 1, grid.shape, places, directions, np.ascontiguousarray(starts), cells, lengths)
    found = cells >= 0
    cells[found] = cell_indices(cells[found], grid.shape)
    return cells, lengths * grid.voxel_size


def cast_frame(
    scores: Sequence[RayIoU],
    predictions: Sequence[np.ndarray],
    truth: np.ndarray,
    grid: VoxelGrid,
    origins: np.ndarray,
) -> None:
    """Cast the rays of one frame, for several predictions at once.

    Args:
        scores: for each prediction, the object that receives its counts.
        predictions: at most seven volumes (X, Y, Z) of class ids; 255 (unknown) counts as free.
        truth: (X, Y, Z) class ids. A voxel whose id is not in the table ends a ray, and that ray does not count.
        grid: grid of all volumes.
        origins: (N, 3) metres, selected already.
    Raises:
        ValueError: a shape is not the grid's, or a predicted id is not a class.
    """
    for name, volume in (*(("prediction", one) for one in predictions), ("truth", truth)):
        if volume.shape != grid.shape:
            raise ValueError(f"{name} has shape {volume.shape}, its grid {grid.shape}; give the grid they are of")
    classes = scores[0].classes
    predictions = [known_ids(prediction, classes) for prediction in predictions]
    directions = lidar_directions()
    starts = np.repeat(np.asarray(origins, np.float64).reshape(-1, 3), len(directions), axis=0)
    everywhere = np.tile(directions, (len(origins), 1))
    occupied = tuple(volume != classes.free for volume in (truth, *predictions))
    cells, distances = first_hits(occupied, grid, starts, everywhere)
    met = np.flatnonzero(cells[0] >= 0)
    wanted = truth.ravel()[cells[0][met]]
    known = (wanted >= 0) & (wanted < len(classes))
    met, wanted = met[known], wanted[known].astype(np.int64)
    for score, prediction, where, distance in zip(scores, predictions, cells[1:], distances[1:]):
        found = np.where(where[met] >= 0, prediction.ravel()[where[met]], classes.free)
        score.add(found, wanted, np.stack([distances[0][met], distance[met]]))
        score.origins += len(origins)


class RayIoU:
    """Counts of rays, over any number of frames.

    Attributes:
        classes: the class table.
        truth, prediction: (C,) int64, rays that count, by their class in truth and prediction.
        hits: (3, C) int64, TP by threshold and class.
        rays, origins: number of rays that count, and of their origins.
    """

    def __init__(self, classes: ClassTable) -> None:
        self.classes = classes
        self.truth, self.prediction = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
        self.hits = np.zeros((len(THRESHOLDS), len(classes)), np.int64)
        self.rays = self.origins = 0

    def add_volumes(self, prediction: np.ndarray, truth: np.ndarray, grid: VoxelGrid, origins: np.ndarray) -> None:
        """Cast the rays of one frame; see `cast_frame`."""
        cast_frame([self], [prediction], truth, grid, origins)

    def add(self, prediction: np.ndarray, truth: np.ndarray, distances: np.ndarray) -> None:
        """Count rays, by their classes (R,) and their distances (2, R) in metres, in truth and prediction."""
        count, error = len(self.classes), np.abs(distances[0] - distances[1])
        self.truth += np.bincount(truth, minlength=count)
        self.prediction += np.bincount(prediction, minlength=count)
        for row, threshold in enumerate(THRESHOLDS):
            self.hits[row] += np.bincount(truth[(truth == prediction) & (error < threshold)], minlength=count)
        self.rays += len(truth)

    def merge(self, other: RayIoU) -> None:
        """Add the counts of another object."""
        self.truth += other.truth
        self.prediction += other.prediction
        self.hits += other.hits
        self.rays, self.origins = self.rays + other.rays, self.origins + other.origins

    def iou(self) -> np.ndarray:
        """IoU by threshold and class, (3, C) float64; NaN for free, and for a class that no ray meets."""
        union = self.truth + self.prediction - self.hits
        ratios = np.divide(self.hits, union, out=np.full(union.shape, np.nan), where=union > 0)
        ratios[:, self.classes.free] = np.nan
        return ratios

    def at_thresholds(self) -> list[float]:
        """RayIoU at 1, 2 and 4 m."""
        return [mean_of_known(row) for row in self.iou()]

    def rayiou(self) -> float:
        """The mean over classes and thresholds; NaN if no ray counts."""
        return mean_of_known(self.iou())
