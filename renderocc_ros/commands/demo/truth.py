"""The demo's volumes beside the truth: `renderocc metrics` in a process of its own, as anyone would call it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renderocc_model.base.arrays import read_npz
from renderocc_model.field.classes import OCC3D_NUSCENES, TABLES
from renderocc_model.field.truth import TRUTH_NOTE, truth_files, truth_folder

__all__ = ["Comparison", "compare", "tables_of", "truth_of_frames"]

NEAR_NS = 100_000_000  # truth is of the moment of a volume when their stamps are no farther apart


@dataclass
class Comparison:
    """What came of it.

    Attributes:
        truth: stamp of a volume -> the truth's file.
        apart: the most that the stamps of a volume and its truth differ, seconds.
        figures: what `renderocc metrics` wrote; None where there was nothing to compare, or it could not.
        complaint: why not.
    """

    truth: dict[int, Path] = field(default_factory=dict)
    apart: float = 0.0
    figures: dict | None = None
    complaint: str = ""


def truth_of_frames(bag: Path, stamps: Iterable[int]) -> dict[int, Path]:
    """The 3D truth nearest to each stamp, in occupancy/<stamp>.npz beside the messages, where it is near enough."""
    files = truth_files(bag)
    if not files:
        return {}
    known = np.array(sorted(files), np.int64)
    nearest = {stamp: int(known[np.abs(known - stamp).argmin()]) for stamp in stamps}
    return {stamp: files[other] for stamp, other in nearest.items() if abs(other - stamp) <= NEAR_NS}


def tables_of(volume: Path, truth: Path) -> list[str]:
    """The options of `renderocc metrics` for the class tables of a volume and its truth.

    Where truth.json beside the truth does not name its table, its ids do: truth of Occ3D has voxels of class 17, free;
    ground and obstacles have no such id.

    Args:
        volume: .npz file of ~/save, with the names of its classes.
        truth: .npz file beside the recording.
    """
    names = tuple(map(str, read_npz(volume, (), ("class_names",)).get("class_names", ())))
    table = next((name for name, classes in TABLES.items() if classes.names == names), None)
    if table is None:
        return []
    options = ["--classes", table]
    if (truth.parent / TRUTH_NOTE).is_file():
        return options
    semantics = read_npz(truth, ("semantics",))["semantics"]
    if table == "ground_obstacle" and (semantics == OCC3D_NUSCENES.free).any():
        options += ["--truth-classes", "occ3d_nuscenes"]
    return options


def compare(bag: Path, volumes: Mapping[int, Path], result: Path) -> Comparison:
    """Compare saved volumes with the truth in the recording's folder.

    Args:
        volumes: stamp -> .npz file of ~/save.
        result: JSON file to write the figures to.
    """
    result.unlink(missing_ok=True)  # of an earlier run
    comparison = Comparison(truth_of_frames(bag, volumes))
    if not comparison.truth:
        return comparison
    comparison.apart = max(abs(stamp - int(path.stem)) for stamp, path in comparison.truth.items()) * 1e-9
    with tempfile.TemporaryDirectory(prefix="renderocc_demo_") as folder:
        sides = [Path(folder) / name for name in ("volumes", "truth")]
        for side, files in zip(sides, (volumes, comparison.truth)):
            side.mkdir()
            for stamp in comparison.truth:
                shutil.copyfile(files[stamp], side / f"{stamp}.npz")
        note = truth_folder(bag) / TRUTH_NOTE
        if note.is_file():
            shutil.copyfile(note, sides[1] / TRUTH_NOTE)
        stamp, truth = next(iter(comparison.truth.items()))
        command = ["-m", "renderocc_model.cli", "metrics", *map(str, sides), "--rayiou", "--flat-ground"]
        command += tables_of(volumes[stamp], truth)
        done = subprocess.run(
            [sys.executable, *command, "--json", str(result)], capture_output=True, text=True, errors="replace"
        )
    if done.returncode:
        comparison.complaint = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    else:
        comparison.figures = json.loads(result.read_text())
    return comparison
