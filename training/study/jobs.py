"""Runs commands in processes, a few at a time. They end when this process ends in any way."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["RENDEROCC", "Job", "run_jobs"]

RENDEROCC = "renderocc_model.cli"

_ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.1
_PATIENCE_S = 120.0  # time for a training run to save its state
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_LOG_TAIL = 5  # lines of a log in an error text


@dataclass(frozen=True)
class Job:
    """Commands to run one after the other: each is a Python module and its arguments. `name` is also the log's name."""

    name: str
    commands: tuple[tuple[str, ...], ...]


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    left: deque = field(default_factory=deque)


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    logs: Path,
    on_done: Callable[[Job], None] = lambda job: None,
    stop: Callable[[], bool] = lambda: False,
    keep_open: Sequence[int] = (),
    on_start: Callable[[Job], None] = lambda job: None,
) -> list[str]:
    """Run jobs, `at_once` of them at the same time.

    Args:
        jobs: the jobs, in their order.
        at_once: largest number of processes.
        threads: number of threads of each process.
        logs: folder for JOB.txt. The output of the commands is appended to it.
        on_done: called after a job's last command has succeeded.
        stop: called again and again. When it returns true, the processes are asked to stop, and no others are started.
        keep_open: file descriptors that the processes inherit.
        on_start: called before a job's first command.
    Returns:
        an error text for each job that failed, with the end of its log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running, failures = deque(jobs), list[_Running](), list[str]()
    try:
        while (waiting or running) and not stop():
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                on_start(job)
                commands = deque(job.commands)
                running.append(_Running(job, _start(job, commands.popleft(), threads, logs, keep_open), commands))
            for one in list(running):
                status = one.process.poll()
                if status is None:
                    continue
                if status == 0 and one.left:
                    one.process = _start(one.job, one.left.popleft(), threads, logs, keep_open)
                    continue
                running.remove(one)
                if status == 0:
                    on_done(one.job)
                elif not stop():
                    failures.append(_failure(one.job, status, logs))
            time.sleep(_POLL_S)
    finally:
        _end([one.process for one in running])
    return failures


def _start(job: Job, command: Sequence[str], threads: int, logs: Path, keep_open: Sequence[int]) -> subprocess.Popen:
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # the parent ended before prctl was called
                os._exit(1)

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with (logs / f"{job.name}.txt").open("a") as log:
        print(f"$ python -m {' '.join(command)}", file=log, flush=True)
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=tuple(keep_open),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Ask processes to stop. Training saves its state first. Processes that do not stop in time are killed."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _PATIENCE_S
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(job: Job, status: int, logs: Path) -> str:
    log = logs / f"{job.name}.txt"
    tail = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-_LOG_TAIL:]
    ended = f"was ended by signal {-status}" if status < 0 else f"failed ({status})"
    return f"{job.name} {ended}; {log} ends with:\n  " + "\n  ".join(tail)
