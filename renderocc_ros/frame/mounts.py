"""Mounts of cameras that cannot be true."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.mounts import mount_faults


class MountChecks:
    """What cannot be true of the cameras' mounts. Each mount is judged once, until it changes.

    Args:
        base_frame: the vehicle's frame, for the texts.
    """

    def __init__(self, base_frame: str) -> None:
        self._base_frame = base_frame
        self._judged: dict[str, tuple[np.ndarray, list[str]]] = {}

    def faults(self, camera: str, mount: np.ndarray) -> list[str]:
        """The faults of a camera's mount, (4, 4) base_from_camera of its optical frame, with what to do."""
        judged = self._judged.get(camera)
        if judged is None or not np.array_equal(judged[0], mount):
            remedy = f"correct its transform to '{self._base_frame}', or set the parameter 'camera_frame' or 'mounts'"
            self._judged[camera] = mount.copy(), [f"{text}; {remedy}" for text in mount_faults(mount)]
        return self._judged[camera][1]
