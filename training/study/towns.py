"""The folder of a study's towns, and the jobs that record and prepare missing towns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from renderocc_model.base.config import to_mapping
from renderocc_model.base.files import replacing

from .description import PARTS, TownData
from .jobs import RENDEROCC, Job

__all__ = ["TownFolder"]


class TownFolder:
    """Recordings and tables of a study's towns.

    Args:
        path: the folder. It is made if it is missing.
        data: the study's towns.
    Attributes:
        recordings: folder of the recordings.
        tables: folder of the prepared recordings.
    Raises:
        ValueError: the folder has towns of another description.
    """

    def __init__(self, path: Path, data: TownData) -> None:
        self.path, self.data = path, data
        self.recordings, self.tables = path / "recordings", path / "tables"
        self.recordings.mkdir(parents=True, exist_ok=True)
        self._claim()

    def _claim(self) -> None:
        """Write a note that describes the towns. A folder with another note is refused."""
        note, wanted = self.path / "towns.json", to_mapping(self.data)
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
            "--no-lidar",
            "--jobs",
            "1",
        )
        return Job(name, (command,))

    def prepare(self, jobs: int) -> Job:
        """A job that prepares the recordings. It skips recordings that are prepared already."""
        names = [name for part in PARTS for name in self.data.recordings(part)]
        command = (
            RENDEROCC,
            "prepare",
            *(str(self.recordings / name) for name in names),
            "--out",
            str(self.tables),
            "--pixels-per-image",
            str(self.data.pixels_per_image),
            "--jobs",
            str(jobs),
        )
        return Job("prepare", (command,))
