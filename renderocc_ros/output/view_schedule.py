"""Which rendered views are drawn, and when: they must not delay the volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["ViewSchedule"]

SHARE = 0.04  # most of the time for views while frames wait

_Rest = TypeVar("_Rest")


class ViewSchedule:
    """Spends the time between two frames on views, and at most `SHARE` of the time while frames wait.

    A node that is always late would otherwise never draw any. The cameras take turns, so that each is drawn.
    """

    def __init__(self) -> None:
        self._last = ""  # the camera drawn last
        self._resume = 0.0  # steady seconds

    def in_turn(self, wanted: Sequence[tuple[str, _Rest]]) -> list[tuple[str, _Rest]]:
        """(camera, ...) in the order in which to draw them: those after the camera that was drawn last come first."""
        cameras = [camera for camera, _ in wanted]
        first = cameras.index(self._last) + 1 if self._last in cameras else 0
        return [*wanted[first:], *wanted[:first]]

    def allows(self, late: bool, now: float) -> bool:
        """Whether the next view may be drawn.

        Args:
            late: whether a frame waits.
            now: steady seconds.
        """
        return not late or now >= self._resume

    def drawn(self, camera: str, began: float, ended: float) -> None:
        """Note a view that was drawn, with its steady seconds."""
        self._last = camera
        self._resume = ended + (ended - began) * (1 / SHARE - 1)
