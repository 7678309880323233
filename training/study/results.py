"""Reads and writes the results of a study: a small JSON file for each run, which belongs to the repository."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from renderocc_model.base.config import from_mapping

from ..evaluate.metrics import write_json
from ..train.config import TrainConfig
from .description import Run, Study, deciding_settings

__all__ = ["FIGURES", "Results", "Spread", "spread", "write_source"]

FIGURES = (
    "miou",
    "rayiou",
    "rayiou_1",
    "rayiou_2",
    "rayiou_4",
    "iou_occupied",
    "abs_rel",
    "rmse",
    "delta_1",
    "miou_2d",
)
_OF_VOLUMES = FIGURES[:6]
_SOURCE = "source.json"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None for a single value) and number of values."""

    mean: float
    deviation: float | None
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of some values; None without values."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values))


class Results:
    """The results of a study in a folder, as VARIANT_SEED.json.

    Args:
        folder: the folder of the results.
        study: the study.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study

    def path(self, run: Run) -> Path:
        return self.folder / f"{run.name}.json"

    def read(self, run: Run) -> dict | None:
        """The result of a run; None if there is none yet.

        Raises:
            ValueError: the file is damaged, or of a run with other settings or towns.
        """
        path = self.path(run)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            made_with = content["made_with"]
            missing = [name for name in FIGURES if name not in content["figures"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: is not the result of a run ({error!r}); remove it, and the run will be done again"
            ) from None
        wanted = json.loads(json.dumps(self.study.identity(run)))
        differing = _first_difference(_with_later_settings(made_with), wanted)
        if missing or differing:
            what = f"lacks {missing[0]}" if missing else f"was made with {differing}"
            raise ValueError(
                f"{path}: {what}; remove it and the run's folder to do the run again, or give the study another name"
            )
        return content

    def all(self) -> dict[str, dict]:
        """All existing results, by name of the run."""
        found = {run.name: self.read(run) for run in self.study.runs()}
        return {name: result for name, result in found.items() if result is not None}

    def write(self, run: Run, run_folder: Path, evaluation: dict, threads: int) -> None:
        """Write the result of a finished run, from the output of `renderocc eval`."""
        volumes, rays = evaluation["volumes"], evaluation["rays"]
        if volumes is None:
            raise ValueError(f"{run_folder}: the test towns have no 3D truth")
        config = self.study.train_config(run)
        figures = {name: (volumes if name in _OF_VOLUMES else rays)[name] for name in FIGURES}
        write_json(
            self.path(run),
            {
                "study": self.study.config.name,
                "variant": run.variant.name,
                "about": run.variant.about,
                "seed": run.seed,
                "figures": figures,
                "iou": volumes["iou"],
                "threshold": evaluation["threshold"],
                "tested_on": {
                    "recordings": evaluation["recordings"],
                    "frames": evaluation["frames"],
                    "rays_of_rayiou": volumes["counts"]["rays"],
                    "labelled_rays": rays["counts"]["returns"],
                },
                "baselines": {
                    name: {figure: found[figure] for figure in _OF_VOLUMES}
                    for name, found in evaluation["baselines"].items()
                },
                "steps": config.steps,
                "training_seconds": round(training_seconds(run_folder), 1),
                "device": device_name(config.run.device),
                "threads": threads,
                "evaluated_in": evaluation["precision"],
                "source": json.loads((run_folder / _SOURCE).read_text()),
                "made_with": self.study.identity(run),
            },
        )


def write_source(run_folder: Path) -> None:
    """Write the source's version to a run's folder. A run that is continued keeps its first version."""
    path = run_folder / _SOURCE
    if not path.exists():
        run_folder.mkdir(parents=True, exist_ok=True)
        write_json(path, source_version())


def training_seconds(run_folder: Path) -> float:
    """Seconds that a run's steps took, from its curves. Interruptions do not count."""
    seconds, before = 0.0, 0
    for line in (run_folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("kind") == "train":
            seconds += entry["step_seconds"] * (entry["step"] - before)
            before = entry["step"]
    return seconds


def device_name(device: str) -> str:
    """The name of the hardware that `run.device` selects."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{len(os.sched_getaffinity(0))} cores of {model or platform.processor() or 'a CPU'}"


def source_version() -> dict:
    """Versions of torch, Python and this project. The commit has a + if files differ from it; None without git."""
    import torch

    def git(*words: str) -> subprocess.CompletedProcess | None:
        try:
            return subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, check=False)
        except OSError:
            return None

    commit, found = None, git("rev-parse", "--short=12", "HEAD")
    if found is not None and found.returncode == 0:
        differs = git("diff", "--quiet", "HEAD", "--", "training", "renderocc_model")
        commit = found.stdout.strip() + ("" if differs is not None and differs.returncode == 0 else "+")
    return {"commit": commit, "torch": torch.__version__, "python": platform.python_version()}


def _with_later_settings(made_with: dict) -> dict:
    """The settings of an older result, where settings that did not exist then have their defaults.

    A new setting must therefore have a default that does what was done without it.
    """
    try:
        then = from_mapping(TrainConfig, made_with["training"], "made_with")
    except (KeyError, ValueError):  # a setting that exists no more; it is named as a difference
        return made_with
    return {**made_with, "training": json.loads(json.dumps(deciding_settings(then)))}


def _first_difference(then: object, now: object, name: str = "") -> str:
    """The first entry in which two structures of plain data differ, as text; empty if they are equal."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            found = _first_difference(then.get(key), now.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return ""
    return "" if then == now else f"{name}={then}, now it is {now}"
