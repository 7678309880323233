"""Projects points to a camera's pixels, and finds points that nearer surfaces hide from the camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.transforms import transform_points

__all__ = ["Occlusion", "Projected", "hidden_points", "project_points"]

_CELLS_ACROSS = 800  # width of the buffer for occlusion; with fewer cells, far ground looks like a closed surface
_BUCKET = 2**0.5  # ratio of the largest to the smallest distance that share a footprint


@dataclass(frozen=True)
class Projected:
    """Points in front of a camera.

    Attributes:
        index: (n,) index of each point in the array that was projected.
        pixels: (n, 2) float64 (column, row); integers are pixel centres.
        depth: (n,) z-depth, metres.
        distance: (n,) Euclidean distance to the camera, metres.
        in_image: (n,) bool, whether the pixel is inside the image.
    """

    index: np.ndarray
    pixels: np.ndarray
    depth: np.ndarray
    distance: np.ndarray
    in_image: np.ndarray

    def kept(self, which: np.ndarray) -> Projected:
        """The points that a mask or indices select."""
        return Projected(*(getattr(self, field.name)[which] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Projected]) -> Projected:
        """All points of several parts, one part after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Occlusion:
    """The rule for hidden points: nearer points are both above and below the point (or on it), within a footprint.

    A LiDAR on the roof sees points behind a near object, between its rows of points on that object, that a camera
    cannot see. Such a point has nearer rows above and below it, so it is hidden. A point on the ground has nearer
    points only below it, and a point on a wall along the road has them only beside it, so a slanted surface does not
    hide itself.

    Attributes:
        height: half the footprint's height on the nearer surface, metres. LiDAR rows that are farther apart do not
            form a closed surface. In pixels it is larger for nearer surfaces.
        width: half the footprint's width, metres.
        margin: a surface hides a point if it is nearer by this many metres plus this share of the distance.
    """

    height: float = 0.5
    width: float = 0.15
    margin: tuple[float, float] = (0.3, 0.05)


def project_points(
    model: CameraModel, camera_from_points: np.ndarray, xyz: np.ndarray, min_depth: float = 1.0
) -> Projected:
    """Project the points whose z-depth exceeds `min_depth`.

    Args:
        model: the camera's model.
        camera_from_points: (4, 4), pose of the points' frame in the optical frame, each at its own stamp.
        xyz: (N, 3), metres; rows with NaN are left out.
        min_depth: z-depth, metres; nearer points are on the vehicle itself.
    """
    seen = transform_points(camera_from_points, xyz)
    with np.errstate(invalid="ignore"):
        index = np.flatnonzero((seen[:, 2] > min_depth) & np.isfinite(seen).all(axis=1))
    seen = seen[index]
    pixels, in_image = model.project(seen)
    return Projected(index, pixels, seen[:, 2], np.linalg.norm(seen, axis=1), in_image)


def hidden_points(model: CameraModel, points: Projected, occlusion: Occlusion = Occlusion()) -> np.ndarray:
    """Which projected points are hidden by others, (n,) bool. All points must be in the image.

    The cost is a pass over a small buffer for each factor of 1.4 in distance, hardly affected by the number of points.
    """
    if not len(points.index):
        return np.zeros(0, bool)
    cell = max(1.0, model.width / _CELLS_ACROSS)
    columns, rows = (np.floor((points.pixels.T + 0.5) / cell)).astype(np.int64)
    shape = (int(np.ceil(model.height / cell)), int(np.ceil(model.width / cell)))
    focal = float(np.sqrt(model.K[0, 0] * model.K[1, 1])) / cell  # cells a radian
    above = np.full(shape, np.inf, np.float32)
    below = above.copy()
    bucket = np.floor(np.log(points.distance) / np.log(_BUCKET)).astype(np.int64)
    for number in np.unique(bucket):
        chosen = bucket == number
        nearest = np.full(shape, np.inf, np.float32)
        np.minimum.at(nearest, (rows[chosen], columns[chosen]), points.distance[chosen].astype(np.float32))
        reach = focal / _BUCKET ** (number + 0.5)  # cells a metre at this distance
        up = min(max(int(occlusion.height * reach), 0), shape[0] - 1)
        aside = min(max(int(occlusion.width * reach), 0), shape[1] // 2)
        kernel = np.ones((up + 1, 2 * aside + 1), np.uint8)
        np.minimum(above, cv2.erode(nearest, kernel, anchor=(aside, up)), out=above)  # of rows - up .. row
        np.minimum(below, cv2.erode(nearest, kernel, anchor=(aside, 0)), out=below)  # of row .. row + up
    enclosed = np.maximum(above, below)[rows, columns]
    fixed, share = occlusion.margin
    return enclosed < points.distance * (1 - share) - fixed
