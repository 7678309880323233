"""Judges the mounts of cameras: which poses on a vehicle cannot be true."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np

__all__ = ["BODY_FROM_OPTICAL", "mount_faults", "place_faults", "shared_mounts"]

# A camera body's axes (x forward, y left, z up) from its optical frame's (x right, y down, z forward), REP 103.
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])

_HEIGHTS = (-2.5, 5.0)  # metres above base_link, which is on the ground or at the LiDAR on the roof
_AT_ORIGIN = 0.05  # metres; a camera that is nearer to base_link's origin has no real mount
_FAR_OUT = 15.0  # largest distance from base_link, metres
_DOWN, _UP = 60.0, 45.0  # largest pitch of a camera, degrees
_UPRIGHT = 0.5  # least height of the unit vector to the upper edge of the image
_LEVEL = 0.9  # the same for the body of a camera that is mounted as cameras usually are
_SAME_PLACE, _SAME_WAY = 0.01, 1.0  # metres, degrees; two cameras cannot be nearer to each other


def mount_faults(base_from_camera: np.ndarray) -> list[str]:
    """What cannot be true of a camera's mount, one text for each fault.

        >>> body = np.eye(4)  # the frame of a camera's body, 1.5 m before base_link and 1.6 m above it
        >>> body[:3, 3] = 1.5, 0.0, 1.6
        >>> [text[:33] for text in mount_faults(body)]
        ['looks into the sky, 90 degrees up']
        >>> mount_faults(body @ BODY_FROM_OPTICAL)
        []

    Args:
        base_from_camera: (4, 4), pose of the optical frame on the vehicle, metres.
    """
    texts = place_faults(base_from_camera)
    if math.hypot(*base_from_camera[:3, 3]) < _AT_ORIGIN:
        texts.append("mounted at the origin of the vehicle's frame: its translation was probably never set")
    wrong = _direction_fault(base_from_camera)
    if wrong:
        as_body = base_from_camera @ BODY_FROM_OPTICAL
        of_body = not _direction_fault(as_body) and -as_body[2, 1] > _LEVEL
        hint = ", as if its frame were that of the camera body (x forward, z up)" if of_body else ""
        texts.append(f"{wrong}{hint}; an optical frame has z forward and y down")
    return texts


def place_faults(base_from_sensor: np.ndarray) -> list[str]:
    """What cannot be true of the place of a camera or LiDAR, (4, 4) on the vehicle, one text for each fault."""
    place = base_from_sensor[:3, 3]
    texts = []
    if not _HEIGHTS[0] <= place[2] <= _HEIGHTS[1]:
        texts.append(f"mounted {place[2]:.2f} m above the vehicle's frame; expected {_HEIGHTS[0]} to {_HEIGHTS[1]} m")
    if math.hypot(*place[:2]) > _FAR_OUT:  # also of numbers whose squares are too large
        texts.append(f"mounted {math.hypot(*place[:2]):.1f} m away from the vehicle's frame")
    return texts


def _direction_fault(base_from_camera: np.ndarray) -> str:
    """Why a camera cannot look this way; empty if it can."""
    forward, up = base_from_camera[:3, 2], -base_from_camera[:3, 1]
    pitch = math.degrees(math.asin(np.clip(forward[2], -1, 1)))
    if pitch < -_DOWN:
        return f"looks into the ground, {-pitch:.0f} degrees down"
    if pitch > _UP:
        return f"looks into the sky, {pitch:.0f} degrees up"
    if up[2] < _UPRIGHT:
        return f"its image is turned by {math.degrees(math.acos(np.clip(up[2], -1, 1))):.0f} degrees"
    return ""


def shared_mounts(mounts: Mapping[str, np.ndarray]) -> list[str]:
    """Pairs of cameras at one place that look the same way, one text for each pair.

    Args:
        mounts: {camera: (4, 4) base_from_camera}.
    """
    texts = []
    for (name, one), (other, two) in itertools.combinations(mounts.items(), 2):
        apart = math.dist(one[:3, 3], two[:3, 3])  # TF may hold any number: squares may be too large
        turned = math.degrees(math.acos(np.clip((np.trace(one[:3, :3].T @ two[:3, :3]) - 1) / 2, -1, 1)))
        if apart < _SAME_PLACE and turned < _SAME_WAY:
            texts.append(f"'{name}' and '{other}' are mounted at the same place and look the same way")
    return texts
