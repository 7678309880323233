"""The network, its optimiser and the parts of an optimiser step (`loop.learn` is a whole step)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from renderocc_model.base.config import to_mapping
from renderocc_model.field.classes import ClassTable
from renderocc_model.field.conversion import converted_ids
from renderocc_model.inference.precision import autocast
from renderocc_model.network.checkpoint import load_checkpoint
from renderocc_model.network.heads import CLASS_LAYER, spread_over_layers
from renderocc_model.network.layers import WITHOUT_EFFECT, ResidualBlock
from renderocc_model.network.lift import spread_over_subpixels
from renderocc_model.network.network import NetworkOutput, OccupancyNetwork, build_network

from ..data.batch import Batch
from ..data.dataset import RayDataset
from ..data.previous_frame import previous_frame
from ..supervision.supervise import Supervision
from .config import TrainConfig
from .distributed import Processes
from .optimise import (
    AveragedWeights,
    build_optimiser,
    freeze_batch_norm,
    keep_depthwise_single,
    set_learning_rate,
    share_batch_norm,
)
from .precision import training_precision

__all__ = ["Diverged", "Learner"]

_LEAST_SCALE = 2.0**-10  # of the loss in float16: if a gradient overflows even then, training has diverged


class Diverged(ValueError):
    """The loss or its gradient is not finite. The text says which setting to change."""


class Learner:
    """The network and its optimiser.

    Args:
        config: the run's settings.
        dataset: gives the labels' classes and their frequencies.
        processes: the processes that train together. The network is on their device.
    Attributes:
        network: the network, in training mode.
        average: its averaged weights, which are validated and exported.
        step: number of optimiser steps that are done.
        rate: learning rate of the last step.
        waited: seconds that steps waited for samples. Set it to 0 to restart counting.
    Raises:
        ValueError: model, initial weights and classes do not fit together, or the batch cannot be divided among the
            processes.
    """

    def __init__(self, config: TrainConfig, dataset: RayDataset, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.classes = dataset.classes
        if len(self.classes.occupied_ids) != config.model.class_count:
            raise ValueError(
                f"model.class_count is {config.model.class_count}, but the labels have "
                f"{len(self.classes.occupied_ids)} classes without free; set model.class_count to this number"
            )
        if config.batch % (processes.world_size * config.accumulate):
            raise ValueError(
                f"batch is {config.batch}, which {processes.world_size} processes in {config.accumulate} parts "
                "(accumulate) cannot share evenly; make it a multiple of both"
            )
        torch.manual_seed(config.seed)
        self.network = _initial_network(config, self.classes).to(processes.device).train()
        self.supervision = Supervision(
            config.supervision, config.model, dataset.classes, dataset.class_counts, processes.device
        )
        self.average = AveragedWeights(self.network, config.optimiser.ema)
        self.precision = training_precision(config.precision, processes.device)
        if self.precision == "bfloat16" and processes.device.type == "cpu":
            keep_depthwise_single(self.network)
        if processes.world_size > 1 and processes.device.type == "cuda":
            self.network = share_batch_norm(self.network)
        freeze_batch_norm(self.network, config.optimiser.batch_norm)
        self.optimiser = build_optimiser(self.network, config.optimiser)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=self.precision == "float16")
        self._shared = processes.shared(self.network)
        self.step, self.rate, self.waited = 0, 0.0, 0.0

    def begin_step(self) -> None:
        """Set random numbers and learning rate for the next step, and clear gradients."""
        config = self.config
        torch.manual_seed(_seed(config.seed, self.step, self.processes.rank))  # so the generator's state is not saved
        self.rate = set_learning_rate(self.optimiser, self.step, config.steps, config.optimiser)
        self.optimiser.zero_grad(set_to_none=True)

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next part of the step, on the device."""
        start = time.monotonic()
        batch = next(batches).to(self.processes.device, non_blocking=True)
        self.waited += time.monotonic() - start
        return batch

    def gradients_shared(self, last: bool) -> AbstractContextManager:
        """A context for backward. In the step's last part, gradients of all parts are averaged over all processes."""
        return nullcontext() if last or self.processes.world_size == 1 else self._shared.no_sync()

    def predict(self, batch: Batch) -> NetworkOutput:
        """The network's output for a batch, in the run's precision."""
        device = self.processes.device
        with autocast(device, self.precision):
            previous = previous_frame(self.network, batch)
        # A second context: in the first one, autocast would reuse the weights that it has cast without gradient.
        with autocast(device, self.precision):
            return self._shared(
                batch.current.network_input(), batch.geometry, previous, self.config.supervision.depth_from_volume
            )

    def add_losses(
        self,
        batch: Batch,
        index: int,
        predictions: Sequence[Tensor],
        gradients: Sequence[Tensor],
        figures: dict[str, Tensor],
    ) -> None:
        """Compute the losses of one sample of a batch.

        Args:
            batch: the batch.
            index: number of the sample.
            predictions: density, semantics and depth distribution of the batch.
            gradients: tensors of the same shapes, which receive the gradient of the sample's share of the step's loss.
            figures: receives this share of the loss, its terms, and the figures of `Supervision.terms`.
        Raises:
            Diverged: the predictions are not finite.
        """
        config, device, cameras = self.config, self.processes.device, batch.images.shape[1]
        rows = slice(index, index + 1), slice(index, index + 1), slice(index * cameras, (index + 1) * cameras)
        leaves = [prediction[row].detach().requires_grad_() for prediction, row in zip(predictions, rows)]
        output = NetworkOutput(leaves[0], leaves[1], leaves[2], None)
        generator = torch.Generator(device)
        generator.manual_seed(_seed(config.seed, self.step, batch.indices[index]))
        found: dict[str, Tensor] = {}
        try:
            terms = self.supervision.terms(output, batch.only(index), generator, found)
        except ValueError:
            if not torch.isfinite(leaves[0]).all():
                raise self._diverged("the network's output is") from None
            raise
        share = 1 / (len(batch) * config.accumulate)
        loss = sum(terms.values(), torch.zeros((), device=device))
        if loss.requires_grad:  # not where a sample has no label at all
            self.scaler.scale(loss * share).backward()
        for gradient, leaf, row in zip(gradients, leaves, rows):
            if leaf.grad is not None:
                gradient[row] = leaf.grad
        for name, value in {"loss": loss, **terms, **found}.items():
            figures[name] = figures.get(name, 0.0) + value.detach().to(device) * share

    def update(self, figures: dict[str, Tensor]) -> Tensor:
        """Change the weights by the gradients. Returns the norm of the gradients.

        Args:
            figures: the loss terms, for the error text.
        Raises:
            Diverged: the norm is not finite.
        """
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip)
        self._check_finite(norm, figures)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.network)
        self.step += 1
        return norm

    def _check_finite(self, norm: Tensor, sums: dict[str, Tensor]) -> None:
        if self.scaler.is_enabled():
            # The scaler skips a step whose gradients overflow, and reduces its scale.
            if self.scaler.get_scale() >= _LEAST_SCALE:
                return
        elif torch.isfinite(norm):
            return
        terms = [name for name, value in sums.items() if not torch.isfinite(value)]
        raise self._diverged(f"loss terms {', '.join(terms)} are" if terms else "the gradient is")

    def _diverged(self, what: str) -> Diverged:
        optimiser = self.config.optimiser
        precision = "" if self.precision == "float32" else f" or precision=float32 (now {self.precision})"
        return Diverged(
            f"step {self.step}: {what} not finite; try a lower optimiser.learning_rate (now "
            f"{optimiser.learning_rate:g}), a longer optimiser.warm_up (now {optimiser.warm_up}){precision} in a new "
            f"run, which may begin with the last good weights (initial=...)"
        )

    def state(self) -> dict:
        """Everything that the next step depends on, except samples and random numbers, which follow from its number."""
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


