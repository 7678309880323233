"""Sets of images of one moment: while they are put together, and when they are complete."""

from __future__ import annotations

from typing import Any, NamedTuple

from .camera_queue import CameraQueue, QueuedImage

__all__ = ["MatchedSet", "PendingSet", "TimeJump", "why_missing"]


class MatchedSet(NamedTuple):
    """Images of one moment.

    stamp_ns: the anchor's stamp.
    anchor: name of the camera that led this set.
    entries: {camera: (stamp_ns, payload)} in the order of the cameras, with the anchor's.
    missing: {camera: why it is missing} for all other cameras.
    arrived: when the anchor's image came in, in the steady seconds that the caller counts.
    """

    stamp_ns: int
    anchor: str
    entries: dict[str, tuple[int, Any]]
    missing: dict[str, str]
    arrived: float


class TimeJump(NamedTuple):
    """Stamps have gone back: from the newest stamp seen to the earliest of the new ones."""

    camera: str
    from_ns: int
    to_ns: int


class PendingSet:
    """A set that is being put together, around an image of the anchor. `nearest` holds the matches that are final."""

    __slots__ = ("image", "nearest", "deadline")

    def __init__(self, image: QueuedImage, max_wait: float):
        self.image = image.hold()
        self.nearest: dict[str, QueuedImage] = {}
        self.deadline = image.arrived + max_wait

    def __lt__(self, other: PendingSet) -> bool:
        return self.image.stamp_ns < other.image.stamp_ns

    def decide(self, camera: CameraQueue, max_diff_ns: int) -> None:
        """Keep the camera's nearest image, if no image still to come can be nearer."""
        if camera is self.image.camera or camera.name in self.nearest:
            return
        if camera.decided(self.image.stamp_ns, max_diff_ns):
            self.nearest[camera.name] = camera.nearest(self.image.stamp_ns).hold()

    def release(self, fate: str) -> None:
        """Let the images go. fate: what becomes of the anchor's image, if no set has used it."""
        self.image.fate = fate
        self.image.release(fate)
        for image in self.nearest.values():
            image.release("unmatched")


def why_missing(
    camera: CameraQueue, nearest: QueuedImage | None, stamp_ns: int, now: float, silent: bool, max_time_diff: float
) -> str:
    """Why a set has no image of a camera.

    Args:
        camera: the camera.
        nearest: its image that is nearest in stamp, if it has one.
        stamp_ns: the anchor's stamp.
        now: steady seconds.
        silent: whether nothing waits for the camera any more.
        max_time_diff: seconds that a stamp may differ from the anchor's.
    """
    if not camera.received:
        return "no image received"
    if camera.heard is None:
        reasons = ", ".join(f"{number} {reason}" for reason, number in camera.dropped.items())
        return f"no usable image received ({reasons})"
    if silent:
        return f"silent for {now - camera.heard:.1f} s"
    if nearest is None:
        return "no usable image received since the start or the last reset"
    gap = (nearest.stamp_ns - stamp_ns) * 1e-9
    side = "later" if gap > 0 else "earlier"
    return f"nearest image is {abs(gap):.3f} s {side} than the anchor's, more than {max_time_diff:g} s"
