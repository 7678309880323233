"""Transforms over time from /tf and /tf_static. Lookups give the answers and the errors of tf2's BufferCore.

Frames form a forest. A lookup walks from both frames up to where they meet (`tf_walk`), takes each link at the stamp
asked for (linear in translation, slerp in rotation between the two samples around it), and never extrapolates. Intended
differences from tf2: stamp zero is a time like any other (`latest` gives the newest), infinities are refused like NaN,
and a leading '/' is stripped in lookups too.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from .tf_history import Conflict, FrameHistory, TransformError, UnknownFrame, change_of, checked_link
from .tf_link import Link, composed, inverse_times, matrix
from .tf_walk import disconnected, newest_chain, walk

__all__ = ["LONGEST_NAME", "Conflict", "FrameInfo", "TransformBuffer", "TransformError"]

_NANOSECONDS = 1_000_000_000
_SAMPLES_BEFORE = 4  # of a trajectory before its beginning
LONGEST_NAME = 1000  # characters of a frame's name; those of real vehicles have a few dozen


class FrameInfo(NamedTuple):
    """A child frame: its newest parent and, unless it is static, the samples kept and the time they span."""

    parent: str
    static: bool
    samples: int
    oldest_ns: int
    newest_ns: int


class TransformBuffer:
    """The transforms between frames over time; every method may be called from any thread.

    Args:
        history: seconds kept of each moving frame, counted back from its newest sample.
        max_samples: most samples kept of each moving frame; the oldest go first.
        max_frames: most frame names; transforms that would add more are refused.
        max_total: most samples kept of all frames together (about 400 bytes each). At this limit a new sample replaces
            the oldest one of its own frame, unless that has fewer than two; so no frame loses its history to another
            one.
    Attributes:
        ignored_old: number of transforms not taken because they were older than the history.
    """

    def __init__(
        self, history: float = 10.0, max_samples: int = 10_000, max_frames: int = 10_000, max_total: int = 1 << 30
    ):
        if not (math.isfinite(history) and history > 0) or max_samples < 2 or max_frames < 2:
            raise ValueError(
                f"history {history} s, max_samples {max_samples}, max_frames {max_frames}: expected a positive time "
                "and at least 2 samples and frames"
            )
        self._history_ns = round(history * _NANOSECONDS)
        self._max_samples = max_samples
        self._max_frames = max_frames
        self._max_total = max_total
        self._total = 0  # samples kept of all frames
        self._names: set[str] = set()
        self._frames: dict[str, FrameHistory] = {}
        self._static_answers: dict[tuple[str, str], np.ndarray] = {}
        self._conflicts: dict[str, Conflict] = {}
        self._changed = threading.Condition(threading.RLock())
        self._waiting = 0
        self.ignored_old = 0

    def set(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        translation: Sequence[float],
        quaternion: Sequence[float],
        static: bool = False,
        inverse: bool = False,
    ) -> bool:
        """Add parent_from_child at a stamp.

        Args:
            parent, child: frame names; one leading '/' is stripped.
            stamp_ns: its stamp in nanoseconds; a static transform holds at every time.
            translation: (x, y, z) in metres.
            quaternion: (x, y, z, w) of any length but zero; it is normalised, as tf2 does.
            static: whether it came over /tf_static: it then holds at all times, and replaces the child's earlier
                transforms.
            inverse: translation and quaternion are child_from_parent, as for a fixed frame below a moving one.
        Returns:
            False if it is older than the history kept and was ignored, as tf2 ignores it. After the clock jumps back by
            more than the history, every moving transform is ignored until `clear`.
        Raises:
            TransformError: kind 'invalid': an empty name, parent and child the same, NaN or infinity, a quaternion of
            zeros, too many frames, a name too long. The buffer then stays as it was.
        """
        parent, child = _stripped(parent), _stripped(child)
        link = checked_link(parent, child, translation, quaternion)
        with self._changed:
            self._check_room(parent, child)
            frame = self._frames.get(child)
            # tf2 too starts anew when a frame turns static or moving.
            if frame is None or frame.static != static or frame.inverse != inverse:
                self._static_answers.clear()
                self._total -= len(frame.stamps) if frame else 0
                frame = self._frames[child] = FrameHistory(static, earlier=frame, inverse=inverse)
            if static and (frame.parents != [parent] or frame.links != [link]):
                self._static_answers.clear()
            self._names.update((parent, child))  # known from now on even if the sample is too old, as in tf2
            conflict = _static_conflict(frame, parent, child, stamp_ns, link) if static else None
            before = len(frame.stamps)
            most = self._max_samples if self._total < self._max_total else max(2, min(before, self._max_samples))
            taken = frame.insert(stamp_ns, parent, link, self._history_ns, most)
            self._total += len(frame.stamps) - before
            if not taken:
                self.ignored_old += 1
                return False
            conflict = frame.claim(child, parent, stamp_ns) or conflict
            if conflict is not None:
                self._conflicts[child] = conflict
            if self._waiting:
                self._changed.notify_all()
        return True

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """target_from_source at a stamp: 4x4 float64, acts on column vectors of `source`.

        Raises:
            TransformError: unknown frame, no connection, no data, extrapolation, loop, or a translation that is not
            finite; see `TransformError.kind`.
        """
        target, source = _stripped(target), _stripped(source)
        if target == source:  # as in tf2, also for unknown frames
            return np.eye(4)
        with self._changed:
            known = self._static_answers.get((target, source))
            if known is not None:
                return known.copy()
            self._check_known(target_frame=target, source_frame=source)
            up, down = walk(self._frames, target, source, stamp_ns)
            top_from_source = composed(frame.link(stamp_ns, *bracket) for frame, bracket in up)
            top_from_target = composed(frame.link(stamp_ns, *bracket) for frame, bracket in down)
            link = inverse_times(top_from_target, top_from_source)
            if not math.isfinite(link[0] + link[1] + link[2]):  # each sample is finite, their sum is not
                text = f"the translation from frame [{source}] to frame [{target}] is not finite"
                raise TransformError("invalid", f"TF_NAN_INPUT: {text}; repair the publisher of these transforms")
            answer = matrix(link)
            if all(frame.static for frame, _ in up) and all(frame.static for frame, _ in down):
                self._static_answers[target, source] = answer.copy()
            return answer

    def latest(self, target: str, source: str) -> int:
        """The newest stamp, in nanoseconds, that every moving link has reached; 0 if no link moves.

        Raises:
            TransformError: unknown frame, no connection, or a loop.
        """
        target, source = _stripped(target), _stripped(source)
        with self._changed:
            self._check_known(target_frame=target, source_frame=source)
            if target == source:
                frame = self._frames.get(source)
                return frame.stamps[-1] if frame is not None and frame.stamps and not frame.static else 0
            up = newest_chain(self._frames, source, (target,))
            down = newest_chain(self._frames, target, up)
            meeting = down[-1]
            if meeting not in up:
                raise disconnected(self._frames, target, source)
            below = [name for chain in (up, down) for name in takewhile(lambda name: name != meeting, chain)]
            return min((self._frames[name].stamps[-1] for name in below if not self._frames[name].static), default=0)

    def trajectories(self, target: str, source: str, from_ns: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """target_from_source at every sample of each moving link between them, also of samples with equal stamps.

        Args:
            target, source: frames, as for `lookup`.
            from_ns: leave out samples before this stamp, but for each link's last few of them.
        Returns:
            for each moving link with samples at which there is a transform: stamps (N,) int64 ascending, and
            transforms (N, 4, 4) float64. Empty if no link moves, or there is no connection.
        """
        target, source = _stripped(target), _stripped(source)
        with self._changed:
            try:
                chain = newest_chain(self._frames, source, (target,)) + newest_chain(self._frames, target, (source,))
            except TransformError:
                return []
            moving = [self._frames[name] for name in dict.fromkeys(chain) if name in self._frames]
            found = [self._trajectory(target, source, frame, from_ns) for frame in moving if not frame.static]
        return [(stamps, poses) for stamps, poses in found if len(stamps)]

    def _trajectory(
        self, target: str, source: str, frame: FrameHistory, from_ns: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        stamps, poses = [], []
        first = 0 if from_ns is None else max(bisect_left(frame.stamps, from_ns) - _SAMPLES_BEFORE, 0)
        for index, stamp_ns in enumerate(frame.stamps[first:], first):
            try:
                up, down = walk(self._frames, target, source, stamp_ns)
            except TransformError:
                continue
            if all(one is not frame for one, _ in (*up, *down)):
                continue  # above where the two meet
            ways = []
            for way in (up, down):
                links = []
                for one, bracket in way:
                    own = one is frame and one.parents[index] == one.parents[bracket[0]]
                    links.append(one.link(stamp_ns, index, index) if own else one.link(stamp_ns, *bracket))
                ways.append(composed(links))
            stamps.append(stamp_ns)
            poses.append(matrix(inverse_times(ways[1], ways[0])))
        return np.array(stamps, np.int64), np.array(poses).reshape(-1, 4, 4)

    def wait_for(self, target: str, source: str, stamp_ns: int, timeout: float) -> np.ndarray:
        """`lookup`, waiting up to `timeout` seconds for data that may still come; raises at once if none can.

        Raises:
            TransformError: as `lookup`; after a wait, the reason at its end.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                try:
                    return self.lookup(target, source, stamp_ns)
                except TransformError as error:
                    left = deadline - time.monotonic()
                    if not error.may_come or left <= 0:
                        raise
                self._waiting += 1
                try:
                    self._changed.wait(left)
                finally:
                    self._waiting -= 1

    def clear(self, newer_than_ns: int | None = None) -> None:
        """Forget the moving frames' samples, and frames that have none left, after a jump of the clock or a flood of
        names; static transforms stay.

        Args:
            newer_than_ns: forget only samples after this stamp. After a jump back to T, passing T keeps the new
                transforms that arrived before the jump was noticed.
        """
        with self._changed:
            for frame in self._frames.values():
                if not frame.static:
                    kept = 0 if newer_than_ns is None else bisect_right(frame.stamps, newer_than_ns)
                    self._total -= len(frame.stamps) - kept
                    frame.forget(kept, len(frame.stamps))
            self._frames = {child: frame for child, frame in self._frames.items() if frame.stamps}
            self._names = set(self._frames).union(*(frame.parents for frame in self._frames.values()))
            self._conflicts.clear()

    @property
    def full(self) -> bool:
        """Whether `max_total` samples or `max_frames` names are reached: histories no longer grow, or new frames are
        refused."""
        return self._total >= self._max_total or len(self._names) >= self._max_frames

    @property
    def conflicts(self) -> list[Conflict]:
        """Frames published in contradicting ways since the last `clear`, each with a line for the log (`str`)."""
        with self._changed:
            return list(self._conflicts.values())

    def conflict_of(self, child: str) -> Conflict | None:
        """The entry of `conflicts` about a frame; None if there is none."""
        with self._changed:
            return self._conflicts.get(_stripped(child))

    def frames(self) -> dict[str, FrameInfo]:
        """Every child frame with data, by name."""
        with self._changed:
            return {
                child: FrameInfo(frame.parents[-1], frame.static, len(frame.stamps), frame.stamps[0], frame.stamps[-1])
                for child, frame in self._frames.items()
                if frame.stamps
            }

    def _check_room(self, parent: str, child: str) -> None:
        if max(len(parent), len(child)) > LONGEST_NAME:
            raise TransformError(
                "invalid",
                f"ignoring a transform with a name of {max(len(parent), len(child))} characters; expected at most "
                f"{LONGEST_NAME}; repair its publisher",
            )
        if len(self._names) + (parent not in self._names) + (child not in self._names) > self._max_frames:
            raise TransformError(
                "invalid",
                f"ignoring transform with child_frame_id '{child}' and frame_id '{parent}': {len(self._names)} frames "
                "are known, and no more are kept; stop the publisher of ever new names, then call the node's "
                "~/reset; if static mounts are missing then, clean the node up and configure it",
            )

    def _check_known(self, **frames: str) -> None:
        for argument, name in frames.items():
            if not name:
                raise TransformError("unknown_frame", f"{argument} of a lookup is empty; name a frame")
            if len(name) > LONGEST_NAME:
                text = f"{argument} of a lookup has {len(name)} characters; expected at most {LONGEST_NAME}"
                raise TransformError("unknown_frame", f"{text}; correct the name")
            if name not in self._names:
                raise UnknownFrame(argument, name, tuple(self._names))


def _static_conflict(frame: FrameHistory, parent: str, child: str, stamp_ns: int, link: Link) -> Conflict | None:
    """The conflict of a static transform with the one before it; None if it is the same, or the first."""
    if not frame.links or frame.parents != [parent]:
        return None
    change = change_of(frame.links[0], link)
    return Conflict(child, (f"under '{parent}' (static)",), 1, stamp_ns, change) if change else None


def _stripped(name: str) -> str:
    return name[1:] if name.startswith("/") else name
