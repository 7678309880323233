"""Shares recordings out over processes or a Ray cluster: each is worked on once, and one that fails stops no other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from .processes import process_outcomes
from .ray_workers import ray_outcomes
from .task import ELSEWHERE, FAILED, Outcome, Task, Workers, carry_out

__all__ = ["conclude", "share_out", "show"]


def share_out(
    work: Callable[..., Any],
    tasks: Sequence[Task],
    workers: Workers,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Do all tasks, and go on where one fails.

    A single task, or one job, is done in this process, and prints as it goes. What other processes are working on is
    left alone; after the others it is tried again, until it is seen whether that process lives.

    Args:
        work: a function of a module. It may raise any exception.
        tasks: the tasks.
        workers: who works.
        on_outcome: called as each task ends, in any order.
    Returns:
        the outcomes, in the order of the tasks.
    Raises:
        ValueError: Ray is missing or cannot be reached.
        ImportError: a package is missing that the work needs.
        Exception: a single task failed in this process, otherwise than by its input or the machine.
    """
    from tqdm import tqdm

    outcomes: list[Outcome | None] = [None] * len(tasks)
    with tqdm(total=len(tasks), unit="recording", disable=len(tasks) == 1 or not sys.stderr.isatty()) as bar:
        for patient in (False, True):
            left = [
                (number, tasks[number]) for number, one in enumerate(outcomes) if one is None or one.state == ELSEWHERE
            ]
            if patient and left:
                print(f"waiting to see whether another process works on {left[0][1].bag}, or died", file=sys.stderr)
            for number, outcome in _outcomes(work, left, workers, patient, len(tasks) > 1):
                outcomes[number] = outcome
                if outcome.state != ELSEWHERE or patient:
                    with tqdm.external_write_mode(file=sys.stderr):
                        on_outcome(outcome)
                    bar.update()
    return [outcome for outcome in outcomes if outcome is not None]


def show(outcome: Outcome) -> None:
    """Print what a task has printed in another process."""
    for line in outcome.warned.splitlines():
        print(f"{outcome.task.bag}: {line}", file=sys.stderr)
    if outcome.printed:
        print(f"{outcome.task.bag}:\n{outcome.printed}", end="", flush=True)


def conclude(command: str, outcomes: Sequence[Outcome], done: str = "") -> int:
    """Print the failures and, for several recordings, a summary; return the exit status.

    Args:
        command: name of the command.
        outcomes: of all recordings.
        done: what was done to a recording, for the summary; empty for none.
    Returns:
        0: all are done. 2: some failed. 3: none failed, but others are working on some.
    """
    failed, elsewhere = ([one for one in outcomes if one.state == state] for state in (FAILED, ELSEWHERE))
    if done and len(outcomes) > 1:
        count = len(outcomes) - len(failed) - len(elsewhere)
        print(f"{done} {count} of {len(outcomes)} recordings", flush=True)
    for one in (*failed, *elsewhere):
        print(f"renderocc {command}: {one.error}", file=sys.stderr)
    return 2 if failed else 3 if elsewhere else 0


def _outcomes(
    work: Callable[..., Any], tasks: list[tuple[int, Task]], workers: Workers, patient: bool, many: bool
) -> Iterator[tuple[int, Outcome]]:
    """Yield (number, outcome) as the tasks end."""
    here = partial(carry_out, work, os.getcwd(), patient)
    if workers.ray is not None and tasks:
        yield from ray_outcomes(partial(here, True, False), tasks, workers)
    elif min(workers.jobs, len(tasks)) > 1:
        yield from process_outcomes(partial(here, True, False), tasks, workers.jobs)
    else:
        for number, task in tasks:
            yield number, here(False, not many, task)
