"""Computes every metric of a checkpoint on recordings that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renderocc_model.base.files import replacing
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint

from ..data.augment import AugmentConfig
from ..data.dataset import RayDataset, SampleConfig
from .frame_truth import FrameTruth, occupied_classes, ray_origins, truth_of
from .held_out import RAYS_OF_A_FRAME, RayScores, evenly, fields_of_predictor, predicted_fields
from .metrics import VolumeScores, write_json
from .rayiou import DEFAULT_ORIGIN, cast_frame

__all__ = ["EvaluationPlan", "evaluate", "held_out_dataset"]


@dataclass(frozen=True)
class EvaluationPlan:
    """How a checkpoint is evaluated.

    Attributes:
        frames: number of frames, spread evenly; None for all.
        rays: largest number of labelled rays of a frame; None for all.
        auxiliary: whether to use the rays of neighbouring frames, too.
        truth_grid: grid of the 3D truth; None to find it from the truth's shape.
        lidar: position of the LiDAR in base_link, metres: the origin of RayIoU's rays.
        precision: the network's precision.
        predictions: folder to which volumes, their truth and the rays' origins are written for `renderocc metrics`;
            None for no folder.
    """

    frames: int | None = None
    rays: int | None = RAYS_OF_A_FRAME
    auxiliary: bool = False
    truth_grid: VoxelGrid | None = None
    lidar: tuple[float, float, float] = DEFAULT_ORIGIN
    precision: str = "float32"
    predictions: Path | None = None


def held_out_dataset(
    folder: Path, checkpoint: Checkpoint | Predictor, recordings: Sequence[str] | None = None
) -> RayDataset:
    """Recordings with the image size of a checkpoint's or predictor's network, without augmentation.

    Raises:
        ValueError: there are no recordings, or their classes are not those of the checkpoint.
    """
    images = checkpoint.config.images
    fusion = checkpoint.config.fusion
    config = SampleConfig(
        images.height,
        images.width,
        rays=0,
        previous=fusion.earlier_frames,
        previous_interval=fusion.interval,
        augment=AugmentConfig(),
    )
    dataset = RayDataset(folder, config, recordings)
    if dataset.classes.names != checkpoint.classes.names or dataset.classes.free != checkpoint.classes.free:
        raise ValueError(
            f"{folder}: its labels have the classes {', '.join(dataset.classes.names)}, but the checkpoint has "
            f"{', '.join(checkpoint.classes.names)}; prepare the recordings with the checkpoint's --classes"
        )
    return dataset


def evaluate(
    checkpoint: Checkpoint | Predictor,
    dataset: RayDataset,
    plan: EvaluationPlan = EvaluationPlan(),
    device: torch.device | str = "cpu",
    baselines: dict[str, np.ndarray] | None = None,
) -> dict:
    """Compute all metrics in one pass.

    Args:
        checkpoint: a checkpoint, whose network is on `device`, or the predictor of an exported network. Its threshold
            decides which voxels are occupied.
        dataset: the frames, see `held_out_dataset`.
        plan: the options.
        device: the device.
        baselines: volumes (X, Y, Z) by name, which are compared with the same truth.
    Returns:
        `rays` (`RayScores.as_dict`) and `cameras` (`RayScores.by_camera`); `volumes` (`VolumeScores.as_dict`) and
        `baselines` by name, of frames with 3D truth, None and {} without any; `confusion`, the histogram of the volumes
        (rows: truth), or of rendered classes.
    """
    grid, classes = checkpoint.grid, checkpoint.classes
    rays = RayScores(classes)
    volumes = {name: VolumeScores.empty(classes, True) for name in ("", *(baselines or {}))}
    archive = None if plan.predictions is None else _Archive(plan.predictions)
    indices = evenly(len(dataset), plan.frames)
    if isinstance(checkpoint, Predictor):
        fields = fields_of_predictor(checkpoint, dataset, indices, "evaluating")
    else:
        fields = predicted_fields(
            checkpoint.network, checkpoint.config, dataset, indices, device, plan.precision, "evaluating"
        )
    for index, _, field in fields:
        tables, frame = dataset.recording_of(index)
        offsets = dataset.config.auxiliary_offsets if plan.auxiliary else ()
        labelled, cameras, names = dataset.rays_by_camera(index, plan.rays, offsets)
        rays.add(field, labelled.to(device), cameras, names)
        prediction = occupied_classes(field, classes, checkpoint.threshold)
        truth = truth_of(tables, frame, grid, plan.truth_grid)
        origins = None if truth is None else ray_origins(tables, frame, grid, plan.lidar)
        if archive is not None:
            archive.add(f"{tables.name}/{int(tables.stamps[frame])}", prediction, truth, origins)
        if truth is None:
            continue
        predictions = [prediction, *(baselines or {}).values()]
        counted = [scores.rays for scores in volumes.values() if scores.rays is not None]
        assert origins is not None  # there where the truth is
        cast_frame(counted, predictions, truth.semantics, grid, origins)
        for scores, volume in zip(volumes.values(), predictions):
            scores.voxels.add(volume, truth.semantics, truth.mask)
            scores.frames += 1
    if archive is not None:
        archive.close()
    own = volumes.pop("")
    compared = own.frames > 0
    return {
        "rays": rays.as_dict(),
        "cameras": rays.by_camera(),
        "volumes": own.as_dict() if compared else None,
        "baselines": {name: scores.as_dict() for name, scores in volumes.items()} if compared else {},
        "confusion": (own.voxels if compared else rays.confusion).histogram.tolist(),
    }


class _Archive:
    """Writes volumes to a folder for `renderocc metrics`: predictions/, truth/ and origins.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origins: dict[str, list] = {}

    def add(self, name: str, prediction: np.ndarray, truth: FrameTruth | None, origins: np.ndarray | None) -> None:
        self._write(self.folder / "predictions" / f"{name}.npz", semantics=prediction)
        if truth is not None and origins is not None:
            mask = np.ones(truth.semantics.shape, bool) if truth.mask is None else truth.mask
            self._write(
                self.folder / "truth" / f"{name}.npz", semantics=truth.semantics, mask_camera=mask.astype(np.uint8)
            )
            self.origins[name] = origins.tolist()

    def close(self) -> None:
        write_json(self.folder / "origins.json", self.origins)

    @staticmethod
    def _write(path: Path, **arrays: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
