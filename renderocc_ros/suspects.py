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
        self._images: dict[CameraQueue, QueuedImage] = {}
        self._went_on: dict[CameraQueue, set[CameraQueue]] = {}  # of each: others that sent good images since

    def keep(self, image: QueuedImage) -> None:
        self.drop(image.camera)
        self._images[image.camera] = image.hold()
        self._went_on[image.camera] = set()

    def drop(self, camera: CameraQueue) -> None:
        """The camera's image was a stray."""
        suspect = self._images.pop(camera, None)
        if suspect is not None:
            suspect.release("out_of_order")

    def note_good(self, camera: CameraQueue) -> None:
        """A camera has sent an image that goes on from its last."""
        for suspected, others in self._went_on.items():
            if suspected is not camera:
                others.add(camera)

    def take_supporters(self, image: QueuedImage) -> list[QueuedImage]:
        """The kept images that say, with this one, that time has gone back to here; the caller releases them."""
        found = [suspect for suspect in self._images.values() if self._supports(suspect, image)]
        for suspect in found:
            del self._images[suspect.camera]
        return found

    def clear(self, fate: str) -> None:
        for suspect in self._images.values():
            suspect.release(fate)
        self._images.clear()

    def _supports(self, suspect: QueuedImage, image: QueuedImage) -> bool:
        if suspect.camera is not image.camera:
            return abs(suspect.stamp_ns - image.stamp_ns) <= self._jump_back_ns
        # The same camera goes on where its suspect began, and no other went on at another time meanwhile.
        others = (camera.last_stamp for camera in self._went_on[suspect.camera])
        return suspect.stamp_ns < image.stamp_ns and all(
            last is None or abs(last - image.stamp_ns) <= self._jump_back_ns for last in others
        )
