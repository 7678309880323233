"""The folder of a training run: configuration, saved state, curves, pictures and checkpoints.

config.yaml             all settings of the run
state.pt                everything that the next step depends on
metrics.jsonl           the curves, one JSON object in each line
wandb_id.txt            the run's id at Weights & Biases, if curves are written there
tensorboard/            curves and pictures for TensorBoard
pictures/               held-out frames, drawn
last.safetensors        averaged weights of the last saved step
best.safetensors        averaged weights of the best validation
checkpoint.safetensors  averaged weights of the last step, with a calibrated threshold: the file for the node
tables/                 prepared recordings, if no other folder was named for them
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renderocc_model.base.config import to_mapping
from renderocc_model.base.files import replacing
from renderocc_model.base.plain_yaml import yaml_text

from .config import TrainConfig

__all__ = ["Curves", "RunFolder", "RunFolderError"]

STATE_VERSION = 1


class RunFolderError(ValueError):
    """The run's folder cannot be used. The text names it and what to do."""


class RunFolder:
    """One run's folder.

    Args:
        path: the folder. `start` makes it.
        config: the run's settings.
        data: the identity of the run's data (`Data.identity`).
    """

    def __init__(self, path: Path, config: TrainConfig, data: Mapping) -> None:
        self.path, self.config = path, config
        settings = to_mapping(config)
        for name in ("run", "initial"):  # `run` may change, and `initial` has no effect on a run that is continued
            del settings[name]
        self._identity = {**settings, "data": dict(data)}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def start(self) -> None:
        """Make the folder and write the configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.glob(".*.part"):  # remains of a process that was killed while it wrote
            path.unlink()
        with replacing(self / "config.yaml") as temporary:
            temporary.write_text(yaml_text(to_mapping(self.config)))

    def load_state(self) -> dict[str, Any] | None:
        """Load the saved state to the CPU; None if there is none. No code in the file is run.

        Raises:
            RunFolderError: it cannot be read, or is of a run with other settings or data.
        """
        path = self / "state.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            version, identity = state["version"], state["identity"]
        except Exception as error:  # torch can raise anything on a damaged file
            raise RunFolderError(
                f"{path}: cannot be read ({type(error).__name__}: {str(error)[:120]}); remove it to start again, or "
                "name another folder with --out"
            ) from None
        if version != STATE_VERSION:
            raise RunFolderError(
                f"{path}: has version {version}, but this program reads {STATE_VERSION}; name another folder with --out"
            )
        differing = _differences(identity, self._identity)
        if differing:
            name, then, now = differing[0]
            more = f" ({len(differing) - 1} more settings differ)" if len(differing) > 1 else ""
            raise RunFolderError(
                f"{self.path}: has a run with {name}={_shown(then)}, now it is {_shown(now)}{more}; give the settings "
                f"that it was started with (see its config.yaml), or name another folder with --out"
            )
        return state

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state. If this fails, the old state stays.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        with replacing(self / "state.pt") as temporary, temporary.open("wb") as file:
            try:
                torch.save({"version": STATE_VERSION, "identity": self._identity, **state}, file)
            except RuntimeError as error:  # torch raises this for an OSError
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _differences(then: Mapping, now: Mapping, prefix: str = "") -> list[tuple[str, Any, Any]]:
    found = []
    for name in dict.fromkeys([*then, *now]):
        one, other = then.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append((f"{prefix}{name}", one, other))
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Curves:
    """Writes figures and pictures to metrics.jsonl and, by the settings, to TensorBoard and Weights & Biases.

    Args:
        folder: the run's folder.
        config: the run's settings.
        step: number of steps that are done. Figures of later steps are removed, because these steps are done again.
    Raises:
        ValueError: `run.wandb` is set, but wandb is not installed.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        self._pictures = folder / "pictures"
        self._forget_after(step)
        self._board = self._wandb = None
        if config.run.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                print(
                    "TensorBoard is not installed; curves are only in metrics.jsonl; python3 -m pip install "
                    "tensorboard, or set run.tensorboard=false",
                    file=sys.stderr,
                )
            else:
                self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        if config.run.wandb:
            self._wandb = _wandb_run(config, folder, anew=step == 0)

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append figures. Those that are not numbers, such as tables by class, go only to metrics.jsonl."""
        with self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, (int, float))}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def picture(self, name: str, step: int, image: np.ndarray) -> Path:
        """Write a picture, (H, W, 3) uint8 RGB. Returns its path."""
        import cv2

        self._pictures.mkdir(exist_ok=True)
        path = self._pictures / f"step_{step:07d}_{name}.jpg"
        written, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        assert written
        with replacing(path) as temporary:
            temporary.write_bytes(data.tobytes())
        if self._board is not None:
            self._board.add_image(f"held_out/{name}", image, step, dataformats="HWC")
        return path

    def flush(self) -> None:
        """Write the events that TensorBoard's writer still has in memory."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Write everything that is still in memory. Nothing may be logged afterwards."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _forget_after(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):  # an incomplete line of a process that was killed
                continue
        with replacing(self._path) as temporary:
            temporary.write_text("".join(kept))


def _wandb_run(config: TrainConfig, folder: RunFolder, anew: bool):
    """The run at Weights & Biases: a new run, or the run of this folder's earlier steps."""
    try:
        import wandb
    except ImportError:
        raise ValueError("run.wandb is set, but wandb is not installed; python3 -m pip install wandb") from None
    note = folder / "wandb_id.txt"
    if anew or not note.exists():
        with replacing(note) as temporary:
            temporary.write_text(secrets.token_hex(4) + "\n")
    return wandb.init(
        project=config.run.wandb,
        id=note.read_text().strip(),
        resume="allow",
        name=folder.path.name,
        dir=folder.path,
        config=to_mapping(config),
    )
