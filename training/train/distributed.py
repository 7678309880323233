"""The processes that train together under `torchrun`, and their communication."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["Processes", "started_processes"]

_PATIENCE = timedelta(hours=6)  # the others wait while the first process prepares recordings or validates


@dataclass(frozen=True)
class Processes:
    """The processes that train together. A single process has rank 0 of 1."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.world_size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        if self.world_size == 1:
            return flag
        value = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means of numbers over all processes. A number that a process does not have counts as 0."""
        if self.world_size == 1:
            return dict(values)
        all_values: list = [None] * self.world_size
        dist.all_gather_object(all_values, dict(values))
        names = dict.fromkeys(name for one in all_values for name in one)
        return {name: sum(one.get(name, 0.0) for one in all_values) / self.world_size for name in names}

    def shared(self, network: nn.Module) -> nn.Module:
        """The network. With several processes, its gradients are averaged over all of them."""
        if self.world_size == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)


@contextmanager
def started_processes(device: str) -> Iterator[Processes]:
    """Join the other processes that torchrun started, if there are any.

    Args:
        device: auto, cpu, cuda or cuda:1. With several processes on a machine, each takes its own GPU.
    Raises:
        ValueError: there is no such device.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"run.device is {device!r}: {str(error).splitlines()[0]}; use auto, cpu or cuda") from None
    if chosen.type == "cuda":
        if not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"run.device is '{device}', but torch sees {torch.cuda.device_count()} GPUs; check nvidia-smi, start "
                "as many processes as there are GPUs, or use run.device=cpu"
            )
        torch.cuda.set_device(chosen)
    if world_size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, world_size, chosen)
    finally:
        if world_size > 1:
            dist.destroy_process_group()
