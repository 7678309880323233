"""The recordings of a training run: prepares what is missing, and divides them into training and held-out ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from renderocc_model.network.rig_summary import summary_of_rigs
from renderocc_model.rosio.parameter_file import vehicle_of_file

from ..data.augment import AugmentConfig
from ..data.dataset import RayDataset
from ..data.epochs import split_recordings
from ..data.prepare import prepare_recordings
from ..data.prepare.tables import TablesError, list_tables
from ..recordings.notes import recording_name
from .config import DataConfig, TrainConfig

__all__ = ["Data", "open_data", "prepare_missing", "split", "split_names"]

_ALL = 10_000_000  # more rays than a frame has labels


@dataclass(frozen=True)
class Data:
    """The samples of a run. Recordings may have different cameras.

    Attributes:
        training: samples to train on.
        held_out: samples for validation; None with a single recording.
    """

    training: RayDataset
    held_out: RayDataset | None

    def identity(self) -> dict:
        """Names and counts. A run is continued only if they are unchanged."""
        return {
            "training": list(self.training.recordings),
            "held_out": [] if self.held_out is None else list(self.held_out.recordings),
            "frames": len(self.training),
            "labels": [int(count) for count in self.training.class_counts],
        }

    def rig_summary(self) -> dict:
        """What a network that learns from this gets used to, for its checkpoint."""
        return summary_of_rigs(self.training.rigs())

    def frames_to_draw(self) -> RayDataset:
        """Held-out frames, or training frames if there are none, with all their own labels and no augmentation."""
        shown = self.held_out or self.training
        config = replace(
            shown.config, rays=_ALL, auxiliary_offsets=(), augment=AugmentConfig(), truth=False, voxels=False
        )
        return RayDataset(shown.folder, config, shown.recordings, shown.seed, shown.class_counts)


def prepare_missing(config: DataConfig, folder: Path) -> None:
    """Prepare the recordings in `data.bags` that are not in the folder of tables yet.

    Raises:
        TablesError: a recording cannot be prepared.
    """
    names = [recording_name(bag) for bag in config.bags]
    if len(set(names)) < len(names):
        raise TablesError(f"data.bags: names of recordings repeat in {', '.join(names)}; rename their folders")
    folder.mkdir(parents=True, exist_ok=True)
    sidecars: list[Path | None] = [Path(labels) for labels in config.labels] or [None] * len(config.bags)
    prepare = replace(config.prepare, vehicle=vehicle_of_file(config.params)) if config.params else config.prepare
    tasks = [(Path(bag), sidecar, folder, prepare) for bag, sidecar in zip(config.bags, sidecars)]
    failures = prepare_recordings(tasks, min(len(os.sched_getaffinity(0)), len(tasks)))
    if failures:
        raise TablesError("; ".join(failures))


def split(config: DataConfig, folder: Path) -> tuple[list[str], list[str]]:
    """Names of the recordings to train on, and of those to hold out."""
    return split_names(config, sorted(recording_name(bag) for bag in config.bags) or list_tables(folder))


def split_names(config: DataConfig, names: list[str]) -> tuple[list[str], list[str]]:
    """`split` of recordings with these names, in ascending order."""
    if not config.training and not config.validation:
        return split_recordings(names, config.held_out)
    training = list(config.training) or [name for name in names if name not in config.validation]
    return training, list(config.validation) or [name for name in names if name not in training]


def open_data(config: TrainConfig, folder: Path) -> Data:
    """Open the tables.

    Raises:
        TablesError: a recording is not prepared, is damaged, or has other cameras or classes than the others.
    """
    learned, held_out = split(config.data, folder)
    if not learned:
        raise TablesError(f"{folder}: all recordings are held out ({', '.join(held_out)}); leave some for training")
    grid = config.supervision.truth_grid
    training = RayDataset(folder, config.samples(training=True), learned, config.seed, None, grid, config.model.grid)
    other = None
    if held_out:
        samples = config.samples(training=False)
        other = RayDataset(folder, samples, held_out, config.seed, training.class_counts, grid)
    return Data(training, other)
