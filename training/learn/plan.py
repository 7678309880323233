"""Looks into recordings, and plans what `renderocc learn` does with them. Nothing is written."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from renderocc_model.base.config import apply_overrides, from_mapping, to_mapping
from renderocc_model.field.classes import GROUND_OBSTACLE, TABLES, ClassTable
from renderocc_model.field.conversion import converted_ids
from renderocc_model.network.checkpoint import load_checkpoint
from renderocc_model.network.packaged import packaged_checkpoint
from renderocc_model.rosio.vehicle import Vehicle
from training.label import parser as label_parser
from training.label.setup import find_sources
from training.label.sources import Sources
from training.recordings.frames import Recording
from training.recordings.lidar_topics import CLOUD_TYPES
from training.recordings.notes import class_table, find_sidecar, recording_name, truth_class_table
from training.train.config import TrainConfig, load_train_config
from training.train.run_data import split_names

__all__ = ["BagPlan", "Plan", "make_plan"]

PACKAGED = "tiny"
_LABEL_OPTIONS = ("depth_from", "depth_topic", "classes_from", "network", "semantic_topic", "network_config", "mapping")
_OWN_SETTINGS = ("data.prepared", "data.bags", "data.labels", "data.params", "data.prepare", "initial", "steps")
# As config/train_tiny.yaml has it, and as the network in the package was trained.
_SETTINGS: dict[str, Any] = {
    "sample": {
        "rays": 12000,
        "augment": {
            **{"zoom_out": 0.9, "zoom_in": 1.1, "shift": 0.05, "image_flip": 0.5},
            **{"brightness": 0.2, "contrast": 0.2, "mirror_y": 0.5, "rotation": 0.3},
            "fewer_previous": True,
        },
    },
    "supervision": {
        **{"mode": "render+query+voxels", "depth_loss": "termination", "occupancy_factor": 1.6},
        "query": {"weighing": "volume"},
        "weights": {"termination": 0.2, "return_voxel": 0.0, "semantics": 0.0},
    },
    "run": {"validation_frames": 12, "picture_every": 0, "validate_every": 700, "tensorboard": False},
}
_FURTHER = {"learning_rate": 5e-4, "backbone_factor": 0.3, "ema": 0.99, "batch_norm": "frozen"}
_ANEW = {"learning_rate": 1e-3, "backbone_factor": 0.3, "ema": 0.998}


@dataclass(frozen=True)
class BagPlan:
    """What is done with one recording.

    Attributes:
        bag: the recording.
        name: its name in all folders.
        sidecar: its labels: a bag that exists, or that will be made; None for labels in the recording itself.
        options: the options of `renderocc label`; None if the recording has labels.
        depth, classes: notes about the sources of labels.
        table: the labels' class table.
        volumes: number of moments with 3D truth beside the recording.
        truth_table: the class table of that truth.
        truth: the options of `renderocc truth`, which makes it; None if there is truth, or none is made.
    """

    bag: Path
    name: str
    sidecar: Path | None
    options: tuple[str, ...] | None
    depth: str
    classes: str
    table: ClassTable
    volumes: int
    truth_table: ClassTable
    truth: tuple[str, ...] | None = None

    @property
    def truth_classes(self) -> str:
        """Name of the truth's class table, where it differs from that of the labels; else empty."""
        if not self.volumes or self.truth_table == self.table:
            return ""
        return next((name for name, table in TABLES.items() if table == self.truth_table), "")  # else its note says it

    def files(self) -> dict[str, int]:
        """{path: bytes} of the files of the recording and of labels beside it, to see that they are the same later."""
        made = self.options is not None  # labels that this command makes may not exist yet
        folders = [self.bag] if made or self.sidecar is None else [self.bag, self.sidecar]
        paths = [path for folder in folders for path in ([folder] if folder.is_file() else sorted(folder.iterdir()))]
        return {str(path): path.stat().st_size for path in paths if path.is_file()}