def _initial_network(config: TrainConfig, classes: ClassTable) -> OccupancyNetwork:
    """The network that training begins with; its classes are those of the labels."""
    if not config.initial:
        return build_network(config.model, pretrained=True)
    checkpoint = load_checkpoint(config.initial)
    network = build_network(config.model)
    begun = checkpoint.network.state_dict()
    if config.model.lift.subpixels > checkpoint.config.lift.subpixels == 1:
        begun |= _of_part("lift.", begun, lambda head: spread_over_subpixels(head, config.model.lift))
    layers = config.model.heads.density_layers
    if layers > checkpoint.config.heads.density_layers == 1:
        begun |= _of_part("heads.", begun, lambda heads: spread_over_layers(heads, layers))
    # What begins without effect may be new: the network then begins as the same function. For another number of classes
    # the layer that tells them apart begins with merged ones, or anew.
    may_be_new = (*WITHOUT_EFFECT, *_new_blocks(network, begun))
    if config.model.class_count != checkpoint.config.class_count:
        may_be_new = (*may_be_new, CLASS_LAYER)
        layer = {name: one for name, one in begun.items() if name.startswith(CLASS_LAYER)}
        begun = {name: one for name, one in begun.items() if name not in layer}
        begun |= _merged(layer, checkpoint.classes, classes)
    new = {name: one for name, one in network.state_dict().items() if name.startswith(may_be_new)}
    try:
        network.load_state_dict({**new, **begun})
    except RuntimeError:
        theirs, ours = (to_mapping(one) for one in (checkpoint.config, config.model))
        differing = [
            name for name in ours if name not in ("name", "backbone", "class_count") and ours[name] != theirs[name]
        ]
        raise ValueError(
            f"initial: {config.initial} is of another network than `model` describes (they differ in "
            f"{', '.join(differing) or 'backbone'}); describe the checkpoint's"
        ) from None
    return network


def _of_part(
    prefix: str, parameters: Mapping[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The parameters whose names begin with `prefix`, after `change`, which knows them without it."""
    part = {name.removeprefix(prefix): one for name, one in parameters.items() if name.startswith(prefix)}
    return {prefix + name: one for name, one in change(part).items()}


def _new_blocks(network: OccupancyNetwork, begun: Mapping[str, Tensor]) -> list[str]:
    """Where the names of residual blocks begin that the first weights do not have; these begin without effect."""
    new = []
    for name, module in network.named_modules():
        if isinstance(module, ResidualBlock) and not any(one.startswith(f"{name}.") for one in begun):
            module.begin_without_effect()
            new.append(f"{name}.")
    return new


def _merged(layer: dict[str, Tensor], source: ClassTable, target: ClassTable) -> dict[str, Tensor]:
    """The parameters of the class layer for classes that others are merged into; none if there is no conversion.

    The probability of a class is the sum of those of its parts. Where their logits are alike, its logit is their mean
    plus the logarithm of their number.

    Args:
        layer: {name: parameters, (classes of `source`, ...)}, its weight and its bias.
    """
    try:
        ids = converted_ids(source, target)[list(source.occupied_ids)]
    except ValueError:
        return {}
    parts = [np.flatnonzero(ids == index) for index in target.occupied_ids]
    merged = {name: torch.stack([one[part].mean(dim=0) for part in parts]) for name, one in layer.items()}
    merged[f"{CLASS_LAYER}bias"] += torch.tensor([math.log(len(part)) for part in parts])
    return merged


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
