"""Evaluates the map that remembers: its volume at each frame's time, in the frame's grid, beside the frame's own.

What is compared is what the node publishes: unknown voxels count as free, in the frame as in the map. The recordings'
frames are taken in order, and a map is begun for each recording and after each jump of its poses.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import invert
from renderocc_model.inference.map_config import MapConfig
from renderocc_model.inference.predictor import Predictor
from renderocc_model.inference.rolling_map import RollingMap

from ..data.dataset import RayDataset
from .frame_truth import FrameTruth, ray_origins, truth_of
from .metrics import VolumeScores
from .rayiou import DEFAULT_ORIGIN, cast_frame

__all__ = ["GhostCounts", "MovingTrails", "evaluate_map"]

GHOST_AGES = (0.1, 0.5, 1.0)  # seconds since a moving object has left a voxel
_LONGEST = 3.0  # seconds; voxels that were left longer ago do not count


@dataclass
class GhostCounts:
    """Voxels that something moving has left, in view of the cameras, and how many are still occupied by what moves.

    Attributes:
        ages: seconds since it left; an entry counts voxels left at least as long ago, and less long than the next.
        left, ghosts: counts for each age.
    """

    ages: tuple[float, ...] = GHOST_AGES

    def __post_init__(self) -> None:
        self.left = np.zeros(len(self.ages), np.int64)
        self.ghosts = np.zeros(len(self.ages), np.int64)

    def add(self, prediction: np.ndarray, age: np.ndarray, dynamic: np.ndarray) -> None:
        """Count a volume.

        Args:
            prediction: (X, Y, Z) uint8 class ids.
            age: (X, Y, Z) seconds since something moving was there; infinite for voxels that do not count.
            dynamic: (256,) bool, ids of classes that move.
        """
        number = np.searchsorted(np.array(self.ages), age, side="right") - 1
        counts = (number >= 0) & np.isfinite(age)
        self.left += np.bincount(number[counts], minlength=len(self.ages))
        self.ghosts += np.bincount(number[counts & dynamic[prediction]], minlength=len(self.ages))

    def as_dict(self) -> dict[str, Any]:
        """Shares of ghosts by age, None without a voxel, and the counts."""
        shares = {f"{age:g}": float(g / n) if n else None for age, g, n in zip(self.ages, self.ghosts, self.left)}
        return {"shares": shares, "left": self.left.tolist(), "ghosts": self.ghosts.tolist()}


class MovingTrails:
    """When something moving was last in each voxel around the vehicle, by the truth of the frames so far.

    The voxels are kept as points of odom, with a look-up through the current frame's grid.
    """

    def __init__(self, classes: ClassTable, grid: VoxelGrid) -> None:
        self._dynamic = np.zeros(256, bool)
        self._dynamic[list(classes.dynamic)] = True
        self._grid, self._classes = grid, classes
        self._past: list[tuple[float, np.ndarray]] = []

    def ages(self, truth: FrameTruth, odom_from_base: np.ndarray, seconds: float) -> np.ndarray:
        """(X, Y, Z) seconds since something moving was in a voxel that is free now and in view; else infinite."""
        age = np.full(self._grid.shape, np.inf)
        self._past = [(time, points) for time, points in self._past if seconds - time < _LONGEST]
        base_from_odom = invert(odom_from_base)
        for time, points in self._past:  # the latest time wins
            places, inside = self._grid.index_of(points @ base_from_odom[:3, :3].T + base_from_odom[:3, 3])
            age[tuple(places[inside].T)] = seconds - time
        moving = self._dynamic[truth.semantics]
        centres = self._grid.centres()[moving].astype(np.float64)
        self._past.append((seconds, centres @ odom_from_base[:3, :3].T + odom_from_base[:3, 3]))
        # A voxel beside what moves may be its own by rounding: only free voxels without a moving neighbour count.
        near = moving.copy()
        for axis in range(3):
            near |= np.roll(moving, 1, axis) | np.roll(moving, -1, axis)
        counts = (truth.semantics == self._classes.free) & ~near
        return np.where(counts if truth.mask is None else counts & truth.mask, age, np.inf)


def evaluate_map(
    predictor: Predictor,
    dataset: RayDataset,
    config: MapConfig = MapConfig(),
    stride: int = 1,
    truth_grid: VoxelGrid | None = None,
    lidar: tuple[float, float, float] = DEFAULT_ORIGIN,
) -> dict:
    """Compare frames and map with the truth of recordings whose frames follow each other closely.

    Args:
        predictor: the network, with its threshold.
        dataset: the recordings, see `held_out_dataset`.
        config: the map's settings.
        stride: compare every N-th frame; all frames are added to the map.
        truth_grid, lidar: as in `EvaluationPlan`.
    Returns:
        `frame` and `map`: `VolumeScores.as_dict` and `ghosts` (`GhostCounts.as_dict`); `frames`, the number of frames
        that the maps were made of.
    Raises:
        ValueError: no frame has 3D truth, or the dataset's views are not the predictor's.
    """
    from tqdm import tqdm

    grid, classes = predictor.grid, predictor.classes
    scores = {name: VolumeScores.empty(classes, True) for name in ("frame", "map")}
    ghosts = {name: GhostCounts() for name in scores}
    dynamic = np.zeros(256, bool)
    dynamic[list(classes.dynamic)] = True
    piece: tuple | None = None
    for index in tqdm(range(len(dataset)), "evaluating", unit="frame", disable=not sys.stderr.isatty()):
        tables, number = dataset.recording_of(index)
        current = dataset.sample(0, index).current
        if piece != (piece := (tables.name, int(tables.pieces[number]))):
            remembered, trails = RollingMap(classes, grid, config), MovingTrails(classes, grid)
            predictor.reset()
        used = np.flatnonzero(current.present)
        undistorted = [dataset.undistortion(tables.cameras[camera]) for camera in used]
        occupancy = predictor.predict(
            current.views[used],
            undistorted,
            current.base_from_camera[used],
            current.odom_from_base,
            current.stamp_ns * 1e-9,
        )
        remembered.add(occupancy, current.odom_from_base, current.stamp_ns)
        truth = truth_of(tables, number, grid, truth_grid)
        if truth is None:
            continue
        ages = trails.ages(truth, current.odom_from_base, current.stamp_ns * 1e-9)
        if index % stride != stride - 1:
            continue
        volumes = {"frame": occupancy.semantics, "map": remembered.view(grid, current.odom_from_base).semantics}
        counted = [each.rays for each in scores.values() if each.rays is not None]
        origins = ray_origins(tables, number, grid, lidar)
        cast_frame(counted, list(volumes.values()), truth.semantics, grid, origins)
        for name, volume in volumes.items():
            scores[name].voxels.add(volume, truth.semantics, truth.mask)
            scores[name].frames += 1
            ghosts[name].add(volume, ages, dynamic)
    if not scores["map"].frames:
        raise ValueError(f"{dataset.folder}: no frame that is compared has 3D truth; record it, or lower --map-stride")
    return {
        **{name: {**each.as_dict(), "ghosts": ghosts[name].as_dict()} for name, each in scores.items()},
        "frames": len(dataset),
    }
