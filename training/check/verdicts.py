"""Asks of a recording what the later commands will ask: runs their own code on it, and writes nothing."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from renderocc_model.base.config_arguments import from_arguments
from renderocc_model.base.findings import Findings
from renderocc_model.rosio.vehicle import Vehicle
from training.data.prepare import PrepareConfig
from training.data.prepare import parser as prepare_parser
from training.data.prepare.trial import try_frames
from training.label import parser as label_parser
from training.label.make import try_labels
from training.label.mapping import NeedsOption
from training.label.setup import find_sources
from training.recordings.frames import Recording
from training.recordings.notes import class_table
from training.recordings.stamped_topic import SeveralTopics

__all__ = ["Verdict", "as_json", "conclude", "judge"]


@dataclass(frozen=True)
class Verdict:
    """What a later command will do with a recording.

    Attributes:
        command: "label", "prepare" or "train".
        works: whether it will take the recording, with the options that `check` was given.
        text: what it will make of it, or why it refuses it.
        needs_option: it refuses it only for want of an option, which the text names.
        unseen: of `label`, cameras whose images got not one labelled pixel.
    """

    command: str
    works: bool
    text: str
    needs_option: bool = False
    unseen: tuple[str, ...] = ()

    def line(self) -> str:
        will = "will" if self.works else "needs an option" if self.needs_option else "will refuse it"
        return f"{self.command} {will}{' ' if self.works else ': '}{self.text}"


def judge(bag: Path, labels: Path | None, vehicle: Vehicle, options: Namespace, has_labels: bool) -> list[Verdict]:
    """The verdicts about one recording.

    Args:
        bag: the recording.
        labels: its sidecar of labels, or None.
        vehicle: its cameras, topics, frames and limits of motion.
        options: the options of `renderocc check`; those that the other commands have too count for these.
        has_labels: whether it has labels. If not, `label` is judged too. With `--no-labels`, `prepare` is judged as
            far as labels do not matter.
    """
    labels_first = has_labels or not options.no_labels
    try:
        config = _prepare_config(bag, vehicle, options)
        with Recording(bag, labels, vehicle, options.max_pose_gap) as recording:
            verdicts = [] if has_labels else [_tried("label", lambda: _label(recording, bag, options))]
            prepared = _tried("prepare", lambda: _prepare(recording, labels, config, labels_first, options.samples))
    except ValueError as error:
        verdicts = [] if has_labels else [Verdict("label", False, str(error))]
        prepared = Verdict("prepare", False, str(error))
    trained = "learn from these tables" if prepared.works else "there will be no tables of it"
    return [*verdicts, prepared, Verdict("train", prepared.works, trained)]


def conclude(findings: Findings, verdicts: list[Verdict]) -> None:
    """Add a failure for a command that will refuse the recording, if no finding is one yet, and name unseen cameras."""
    for verdict in verdicts:
        for camera in verdict.unseen:
            text = "label finds not one pixel of its images that it could label"
            findings.warn(f"camera '{camera}'", text, "look at its mount and at that of the LiDAR on /tf_static")
        if not verdict.works and not verdict.needs_option and findings.could_run:
            findings.fail(f"renderocc {verdict.command}", verdict.text)


def as_json(verdicts: list[Verdict]) -> dict[str, dict]:
    """{command: works, text, needs_option}, for JSON."""
    return {verdict.command: {k: v for k, v in asdict(verdict).items() if k != "command"} for verdict in verdicts}


def _tried(command: str, attempt: Callable[[], Verdict]) -> Verdict:
    try:
        return attempt()
    except (NeedsOption, SeveralTopics) as error:
        return Verdict(command, False, str(error), needs_option=True)
    except ValueError as error:
        return Verdict(command, False, str(error))


def _label(recording: Recording, bag: Path, options: Namespace) -> Verdict:
    sources, notes = find_sources(recording, _as_for(label_parser(), [str(bag)], options))
    coverage = try_labels(recording, sources, options.samples)
    images, labelled = sum(coverage.images.values()), sum(coverage.labelled.values())
    empty = [name for name in coverage.labelled if not coverage.depths[name] and not coverage.classified.get(name)]
    text = f"label {labelled} of the {images} images that were tried"
    if "deskewing" in notes:
        text += f"; deskewing: {notes['deskewing']}"
    return Verdict("label", True, text, unseen=tuple(empty))


def _prepare(recording: Recording, labels: Path | None, config: PrepareConfig, labelled: bool, most: int) -> Verdict:
    table = class_table(config.classes, recording.path, labels)
    trial = try_frames(recording, table, config, labelled, most)
    if not labelled:
        text = f"make tables of {trial.frames} frames once they are labelled; {trial.tried} were tried"
        return Verdict("prepare", True, text)
    share = f"{trial.classified / trial.pixels:.1%} of these with a class"
    found = f"{trial.pixels:,} labelled pixels in the {trial.tried} that were tried, {share}"
    return Verdict("prepare", True, f"make tables of {trial.frames} frames; {found}")


def _prepare_config(bag: Path, vehicle: Vehicle, options: Namespace) -> PrepareConfig:
    wanted = _as_for(prepare_parser(), [str(bag), "--out", "."], options)
    return from_arguments(wanted, PrepareConfig, PrepareConfig(vehicle=vehicle))


def _as_for(parser: ArgumentParser, words: list[str], options: Namespace) -> Namespace:
    """The options of another command: its defaults, and the values of those that `renderocc check` has too."""
    wanted = parser.parse_args(words)
    for name, value in vars(options).items():
        if hasattr(wanted, name) and name not in ("bags", "labels") and value is not None:
            setattr(wanted, name, value)
    return wanted
