"""Poses of sensors on the vehicle from the setting `mounts`, for sensors that are not in TF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderocc_model.geometry.mounts import BODY_FROM_OPTICAL
from renderocc_model.geometry.transforms import transform_from

__all__ = ["camera_mounts", "lidar_mounts", "quaternion_from_euler"]


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


def camera_mounts(texts: Sequence[str], cameras: Sequence[str]) -> dict[str, np.ndarray]:
    """Mounts of cameras from the setting `mounts`.

    Args:
        texts: entries like "front: 1.5 0 1.6 0 0.1 0", the camera's x y z in metres and roll pitch yaw in radians of
            its body (x forward along the optical axis, y left, z up) in the base frame. Those of LiDARs are left out.
        cameras: the names that are allowed.
    Returns:
        {camera: (4, 4) base_from_camera of its optical frame}.
    Raises:
        ValueError: an entry cannot be read; the text names it.
    """
    mounts = {}
    for name, pose in _entries(texts).items():
        if name.startswith("/"):
            continue
        if name not in cameras:
            raise ValueError(f"parameter 'mounts' names the camera {name!r}, which is not one of {list(cameras)}")
        mounts[name] = pose @ BODY_FROM_OPTICAL
    return mounts


def lidar_mounts(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Mounts of LiDARs from the setting `mounts`: {topic: (4, 4) base_from_lidar}, of entries that begin with '/'.

    Raises:
        ValueError: an entry cannot be read; the text names it.
    """
    return {name: pose for name, pose in _entries(texts).items() if name.startswith("/")}


def _entries(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """{sensor: (4, 4) base_from_body}."""
    poses = {}
    for text in texts:
        name, colon, numbers = text.rpartition(":")
        try:
            values = [float(word) for word in numbers.replace(",", " ").split()]
        except ValueError:
            values = []
        if not colon or len(values) != 6 or not np.isfinite(values).all():
            raise ValueError(
                f"parameter 'mounts' has the entry {text!r}; "
                "expected 'camera: x y z roll pitch yaw', metres and radians"
            )
        poses[name.strip()] = transform_from(np.array(values[:3]), quaternion_from_euler(*values[3:]))
    return poses
