"""The folder of a training run: its configuration, the state to go on from, curves, pictures and checkpoints.

    config.yaml             every setting of the run
    state.pt                all that the next step depends on, replaced whole every so often
    metrics.jsonl           the curves, one JSON object a line
    tensorboard/            the same for TensorBoard, with pictures
    pictures/               held-out views as they are rendered
    last.safetensors        averaged weights of the last saved step
    best.safetensors        those of the best validation
    checkpoint.safetensors  those of the end, with calibrated threshold: what the node takes
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from renderocc_model.config import to_mapping
from renderocc_model.files import replacing

from .train_config import TrainConfig

__all__ = ["RunFolder", "RunFolderError"]

STATE_VERSION = 1


class RunFolderError(ValueError):
    """A run folder that cannot be used: names it and what to do."""


class RunFolder:
    """Reads and writes one run's folder; only the first process has one that writes.

    Args:
        path: the folder; made where it is missing.
        config: of the run.
    Raises:
        RunFolderError: the folder holds a run of another configuration.
    """

    def __init__(self, path: str | Path, config: TrainConfig) -> None:
        self.path, self.config = Path(path), config

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def start(self) -> None:
        """Make the folder and write the configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(to_mapping(self.config), sort_keys=False))

    def load_state(self) -> dict[str, Any] | None:
        """The saved state, on the CPU; None where there is none.

        Raises:
            RunFolderError: unreadable, or of a run with other settings.
        """
        path = self / "state.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)  # runs no code
            version = state["version"]
        except Exception as error:  # whatever a damaged file makes torch raise
            raise RunFolderError(
                f"{path}: cannot be read ({type(error).__name__}: {str(error)[:120]}); remove it to begin anew, or "
                "name another folder with --out"
            ) from None
        if version != STATE_VERSION:
            raise RunFolderError(f"{path}: is of version {version}, this program reads {STATE_VERSION}; begin anew")
        differing = _differences(state["config"], _learned(self.config))
        if differing:
            name, then, now = differing[0]
            more = f" ({len(differing) - 1} more differ)" if len(differing) > 1 else ""
            raise RunFolderError(
                f"{self.path}: holds a run with {name}={then}, now it is {now}{more}; go on with the settings in "
                f"{self / 'config.yaml'}, or name another folder with --out"
            )
        return state

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state, whole or not at all."""
        with replacing(self / "state.pt") as temporary, temporary.open("wb") as file:
            torch.save({"version": STATE_VERSION, "config": _learned(self.config), **state}, file)

    def forget_after(self, step: int) -> None:
        """Drop lines of the curves beyond a step: they will be written again."""
        path = self / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):  # half a line, of a process that was killed
                continue
        with replacing(path) as temporary:
            temporary.write_text("".join(kept))

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append to the curves."""
        with (self / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


def _learned(config: TrainConfig) -> dict:
    """The settings that decide what is learned: all but those of `run`, and of where the data lies."""
    settings = to_mapping(config)
    del settings["run"]
    return settings


def _differences(then: Mapping, now: Mapping, prefix: str = "") -> list[tuple[str, Any, Any]]:
    found = []
    for name in sorted({*then, *now}):
        one, other = then.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append((f"{prefix}{name}", one, other))
    return found
