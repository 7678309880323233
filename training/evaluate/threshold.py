"""When is a voxel occupied? The threshold on its occupancy probability, found with 2D labels alone.

The labels' returns are voxelised: a voxel that holds a return is occupied, of the class that most of its returns have;
one that rays only pass on their way to a return, or out of the grid, is free; others are not known. With that in the
place of the 3D truth, two figures are worked out for each threshold of a ladder:

- rays, as RayIoU: the first occupied voxel on each labelled ray, in truth and prediction, must be of one class and left
  at distances less than 1, 2, 4 m apart. IoU_c = TP / (N_truth + N_prediction - TP); unlike in RayIoU a hit on a ray
  that meets nothing in truth is a prediction too, which is never right.
- voxels, as mIoU: IoU_c over the known voxels.

(The distance that a label itself says is not compared: at a grazing angle a ray enters the layer of voxels that holds a
road metres before it meets the road, in every voxel grid, the exact one as well.)

The threshold with the largest sum of the two means is chosen. A lower one makes surfaces thicker and brings ghosts; a
higher one tears holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.network import OccupancyNetwork

from ..data.dataset import RayDataset
from ..data.traversal import padded, traverse
from ..data.voxelise import VoxelLabels, VoxelMarks
from ..supervision.ray_rules import RayKinds
from .held_out import RAYS_OF_A_FRAME, evenly, predicted_fields
from .rayiou import THRESHOLDS, first_hits

__all__ = ["Calibration", "ThresholdSearch", "calibrate_threshold", "threshold_ladder"]


def threshold_ladder(count: int = 48) -> np.ndarray:
    """Ascending thresholds: optical depths of one voxel length from 0.02 to 6 in equal ratios, 1 - exp(-depth)."""
    return -np.expm1(-np.geomspace(0.02, 6.0, count))


@dataclass(frozen=True)
class Calibration:
    """What was found.

    threshold: the best.
    thresholds: (K,) the ladder.
    ray_iou, voxel_iou: (K,) the two figures, in 0..1.
    frames: that it was found on.
    """

    threshold: float
    thresholds: np.ndarray
    ray_iou: np.ndarray
    voxel_iou: np.ndarray
    frames: int

    def provenance(self, recordings: Sequence[str]) -> dict:
        """What a checkpoint says of it: all but the ladder, and the recordings it was found on."""
        found = {name: value for name, value in self.as_dict().items() if name != "ladder"}
        return {**found, "recordings": list(recordings)}

    def as_dict(self) -> dict:
        """Plain numbers for JSON."""
        best = int(np.searchsorted(self.thresholds, self.threshold - 1e-12))
        return {
            "threshold": self.threshold,
            "ray_iou": float(self.ray_iou[best]),
            "voxel_iou": float(self.voxel_iou[best]),
            "frames": self.frames,
            "ladder": [
                {"threshold": float(t), "ray_iou": float(r), "voxel_iou": float(v)}
                for t, r, v in zip(self.thresholds, self.ray_iou, self.voxel_iou)
            ],
        }


class ThresholdSearch:
    """Counts of all thresholds at once, over any number of frames. One walk along the rays serves the whole ladder.

    Classes are counted in rows: those of the table, and one more in which all are alike, for labels without classes.
    """

    def __init__(self, classes: ClassTable, thresholds: np.ndarray | None = None) -> None:
        ladder = threshold_ladder() if thresholds is None else np.asarray(thresholds, np.float64)
        if ladder.ndim != 1 or not 1 <= len(ladder) <= 255 or not (np.diff(ladder) > 0).all():
            raise ValueError(f"thresholds are {ladder}; expected 1 to 255 ascending ones")
        if not (0 < ladder[0] and ladder[-1] < 1):
            raise ValueError(f"thresholds run from {ladder[0]} to {ladder[-1]}; expected probabilities between 0 and 1")
        self.classes, self.thresholds, self.frames = classes, ladder, 0
        rows, steps = len(classes) + 1, len(ladder)
        self._rays = _Counts(np.zeros(rows), np.zeros((steps, rows)), np.zeros((len(THRESHOLDS), steps, rows)))
        self._voxels = _Counts(np.zeros(rows), np.zeros((steps, rows)), np.zeros((1, steps, rows)))

    @torch.no_grad()
    def add(self, field: SemanticDensityField, rays: Rays) -> None:
        """Count a frame's labelled rays, on the field's device.

        Raises:
            ValueError: the rays have no distances or classes.
        """
        if rays.distances is None or rays.classes is None:
            raise ValueError("rays have no distances or no classes; give labelled rays (RayDataset.rays_of)")
        self.frames += 1
        kinds = RayKinds.of(rays, field.grid)
        used = kinds.returned | kinds.beyond
        measured, labelled = rays.distances[used].cpu().numpy(), rays.classes[used].cpu().numpy()
        rays, is_return = rays[used].to("cpu"), kinds.returned[used].cpu().numpy()
        probability = field.occupancy_probability().double().cpu().numpy()
        level = np.searchsorted(self.thresholds, probability, side="left").astype(np.uint8)  # how many it is above
        names = np.array(self.classes.occupied_ids, np.uint8)[field.semantics.argmax(dim=-1).cpu().numpy()]
        origins, directions = rays.origins.double().numpy(), rays.directions.double().numpy()
        distances = np.where(is_return, measured, np.inf)
        marks = VoxelMarks(field.grid, len(self.classes))
        marks.add_rays(origins, directions, distances, labelled)
        labels = marks.labels()
        walk = _Walk(field.grid, rays, level, names, len(self.thresholds))
        cells, left = first_hits((labels.occupied,), field.grid, origins, directions)
        met = cells[0] >= 0
        truth = labels.semantics.ravel()
        self._count_rays(walk, met, np.where(met, truth[cells[0]], UNLABELLED).astype(np.int64), left[0])
        self._count_voxels(labels, level.ravel().astype(np.int64), names.ravel().astype(np.int64))

    def _count_rays(self, walk: _Walk, met_truth: np.ndarray, truth: np.ndarray, truth_left: np.ndarray) -> None:
        every = len(self.classes)
        count = every + 1
        known = met_truth & (truth != UNLABELLED)
        self._rays.truth += np.bincount(truth[known], minlength=count)
        self._rays.truth[every] += met_truth.sum()
        classed = known | ~met_truth  # what is of unknown class only counts in the row of all classes
        for step in range(len(self.thresholds)):
            met, names = walk.left[step] >= 0, walk.names[step]
            self._rays.prediction[step] += np.bincount(names[met & classed], minlength=count)
            self._rays.prediction[step, every] += met.sum()
            error = np.abs(walk.left[step] - truth_left)
            for row, threshold in enumerate(THRESHOLDS):
                right = met & met_truth & (error < threshold)
                self._rays.hits[row, step] += np.bincount(truth[right & known & (names == truth)], minlength=count)
                self._rays.hits[row, step, every] += right.sum()

    def _count_voxels(self, labels: VoxelLabels, level: np.ndarray, names: np.ndarray) -> None:
        every, steps = len(self.classes), len(self.thresholds)
        holds, known, truth = labels.occupied.ravel(), labels.known.ravel(), labels.semantics.ravel().astype(np.int64)

        def above(kept: np.ndarray, rows: np.ndarray) -> np.ndarray:
            """(K, rows) how many of the kept voxels are above each threshold, by row."""
            table = np.bincount(rows[kept] * (steps + 1) + level[kept], minlength=(every + 1) * (steps + 1))
            return table.reshape(every + 1, steps + 1)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].T

        alike = np.full_like(names, every)
        classed = holds & (truth != UNLABELLED)
        self._voxels.truth += np.bincount(truth[classed], minlength=every + 1)
        self._voxels.truth[every] += holds.sum()
        self._voxels.prediction += above(known & (classed | ~holds), names) + above(known, alike)
        self._voxels.hits[0] += above(classed & (truth == names), names) + above(holds, alike)

    def result(self) -> Calibration:
        """The best threshold; of several equally good ones the nearest to 1/2.

        Raises:
            ValueError: no ray returned from inside of the grid.
        """
        if not self._rays.truth[-1]:
            raise ValueError("no labelled ray returns from inside of the grid; calibrate with depth labels")
        ray_iou, voxel_iou = self._rays.mean_iou(), self._voxels.mean_iou()
        score = ray_iou + voxel_iou
        best = np.flatnonzero(score >= score.max() - 1e-12)
        chosen = best[np.abs(self.thresholds[best] - 0.5).argmin()]
        return Calibration(float(self.thresholds[chosen]), self.thresholds, ray_iou, voxel_iou, self.frames)


@dataclass
class _Counts:
    """truth (C + 1,), prediction (K, C + 1), hits (D, K, C + 1)."""

    truth: np.ndarray
    prediction: np.ndarray
    hits: np.ndarray

    def mean_iou(self) -> np.ndarray:
        """(K,) mean over the classes that labels have, or over the row of all where they have none."""
        rows = np.flatnonzero(self.truth[:-1])
        rows = rows if len(rows) else np.array([-1])
        union = self.truth + self.prediction - self.hits
        return (self.hits[..., rows] / union[..., rows]).mean(axis=(0, 2))


class _Walk:
    """A frame's rays through the volume.

    Attributes:
        left: (K, R) distance at which each ray leaves the first voxel above each threshold, -1 where there is none.
        names: (K, R) that voxel's class.
    """

    def __init__(self, grid: VoxelGrid, rays: Rays, level: np.ndarray, names: np.ndarray, steps: int) -> None:
        count = len(rays)
        self.left, self.names = np.full((steps, count), -1.0), np.zeros((steps, count), np.uint8)
        self._levels, self._names = padded(level), padded(names)
        self._reached = np.zeros(count, np.int64)
        traverse(grid, rays.origins.numpy(), rays.directions.numpy(), self._visit)

    def _visit(self, rays: np.ndarray, cells: np.ndarray, enter: np.ndarray, leave: np.ndarray) -> np.ndarray:
        levels, reached = self._levels[cells].astype(np.int64), self._reached[rays]
        rows = np.flatnonzero(levels > reached)
        if len(rows):
            counts = (levels - reached)[rows]
            # Row i crosses thresholds reached[i] to levels[i] - 1 here.
            first = np.repeat(reached[rows] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            who = np.repeat(rows, counts)
            self.left[first, rays[who]], self.names[first, rays[who]] = leave[who], self._names[cells[who]]
            self._reached[rays[rows]] = levels[rows]
        return self._reached[rays] == len(self.left)


def calibrate_threshold(
    network: OccupancyNetwork,
    model_config: ModelConfig,
    dataset: RayDataset,
    frames: int | None = None,
    device: torch.device | str = "cpu",
    rays: int | None = RAYS_OF_A_FRAME,
    precision: str = "float32",
    what: str = "",
) -> Calibration:
    """The best threshold for a network on held-out recordings; arguments as of `evaluate_rays`, `predicted_fields`.

    Raises:
        ValueError: no labelled ray returns from inside of the grid.
    """
    search = ThresholdSearch(dataset.classes)
    indices = evenly(len(dataset), frames)
    for index, _, field in predicted_fields(network, model_config, dataset, indices, device, precision, what):
        search.add(field, dataset.rays_of(index, rays).to(device))
    return search.result()
