"""Loads batches from prepared tables: the samples of each step and process, and the processes that load them."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from functools import lru_cache

import torch
from torch.utils.data import DataLoader, Sampler

from ..data.batch import Batch, BatchMaker
from ..data.dataset import RayDataset
from ..data.epochs import EpochSampler
from .config import TrainConfig
from .distributed import Processes

__all__ = ["StepSampler", "training_batches"]


class StepSampler(Sampler):
    """Yields the (epoch, index) keys of one process for a range of steps, in parts of equal size.

    All epochs form one endless sequence, from which each step takes the next `batch` samples. The processes take them
    in turn. So a step's samples do not depend on the number of processes or on interruptions. A dataset may be smaller
    than a batch.

    Args:
        size: number of samples in the dataset.
        seed: seed of the order.
        first, last: range of steps; the last one is excluded.
        batch: number of samples of a step, over all processes and parts.
        part: number of samples of one part in this process.
        rank, world_size: number of this process, and of all processes that train together.
    """

    def __init__(
        self, size: int, seed: int, first: int, last: int, batch: int, part: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch % (part * world_size):
            raise ValueError(f"a batch of {batch} cannot be shared by {world_size} processes in parts of {part}")
        self.size, self.seed, self.first, self.last = size, seed, first, last
        self.batch, self.part, self.rank, self.world_size = batch, part, rank, world_size

    def __len__(self) -> int:
        return (self.last - self.first) * self.batch // (self.part * self.world_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        @lru_cache(maxsize=2)
        def order(epoch: int) -> list[tuple[int, int]]:
            return list(EpochSampler(self.size, self.seed, epoch))

        own = range(self.first * self.batch + self.rank, self.last * self.batch, self.world_size)
        for start in range(0, len(own), self.part):
            places = (divmod(place, self.size) for place in own[start : start + self.part])
            yield [order(epoch)[within] for epoch, within in places]


def training_batches(
    config: TrainConfig, dataset: RayDataset, first: int, processes: Processes
) -> Generator[Batch, None, None]:
    """Yield the batches of this process from step `first` to the last; each step has `accumulate` of them.

    The loading processes start with the first batch. They end when the generator is closed or fails.

    Raises:
        TablesError: the tables are damaged. An error of a loading process is one line, too.
    """
    sampler = StepSampler(
        len(dataset),
        config.seed,
        first,
        config.steps,
        config.batch,
        config.batch // (processes.world_size * config.accumulate),
        processes.rank,
        processes.world_size,
    )
    workers = config.run.workers
    maker = BatchMaker(config.model, config.model.fusion.earlier_frames)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=maker,
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        pin_memory=processes.device.type == "cuda",
    )
    failure: Exception | None = None
    try:
        yield from loader
    except Exception as error:
        failure = error
    if failure is not None:
        # The traceback has references to the iterator and its loading processes. With them Python would wait at exit.
        raise _without_report(failure.with_traceback(None) if workers else failure)


def _without_report(error: Exception) -> Exception:
    """An error of a loading process without PyTorch's report, if it is about bad input."""
    text = str(error).strip()
    if not isinstance(error, ValueError) or not text.startswith("Caught "):
        return error
    return type(error)(text.splitlines()[-1].partition(": ")[2])


def _start_worker(_: int) -> None:
    """Set up a loading process: one thread, and no reaction to signals."""
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    # Ctrl-C and torchrun's SIGTERM reach all processes of a group. This process ends when the main process has no more
    # work for it, or has ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
