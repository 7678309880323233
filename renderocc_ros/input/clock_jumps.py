"""Has time gone back, or is one camera wrong? Keeps images whose stamps fell far, until other images decide it."""

from __future__ import annotations

from .camera_queue import CameraQueue, QueuedImage

__all__ = ["ClockJumpDetection"]


class ClockJumpDetection:
    """Keeps at most one image of each camera whose stamp fell far behind that camera's last one: a suspect.

    Args:
        jump_back_ns: stamps that differ by at most this agree on the time.
    """

    def __init__(self, jump_back_ns: int):
        self._jump_back_ns = jump_back_ns
        # For each camera its suspect, and the other cameras that have sent good images since.
        self._kept: dict[CameraQueue, tuple[QueuedImage, set[CameraQueue]]] = {}

    def keep(self, image: QueuedImage) -> None:
        """Keep a suspect; it replaces an earlier one of its camera."""
        self.drop(image.camera)
        self._kept[image.camera] = image.hold(), set()

    def drop(self, camera: CameraQueue) -> None:
        """Give up the camera's suspect: it was a single wrong stamp."""
        if camera in self._kept:
            self._kept.pop(camera)[0].release("out_of_order")

    def note_good(self, camera: CameraQueue) -> None:
        """Note that a camera has sent an image that continues its own stamps."""
        for suspect, others in self._kept.values():
            if suspect.camera is not camera:
                others.add(camera)

    def take_supporters(self, image: QueuedImage) -> list[QueuedImage]:
        """Take the suspects that show, together with this image, that time has gone back. The caller releases them."""
        found = [suspect for suspect, others in self._kept.values() if self._supports(suspect, others, image)]
        for suspect in found:
            del self._kept[suspect.camera]
        return found

    def clear(self, fate: str) -> None:
        """Give up all suspects."""
        for suspect, _ in self._kept.values():
            suspect.release(fate)
        self._kept.clear()

    def _supports(self, suspect: QueuedImage, others: set[CameraQueue], image: QueuedImage) -> bool:
        if suspect.camera is not image.camera:
            return abs(suspect.stamp_ns - image.stamp_ns) <= self._jump_back_ns
        # The camera continues from its suspect, and no other camera has meanwhile continued at another time.
        stamps = (camera.last_stamp for camera in others)
        return suspect.stamp_ns < image.stamp_ns and all(
            last is None or abs(last - image.stamp_ns) <= self._jump_back_ns for last in stamps
        )
