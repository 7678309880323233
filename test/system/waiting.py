"""Waiting for a condition."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["PATIENCE", "wait_for", "wait_until"]

PATIENCE = float(os.environ.get("RENDEROCC_PATIENCE", 1))  # times the waiting of tests, on a computer that is very busy


def wait_for(condition: Callable[[], object], timeout: float, step: float = 0.02) -> bool:
    """Whether `condition()` became true within so many seconds; it is asked every `step` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait until `condition()` is true; fail with `what` when it is not within `timeout` seconds, times `PATIENCE`."""
    timeout *= PATIENCE
    if not wait_for(condition, timeout):
        raise AssertionError(f"not within {timeout:g} s: {what}")
