"""Camera mounts from the parameter `mounts`, for cameras that are not in TF."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.mounts import BODY_FROM_OPTICAL, mount_faults
from renderocc_model.geometry.transforms import transform_from


def quaternion_from_euler(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """(x, y, z, w) of rotations about the fixed x, then y, then z axis, radians.

    It uses tf_transformations if that is installed.
    """
    try:
        from tf_transformations import quaternion_from_euler as convert
    except (ImportError, AttributeError):  # not installed, or its transforms3d does not fit the installed NumPy
        pass
    else:
        return np.asarray(convert(roll, pitch, yaw), np.float64)
    (sr, sp, sy), (cr, cp, cy) = np.sin(np.array([roll, pitch, yaw]) / 2), np.cos(np.array([roll, pitch, yaw]) / 2)
    return np.array(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ]
    )


def parse_mounts(texts: tuple[str, ...], cameras: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Mounts from the parameter `mounts`.

    Args:
        texts: entries like "front: 1.5 0 1.6 0 0.1 0", the camera's x y z in metres and roll pitch yaw in radians of
            its body (x forward along the optical axis, y left, z up) in the base frame.
        cameras: the names that are allowed.
    Returns:
        {camera: (4, 4) base_from_camera of its optical frame}.
    Raises:
        ValueError: an entry cannot be read; the text names it.
    """
    mounts = {}
    for text in texts:
        name, colon, numbers = text.rpartition(":")
        name = name.strip()
        try:
            values = [float(word) for word in numbers.replace(",", " ").split()]
        except ValueError:
            values = []
        if not colon or len(values) != 6 or not np.isfinite(values).all():
            raise ValueError(
                f"parameter 'mounts' has the entry {text!r}; "
                "expected 'camera: x y z roll pitch yaw', metres and radians"
            )
        if name not in cameras:
            raise ValueError(f"parameter 'mounts' names the camera {name!r}, which is not one of {list(cameras)}")
        mounts[name] = transform_from(np.array(values[:3]), quaternion_from_euler(*values[3:])) @ BODY_FROM_OPTICAL
    return mounts


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
