"""Recordings worked on by a Ray cluster. Ray does the work of a process or machine that dies again on another."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from .task import FAILED, WORKER_DIED, Outcome, Task, Workers

__all__ = ["LOCAL", "ray_outcomes"]

LOCAL = "local"
_RETRIES = 2
_PATIENCE_S = 10.0  # for a connection to the address
_STORE_BYTES = 100 << 20  # results are texts


def ray_outcomes(
    call: Callable[[Task], Outcome], tasks: list[tuple[int, Task]], workers: Workers
) -> Iterator[tuple[int, Outcome]]:
    """Yield (number, outcome) as the tasks end.

    Args:
        call: does a task; it is sent to the cluster's processes by its name.
        tasks: the tasks with their numbers.
        workers: the cluster's address, or "local" for one of `jobs` processes that is started here.
    Raises:
        ValueError: Ray is not installed, cannot be reached or lacks the GPUs.
        ImportError: a machine of the cluster lacks a package, such as this one.
    """
    ray = _import_ray()
    with _connected(ray, workers):
        work = ray.remote(num_cpus=1, num_gpus=workers.gpus, max_retries=_RETRIES)(_call)
        waiting, running = deque(tasks), dict[object, tuple[int, Task]]()
        while waiting or running:
            while waiting and len(running) < workers.jobs:
                number, task = waiting.popleft()
                running[work.remote(call, task)] = number, task
            for done in ray.wait(list(running))[0]:
                number, task = running.pop(done)
                yield number, _result(ray, done, task)


def _call(call: Callable[[Task], Outcome], task: Task) -> Outcome:
    return call(task)


def _result(ray: ModuleType, done: object, task: Task) -> Outcome:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ImportError):
            raise error.cause from None
        why = str(error.cause).strip().splitlines()[-1]
        remedy = "install the same version of this package on all machines"
        return Outcome(task, FAILED, None, f"{task.bag}: a Ray worker failed: {why}; {remedy}")
    except ray.exceptions.RayError as error:
        why = str(error).splitlines()[0]
        return Outcome(task, FAILED, None, f"{task.bag}: {WORKER_DIED} ({_RETRIES + 1} tries; Ray says: {why})")


def _import_ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a command that nobody told to send anything sends nothing
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--ray needs Ray ({error}); python3 -m pip install -r requirements-ray.txt") from None
    return ray


@contextmanager
def _connected(ray: ModuleType, workers: Workers) -> Iterator[None]:
    """A connection to the cluster, or a cluster that is started and ended here.

    Raises:
        ValueError: it cannot be reached, or lacks the GPUs.
    """
    address = workers.ray or LOCAL
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    remedy = "start one with `ray start --head --port 6379`, or use --ray local"
    try:
        _refuse_unreachable(address)
        remedy = f"it needs Ray {ray.__version__}, as here, and RAY_AUTH_MODE=token if it was started with a token"
        _connect(ray, address, workers.jobs)
    except (OSError, RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"--ray {address}: no Ray cluster can be reached there: {why}; {remedy}") from None
    try:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray's ends the process with another status
        if workers.gpus > ray.cluster_resources().get("GPU", 0):
            raise ValueError(
                f"--ray {address}: the cluster has no GPU, which this --provider needs; use --provider cpu"
            )
        yield
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str, jobs: int) -> None:
    options = {"num_cpus": jobs, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **(options if address == LOCAL else {}))


def _refuse_unreachable(address: str) -> None:
    """Ray itself would try for minutes, and print much. OSError, ValueError: nothing can listen at the address."""
    place = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+?)\]?:(\d+)", address)
    if place is None and address not in (LOCAL, "auto") and "://" not in address:
        raise ValueError("expected HOST:PORT, 'auto' or 'local'")
    if place is not None:
        socket.create_connection((place[1], int(place[2])), _PATIENCE_S).close()
