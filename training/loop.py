"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from renderocc_model.fusion import Volume
from renderocc_model.network import NetworkOutput, OccupancyNetwork, build_network

from .batch import Batch
from .dataset import RayDataset, split_recordings
from .distributed import Processes
from .loader import training_batches
from .optimise import AveragedWeights, build_optimiser, freeze_batch_norm, keep_depthwise_single, set_learning_rate
from .run_folder import RunFolder
from .supervision import supervise
from .tables import list_tables
from .train_config import TrainConfig

__all__ = ["Diverged", "train"]

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Diverged(ValueError):
    """The loss or its gradient is not finite; says which setting to change."""


def train(config: TrainConfig, folder: RunFolder, processes: Processes, stop: Callable[[], bool]) -> bool:
    """Train from the beginning, or from where the run in `folder` stopped, to the last step.

    Args:
        stop: asked after each step; when true in any process, the state is saved and training stops.
    Returns:
        whether the last step was reached.
    Raises:
        ValueError: the data, the model or the folder do not fit (TablesError, RunFolderError); Diverged.
        OSError: the disk.
    """
    dataset, held_out = datasets(config)
    learner = Learner(config, dataset, processes)
    state = folder.load_state()
    if state is not None:
        learner.load_state(state)
    if processes.first:
        folder.forget_after(learner.step)
    batches = training_batches(
        config, dataset, learner.step, processes.rank, processes.world_size, processes.device.type == "cuda"
    )
    meter = Meter(config, learner.step)
    while learner.step < config.steps:
        terms, rays = learner.learn(batches)
        meter.add(terms, rays)
        step = learner.step
        if step % config.run.log_every == 0 or step == config.steps:
            values = processes.mean(meter.means())
            if processes.first:
                folder.log("train", step, {**values, **meter.rates(processes.world_size, learner)})
                print(meter.line(step, values), flush=True)
            meter.clear()
        stopping = processes.any(stop())
        if processes.first and (stopping or step % config.run.save_every == 0 or step == config.steps):
            folder.save_state(learner.state())
            learner.export(folder / "last.safetensors")
        if stopping:
            return False
    return True


def datasets(config: TrainConfig) -> tuple[RayDataset, RayDataset | None]:
    """Training and held-out samples of the prepared recordings."""
    data, grid = config.data, config.supervision.truth_grid
    names = list_tables(data.prepared)
    given = sorted({*data.training, *data.validation})
    if data.validation:
        learned, held_out = [name for name in names if name not in data.validation], list(data.validation)
    else:
        rest = [name for name in names if name not in data.training] if data.training else names
        learned, held_out = split_recordings(rest, data.held_out, 0) if not data.training else (given, rest)
    learned = list(data.training) or learned
    dataset = RayDataset(data.prepared, config.samples(training=True), learned, config.seed, grid=grid)
    if not held_out:
        return dataset, None
    other = RayDataset(
        data.prepared, config.samples(training=False), held_out, config.seed, dataset.class_counts, grid=grid
    )
    return dataset, other