@dataclass(frozen=True)
class Plan:
    """What is done with all recordings.

    Attributes:
        out: folder of everything that is made.
        vehicle: cameras, topics and frames.
        bags: the recordings.
        settings: content of the YAML file for `renderocc train`.
        overrides: NAME=VALUE words for `renderocc train`.
        config: the settings and overrides as `renderocc train` reads them.
    """

    out: Path
    vehicle: Vehicle
    bags: tuple[BagPlan, ...]
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    config: TrainConfig

    @property
    def has_truth(self) -> bool:
        """Whether a recording has 3D truth, or gets some."""
        return any(one.volumes or one.truth is not None for one in self.bags)

    def as_dict(self) -> dict[str, Any]:
        """What must be the same when a run is continued."""
        return {
            "recordings": {
                one.name: {
                    "bag": str(one.bag),
                    "files": one.files(),
                    "sidecar": None if one.sidecar is None else str(one.sidecar),
                    "label": None if one.options is None else list(one.options),
                    "truth": one.volumes if one.truth is None else list(one.truth),
                }
                for one in self.bags
            },
            "vehicle": to_mapping(self.vehicle),
            "train": self.settings,
            "set": [word for word in self.overrides if not word.startswith("run.")],
        }

    def text(self) -> str:
        """The plan for the terminal and for the report."""
        lines = [f"plan, everything goes to {self.out}:", f"  check    {', '.join(one.name for one in self.bags)}"]
        for one in self.bags:
            what = "label: " if one.options is not None else ""
            lines.append(f"  label    {one.name}: {what}depth from {one.depth}; classes: {one.classes}")
        for one in self.bags:
            if one.truth is not None:
                classes = " ".join(word for word in one.truth if not word.startswith("--")) or "the clouds' own field"
                lines.append(f"  truth    {one.name}: accumulated from the LiDAR's sweeps; classes: {classes}")
        names = len(self.bags[0].table.occupied_ids)
        lines.append(f"  prepare  {len(self.bags)} recording(s), {names} classes")
        begun = (
            f"the packaged network '{self.config.initial}'" if self.config.initial else "the image network's weights"
        )
        lines.append(f"  train    {self.config.steps} steps, from {begun}")
        if len(self.bags) == 1:
            lines.append("           one recording: nothing is held out, so all figures are of frames that are learned")
        of_each = {one.name: f" ({one.volumes} moments)" if one.truth is None else "" for one in self.bags}
        truth = ", ".join(f"{one.name}{of_each[one.name]}" for one in self.bags if one.volumes or one.truth is not None)
        lines.append(f"  eval     2D labels{f', and 3D truth of {truth}' if truth else '; no recording has 3D truth'}")
        return "\n".join([*lines, "  report   report.html"])


def make_plan(arguments: Namespace, vehicle: Vehicle) -> Plan:
    """Plan what to do.

    Args:
        arguments: the options of `renderocc learn`.
        vehicle: the vehicle that they describe.
    Raises:
        ValueError: a recording cannot be read, names repeat, labels cannot be made, class tables differ, or a setting
            is wrong.
    """
    names = [recording_name(bag) for bag in arguments.bags]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"several recordings are called {', '.join(repeated)}; rename their folders")
    bags = tuple(_bag_plan(bag.resolve(), arguments, vehicle) for bag in arguments.bags)
    others = [one.name for one in bags if one.table != bags[0].table]
    if others:
        raise ValueError(
            f"the labels of {', '.join(others)} have another class table than those of {bags[0].name}; learn from them "
            "apart, or label all alike with --classes-from ground or --network"
        )
    _refuse_own_settings(arguments.set)
    settings = _settings(arguments, bags[0].table)
    config = apply_overrides(from_mapping(TrainConfig, settings, "learn"), arguments.set)
    evaluated = split_names(config.data, sorted(names))[1] or names
    bags = tuple(one if one.name in evaluated else replace(one, truth=None) for one in bags)
    return Plan(arguments.out.resolve(), vehicle, bags, settings, tuple(arguments.set), config)


def _bag_plan(bag: Path, arguments: Namespace, vehicle: Vehicle) -> BagPlan:
    name, sidecar = recording_name(bag), find_sidecar(bag)
    given = [option for option in _LABEL_OPTIONS if getattr(arguments, option)]
    with Recording(bag, sidecar, vehicle) as recording:
        images = [(camera, stamp) for camera in recording.cameras for stamp in recording.stamps[camera]]
        there = {kind for kind in ("semantic", "depth") for image in images if recording.has_labels(*image, (kind,))}
        volumes = len(recording.truth_stamps())
        of_truth = truth_class_table(bag)
        if "depth" in there and not given:
            where = f"{sidecar}" if sidecar else "the recording"
            classes = f"labels in {where}" if "semantic" in there else "none, only depth is learned"
            table = class_table(None, bag, sidecar)
            truth = None if volumes or "semantic" not in there else _truth_words(recording, table, sidecar, [])
            return BagPlan(bag, name, sidecar, None, f"labels in {where}", classes, table, volumes, of_truth, truth)
        words = _label_words(recording, arguments)
        made = arguments.out.resolve() / "labels" / name
        sources, notes = _sources(recording, words)
        table = sources.classes
        truth = _truth_words(recording, table, made, words) if not volumes and sources.gives_classes else None
        options = tuple(words)
        return BagPlan(bag, name, made, options, notes["depth"], notes["semantics"], table, volumes, of_truth, truth)


