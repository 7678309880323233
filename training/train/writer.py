"""Writes a training run's curves, pictures, validations and checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from renderocc_model.base.config import to_mapping
from renderocc_model.field.threshold import Threshold
from renderocc_model.network.checkpoint import save_checkpoint

from ..evaluate.held_out import evaluate_rays, evenly, predicted_fields
from ..evaluate.threshold import calibrate_threshold
from .config import TrainConfig
from .frame_sheet import draw_frame
from .learner import Learner
from .run_data import Data
from .run_folder import Curves, RunFolder

__all__ = ["Writer", "score"]

_THRESHOLD = 0.5  # of checkpoints whose threshold was not calibrated


class Writer:
    """The first process's work beside training: curves, pictures, validation and saving. It does not change weights.

    Args:
        config: the run's settings.
        data: the run's samples.
        folder: the run's folder.
        learner: the network and its optimiser.
        state: the saved state of a run that is continued; None for a new run.
    """

    def __init__(
        self, config: TrainConfig, data: Data, folder: RunFolder, learner: Learner, state: dict | None
    ) -> None:
        self.config, self.data, self.folder, self.learner = config, data, folder, learner
        # The score of the best validation so far, and the figures of the last one.
        self.best: float | None = None if state is None else state["best"]
        self.metrics: dict = {} if state is None else state["metrics"]
        folder.start()
        self.curves = Curves(folder, config, learner.step)
        if data.held_out is None:
            print(f"no recording is held out: there is no validation, and the threshold is {_THRESHOLD}", flush=True)

    def save(self) -> None:
        """Save the state and the averaged weights."""
        self.curves.flush()  # before the state, so that curves have all steps that a killed run does not repeat
        self.folder.save_state({**self.learner.state(), "best": self.best, "metrics": self.metrics})
        self._export(self.folder / "last.safetensors", _THRESHOLD)

    def validate(self) -> None:
        """Evaluate rays of held-out frames. If the score is the best so far (see `score`), export the weights."""
        held_out = self.data.held_out
        if held_out is None:
            return
        network, model = self.learner.average.network, self.config.model
        self.metrics = evaluate_rays(
            network,
            model,
            held_out,
            self.config.run.validation_frames,
            self.learner.processes.device,
            precision=self.learner.precision,
            step=self.config.supervision.step,
        )
        self.curves.log("held_out", self.learner.step, self.metrics)
        shown = ("abs_rel", "rmse", "delta_1", "miou_2d")
        text = "  ".join(f"{name} {self.metrics[name]:.3f}" for name in shown if self.metrics[name] is not None)
        print(f"step {self.learner.step}  held out: {text or 'no labelled ray'}", flush=True)
        found = score(self.metrics)
        if self.best is None or found > self.best:
            self.best = found
            self._export(self.folder / "best.safetensors", _THRESHOLD)

    def draw(self) -> None:
        """Draw held-out frames, or training frames if none are held out."""
        frames = self.data.frames_to_draw()
        indices = evenly(len(frames), self.config.run.pictures)
        fields = predicted_fields(
            self.learner.average.network,
            self.config.model,
            frames,
            indices,
            self.learner.processes.device,
            precision=self.learner.precision,
        )
        for number, (_, sample, field) in enumerate(fields):
            self.curves.picture(f"{number}", self.learner.step, draw_frame(field, sample, self.learner.classes))

    def finish(self, path: Path) -> None:
        """Write the checkpoint: the last weights, with a threshold calibrated on held-out labels."""
        threshold: Threshold = _THRESHOLD
        calibration = None
        if self.data.held_out is not None:
            try:
                found = calibrate_threshold(
                    self.learner.average.network,
                    self.config.model,
                    self.data.held_out,
                    self.config.run.validation_frames,
                    self.learner.processes.device,
                    precision=self.learner.precision,
                )
                threshold, calibration = found.best, found.provenance(self.data.held_out.recordings)
                print(f"occupied is what is more likely than {threshold:.3g} (from held-out labels)", flush=True)
            except ValueError as error:  # labels without distances
                print(f"the threshold is {threshold}, not calibrated: {error}", flush=True)
        self._export(path, threshold, calibration)

    def _export(self, path: Path, threshold: Threshold, calibration: dict | None = None) -> None:
        config, learner = self.config, self.learner
        settings = {**to_mapping(config), "sample": to_mapping(config.samples(training=True))}
        # The checkpoint has the model's settings already, and those of `run` do not change the weights.
        del settings["model"], settings["run"]
        provenance = {
            "steps": learner.step,
            "seed": config.seed,
            "data": self.data.identity(),
            "settings": {**settings, "data": {"held_out": config.data.held_out}, "initial": Path(config.initial).name},
            "metrics": self.metrics,
            "calibration": calibration,
            "torch": torch.__version__,
        }
        save_checkpoint(path, learner.average.network, learner.classes, threshold, self.data.rig_summary(), provenance)


def score(metrics: dict) -> float:
    """The score of a validation: share of distances within 25 %, plus mean IoU of classes. More is better."""
    return sum(metrics[name] or 0.0 for name in ("delta_1", "miou_2d"))
