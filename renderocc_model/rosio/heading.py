"""Does the vehicle drive the way its frame looks?

A base frame with other axes, or an ego pose that was published the wrong way round, places every camera wrongly,
although all numbers look like a drive.
"""

from __future__ import annotations

import numpy as np

from .motion import MotionLimits, jumps_of
from .tf_buffer import TransformBuffer

__all__ = ["direction_fault", "heading_fault"]

_CHORD = 1.0  # metres between two places that are compared
_LONGEST_CHORD = 20.0  # metres; poses farther apart do not tell the direction of the way between them
_LEAST = 10.0  # metres of way from which it is judged
_ALONG = 0.5  # least mean of |cos| of the angle between the way and the frame's x axis
_BACKWARDS = -0.9  # mean of the cosine below which all of the way was driven backwards


def heading_fault(
    transforms: TransformBuffer, odom_frame: str, base_frame: str, limits: MotionLimits = MotionLimits()
) -> str:
    """What cannot be true of the directions in which a vehicle drives; empty if there is nothing.

    Args:
        transforms, odom_frame, base_frame, limits: as for `renderocc_model.rosio.motion.find_jumps`.
    """
    if not odom_frame:
        return ""
    for stamps, poses in transforms.trajectories(odom_frame, base_frame):
        cuts = {jump.after_ns for jump in jumps_of(stamps, poses, limits)}
        pieces = np.cumsum(np.isin(stamps, list(cuts))) if cuts else np.zeros(len(stamps), int)
        fault = direction_fault(poses, pieces)
        if fault:
            return fault
    return ""


def direction_fault(poses: np.ndarray, pieces: np.ndarray) -> str:
    """The fault of one row of poses.

    Args:
        poses: (N, 4, 4), odom_from_base.
        pieces: (N,), numbers of the pieces that jumps leave; ways are measured within a piece.
    """
    total, along, ahead = 0.0, 0.0, 0.0
    last = 0
    for index in range(1, len(poses)):
        way = poses[index, :3, 3] - poses[last, :3, 3]
        length = float(np.linalg.norm(way))
        if pieces[index] != pieces[last] or length > _LONGEST_CHORD:
            last = index
        elif length >= _CHORD:
            axis = poses[last, :3, 0] + poses[index, :3, 0]  # of the heading half way
            share = float(way @ axis) / max(float(np.linalg.norm(axis)), 1e-9)
            total, along, ahead = total + length, along + abs(share), ahead + share
            last = index
    if total < _LEAST:
        return ""
    if along < _ALONG * total:
        return (
            f"it drives {total:.0f} m, but not along the frame's x axis (only {along / total:.0%} of the way): x of "
            "the vehicle's frame must point forward, y to the left and z up (REP 103)"
        )
    if ahead < _BACKWARDS * total:
        return (
            f"it drives all of its {total:.0f} m backwards: the pose is the wrong way round (base in odom is wanted), "
            "or x of the vehicle's frame points to the rear"
        )
    return ""