def _sources(recording: Recording, words: Sequence[str]) -> tuple[Sources, dict[str, str]]:
    """What `renderocc label` finds in a recording with these options."""
    return find_sources(recording, label_parser().parse_args([str(recording.path), *words]))


def _truth_words(
    recording: Recording, table: ClassTable, sidecar: Path | None, label_words: Sequence[str]
) -> tuple[str, ...] | None:
    """The options of `renderocc truth`; None if the recording allows no truth in the classes of its labels.

    Args:
        recording: has no truth yet.
        table: the class table of its labels.
        sidecar: its label bag, or None.
        label_words: the options of `renderocc label` for it, if it is labelled by this command.
    """
    if not _has_clouds(recording):
        return None
    mapping = ["--mapping", label_words[label_words.index("--mapping") + 1]] if "--mapping" in label_words else []
    of_points = mapping if not {"--network", "--semantic-topic"} & set(label_words) else []
    try:
        sources, _ = _sources(recording, of_points)
    except ValueError:  # clouds that cannot be read, or a mapping that is not for them
        return None
    assert sources.lidar is not None
    if sources.lidar.classes is not None:
        return tuple(of_points) if sources.classes == table else None
    if table == GROUND_OBSTACLE:
        return ("--classes-from", "ground")
    return () if sidecar is None else ("--labels", str(sidecar))


def _has_clouds(recording: Recording) -> bool:
    topics = recording.bag.topics.values()
    return bool(recording.vehicle.lidar_topics) or any(one.type in CLOUD_TYPES and one.count for one in topics)


def _label_words(recording: Recording, arguments: Namespace) -> list[str]:
    """The options for `renderocc label`: those that are given, and for the rest what the recording allows."""
    words: list[str] = []
    for option in _LABEL_OPTIONS:
        if getattr(arguments, option):
            words += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    clouds = _has_clouds(recording)
    if not (arguments.depth_from or arguments.depth_topic or clouds):
        words += ["--depth-from", "motion"]
        clouds = False
    if arguments.classes_from or arguments.network or arguments.semantic_topic:
        return words
    if any(_has_class_images(recording, camera) for camera in recording.cameras):
        return [*words, "--semantic-topic", "/{camera}/semantic"]
    if clouds and arguments.depth_from != "motion":
        sources, _ = _sources(recording, words)
        if sources.gives_classes:  # the clouds' own field
            return words
    return [*words, "--classes-from", "ground"]


def _has_class_images(recording: Recording, camera: str) -> bool:
    topics = recording.bag.topics
    return any(
        name in topics and topics[name].count for name in (f"/{camera}/semantic", f"/{camera}/semantic/compressed")
    )


def _settings(arguments: Namespace, table: ClassTable) -> dict[str, Any]:
    """The content of the YAML file for `renderocc train`."""
    path = packaged_checkpoint(PACKAGED)
    packaged = None if path is None else load_checkpoint(path)
    fits = packaged is not None and _becomes(packaged.classes, table)
    settings = {**_SETTINGS, "data": {"prepared": str(arguments.out.resolve() / "tables")}}
    model = load_train_config(None).model if packaged is None else packaged.config
    settings["model"] = to_mapping(replace(model, class_count=len(table.occupied_ids)))
    if fits:
        settings["initial"] = PACKAGED
    steps = (1000 if fits else 5600) if arguments.steps is None else arguments.steps
    optimiser = {**(_FURTHER if fits else _ANEW), "warm_up": max(1, min(200, steps // 10))}
    return {**settings, "optimiser": optimiser, "steps": steps}


def _becomes(source: ClassTable, target: ClassTable) -> bool:
    """Whether a network of one class table can go on with another: it is the same, or its classes can be merged."""
    try:
        converted_ids(source, target)
    except ValueError:
        return False
    return True


def _refuse_own_settings(words: Sequence[str]) -> None:
    for word in words:
        name = word.partition("=")[0]
        if name in _OWN_SETTINGS or name.startswith("data.prepare."):
            raise ValueError(f"--set {name}: `renderocc learn` sets this itself (see --help); leave it out")
