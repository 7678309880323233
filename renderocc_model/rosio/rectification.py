"""Rectified pictures (`image_rect` of image_proc): which they are, and where their camera is.

A sensor_msgs/CameraInfo describes the raw picture by K and D, and the rectified one by P = [K' | t] and R. A rectified
picture has the pinhole K' and no distortion. Its axes are those of the camera's frame, turned by R. The second camera
of a stereo pair has t = (-f B, 0, 0), where B is its distance from the first one, along the rectified axes. If both
cameras name the first one's frame, t says where the second one is; if each has a frame of its own, TF says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from renderocc_model.geometry.transforms import is_rotation
from renderocc_model.rosio.cdr_messages import CameraInfoMessage

__all__ = [
    "RECTIFIED",
    "Rectification",
    "baseline_doubts",
    "calibration_doubts",
    "frames_from_optical",
    "is_rectified",
    "rectification_from_info",
    "rectified_intrinsics",
]

RECTIFIED = ("auto", "all", "none")
_DIFFERENT = 0.02  # share by which K and P differ where they are not of the same picture
_OTHER_SIZE = 2.5  # ratio of focal lengths beyond which K and P cannot be of the same sensor
_SMALLEST_BASELINE = 1e-4  # metres


def is_rectified(topic: str, setting: str = "auto") -> bool:
    """Whether a topic carries rectified pictures.

    Args:
        topic: name of the image topic, also a compressed one.
        setting: one of `RECTIFIED`; "auto" goes by the name: `image_rect`, `image_rect_color` and so on.
    """
    if setting == "auto":
        return any(part.startswith("image_rect") for part in topic.split("/"))
    return setting == "all"


@dataclass(frozen=True)
class Rectification:
    """What a CameraInfo says of the rectified picture's camera, beside its intrinsics.

    Attributes:
        rotation: R row by row, 9 numbers: turns directions of the camera's frame into rectified ones.
        offset: place of the optical centre in the first camera's rectified axes, metres to the right and down; zero for
            a camera of its own and for the first one of a pair.
    """

    rotation: tuple[float, ...]
    offset: tuple[float, float]


def rectified_intrinsics(message: CameraInfoMessage) -> np.ndarray:
    """(3, 3) K' of the rectified picture on the whole sensor, without binning and region of interest.

    Raises:
        ValueError: P is not given although there is a distortion to take out, or it is not a projection matrix.
    """
    P = np.asarray(message.P, np.float64).reshape(3, 4)
    if not np.any(P):
        if np.any(message.D):
            raise ValueError(
                "the pictures are rectified, but camera_info has no P (it is all zeros), which describes them; "
                "calibrate the camera, or set the parameter 'rectified' to none if they are not"
            )
        return np.asarray(message.K, np.float64).reshape(3, 3).copy()
    if not np.isfinite(P).all() or not np.array_equal(P[2], (0, 0, 1, 0)) or not (P[0, 0] > 0 and P[1, 1] > 0):
        raise ValueError(
            f"the pictures are rectified, but camera_info has the P {P.tolist()}; expected "
            "[[fx, 0, cx, tx], [0, fy, cy, ty], [0, 0, 1, 0]]; calibrate the camera"
        )
    return P[:, :3].copy()


def rectification_from_info(message: CameraInfoMessage) -> Rectification:
    """R and the offset of a rectified picture.

    Raises:
        ValueError: R is not a rotation, or P cannot be used.
    """
    intrinsics = rectified_intrinsics(message)
    R = np.asarray(message.R, np.float64).reshape(3, 3)
    if not np.any(R):
        R = np.eye(3)  # drivers of single cameras leave it out
    if not np.isfinite(R).all() or not is_rotation(R):
        raise ValueError(f"the pictures are rectified, but the R of camera_info is no rotation: {R.tolist()}")
    translation = np.asarray(message.P, np.float64).reshape(3, 4)[:2, 3]
    offset = -translation / np.diag(intrinsics)[:2]
    return Rectification(tuple(float(value) for value in R.ravel()), (float(offset[0]), float(offset[1])))


def frames_from_optical(
    cameras: Mapping[str, tuple[str, Rectification | None]],
) -> dict[str, np.ndarray]:
    """Poses of the pictures' optical axes in the cameras' frames.

    Args:
        cameras: {camera: (its frame, its rectification, None for raw pictures)}, of all cameras of the vehicle.
    Returns:
        {camera: (4, 4) frame_from_optical}, of rectified cameras alone.
    """
    poses = {}
    for camera, (frame, rectification) in cameras.items():
        if rectification is None:
            continue
        pose = np.eye(4)
        first = _first_of_pair(cameras, frame) if _is_second(rectification) else None
        if first is not None:
            rotation = np.array(first.rotation).reshape(3, 3)
            pose[:3, 3] = rotation.T @ (*rectification.offset, 0.0)
        else:
            rotation = np.array(rectification.rotation).reshape(3, 3)
        pose[:3, :3] = rotation.T
        poses[camera] = pose
    return poses


def baseline_doubts(cameras: Mapping[str, tuple[str, Rectification | None]]) -> dict[str, str]:
    """{camera: text} of second cameras of stereo pairs, of which it cannot be known whether TF places them.

    Args:
        cameras: as for `frames_from_optical`.
    """
    doubts = {}
    firsts = [frame for frame, one in cameras.values() if one is not None and not _is_second(one)]
    for camera, (frame, rectification) in cameras.items():
        if rectification is not None and _is_second(rectification) and not firsts:
            distance = float(np.hypot(*rectification.offset))
            doubts[camera] = (
                f"its P says that it is {distance:.3f} m beside the first camera of its stereo pair, which is not "
                f"used; it is taken to be where its frame {frame!r} is in TF"
            )
    return doubts


def calibration_doubts(message: CameraInfoMessage, rectified: bool) -> list[str]:
    """How K, D, R and P of a CameraInfo contradict each other without making it useless, one text each."""
    K, P = (np.asarray(matrix, np.float64)[:3, :3] for matrix in (message.K, message.P))
    if not np.any(P) or not np.any(K) or not (np.isfinite(K).all() and np.isfinite(P).all()):
        return []
    ratios = [P[axis, axis] / K[axis, axis] for axis in (0, 1) if K[axis, axis]]
    if rectified and not all(1 / _OTHER_SIZE < ratio < _OTHER_SIZE for ratio in ratios):
        return [
            f"P has the focal length {P[0, 0]:.1f} and K {K[0, 0]:.1f} pixels: they are of pictures of different "
            "sizes; P is used, for the pictures are rectified"
        ]
    turned = np.any(message.R) and not np.allclose(np.asarray(message.R).reshape(3, 3), np.eye(3), atol=1e-4)
    offset = np.asarray(message.P, np.float64).reshape(3, 4)[:, 3]
    if rectified or np.any(message.D) or turned or np.any(offset):
        return []
    size = np.array([message.width, message.height, message.width, message.height], float)
    apart = np.abs([P[0, 0] - K[0, 0], P[1, 1] - K[1, 1], P[0, 2] - K[0, 2], P[1, 2] - K[1, 2]])
    if (apart > _DIFFERENT * size).any():
        return [
            f"K and P differ (focal lengths {K[0, 0]:.1f} and {P[0, 0]:.1f} pixels) although D has no distortion: one "
            "of them is not of this picture; K is used; for rectified pictures set the parameter 'rectified' to all"
        ]
    return []


def _is_second(rectification: Rectification) -> bool:
    return max(map(abs, rectification.offset)) > _SMALLEST_BASELINE


def _first_of_pair(cameras: Mapping[str, tuple[str, Rectification | None]], frame: str) -> Rectification | None:
    """The rectification of the first camera of a pair that names this frame, too."""
    for other, rectification in cameras.values():
        if other == frame and rectification is not None and not _is_second(rectification):
            return rectification
    return None
