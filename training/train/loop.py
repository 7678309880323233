"""The training loop, from the first step, or the one where the run was interrupted, to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from ..data.batch import Batch
from .config import TrainConfig
from .distributed import Processes
from .learner import Learner
from .loader import training_batches
from .progress import Progress
from .run_data import Data
from .run_folder import RunFolder
from .writer import Writer

__all__ = ["learn", "train"]


def train(
    config: TrainConfig, data: Data, folder: RunFolder, processes: Processes, stop: Callable[[], bool]
) -> Path | None:
    """Train to the last step, from where the run in the folder stands.

    Args:
        stop: asked after each step; when true in any process, the state is saved and training stops.
    Returns:
        the checkpoint; None when stopped before the last step.
    Raises:
        ValueError: data, model or folder do not fit (TablesError, RunFolderError); Diverged.
        OSError: the disk.
    """
    learner = Learner(config, data.training, processes)
    checkpoint = folder / "checkpoint.safetensors"
    state = folder.load_state()
    if state is not None:
        learner.load_state(state)
    if processes.any(learner.step == config.steps and checkpoint.exists()):
        return checkpoint
    writer = Writer(config, data, folder, learner, state) if processes.first else None
    del state  # as large as the network and its optimiser
    # Closed however the loop ends: the loading processes, which ignore signals, would keep this one from ending, and
    # curves not yet written would be lost.
    batches = training_batches(config, data.training, learner.step, processes)
    with closing(batches), closing(writer.curves) if writer else nullcontext():
        progress = Progress(learner.step, config.steps)
        while learner.step < config.steps:
            values, rays = learn(learner, batches)
            progress.add(values, rays)
            step = learner.step

            if step % config.run.log_every == 0 or step == config.steps:
                means, rates = progress.take(processes.world_size, learner.waited)
                learner.waited = 0.0
                means = processes.mean(means)
                if writer:
                    writer.curves.log("train", step, {**means, **rates, "learning_rate": learner.rate})
                    print(progress.line(step, means, rates), flush=True)

            stopping = processes.any(stop()) and step < config.steps
            if writer:
                paused = progress.pause()
                if _due(step, config.run.picture_every, config) and not stopping:
                    writer.draw()
                if _due(step, config.run.validate_every, config) and not stopping:
                    writer.validate()
                if _due(step, config.run.save_every, config) or stopping:
                    writer.save()
                progress.resume(paused)
            if stopping:
                return None
    if writer:
        writer.finish(checkpoint)
    processes.wait()
    return checkpoint


def learn(learner: Learner, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], int]:
    """One optimiser step: from the next batches to better weights.

    Returns:
        means over this process's samples of the loss, its weighted terms and the figures that supervision gives, with
        the gradient's norm; and the number of rays seen.
    Raises:
        Diverged: the network's output or the gradient is not finite.
    """
    parts, rays = learner.config.accumulate, 0
    figures: dict[str, Tensor] = {}
    learner.begin_step()
    for part in range(parts):
        batch = learner.next_batch(batches)
        with learner.gradients_shared(last=part + 1 == parts):
            output = learner.predict(batch)
            predictions = output.density, output.semantics, output.depth_distribution
            # Losses are taken sample by sample from the output, cut off from the network, so that memory holds the rays
            # of one sample at a time; the gradients they leave there then go through the network at once.
            gradients = [torch.zeros_like(prediction) for prediction in predictions]
            for index in range(len(batch)):
                learner.add_losses(batch, index, predictions, gradients, figures)
            torch.autograd.backward(predictions, gradients)
        rays += batch.ray_count
    norm = learner.update(figures)
    return {**figures, "gradient_norm": norm}, rays


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return step == config.steps or (every > 0 and step % every == 0)