class Learner:
    """The network and all that changes with it, step by step."""

    def __init__(self, config: TrainConfig, dataset: RayDataset, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.classes, self.class_counts = dataset.classes, torch.as_tensor(dataset.class_counts)
        torch.manual_seed(config.seed)
        self.network = build_network(config.model, pretrained=True).to(processes.device).train()
        freeze_batch_norm(self.network, config.optimiser.batch_norm)
        self.average = AveragedWeights(self.network, config.optimiser.ema)
        self.optimiser = build_optimiser(self.network, config.optimiser)
        self.precision = chosen_precision(config.precision, processes.device)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.precision == "float16")
        if self.precision == "bfloat16" and processes.device.type == "cpu":
            keep_depthwise_single(self.network)
        self.wrapped = processes.wrapped(self.network)
        self.step = 0
        self.rate = 0.0

    def learn(self, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], int]:
        """One optimiser step; the means of its loss terms, and how many rays it saw in this process."""
        config, step = self.config, self.step
        torch.manual_seed(_seed(config.seed, step, self.processes.rank))  # of dropped paths: no state to be saved
        self.rate = set_learning_rate(self.optimiser, step, config.steps, config.optimiser)
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        rays = 0
        for part in range(config.accumulate):
            batch = next(batches).to(self.processes.device, non_blocking=True)
            alone = self.processes.world_size > 1 and part + 1 < config.accumulate
            with self.wrapped.no_sync() if alone else nullcontext():
                self._backward(batch, sums)
            rays += batch.ray_count
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            raise Diverged(f"the gradient is {float(norm)} at step {step}")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.network)
        self.step += 1
        return {**sums, "loss": sum(sums.values()), "gradient": norm}, rays

    def _backward(self, batch: Batch, sums: dict[str, Tensor]) -> None:
        """Add a part's gradient to the parameters'.

        The losses are taken sample by sample from the network's output, cut off from the network, so that memory holds
        the rays of one sample at a time; then the gradient they left there goes through the network at once.
        """
        share = 1 / (len(batch) * self.config.accumulate)
        with autocast(self.processes.device, self.precision):
            output = self.wrapped(batch.current.network_input(), batch.geometry, previous_volume(self.network, batch))
        predictions = [output.density, output.semantics, output.depth_distribution]
        gradients = [torch.zeros_like(prediction) for prediction in predictions]
        cameras = batch.images.shape[1]
        for index in range(len(batch)):
            rows = [slice(index, index + 1)] * 2 + [slice(index * cameras, (index + 1) * cameras)]
            leaves = [tensor[row].detach().requires_grad_() for tensor, row in zip(predictions, rows)]
            generator = torch.Generator(self.processes.device)
            generator.manual_seed(_seed(self.config.seed, self.step, batch.indices[index]))
            terms = supervise(
                self.config.supervision, self.config.model, self.classes, self.class_counts,
                NetworkOutput(*leaves, None), batch.only(index), generator,
            )  # fmt: skip
            self.scaler.scale(sum(terms.values()) * share).backward()
            for gradient, leaf, row in zip(gradients, leaves, rows):
                if leaf.grad is not None:
                    gradient[row] = leaf.grad
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach() * share
        torch.autograd.backward(predictions, gradients)

    def state(self) -> dict:
        """All that the next step depends on; the random numbers of a step follow from its number."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict) -> None:
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])

    def export(self, path: Path, threshold: float = 0.5) -> None:
        """Write the averaged weights as a checkpoint."""
        from renderocc_model.checkpoint import save_checkpoint

        save_checkpoint(path, self.average.network, self.classes, threshold, None, {"steps": self.step})


def previous_volume(network: OccupancyNetwork, batch: Batch) -> Volume | None:
    """The volume of each sample's frame before, moved to its current frame; without gradient, as at run time."""
    if not batch.previous:
        return None
    before = batch.previous[0]
    with torch.no_grad():
        depth, context = network.image_features(
            before.network_input().flatten(0, 1), before.geometry.cameras.flatten(0, 1)
        )
        volume = Volume.current(network.pool(depth, context, before.geometry.voxel_index))
    return volume.moved(torch.linalg.inv(batch.odom_from_base) @ before.odom_from_base, before.valid)


def autocast(device: torch.device, precision: str):
    """The context in which a network runs in a precision."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, _PRECISIONS[precision])


def chosen_precision(precision: str, device: torch.device) -> str:
    """What `auto` means on a device."""
    from renderocc_model.predictor import _cpu_multiplies_bfloat16

    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 needs CUDA; on the CPU use auto, float32 or bfloat16")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if _cpu_multiplies_bfloat16() else "float32"


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass
class Meter:
    """Means of the loss terms between two progress lines, and the time they took."""

    config: TrainConfig
    first: int

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.done = 0
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = self.rays = 0
        self.start = time.monotonic()

    def add(self, terms: dict[str, Tensor], rays: int) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.count += 1
        self.done += 1
        self.rays += rays

    def means(self) -> dict[str, Tensor]:
        return {name: value / self.count for name, value in self.sums.items()}

    def rates(self, world_size: int, learner: Learner) -> dict[str, float]:
        seconds = time.monotonic() - self.start
        return {
            "rays_per_second": self.rays * world_size / seconds,
            "step_seconds": seconds / self.count,
            "learning_rate": learner.rate,
        }

    def line(self, step: int, values: dict[str, float]) -> str:
        now = time.monotonic()
        seconds = (now - self.start) / self.count
        left = int((self.config.steps - step) * (now - self.began) / self.done)
        terms = "  ".join(f"{name} {value:.3g}" for name, value in values.items() if name not in ("loss", "gradient"))
        return (
            f"step {step}/{self.config.steps}  loss {values['loss']:.4g}  ({terms})  {seconds:.2f} s/step  "
            f"{self.rays / (now - self.start):.0f} rays/s  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} to go"
        )
