"""Decides which points are ground and which are obstacles."""

from __future__ import annotations

import numpy as np

from renderocc_model.field.classes import GROUND_OBSTACLE, UNLABELLED

from .patchwork import patchwork_classes

__all__ = ["classes_by_plane", "cloud_classes"]

GROUND, OBSTACLE = GROUND_OBSTACLE.id_of("ground"), GROUND_OBSTACLE.id_of("obstacle")
_SURE = 40.0  # metres from the vehicle; what looks like ground beyond gets no class
_STEP = 0.3  # metres above or below the ground, plus the slope below, that ground may reach
_SLOPE = 0.10
_THICK = 0.2  # metres from a plane within which a point is on it, plus this share of the distance beyond 10 m
_THICKER = 0.01


def cloud_classes(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Class ids of GROUND_OBSTACLE of a LiDAR's points, by Patchwork++.

    Two rules are added for distant points, where the rows of a LiDAR are far apart. Ground higher or lower than 0.3 m
    and a tenth of the distance is an obstacle: a roof or a crown that has no lower point in its patch. Ground
    beyond 40 m has no class.

    Args:
        points: (N, 3) in the level frame: z is the height above the ground below the vehicle, metres.
        centre: (2,) or (3,) the LiDAR's place in that frame.
    Returns:
        (N,) uint8; 255 without a class.
    """
    classes = patchwork_classes(points, centre)
    distance = np.hypot(points[:, 0] - centre[0], points[:, 1] - centre[1])
    is_ground = classes == GROUND
    classes[is_ground & (np.abs(points[:, 2]) > _STEP + _SLOPE * distance)] = OBSTACLE
    classes[(classes == GROUND) & (distance > _SURE)] = UNLABELLED
    return classes


def classes_by_plane(points: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Class ids of GROUND_OBSTACLE of points, by their height above a plane.

    A point is ground within 0.2 m of the plane, beyond 10 m within 1 % of the additional distance more, and an obstacle
    above. Points below the ground have no class, as has ground beyond 40 m.

    Args:
        points: (N, 3) in base_link, metres.
        plane: (4,) unit normal n, pointing up, and offset d: the ground is n . p + d = 0.
    Returns:
        (N,) uint8; 255 without a class.
    """
    distance = np.hypot(points[:, 0], points[:, 1])
    height = points @ plane[:3] + plane[3]
    limit = _THICK + _THICKER * np.maximum(distance - 10.0, 0.0)
    classes = np.where(height > limit, OBSTACLE, GROUND).astype(np.uint8)
    classes[(height < -limit) | ((classes == GROUND) & (distance > _SURE))] = UNLABELLED
    return classes
