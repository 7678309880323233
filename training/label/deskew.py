"""Moves the points of a scan to where they are seen from one moment, because the vehicle drives during the scan."""

from __future__ import annotations

import math

import numpy as np

from renderocc_model.geometry.transforms import invert, quaternion_from_matrix
from renderocc_model.rosio.tf_buffer import TransformError
from training.recordings.frames import Recording

from .mapping import LabelError

__all__ = ["deskewed", "moved_along"]

_STEP_S = 0.005  # seconds between the poses of a scan; between two of them the motion is even


def deskewed(recording: Recording, frame_id: str, stamp_ns: int, xyz: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The points of a scan in the LiDAR's frame at the cloud's stamp.

    Args:
        recording: has the ego poses.
        frame_id: the LiDAR's frame.
        stamp_ns: the cloud's stamp.
        xyz: (N, 3) points, each in the LiDAR's frame at its own time, metres.
        offsets: (N,) seconds from the stamp to each point's time.
    Returns:
        (N, 3) float64.
    Raises:
        RecordingError: there is no ego pose at the stamp or in the scan, or the pose jumps there.
        LabelError: the LiDAR has no pose on the vehicle.
    """
    if not len(xyz) or not recording.odom_frame:
        return xyz
    first, last = float(offsets.min()), float(offsets.max())
    knots = np.linspace(first, last, max(math.ceil((last - first) / _STEP_S), 1) + 1)
    stamps = [stamp_ns + round(offset * 1e9) for offset in knots]
    moments = sorted({stamp_ns, stamps[0], stamps[-1]})
    for moment in moments[1:]:
        recording.check_related(moments[0], moment)
    poses = np.stack([_odom_from_lidar(recording, frame_id, stamp) for stamp in (stamp_ns, *stamps)])
    return moved_along(knots, invert(poses[0]) @ poses[1:], offsets, xyz)


def _odom_from_lidar(recording: Recording, frame_id: str, stamp_ns: int) -> np.ndarray:
    odom_from_base = recording.odom_from_base(stamp_ns)
    try:
        return odom_from_base @ recording.transforms.lookup(recording.base_frame, frame_id, stamp_ns)
    except TransformError as error:
        raise LabelError(
            f"{recording.path}: the LiDAR's frame '{frame_id}' has no pose on the vehicle: {error}; record /tf_static"
        ) from None


def moved_along(knots: np.ndarray, poses: np.ndarray, times: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Points, each moved by the pose at its time: linear in translation and, over small angles, in rotation.

    Args:
        knots: (K,) times of the poses, ascending, at even steps, K >= 2.
        poses: (K, 4, 4).
        times: (N,), from the first knot to the last.
        xyz: (N, 3).
    Returns:
        (N, 3) float64.
    """
    step = max((knots[-1] - knots[0]) / (len(knots) - 1), 1e-12)
    place = np.clip((times - knots[0]) / step, 0, len(knots) - 1)
    before = np.minimum(place.astype(np.int64), len(knots) - 2)
    share = (place - before)[:, None]
    turns = np.stack([quaternion_from_matrix(pose[:3, :3]) for pose in poses])
    flips = np.cumprod(np.where((turns[1:] * turns[:-1]).sum(axis=1) < 0, -1.0, 1.0))
    turns[1:] *= flips[:, None]  # q and -q are one rotation; neighbours must be near each other
    turn = (1 - share) * turns[before] + share * turns[before + 1]
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    shift = (1 - share) * poses[before, :3, 3] + share * poses[before + 1, :3, 3]
    axis, real = turn[:, :3], turn[:, 3:]
    aside = 2 * np.cross(axis, xyz)
    return xyz + real * aside + np.cross(axis, aside) + shift
