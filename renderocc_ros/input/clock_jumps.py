"""Images whose stamps fell far behind their camera's last, until it is known whose mistake they are."""

from __future__ import annotations

from .camera_queue import CameraQueue, QueuedImage

__all__ = ["Suspects"]


class Suspects:
    """At most one such image of each camera.

    Args:
        jump_back_ns: by how much stamps of one moment may differ and still agree.
    """

    def __init__(self, jump_back_ns: int):
        self._jump_back_ns = jump_back_ns
        # Of each camera its image, and the others that have sent good ones since.
        self._kept: dict[CameraQueue, tuple[QueuedImage, set[CameraQueue]]] = {}

    def keep(self, image: QueuedImage) -> None:
        self.drop(image.camera)
        self._kept[image.camera] = image.hold(), set()

    def drop(self, camera: CameraQueue) -> None:
        """The camera's image was a stray."""
        if camera in self._kept:
            self._kept.pop(camera)[0].release("out_of_order")

    def note_good(self, camera: CameraQueue) -> None:
        """A camera has sent an image that goes on from its last."""
        for suspect, others in self._kept.values():
            if suspect.camera is not camera:
                others.add(camera)

    def take_supporters(self, image: QueuedImage) -> list[QueuedImage]:
        """The kept images that say, with this one, that time has gone back to here; the caller releases them."""
        found = [suspect for suspect, others in self._kept.values() if self._supports(suspect, others, image)]
        for suspect in found:
            del self._kept[suspect.camera]
        return found

    def clear(self, fate: str) -> None:
        for suspect, _ in self._kept.values():
            suspect.release(fate)
        self._kept.clear()

    def _supports(self, suspect: QueuedImage, others: set[CameraQueue], image: QueuedImage) -> bool:
        if suspect.camera is not image.camera:
            return abs(suspect.stamp_ns - image.stamp_ns) <= self._jump_back_ns
        # The same camera goes on where its suspect began, and no other went on at another time meanwhile.
        stamps = (camera.last_stamp for camera in others)
        return suspect.stamp_ns < image.stamp_ns and all(
            last is None or abs(last - image.stamp_ns) <= self._jump_back_ns for last in stamps
        )
