"""The images of one camera that are still needed, and counts of what became of the others."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, NamedTuple

# Most and fewest recent intervals from which the time of a camera's next image is predicted.
_INTERVALS, _FEWEST_INTERVALS = 10, 3
_ARRIVALS = 20


class CameraStatistics(NamedTuple):
    """What became of a camera's images: received = matched + the sum of dropped + held.

    received: images that came. matched: images that a set has used. held: images still waiting.
    dropped: {reason: number}: 'stamp_zero', 'duplicate', 'out_of_order', 'late' (not newer than the last set),
        'unmatched' (no set needed it), 'queue_full', 'superseded' (skipped for a newer set), 'too_few' (the anchor's,
        of a set below min_cameras), 'wrong_clock', 'reset'.
    rate: images per second by arrival, 0 while silent.
    age: seconds since the last usable image came in; None if none came.
    stamp_ns: stamp of the newest image; None if none came since the last reset.
    silent: whether the camera has been silent for the timeout.
    """

    received: int
    matched: int
    dropped: dict[str, int]
    held: int
    rate: float
    age: float | None
    stamp_ns: int | None
    silent: bool


class QueuedImage:
    """One image that waits. `holders` counts what still needs it: the queue, the jump detection, and sets."""

    __slots__ = ("camera", "stamp_ns", "payload", "arrived", "holders", "led", "used", "fate")

    def __init__(self, camera: CameraQueue, stamp_ns: int, payload: Any, arrived: float):
        self.camera, self.stamp_ns, self.payload, self.arrived = camera, stamp_ns, payload, arrived
        self.holders = 0
        self.led = False
        self.used = False
        self.fate = ""

    def hold(self) -> QueuedImage:
        self.holders += 1
        return self

    def release(self, fate: str) -> None:
        """Let one holder go. If no set has used the image, it is counted under the first fate that was given."""
        self.holders -= 1
        self.fate = self.fate or fate
        if not self.holders and not self.used:
            self.camera.dropped[self.fate] += 1


class CameraQueue:
    """The images of one camera that may still be needed, in the order of their stamps, and its history.

    Attributes:
        last_stamp: stamp of the newest image taken in since the last restart.
        heard: steady seconds at which the last usable image came in.
    """

    def __init__(self, name: str):
        self.name = name
        self.queue: list[QueuedImage] = []
        self.last_stamp: int | None = None
        self.heard: float | None = None
        self.intervals: deque[int] = deque(maxlen=_INTERVALS)
        self.arrivals: deque[float] = deque(maxlen=_ARRIVALS)
        self.received = 0
        self.matched = 0
        self.dropped: Counter[str] = Counter()

    def arrive(self, now: float) -> None:
        self.received += 1
        self.arrivals.append(now)

    def append(self, image: QueuedImage) -> None:
        if self.last_stamp is not None:
            self.intervals.append(image.stamp_ns - self.last_stamp)
        self.last_stamp = image.stamp_ns
        self.queue.append(image.hold())

    def nearest(self, stamp_ns: int) -> QueuedImage | None:
        return min(self.queue, key=lambda image: abs(image.stamp_ns - stamp_ns), default=None)

    def decided(self, stamp_ns: int, max_diff_ns: int) -> bool:
        """Whether no image still to come can be nearer to the stamp than the images in the queue."""
        if not self.queue:
            return False
        gap = stamp_ns - self.queue[-1].stamp_ns
        if gap <= 0:
            return True
        return gap <= max_diff_ns and len(self.intervals) >= _FEWEST_INTERVALS and 2 * gap <= min(self.intervals)

    def forget(self, count: int, fate: str) -> None:
        """Give up the oldest `count` images."""
        for image in self.queue[:count]:
            image.release(fate)
        del self.queue[:count]

    def prune(self, floor_ns: int | None, size: int) -> None:
        """Give up the images that no set at or after `floor_ns` can need, and the oldest ones beyond `size`."""
        if floor_ns is not None:
            not_after = sum(image.stamp_ns <= floor_ns for image in self.queue)
            self.forget(max(0, not_after - 1), "unmatched")
        self.forget(max(0, len(self.queue) - size), "queue_full")

    def restart(self, fate: str) -> None:
        self.forget(len(self.queue), fate)
        self.last_stamp = None
        self.intervals.clear()

    def statistics(self, now: float, silent: bool) -> CameraStatistics:
        span = self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        return CameraStatistics(
            received=self.received,
            matched=self.matched,
            dropped=dict(self.dropped),
            held=self.received - self.matched - sum(self.dropped.values()),
            rate=(len(self.arrivals) - 1) / span if span > 0 and not silent else 0.0,
            age=None if self.heard is None else now - self.heard,
            stamp_ns=self.last_stamp,
            silent=silent,
        )
