"""What is kept of the last frames, for networks that join an earlier frame."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from ..geometry.transforms import invert
from ..network.fusion import KeptFrame

__all__ = ["FrameHistory"]

_APART = 0.25  # of the interval, between frames that are kept
_TOO_OLD = 3.0  # intervals, after which a frame is of no use any more


@dataclass(frozen=True)
class _Kept:
    seconds: float
    odom_from_base: np.ndarray
    frame: KeptFrame


class FrameHistory:
    """Finds the frame of about `interval` seconds ago, as the network has learned with.

    A camera at 20 Hz has hardly moved since its last frame, and from there sees nothing new. Some six frames are kept,
    however fast they come.

    Args:
        interval: seconds between the two frames.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._kept: deque[_Kept] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def next_seconds(self) -> float:
        """One interval after the newest frame; 0 if there is none."""
        return self._kept[-1].seconds + self._interval if self._kept else 0.0

    def clear(self) -> None:
        """Forget all frames."""
        self._kept.clear()

    def add(self, frame: KeptFrame, odom_from_base: np.ndarray, seconds: float) -> None:
        """Keep a frame.

        Args:
            frame: predicted just now.
            odom_from_base: (4, 4) pose of the vehicle at the frame.
            seconds: the frame's time. If it is not after the last one, what was kept is forgotten.
        """
        if self._kept and seconds <= self._kept[-1].seconds:
            self._kept.clear()
        while len(self._kept) > 1 and seconds - self._kept[1].seconds >= self._interval:
            self._kept.popleft()  # from now on the one after it is always nearer to the interval
        if len(self._kept) > 1 and self._kept[-1].seconds - self._kept[-2].seconds < _APART * self._interval:
            self._kept.pop()  # the newest is always there; those before it are some way apart
        self._kept.append(_Kept(seconds, np.array(odom_from_base, dtype=np.float64), frame))

    def before(self, odom_from_base: np.ndarray, seconds: float) -> KeptFrame | None:
        """The frame whose age is nearest to the interval, moved to the vehicle of now; None if there is none.

        Args:
            odom_from_base: (4, 4) pose of the vehicle now.
            seconds: the time now. Frames that are not earlier, or too old, are not used.
        """
        ages = [(abs(seconds - one.seconds - self._interval), one) for one in self._kept if self._usable(one, seconds)]
        if not ages:
            return None
        one = min(ages, key=lambda entry: entry[0])[1]
        return one.frame.moved(torch.from_numpy(invert(odom_from_base) @ one.odom_from_base))

    def _usable(self, one: _Kept, seconds: float) -> bool:
        return 0 < seconds - one.seconds <= _TOO_OLD * self._interval
