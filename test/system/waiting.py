"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_for", "wait_until"]


def wait_for(condition: Callable[[], object], timeout: float, step: float = 0.02) -> bool:
    """Whether `condition()` became true within so many seconds; it is asked every `step` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait until `condition()` is true; fail with `what` when it is not within `timeout` seconds."""
    if not wait_for(condition, timeout):
        raise AssertionError(f"not within {timeout:g} s: {what}")
