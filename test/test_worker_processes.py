"""Worker processes end with the process that started them."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from renderocc_model.base.worker_processes import serve_parent

pytestmark = pytest.mark.system


def _work(ready) -> None:
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), serve_parent, (os.getpid(),))
    ready.put(executor.submit(os.getpid).result())
    time.sleep(60)


def test_workers_end_with_a_parent_that_is_killed():
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    parent = context.Process(target=_work, args=(ready,))
    parent.start()
    worker = ready.get(timeout=60)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    until = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < until:
        if open(f"/proc/{worker}/stat").read().rsplit(")", 1)[1].split()[0] == "Z":  # ended; init has not seen it yet
            break
        time.sleep(0.05)
    else:
        assert not os.path.exists(f"/proc/{worker}")
