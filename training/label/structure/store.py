"""Keeps the windows that are done in a folder, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from renderocc_model.base.files import replacing

from .window import ImageLabels, Report

__all__ = ["WindowStore"]

_KEY = "key.json"


class WindowStore:
    """Results of windows, one file for each.

    Args:
        folder: where they are kept; made if it does not exist.
        key: what the results depend on (JSON). Results of another key are removed.
    Attributes:
        discarded: whether results of another key were removed.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(key, sort_keys=True)
        note = folder / _KEY
        self.discarded = folder.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != text)
        if self.discarded:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(note) as partial:
            partial.write_text(text, encoding="utf-8")

    def save(self, number: int, labels: dict[tuple[str, int], ImageLabels], report: Report) -> None:
        """Write the result of a window in one step."""
        keys = sorted(labels)
        with replacing(self._path(number)) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                counts=np.array([len(labels[key].depth) for key in keys], np.int64),
                pixels=np.concatenate([np.zeros((0, 2), np.int32), *(labels[key].pixels for key in keys)]),
                depth=np.concatenate([np.zeros(0, np.float32), *(labels[key].depth for key in keys)]),
                note=np.array(json.dumps({"keys": keys, "report": asdict(report)})),
            )

    def has(self, number: int) -> bool:
        """Whether a window is done."""
        return self._path(number).is_file()

    def load(self, number: int) -> tuple[dict[tuple[str, int], ImageLabels], Report]:
        """The result of a window that is done."""
        with np.load(self._path(number), allow_pickle=False) as archive:
            note = json.loads(str(archive["note"]))
            ends = np.cumsum(archive["counts"])[:-1]
            pixels, depth = np.split(archive["pixels"], ends), np.split(archive["depth"], ends)
        labels = {
            (str(camera), int(stamp)): ImageLabels(where, metres)
            for (camera, stamp), where, metres in zip(note["keys"], pixels, depth)
        }
        values = {field.name: note["report"][field.name] for field in fields(Report)}
        return labels, Report(**{**values, "scales": tuple(values["scales"]), "scores": tuple(values["scores"])})

    def remove(self) -> None:
        """Remove all results, once the labels are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"window_{number:05d}.npz"
