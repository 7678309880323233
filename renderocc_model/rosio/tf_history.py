"""The samples of one frame over time, and the reasons for which a transform is refused (those of tf2's BufferCore)."""

from __future__ import annotations

import difflib
import heapq
import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from .tf_link import IDENTITY, Link, interpolate, inverse_times

_NANOSECONDS = 1_000_000_000
_MOST_CLAIMS_REMEMBERED = 8
_SAME_DISTANCE, _SAME_ANGLE = 1e-3, 0.02  # metres and degrees within which two calibrations are the same
_MOST_COMPARED = 300  # names that a hint is chosen from
_LONGEST_COMPARED = 100  # characters of a name that a hint is given for
_LEAST_LIKENESS = 0.8  # least similarity for a hint: twice the common letters over the letters of both names


class TransformError(ValueError):
    """A transform that cannot be given or taken, and why.

    Attributes:
        kind: 'invalid' (refused by `set`, or not finite in a lookup), 'unknown_frame', 'disconnected',
            'no_data' (a frame with one sample or none), 'extrapolation_past', 'extrapolation_future' or 'loop'.
        may_come: whether a later message could still bring what is missing, so that waiting makes sense.
    """

    def __init__(self, kind: str, message: str, may_come: bool = False):
        super().__init__(message)
        self.kind = kind
        self.may_come = may_come


class UnknownFrame(TransformError):
    """A lookup of a frame that no transform has named.

    The hint at a similar name is computed when the text is read, not under the buffer's lock, and from a bounded amount
    of text. Otherwise a sender of long names could make every lookup slow.
    """

    def __init__(self, argument: str, name: str, known: tuple[str, ...]):
        super().__init__("unknown_frame", f'"{name}" passed to lookup as {argument} does not exist', True)
        self._name = name
        self._known = known

    def __str__(self) -> str:
        if len(prefixed := [name for name in self._known if name.endswith(f"/{self._name}")]) == 1:
            prefix = prefixed[0].removesuffix(self._name)
            return f"{super().__str__()}; did you mean '{prefixed[0]}'? then set frame_prefix to {prefix!r}"
        matcher = difflib.SequenceMatcher(b=self._name)
        near = []
        for name in islice((name for name in self._known if _similar_length(name, self._name)), _MOST_COMPARED):
            matcher.set_seq1(name)
            near.append((matcher.quick_ratio(), name))  # linear in their lengths, `ratio` is cubic
        likeness, nearest = max(near, default=(0.0, ""))
        if likeness >= _LEAST_LIKENESS:
            return f"{super().__str__()}; did you mean '{nearest}'?"
        listed = ", ".join(heapq.nsmallest(10, self._known)) or "none, no transform has been received"
        return f"{super().__str__()}; known frames: {listed}"


class Conflict(NamedTuple):
    """A frame that is published in contradicting ways.

    Under two parents by turns, as both moving and static, or as static with different values; `change` says how these
    differ.
    """

    child: str
    claims: tuple[str, ...]
    switches: int
    stamp_ns: int
    change: str = ""

    def __str__(self) -> str:
        if self.change:
            when = f" (stamp {_seconds(self.stamp_ns)})" if self.stamp_ns else ""
            return (
                f"frame '{self.child}' is published on /tf_static again with other values, {self.change}{when}; only "
                "the last ones count, also for earlier images; publish it once"
            )
        claims = " and ".join(self.claims)
        return f"frame '{self.child}' is published {claims} by turns ({self.switches} switches); stop one publisher"


