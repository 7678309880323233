"""The training loop."""

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
    """Train to the last step. A run that was interrupted continues from its saved state.

    Args:
        config: the run's settings.
        data: the run's samples.
        folder: the run's folder.
        processes: the processes that train together.
        stop: called after each step. If it returns true in any process, the state is saved and training stops.
    Returns:
        path of the checkpoint; None if training was stopped before the last step.
    Raises:
        ValueError: data, model or folder do not fit together (TablesError, RunFolderError), or training Diverged.
        OSError: the disk is full or cannot be written.
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
    # Both are closed however the loop ends. Otherwise this process would wait for the loading processes, which ignore
    # signals, and curves in memory would be lost.
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
    """Do one optimiser step with the next batches.

    Returns:
        means over this process's samples of the loss, its weighted terms and the figures of supervision, with the
        gradient's norm; and the number of rays.
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
            # Losses are computed sample by sample, detached from the network, so that memory has the rays of only one
            # sample at a time. Then their gradients go back through the network at once.
            gradients = [torch.zeros_like(prediction) for prediction in predictions]
            for index in range(len(batch)):
                learner.add_losses(batch, index, predictions, gradients, figures)
            torch.autograd.backward(predictions, gradients)
        rays += batch.ray_count
    norm = learner.update(figures)
    return {**figures, "gradient_norm": norm}, rays


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return step == config.steps or (every > 0 and step % every == 0)
