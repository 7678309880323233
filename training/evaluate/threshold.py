"""Finds the threshold of the occupancy probability above which a voxel is occupied, with 2D labels alone.

The returns of the labels are voxelised. A voxel with a return is occupied, of the class of most of its returns. A voxel
that rays only pass, on their way to a return or out of the grid, is free. Other voxels are unknown. All labelled rays
of a frame are used: with few of them, rays pass voxels that hold what they do not hit, and far voxels seem free. These
voxels replace the 3D truth, and three figures are computed for each of many thresholds:

- rays, as in RayIoU: the first occupied voxels on a labelled ray, in truth and prediction, must have the same class,
  and the ray must leave them at distances that differ by less than 1, 2, 4 m.
  IoU_c = TP / (N_truth + N_prediction - TP).
  Unlike in RayIoU, a voxel on a ray that meets nothing in the truth also counts as a prediction, which is never right.
- voxels, as in mIoU: IoU_c over the known voxels.
- occupied voxels, as in the IoU of occupancy: all classes are alike.

(The label's own distance is not compared: at a grazing angle a ray enters the road's layer of voxels metres before it
meets the road, in every voxel grid, even in the exact one.)

The threshold with the largest sum of the three is chosen. A lower one makes surfaces thicker and adds false ones; a
higher one leaves holes.

Beside thresholds that are one number, curves over the horizontal distance r are tried, whose optical depth of a voxel
length rises by a factor `GROWTHS` on each 10 m (or falls): a two-parameter family, monotone by construction. One is
taken where the sum gains at least `LEAST_GAIN` by it. (Of the best of many, a part of the gain is luck: on validation
towns, curves that gained 0.02 with the labels lost as much by exact truth.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.field.threshold import DistanceThreshold, Threshold
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.network import OccupancyNetwork

from ..data.dataset import RayDataset
from ..data.traversal import entry
from ..data.voxelise import VoxelLabels, VoxelMarks
from ..supervision.ray_rules import RayKinds
from .held_out import RAYS_OF_A_FRAME, evenly, predicted_fields
from .rayiou import THRESHOLDS, first_hits

__all__ = ["ThresholdCalibration", "ThresholdSearch", "calibrate_threshold", "threshold_ladder"]

GROWTHS = (1.0, 0.5, 0.7, 1.4, 2.0, 2.8, 4.0, 5.6)  # of a threshold's optical depth on 10 m; the first one: none
LEAST_GAIN = 0.03  # in the sum of the three figures, below which one number is as good
_KNOTS_M = 2.5  # between the distances that a curve is stored at
_HIGHEST = 0.9999  # probability of a threshold; above it nothing is occupied


def threshold_ladder(count: int = 48) -> np.ndarray:
    """Ascending thresholds: optical depths of one voxel length from 0.02 to 6 in equal ratios, 1 - exp(-depth)."""
    return -np.expm1(-np.geomspace(0.02, 6.0, count))


@dataclass(frozen=True)
class ThresholdCalibration:
    """The result of a calibration.

    threshold: the best that is one number.
    thresholds: (K,) the ladder.
    ray_iou, voxel_iou, occupied_iou: (K,) the three figures, in 0..1.
    frames: that it was found on.
    curve: the best curve over the distance; None where none gains enough.
    curve_ray_iou, curve_voxel_iou, curve_occupied_iou: its figures; None without it.
    """

    threshold: float
    thresholds: np.ndarray
    ray_iou: np.ndarray
    voxel_iou: np.ndarray
    occupied_iou: np.ndarray
    frames: int
    curve: DistanceThreshold | None = None
    curve_ray_iou: float | None = None
    curve_voxel_iou: float | None = None
    curve_occupied_iou: float | None = None

    @property
    def best(self) -> Threshold:
        """What a checkpoint should have: the curve, or the one number."""
        return self.threshold if self.curve is None else self.curve

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
            "occupied_iou": float(self.occupied_iou[best]),
            "frames": self.frames,
            "curve": None if self.curve is None else self.curve.to_dict(),
            "curve_ray_iou": self.curve_ray_iou,
            "curve_voxel_iou": self.curve_voxel_iou,
            "curve_occupied_iou": self.curve_occupied_iou,
            "ladder": [
                {"threshold": float(t), "ray_iou": float(r), "voxel_iou": float(v), "occupied_iou": float(o)}
                for t, r, v, o in zip(self.thresholds, self.ray_iou, self.voxel_iou, self.occupied_iou)
            ],
        }


class ThresholdSearch:
    """Counts of all thresholds at once, over any number of frames. One walk along the rays serves the whole ladder.

    Classes are counted in rows: those of the table, and one more in which all are alike, for labels without classes.
    """

    def __init__(
        self, classes: ClassTable, thresholds: np.ndarray | None = None, growths: Sequence[float] = GROWTHS
    ) -> None:
        ladder = threshold_ladder() if thresholds is None else np.asarray(thresholds, np.float64)
        if ladder.ndim != 1 or not 1 <= len(ladder) <= 255 or not (np.diff(ladder) > 0).all():
            raise ValueError(f"thresholds are {ladder}; expected 1 to 255 ascending ones")
        if not (0 < ladder[0] and ladder[-1] < 1):
            raise ValueError(f"thresholds run from {ladder[0]} to {ladder[-1]}; expected probabilities between 0 and 1")
        if not growths or growths[0] != 1 or min(growths) <= 0:
            raise ValueError(f"growths are {growths}; expected positive factors, the first one 1")
        self.classes, self.thresholds, self.growths, self.frames = classes, ladder, tuple(growths), 0
        self._rays = [self._counts(len(THRESHOLDS)) for _ in growths]
        self._voxels = [self._counts(1) for _ in growths]
        self._farthest = 0.0

    def _counts(self, limits: int) -> _Counts:
        rows, steps = len(self.classes) + 1, len(self.thresholds)
        return _Counts(np.zeros(rows), np.zeros((steps, rows)), np.zeros((limits, steps, rows)))

    @torch.no_grad()
    def add(self, field: SemanticDensityField, rays: Rays, walked: int | None = None) -> None:
        """Count a frame's labelled rays, on the field's device.

        Args:
            rays: all of them; they mark the voxels.
            walked: largest number of them, spread evenly, that are walked along for the rays' figure; None for all.
        Raises:
            ValueError: the rays have no distances or classes.
        """
        if rays.distances is None or rays.classes is None:
            raise ValueError("rays have no distances or no classes; give labelled rays (RayDataset.rays_of)")
        self.frames += 1
        grid, kinds = field.grid, RayKinds.of(rays, field.grid)
        used = kinds.returned | kinds.beyond
        measured, labelled = rays.distances[used].cpu().numpy(), rays.classes[used].cpu().numpy()
        rays, is_return = rays[used].to("cpu"), kinds.returned[used].cpu().numpy()
        names = np.array(self.classes.occupied_ids, np.uint8)[field.semantics.argmax(dim=-1).cpu().numpy()]
        origins, directions = rays.origins.double().numpy(), rays.directions.double().numpy()
        distances = np.where(is_return, measured, np.inf)
        marks = VoxelMarks(grid, len(self.classes))
        marks.add_rays(origins, directions, distances, labelled)
        labels = marks.labels()
        chosen = evenly(len(origins), walked)
        origins, directions = origins[chosen], directions[chosen]
        cells, truth_left = first_hits((labels.occupied,), grid, origins, directions)
        met = cells[0] >= 0
        truth = np.where(met, labels.semantics.ravel()[cells[0]], UNLABELLED).astype(np.int64)

        probability = field.occupancy_probability().double().cpu().numpy()
        depth, ladder = -np.log1p(-np.minimum(probability, 1 - 1e-15)), -np.log1p(-self.thresholds)
        far = _horizontal(grid)
        self._farthest = max(self._farthest, float(far.max()))
        for number, growth in enumerate(self.growths):
            # How many thresholds a voxel is above: with one number for all, on probabilities, as it will be compared.
            above = (
                np.searchsorted(self.thresholds, probability, side="left")
                if growth == 1
                else np.searchsorted(ladder, depth / _interpolated(growth, far, self._knots())[..., None], side="left")
            )
            level = above.astype(np.uint8)
            left, hit = _climbed(grid, origins, directions, level, names, len(ladder))
            self._count_rays(self._rays[number], left, hit, met, truth, truth_left[0])
            self._count_voxels(self._voxels[number], labels, level.ravel().astype(np.int64), names.ravel())

    def _knots(self) -> np.ndarray:
        return np.arange(0.0, self._farthest + _KNOTS_M, _KNOTS_M)

    def _count_rays(
        self,
        counts: _Counts,
        left: np.ndarray,
        hit: np.ndarray,
        met_truth: np.ndarray,
        truth: np.ndarray,
        truth_left: np.ndarray,
    ) -> None:
        every = len(self.classes)
        count = every + 1
        known = met_truth & (truth != UNLABELLED)
        counts.truth += np.bincount(truth[known], minlength=count)
        counts.truth[every] += met_truth.sum()
        classed = known | ~met_truth  # what is of unknown class only counts in the row of all classes
        for step in range(len(self.thresholds)):
            met, names = left[step] >= 0, hit[step]
            counts.prediction[step] += np.bincount(names[met & classed], minlength=count)
            counts.prediction[step, every] += met.sum()
            error = np.abs(left[step] - truth_left)
            for row, threshold in enumerate(THRESHOLDS):
                right = met & met_truth & (error < threshold)
                counts.hits[row, step] += np.bincount(truth[right & known & (names == truth)], minlength=count)
                counts.hits[row, step, every] += right.sum()

    def _count_voxels(self, counts: _Counts, labels: VoxelLabels, level: np.ndarray, names: np.ndarray) -> None:
        every, steps = len(self.classes), len(self.thresholds)
        names = names.astype(np.int64)
        holds, known, truth = labels.occupied.ravel(), labels.known.ravel(), labels.semantics.ravel().astype(np.int64)

        def above(kept: np.ndarray, rows: np.ndarray) -> np.ndarray:
            """(K, rows) how many of the kept voxels are above each threshold, by row."""
            table = np.bincount(rows[kept] * (steps + 1) + level[kept], minlength=(every + 1) * (steps + 1))
            return table.reshape(every + 1, steps + 1)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].T

        alike = np.full_like(names, every)
        classed = holds & (truth != UNLABELLED)
        counts.truth += np.bincount(truth[classed], minlength=every + 1)
        counts.truth[every] += holds.sum()
        counts.prediction += above(known & (classed | ~holds), names) + above(known, alike)
        counts.hits[0] += above(classed & (truth == names), names) + above(holds, alike)

    def result(self) -> ThresholdCalibration:
        """The best threshold; of several equally good ones the nearest to 1/2.

        Raises:
            ValueError: no ray returned from inside of the grid.
        """
        if not self._rays[0].truth[-1]:
            raise ValueError("no labelled ray returns from inside of the grid; calibrate with depth labels")
        figures = [
            (rays.mean_iou(), voxels.mean_iou(), voxels.iou_of_all()) for rays, voxels in zip(self._rays, self._voxels)
        ]
        score = np.sum(figures[0], axis=0)
        best = np.flatnonzero(score >= score.max() - 1e-12)
        flat = float(self.thresholds[best[np.abs(self.thresholds[best] - 0.5).argmin()]])
        found = ThresholdCalibration(flat, self.thresholds, *figures[0], self.frames)
        return self._with_curve(found, float(score.max()), np.array(figures))

    def _with_curve(self, found: ThresholdCalibration, flat_score: float, figures: np.ndarray) -> ThresholdCalibration:
        """The calibration with the best curve, or as it is where the best one gains too little.

        Args:
            figures: (growths, 3, K) the three figures.
        """
        scores = figures.sum(axis=1)
        number, step = np.unravel_index(scores.argmax(), scores.shape)
        if number == 0 or scores[number, step] < flat_score + LEAST_GAIN:
            return found
        knots = self._knots()
        depths = -np.log1p(-self.thresholds[step]) * self.growths[number] ** (knots / 10)
        probabilities = np.minimum(-np.expm1(-depths), _HIGHEST)
        curve = DistanceThreshold(tuple(knots.tolist()), tuple(probabilities.tolist()), found.threshold)
        rays, voxels, occupied = (float(figure) for figure in figures[number, :, step])
        return replace(found, curve=curve, curve_ray_iou=rays, curve_voxel_iou=voxels, curve_occupied_iou=occupied)


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
        return self._iou()[..., rows].mean(axis=(0, 2))

    def iou_of_all(self) -> np.ndarray:
        """(K,) of the row in which all classes are alike."""
        return self._iou()[..., -1].mean(axis=0)

    def _iou(self) -> np.ndarray:
        return self.hits / np.maximum(self.truth + self.prediction - self.hits, 1)


def _horizontal(grid: VoxelGrid) -> np.ndarray:
    """(X, Y) metres from base_link's z axis to the voxels' centres."""
    x, y = (low + (np.arange(size) + 0.5) * grid.voxel_size for low, size in zip(grid.lower[:2], grid.shape[:2]))
    return np.hypot(x[:, None], y)


def _interpolated(growth: float, far: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """What a threshold's optical depth is multiplied with at distances `far`, as a stored curve has it."""
    return np.interp(far, knots, growth ** (knots / 10))


