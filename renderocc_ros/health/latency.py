"""How long the stages of a frame take: recent durations and their percentiles."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager

import numpy as np


class StageTimes:
    """Durations of named stages over the last `window` frames. Thread-safe; seconds."""

    def __init__(self, window: int = 200) -> None:
        self._window = window
        self._lock = threading.Lock()
        self._durations: dict[str, deque[float]] = {}

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._durations.setdefault(stage, deque(maxlen=self._window)).append(seconds)

    @contextmanager
    def measure(self, stage: str):
        """Time the body of a `with` statement; a body that raises is not counted."""
        start = time.monotonic()
        yield
        self.add(stage, time.monotonic() - start)

    def percentiles(self) -> dict[str, tuple[float, float, int]]:
        """{stage: (p50, p99, number of frames)}, in the order in which the stages were first seen."""
        with self._lock:
            copies = {stage: np.array(durations) for stage, durations in self._durations.items()}
        return {
            stage: (float(np.percentile(durations, 50)), float(np.percentile(durations, 99)), len(durations))
            for stage, durations in copies.items()
        }

    def clear(self) -> None:
        with self._lock:
            self._durations.clear()
