"""The folder of a study's towns, and the jobs that record, label and prepare missing towns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.config import to_mapping
from renderocc_model.base.files import replacing

from .description import EXACT, LIDAR, MOTION, PARTS, TownData
from .jobs import RENDEROCC, Job

__all__ = ["TownFolder"]

_LEARNED = ("training", "validation")  # parts whose 2D labels are made; test towns are compared with exact ones
_LABELLED = {
    LIDAR: (),  # classes are a field of the clouds
    MOTION: ("--depth-from", "motion", "--semantic-topic", "/{camera}/semantic"),
}


class TownFolder:
    """Recordings, 2D labels and tables of a study's towns.

    Args:
        path: the folder. It is made if it is missing.
        data: the study's towns.
        labels: what labels are learned from (`Variant.labels`).
    Attributes:
        recordings: folder of the recordings.
    Raises:
        ValueError: the folder has towns of another description.
    """

    def __init__(self, path: Path, data: TownData, labels: Sequence[str] = (EXACT,)) -> None:
        self.path, self.data, self.labels = path, data, tuple(labels)
        self.recordings = path / "recordings"
        self.recordings.mkdir(parents=True, exist_ok=True)
        self._claim()

    def tables(self, labels: str = EXACT) -> Path:
        """Folder of the recordings prepared with labels of a kind."""
        return self.path / ("tables" if labels == EXACT else f"tables_{labels}")

    def _claim(self) -> None:
        """Write a note that describes the towns. A folder with another note is refused."""
        note, wanted = self.path / "towns.json", to_mapping(self.data)
        if LIDAR in self.labels:
            wanted["lidar"] = True
        if note.exists():
            try:
                found = json.loads(note.read_text())
            except ValueError:
                found = None
            if found != wanted:
                raise ValueError(
                    f"{self.path}: has towns of another description ({note.name} differs); remove the folder, or name "
                    "another with --out"
                )
            return
        with replacing(note) as partial:
            partial.write_text(json.dumps(wanted, indent=2) + "\n")

    def missing(self) -> list[Job]:
        """Jobs that record the missing towns. No other process may be running in the folder."""
        for partial in self.recordings.glob(".*.partial"):  # remains of a process that was killed
            shutil.rmtree(partial)
        return [
            self._record(name, seed, getattr(self.data, part).frames)
            for part in PARTS
            for name, seed in zip(self.data.recordings(part), getattr(self.data, part).seeds)
            if not (self.recordings / name).exists()
        ]

    def _record(self, name: str, seed: int, frames: int) -> Job:
        size = ("--width", str(self.data.width), "--height", str(self.data.height))
        command = (
            RENDEROCC,
            "simulate",
            str(self.recordings / name),
            "--seed",
            str(seed),
            "--frames",
            str(frames),
            "--rate",
            str(self.data.rate),
            *size,
            *(() if LIDAR in self.labels else ("--no-lidar",)),
            "--jobs",
            "1",
        )
        return Job(name, (command,))

    def unlabelled(self) -> list[Job]:
        """Jobs that make the missing 2D labels of recorded towns. Depth from motion that was interrupted goes on."""
        jobs = []
        for labels in self._made():
            (self.path / f"labels_{labels}").mkdir(exist_ok=True)
            for name in self._learned():
                sidecar = self._sidecar(name, labels)
                words = (str(self.recordings / name), "--out", str(sidecar), *_LABELLED[labels], "--jobs", "1")
                if not sidecar.exists():
                    jobs.append(Job(f"{name}_{labels}", ((RENDEROCC, "label", *words),)))
        return jobs

    def _made(self) -> list[str]:
        return [labels for labels in self.labels if labels != EXACT]

    def _learned(self) -> list[str]:
        return [name for part in _LEARNED for name in self.data.recordings(part)]

    def _sidecar(self, name: str, labels: str) -> Path:
        return self.path / f"labels_{labels}" / name

    def prepare(self, jobs: int) -> Job:
        """A job that prepares the recordings with each kind of labels. It skips recordings that are prepared already.

        With exact labels all of them are prepared, as the test towns are compared with them.
        """
        everything = [name for part in PARTS for name in self.data.recordings(part)]
        commands = [self._prepare(everything, EXACT, jobs)]
        commands += [self._prepare(self._learned(), labels, jobs) for labels in self._made()]
        return Job("prepare", tuple(commands))

    def _prepare(self, names: Sequence[str], labels: str, jobs: int) -> tuple[str, ...]:
        sidecars = () if labels == EXACT else ("--labels", *(str(self._sidecar(name, labels)) for name in names))
        return (
            RENDEROCC,
            "prepare",
            *(str(self.recordings / name) for name in names),
            *sidecars,
            "--out",
            str(self.tables(labels)),
            "--pixels-per-image",
            str(self.data.pixels_per_image),
            "--jobs",
            str(jobs),
        )
