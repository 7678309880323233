"""The folder of a training run: its configuration, the state to go on from, curves, pictures and checkpoints.

config.yaml             every setting of the run
state.pt                all that the next step depends on, replaced whole every so often
metrics.jsonl           the curves, one JSON object a line
wandb_id.txt            the run's id at Weights & Biases, where curves go there too
tensorboard/            the same for TensorBoard, with pictures
pictures/               held-out views as they are rendered
last.safetensors        averaged weights of the last saved step
best.safetensors        those of the best validation
checkpoint.safetensors  those of the end, with calibrated threshold: what the node takes
tables/                 prepared recordings, where no other folder was named for them
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
import yaml

from renderocc_model.base.config import to_mapping
from renderocc_model.base.files import replacing

from .config import TrainConfig

__all__ = ["Curves", "RunFolder", "RunFolderError"]

STATE_VERSION = 1


class RunFolderError(ValueError):
    """A run folder that cannot be used: names it and what to do."""


class RunFolder:
    """One run's folder.

    Args:
        path: the folder; `start` makes it.
        config: of the run.
        data: what tells the run's data from other data (`Data.identity`).
    """

    def __init__(self, path: Path, config: TrainConfig, data: Mapping) -> None:
        self.path, self.config = path, config
        settings = to_mapping(config)
        for name in ("run", "initial"):  # `run` may change; where it began matters no more
            del settings[name]
        self._identity = {**settings, "data": dict(data)}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def start(self) -> None:
        """Make the folder and write the configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.glob(".*.part"):  # of a process that was killed while it wrote
            path.unlink()
        with replacing(self / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(to_mapping(self.config), sort_keys=False))

    def load_state(self) -> dict[str, Any] | None:
        """The saved state, on the CPU; None where there is none. It is read as data: no code in it is run.

        Raises:
            RunFolderError: unreadable, or of a run with other settings or data.
        """
        path = self / "state.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            version, identity = state["version"], state["identity"]
        except Exception as error:  # whatever a damaged file makes torch raise
            raise RunFolderError(
                f"{path}: cannot be read ({type(error).__name__}: {str(error)[:120]}); remove it to begin anew, or "
                "name another folder with --out"
            ) from None
        if version != STATE_VERSION:
            raise RunFolderError(
                f"{path}: is of version {version}, this program reads {STATE_VERSION}; name another folder with --out"
            )
        differing = _differences(identity, self._identity)
        if differing:
            name, then, now = differing[0]
            more = f" ({len(differing) - 1} more settings differ)" if len(differing) > 1 else ""
            raise RunFolderError(
                f"{self.path}: holds a run with {name}={_shown(then)}, now it is {_shown(now)}{more}; give the "
                f"settings it was started with (config.yaml in it), or name another folder with --out"
            )
        return state

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state, whole or not at all.

        Raises:
            OSError: the disk.
        """
        with replacing(self / "state.pt") as temporary, temporary.open("wb") as file:
            try:
                torch.save({"version": STATE_VERSION, "identity": self._identity, **state}, file)
            except RuntimeError as error:  # torch's own words for a write that failed
                raise error.__context__ if isinstance(error.__context__, OSError) else error


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
    """Writes figures and pictures to metrics.jsonl, to TensorBoard and, if asked for, to Weights & Biases.

    Args:
        folder: of the run.
        config: says to which.
        step: at which the run begins or goes on; what was written of later steps is dropped, as it is done again.
    Raises:
        ValueError: wandb was asked for and is not installed.
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
                    "no curves for TensorBoard (they are in metrics.jsonl): python3 -m pip install tensorboard, or set "
                    "run.tensorboard=false",
                    file=sys.stderr,
                )
            else:
                self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        if config.run.wandb:
            self._wandb = _wandb_run(config, folder, anew=step == 0)

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append figures; those that are no numbers, as tables by class, go to metrics.jsonl alone."""
        with self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, (int, float))}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def picture(self, name: str, step: int, image: np.ndarray) -> Path:
        """Write a picture, (H, W, 3) uint8 RGB."""
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
        """Write what TensorBoard's writer still holds in memory."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Write what is still held in memory, and end. Nothing may be logged afterwards."""
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
            except (ValueError, KeyError, TypeError):  # half a line, of a process that was killed
                continue
        with replacing(self._path) as temporary:
            temporary.write_text("".join(kept))


def _wandb_run(config: TrainConfig, folder: RunFolder, anew: bool):
    """The run at Weights & Biases: a new one, or the one that this folder has written to before."""
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
