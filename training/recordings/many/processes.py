"""Recordings worked on by processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from renderocc_model.base.worker_processes import serve_parent

from .task import FAILED, WORKER_DIED, Outcome, Task

__all__ = ["process_outcomes"]


def process_outcomes(
    call: Callable[[Task], Outcome], tasks: list[tuple[int, Task]], jobs: int
) -> Iterator[tuple[int, Outcome]]:
    """Yield (number, outcome) as the tasks end.

    If a process dies, all that were being worked on are done again, one at a time, so that the one whose process dies
    again is the one that fails.

    Args:
        call: does a task; a function of a module, or a `partial` of one.
        tasks: the tasks with their numbers.
        jobs: number of processes.
    """
    waiting = deque(tasks)
    while waiting:
        running: dict[Future, tuple[int, Task]] = {}
        with _Pool(min(jobs, len(waiting))) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        running[pool.submit(call, waiting[0][1])] = waiting[0]
                        waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        yield running.pop(future)[0], outcome
            except BrokenProcessPool:
                suspects = sorted(running.values())
        for number, task in suspects if running else ():
            with _Pool(1) as pool:
                try:
                    outcome = pool.submit(call, task).result()
                except BrokenProcessPool:
                    outcome = Outcome(task, FAILED, None, f"{task.bag}: {WORKER_DIED}")
            yield number, outcome


def _begin(parent: int) -> None:
    from tqdm import tqdm

    serve_parent(parent)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a process that is ended leaves behind


class _Pool(ProcessPoolExecutor):
    """Processes that end with this one; after an exception, at once."""

    def __init__(self, jobs: int) -> None:
        self._others = set(multiprocessing.active_children())
        super().__init__(jobs, multiprocessing.get_context("spawn"), _begin, (os.getpid(),))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:  # what they are doing can be continued later
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self.shutdown(wait=True, cancel_futures=True)