class FrameHistory:
    """The samples of one child frame, ascending in time; a static frame has one, which holds at all times.

    `inverse`: the samples are child_from_parent. They are interpolated so, and what comes out is inverted.
    """

    __slots__ = ("static", "inverse", "stamps", "parents", "links", "_latest_claim", "_claims", "_switches")

    def __init__(self, static: bool, earlier: FrameHistory | None = None, inverse: bool = False):
        """earlier: the history that this one replaces when a frame turns static or moving; only its claims are taken
        over."""
        self.static, self.inverse = static, inverse
        self.stamps: list[int] = []
        self.parents: list[str] = []
        self.links: list[Link] = []
        self._latest_claim: str = earlier._latest_claim if earlier else ""
        self._claims: tuple[str, ...] = earlier._claims if earlier else ()
        self._switches: int = earlier._switches if earlier else 0

    def forget(self, first: int, last: int) -> None:
        del self.stamps[first:last], self.parents[first:last], self.links[first:last]

    def insert(self, stamp_ns: int, parent: str, link: Link, history_ns: int, max_samples: int) -> bool:
        """Insert as TimeCache::insertData: drop old samples, refuse one that is too old, keep the order, skip
        repetitions."""
        if self.static:
            self.stamps, self.parents, self.links = [stamp_ns], [parent], [link]
            return True
        stamps = self.stamps
        if stamps:
            oldest_kept = stamps[-1] - history_ns
            if stamps[0] < oldest_kept:
                self.forget(0, bisect_left(stamps, oldest_kept))
            if stamp_ns < oldest_kept:
                return False
        place = bisect_right(stamps, stamp_ns)
        same = place
        while same and stamps[same - 1] == stamp_ns:
            same -= 1
            if self.parents[same] == parent and self.links[same] == link:
                return True
        stamps.insert(place, stamp_ns)
        self.parents.insert(place, parent)
        self.links.insert(place, link)
        if len(stamps) > max_samples:
            self.forget(0, len(stamps) - max_samples)
        return True

    def bracket(self, stamp_ns: int) -> tuple[int, int]:
        """Indices of the samples before and after a stamp; equal if one sample alone gives the answer.

        Raises:
            IndexError: there is no sample, or the stamp is before the first or after the last.
        """
        stamps = self.stamps
        if self.static or stamps[-1] == stamp_ns:
            return len(stamps) - 1, len(stamps) - 1
        if stamps[0] == stamp_ns:
            return 0, 0
        newer = bisect_right(stamps, stamp_ns)
        if newer in (0, len(stamps)):
            raise IndexError
        older = newer - 1
        # Between samples under different parents the older one holds until the newer one.
        return older, newer if self.parents[older] == self.parents[newer] else older

    def link(self, stamp_ns: int, older: int, newer: int) -> Link:
        """parent_from_child at a stamp between the samples that `bracket` gave."""
        if older == newer:
            found = self.links[older]
        else:
            begin, end = self.stamps[older], self.stamps[newer]
            found = interpolate(self.links[older], self.links[newer], (stamp_ns - begin) / (end - begin))
        return inverse_times(found, IDENTITY) if self.inverse else found

    def claim(self, child: str, parent: str, stamp_ns: int) -> Conflict | None:
        """Record the parent that the newest message claims; returns a conflict if an earlier claim comes back after
        another."""
        claim = f"under '{parent}'" + (" (static)" if self.static else "")
        if claim == self._latest_claim:
            return None
        self._latest_claim = claim
        returned = claim in self._claims
        if not returned:
            self._claims = (*self._claims[1 - _MOST_CLAIMS_REMEMBERED :], claim)
        self._switches += len(self._claims) > 1
        return Conflict(child, self._claims, self._switches, stamp_ns) if returned else None

    def missing_data(self, name: str, stamp_ns: int) -> TransformError:
        """Why `bracket` gave nothing, in tf2's words."""
        stamps, wanted = self.stamps, _seconds(stamp_ns)
        if not stamps:
            text = f"Lookup would require data at time {wanted}, but nothing of frame [{name}] is in the buffer"
            return TransformError("no_data", text, True)
        edge = stamps[0] if stamp_ns < stamps[0] else stamps[-1]
        gap = f"{abs(stamp_ns - edge) / _NANOSECONDS:.9g} s"
        link = f"for frame [{name}] in [{self.parents[-1]}]"
        if len(stamps) == 1:
            text = f"at time {wanted}, but only time {_seconds(edge)} is in the buffer ({gap} away) {link}"
            return TransformError("no_data", f"Lookup would require extrapolation {text}", stamp_ns > edge)
        past = stamp_ns < edge
        text = (
            f"Lookup would require extrapolation into the {'past' if past else 'future'}.  Requested time {wanted} but "
            f"the {'earliest' if past else 'latest'} data is at time {_seconds(edge)} "
            f"({gap} {'later' if past else 'earlier'}) {link}"
        )
        return TransformError("extrapolation_past" if past else "extrapolation_future", text, not past)


def change_of(before: Link, after: Link) -> str:
    """How two values of a static transform differ, as text; empty if they are the same but for rounding."""
    distance = math.dist(before[:3], after[:3])
    cosine = min(1.0, abs(sum(a * b for a, b in zip(before[3:], after[3:]))))
    angle = math.degrees(2 * math.acos(cosine))
    if distance < _SAME_DISTANCE and angle < _SAME_ANGLE:
        return ""
    return f"{distance:.3f} m and {angle:.2f} degrees away"


def checked_link(parent: str, child: str, translation: Sequence[float], quaternion: Sequence[float]) -> Link:
    """The link with a unit quaternion.

    BufferCore has a tolerance of 0.01 on |q|^2. But in ROS 2 it converts to a rotation matrix before this check, which
    normalises any quaternion that has a direction. So only a quaternion without one is TF_DENORMALIZED_QUATERNION.

    Raises:
        TransformError: kind 'invalid', where BufferCore::setTransform refuses too (and for infinities).
    """
    where = f"ignoring transform with child_frame_id '{child}' and frame_id '{parent}'"
    x, y, z = map(float, translation)
    qx, qy, qz, qw = map(float, quaternion)
    if not child:
        raise TransformError("invalid", f"TF_NO_CHILD_FRAME_ID: {where} because child_frame_id is empty")
    if not parent:
        raise TransformError("invalid", f"TF_NO_FRAME_ID: {where} because frame_id is empty")
    if child == parent:
        raise TransformError("invalid", f"TF_SELF_TRANSFORM: {where} because they are the same")
    squared = qx * qx + qy * qy + qz * qz + qw * qw
    if not all(map(math.isfinite, (x, y, z, squared))):
        raise TransformError(
            "invalid",
            f"TF_NAN_INPUT: {where} because of a NaN or infinity in ({x}, {y}, {z}) ({qx}, {qy}, {qz}, {qw}); "
            "repair its publisher",
        )
    if squared < sys.float_info.min:
        raise TransformError(
            "invalid",
            f"TF_DENORMALIZED_QUATERNION: {where} because the quaternion ({qx}, {qy}, {qz}, {qw}) has no direction; "
            "its publisher must fill it, (0, 0, 0, 1) means no rotation",
        )
    scale = 1.0 / math.sqrt(squared)
    return (x, y, z, qx * scale, qy * scale, qz * scale, qw * scale)


def _similar_length(name: str, other: str) -> bool:
    return len(other) <= _LONGEST_COMPARED and abs(len(name) - len(other)) <= len(other) // 2


def _seconds(stamp_ns: int) -> str:
    seconds, nanoseconds = divmod(stamp_ns, _NANOSECONDS)
    return f"{seconds}.{nanoseconds:09d}"
