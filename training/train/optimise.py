"""The optimiser: AdamW's groups, the learning rate of each step, averaged weights and batch normalisation."""

from __future__ import annotations

import copy
import functools
import math

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from .config import OptimiserConfig

__all__ = [
    "AveragedWeights",
    "build_optimiser",
    "freeze_batch_norm",
    "keep_depthwise_single",
    "learning_rate_factor",
    "set_learning_rate",
    "share_batch_norm",
]


def build_optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW with weight decay only for matrices and kernels, and with another learning rate for the backbone.

    Each group has an entry `factor` for its learning rate, see `set_learning_rate`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        # No weight decay for norms and biases. These are vectors, or are named as biases.
        decays = parameter.ndim > 1 and not name.endswith(("bias", "bias_table"))
        groups.setdefault((name.startswith("backbone."), decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decays else 0.0,
                "factor": config.backbone_factor if backbone else 1.0,
            }
            for (backbone, decays), parameters in groups.items()
        ],
        lr=config.learning_rate,
    )


def learning_rate_factor(step: int, steps: int, config: OptimiserConfig) -> float:
    """Factor of the learning rate at a step from 0 to steps - 1: a linear rise, then half a cosine."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    progress = (step - config.warm_up) / max(steps - 1 - config.warm_up, 1)
    return config.final_factor + (1 - config.final_factor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_learning_rate(optimiser: torch.optim.Optimizer, step: int, steps: int, config: OptimiserConfig) -> float:
    """Set every group's learning rate for a step. Returns the rate of groups whose factor is 1."""
    rate = config.learning_rate * learning_rate_factor(step, steps, config)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


class AveragedWeights:
    """Exponential moving average of a network's weights and running statistics, e <- d e + (1 - d) w.

    The decay d rises with the number n of updates as (1 + n) / (10 + n), so that the first weights are soon forgotten.

    Attributes:
        network: a copy of the network with the averages, in evaluation mode.
        updates: the number n.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = [], []
        for average, value in zip(self.network.state_dict().values(), network.state_dict().values()):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)  # counters
        torch._foreach_lerp_(averages, values, 1 - decay)


def freeze_batch_norm(network: nn.Module, which: str) -> None:
    """Put batch normalisation into evaluation mode as `OptimiserConfig.batch_norm` says. Call it after `train()`."""
    part = {"learn": None, "backbone_frozen": network.backbone, "frozen": network}[which]
    for module in () if part is None else part.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def share_batch_norm(network: nn.Module) -> nn.Module:
    """The network with batch normalisation over the GPUs of all processes.

    torch cannot do this on CPUs. There each process normalises its own samples, and the running statistics of the first
    process are kept.
    """
    return convert_sync_batchnorm(network)  # torch's function would remove the activations in timm's normalisations


def keep_depthwise_single(network: nn.Module) -> None:
    """Run depthwise convolutions in float32 within autocast on the CPU.

    Their backward pass in bfloat16 takes ten times as long as in float32: 0.7 s of the 0.9 s of a step of the `tiny`
    network on one core.
    """

    def single(module: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return type(module).forward(module, images.float())

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = functools.partial(single, module)
