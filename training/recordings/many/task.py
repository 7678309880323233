"""The work on one recording, what came of it, and how it is done in whatever process it is sent to."""

from __future__ import annotations

import io
import os
import socket
import traceback
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderocc_model.base.machine_errors import machine_error

from .lease import WorkedOnElsewhere, lease

__all__ = ["DONE", "ELSEWHERE", "FAILED", "WORKER_DIED", "Outcome", "Task", "Workers", "carry_out"]

DONE, ELSEWHERE, FAILED = "done", "elsewhere", "failed"
WORKER_DIED = "the process that worked on it died: it was killed, or memory ran out; try fewer --jobs"


@dataclass(frozen=True)
class Task:
    """The work on one recording.

    Attributes:
        bag: the recording.
        arguments: the arguments of the work function; they are sent to other processes.
        out: what is made, for errors of the disk; None if nothing is written.
        lease: file that keeps others from the same work; None if nothing is written.
    """

    bag: Path
    arguments: tuple
    out: Path | None = None
    lease: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        task: the task.
        state: DONE, ELSEWHERE (another process works on it, and it was left alone) or FAILED.
        result: what the work function returned.
        error: why it failed, or who works on it; it names the recording.
        printed: what the work printed, if that was not shown at once.
        warned: what it printed to stderr, if that was not shown at once.
    """

    task: Task
    state: str
    result: Any = None
    error: str = ""
    printed: str = ""
    warned: str = ""


@dataclass(frozen=True)
class Workers:
    """Who works.

    Attributes:
        jobs: recordings at a time.
        threads: threads for each recording.
        ray: address of a Ray cluster, or "local"; None for processes of this machine.
        gpus: GPUs that each recording needs, for Ray.
    """

    jobs: int
    threads: int = 1
    ray: str | None = None
    gpus: int = 0


def carry_out(work: Callable[..., Any], folder: str, patient: bool, quiet: bool, lone: bool, task: Task) -> Outcome:
    """Do a task in this process.

    Args:
        work: as for `share_out`.
        folder: the current folder, which relative paths begin at.
        patient: wait for a lease, see `lease`.
        quiet: keep what is printed, and return it.
        lone: raise what is neither the input's nor the machine's fault.
        task: the task.
    """
    printed, warned = io.StringIO(), io.StringIO()
    try:
        if os.getcwd() != folder:  # in a worker of Ray
            if not os.path.isdir(folder):
                raise ValueError(f"{folder}: there is no such folder on {socket.gethostname()}; machines must share it")
            os.chdir(folder)
        with ExitStack() as stack:
            if quiet:
                stack.enter_context(redirect_stdout(printed))
                stack.enter_context(redirect_stderr(warned))
            if task.lease is not None and task.bag.exists():
                stack.enter_context(lease(task.lease, patient))
            state, result, error = DONE, work(*task.arguments), ""
    except WorkedOnElsewhere as held:
        text = f"{task.bag}: another process is working on it ({held}); left alone"
        return Outcome(task, ELSEWHERE, None, text)
    except ImportError:
        raise
    except (ValueError, OSError, MemoryError) as fault:
        state, result, error = FAILED, None, machine_error(fault, task.out or task.bag) or str(fault)
        if task.bag.name not in error and not lone:
            error = f"{task.bag}: {error}"
    except Exception as fault:
        if lone:
            raise
        warned.write(traceback.format_exc())
        state, result, error = FAILED, None, f"{task.bag}: {type(fault).__name__}: {fault}"
    return Outcome(task, state, result, error, printed.getvalue(), warned.getvalue())
