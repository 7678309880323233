"""Which recordings are trained on, and in which order their samples come."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

__all__ = ["OF_ORDER", "OF_SAMPLE", "EpochSampler", "split_recordings"]

OF_SAMPLE, OF_ORDER = 1, 2  # last word of a seed: the purpose of the random numbers


class EpochSampler(torch.utils.data.Sampler):
    """Yields the (epoch, index) keys of an epoch in random order. `StepSampler` distributes them to processes.

    Args:
        size: number of samples in the dataset.
        seed: seed of the order.
        epoch: number of the epoch, which changes the order.
    """

    def __init__(self, size: int, seed: int = 0, epoch: int = 0) -> None:
        self.size, self.seed, self.epoch = size, seed, epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch, 0, OF_ORDER]).permutation(self.size)
        yield from ((self.epoch, int(index)) for index in order)


def split_recordings(names: Sequence[str], held_out: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    """Divide recordings into training and held-out ones. A recording is never divided, because its frames look alike.

    Recordings are ordered by a digest of their names, so that few change sides if recordings are added.

    Args:
        names: names of the recordings.
        held_out: share of the recordings to hold out, rounded up. A single recording is never held out.
        seed: seed of the order.
    Returns:
        (training, held out), each sorted.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out is {held_out}; expected a share from 0 to below 1")
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    count = min(math.ceil(held_out * len(ordered)), len(ordered) - 1)
    return sorted(ordered[count:]), sorted(ordered[:count])
