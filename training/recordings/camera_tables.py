"""The tables that undistort the images of a recording's cameras."""

from __future__ import annotations

from collections.abc import Callable

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable, network_view

from .frames import Recording

__all__ = ["CameraTables"]


class CameraTables:
    """{camera: its table, by its mount at its first image}; each is made when it is first asked for.

    Args:
        recording: an open recording.
        size_of: gives height and width of the view of a camera.
    """

    def __init__(self, recording: Recording, size_of: Callable[[CameraModel], tuple[int, int]]) -> None:
        self._recording, self._size_of = recording, size_of
        self._made: dict[str, UndistortTable] = {}

    def __getitem__(self, camera: str) -> UndistortTable:
        if camera not in self._made:
            model, mount = self._recording.models[camera], self._recording.mount(camera)
            self._made[camera] = UndistortTable(model, network_view(model, *self._size_of(model), mount))
        return self._made[camera]