def _climbed(
    grid: VoxelGrid, origins: np.ndarray, directions: np.ndarray, level: np.ndarray, names: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """A frame's rays through the volume.

    Args:
        level: (X, Y, Z) uint8, how many of the `steps` thresholds each voxel is above.
        names: (X, Y, Z) uint8 classes.
    Returns:
        left: (K, R) metres at which each ray leaves the first voxel above each threshold, -1 where there is none.
        names: (K, R) that voxel's class.
    """
    from ..data.traversal_loops import climb

    places = (origins - grid.lower) / grid.voxel_size
    _, far, first = entry(np.array(grid.shape, np.float64)[:, None], places.T, directions.T)
    starts = np.ascontiguousarray(np.where(far >= 0, first, -1).T.astype(np.int64))
    left, hit = np.full((steps, len(origins)), -1.0), np.zeros((steps, len(origins)), np.uint8)
    climb(grid.shape, level.ravel(), names.ravel(), places, directions, starts, left, hit)
    return np.where(left >= 0, left * grid.voxel_size, -1.0), hit


def calibrate_threshold(
    network: OccupancyNetwork,
    model_config: ModelConfig,
    dataset: RayDataset,
    frames: int | None = None,
    device: torch.device | str = "cpu",
    rays: int | None = RAYS_OF_A_FRAME,
    precision: str = "float32",
    what: str = "",
) -> ThresholdCalibration:
    """The best threshold for a network on held-out recordings; arguments as of `evaluate_rays`, `predicted_fields`.

    Raises:
        ValueError: no labelled ray returns from inside of the grid.
    """
    search = ThresholdSearch(dataset.classes)
    indices = evenly(len(dataset), frames)
    for index, _, field in predicted_fields(network, model_config, dataset, indices, device, precision, what):
        search.add(field, dataset.rays_of(index, None).to(device), rays)
    return search.result()
