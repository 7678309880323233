"""`renderocc bench map`: what a map that remembers costs beside the network, CPU time of one thread for each frame.

A street of walls, boxes and a road, as six cameras around the vehicle see it, is added while the vehicle drives 0.8 m
a frame along a curve. The road is made anew in each frame from the same formula, so the map is as full as on a drive.

    frame      the arrays of all voxels of a frame, which the network leaves as lists: for the map alone
    add        evidence, scrolling, fusing, forgetting
    read out   a copy of the map with its surface voxels, for topics, only when someone listens
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ..field.classes import OCC3D_NUSCENES, ClassTable
from ..field.occupancy import Occupancy, OccupiedVoxels
from ..geometry.grid import OCC3D_GRID, VoxelGrid
from ..geometry.transforms import transform_points
from ..inference.rolling_map import RollingMap
from ..network.presets import PRESETS
from ..network.untrained import surround_cameras
from ..ops import mapping
from ..ops.visibility import ViewFrusta, cast

__all__ = ["GRIDS", "bench_map"]

GRIDS = {"100 x 100 x 16": PRESETS["tiny"].grid, "200 x 200 x 16": OCC3D_GRID}
STEP, TURN = 0.8, 0.02  # metres and radians a frame
_HEIGHT, _WIDTH = 128, 352  # of the views
_WARM = 3


def bench_map(frames: int) -> tuple[dict, list[str]]:
    """Median CPU times of each stage; figures and Markdown lines.

    Args:
        frames: frames to take the median of.
    """
    figures = {name: measure(grid, frames) for name, grid in GRIDS.items()}
    lines = [
        f"map that remembers, CPU time of a frame, median of {frames}",
        "",
        "| grid | visible | occupied | frame | add | read out |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        times = (f"{1e3 * row[stage]:.2f} ms" for stage in ("frame", "add", "read out"))
        lines.append(f"| {name} | {row['visible']:.0%} | {row['occupied']:.1%} | {' | '.join(times)} |")
    return figures, lines


def measure(grid: VoxelGrid, frames: int) -> dict[str, float]:
    """Seconds of CPU time of each stage, and the shares of voxels that are visible and occupied."""
    street, vehicle_map, pose = Street(grid, OCC3D_NUSCENES), RollingMap(OCC3D_NUSCENES, grid), np.eye(4)
    times: dict[str, list[float]] = {"frame": [], "add": [], "read out": []}
    visible, occupied = [], []
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]]
    turn[0, 3] = STEP
    for number in range(frames + _WARM):
        frame = street.frame(pose)
        stamp = number * 100_000_000

        spent = {
            "frame": cpu_time(lambda: (frame.semantics, frame.confidence)),
            "add": cpu_time(lambda: vehicle_map.add(frame, pose, stamp)),
            "read out": cpu_time(vehicle_map.volume),
        }
        if number >= _WARM:
            for stage, seconds in spent.items():
                times[stage].append(seconds)
            visible.append(float(frame.visible.mean()))
            occupied.append(float(frame.occupied.mean()))
        pose = pose @ turn
    medians = {stage: statistics.median(values) for stage, values in times.items()}
    return {**medians, "visible": statistics.mean(visible), "occupied": statistics.mean(occupied)}


def cpu_time(work: Callable[[], object]) -> float:
    """Seconds of CPU time of this process."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


class Street:
    """What cameras see of a street that is fixed to the ground."""

    def __init__(self, grid: VoxelGrid, classes: ClassTable) -> None:
        self._grid, self._classes = grid, classes
        views, self._poses = surround_cameras(6, _HEIGHT, _WIDTH)
        self._frusta = ViewFrusta(grid, views, [None] * len(views), torch.device("cpu"), 0.5)
        self._centres = grid.centres().reshape(-1, 3)

    def frame(self, odom_from_base: np.ndarray) -> Occupancy:
        """The street around a pose: a road, walls with gaps on both sides, boxes that stand on the road."""
        x, y, z = transform_points(odom_from_base, self._centres).T
        road = z < 0
        walls = (np.abs(np.mod(y + 9, 36) - 18) < 1) & (np.mod(x, 14) < 10) & (z < 4.5)
        boxes = (np.mod(x + 3, 11) < 4) & (np.abs(np.mod(y, 9) - 4.5) < 1) & (z < 1.6)
        noise = np.sin(12.9898 * x + 78.233 * y + 37.719 * z) * 43758.5453
        fraction = noise - np.floor(noise)
        probability = np.where(road | walls | boxes, 0.7 + 0.2 * fraction, 0.01 * fraction)
        confidence = probability.reshape(self._grid.shape).astype(np.float32)
        labels = np.where(walls, 15, np.where(boxes, 4, 11)).astype(np.uint8)
        density = torch.from_numpy(-np.log1p(-confidence) / self._grid.voxel_size)
        visible = cast(density, self._frusta.at(self._poses)).numpy()
        found = visible & (confidence > 0.5)
        index, surface = mapping.occupied_voxels(np.where(found, 1.0, -1.0).astype(np.float32))
        voxels = OccupiedVoxels(index, labels[index], confidence.reshape(-1)[index], surface)
        threshold = np.full((*self._grid.shape[:2], 1), 0.5, np.float32)
        return Occupancy.predicted(
            self._grid, self._classes, voxels, lambda: visible, lambda: confidence, lambda: None, threshold
        )
