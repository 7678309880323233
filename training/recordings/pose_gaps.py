"""How far a moment is from the ego poses that a recording has."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["pose_gap"]


def pose_gap(stamps: Sequence[int], stamp_ns: int) -> float:
    """Seconds from a stamp to the farther of the poses before and after it; 0 at a pose, and outside of their range.

    Args:
        stamps: of the poses, ascending.
    """
    place = bisect_left(stamps, stamp_ns)
    if place == len(stamps) or stamps[place] == stamp_ns or place == 0:
        return 0.0  # outside of the range the look-up itself fails, unless a link above the base moves
    return max(stamp_ns - stamps[place - 1], stamps[place] - stamp_ns) / 1e9
