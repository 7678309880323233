"""Seconds that pass as fast as the cameras' time: a bag played at half speed gets twice as long for everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["PlaybackClock"]

STOPPED = 0.5  # steady seconds without an advance after which a simulated clock counts as stopped


class PlaybackClock:
    """Seconds that follow a simulated clock while it runs, and the computer's own clock while it stands still.

    Waiting times are meant in the cameras' time: at a quarter of the speed, images that belong together arrive four
    times as far apart. But waiting must also end when a recording is over or paused.

    Args:
        clock_ns: the simulated clock, nanoseconds; it may stand still, jump back, or be 0 before it starts.
        steady: the computer's clock, seconds.
    """

    def __init__(self, clock_ns: Callable[[], int], steady: Callable[[], float] = time.monotonic) -> None:
        self._clock_ns = clock_ns
        self._steady = steady
        self._lock = threading.Lock()
        self._seconds = self._last_steady = self._advanced = steady()
        self._last_ns = clock_ns()

    def now(self) -> float:
        """Seconds since an arbitrary moment; they never go back."""
        with self._lock:
            steady, clock_ns = self._steady(), self._clock_ns()
            since_last = steady - self._last_steady
            if clock_ns != self._last_ns:
                if self._last_ns and clock_ns > self._last_ns:
                    self._seconds += (clock_ns - self._last_ns) * 1e-9
                self._advanced = steady
            elif steady - self._advanced > STOPPED:
                self._seconds += since_last
            self._last_steady, self._last_ns = steady, clock_ns
            return self._seconds
