"""Points onto a camera's pixels, and which of them the camera cannot see because something stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.transforms import transform_points

__all__ = ["Occlusion", "Projected", "hidden_points", "project_points"]

_CELLS_ACROSS = 800  # of the buffer in which occlusion is looked for: coarser ones take ground far away for a surface
_BUCKET = 2**0.5  # ratio of the distances that share one footprint


@dataclass(frozen=True)
class Projected:
    """Points in front of a camera, in no order.

    Attributes:
        index: (n,) which of the points given.
        pixels: (n, 2) float64 (column, row); integers are pixel centres.
        depth: (n,) z-depth, metres.
        distance: (n,) Euclidean distance to the camera, metres.
        in_image: (n,) bool, the pixel is on the image's area.
    """

    index: np.ndarray
    pixels: np.ndarray
    depth: np.ndarray
    distance: np.ndarray
    in_image: np.ndarray

    def kept(self, which: np.ndarray) -> Projected:
        """Those of a mask or of indices."""
        return Projected(*(getattr(self, field.name)[which] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Projected]) -> Projected:
        """All of one or more, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Occlusion:
    """When a point is hidden: nearer points stand both above and below it (or on it) in the image, within a footprint.

    A LiDAR sees between its own rows past a near surface what a camera beside it cannot. A point on the ground has
    nearer ground below it but not above; a point on a wall that runs away from the camera, beside it. So what lies
    between two nearer rows is hidden, and a slanted surface does not hide itself.

    Attributes:
        height: half the footprint's height on the nearer surface, metres: rows of a LiDAR farther apart than this do
            not close a surface. In pixels it grows with nearness.
        width: half its width, metres.
        margin: metres and share of the distance by which a surface must be nearer to hide a point.
    """

    height: float = 0.5
    width: float = 0.15
    margin: tuple[float, float] = (0.3, 0.05)


def project_points(
    model: CameraModel, camera_from_points: np.ndarray, xyz: np.ndarray, min_depth: float = 1.0
) -> Projected:
    """Project points that lie deeper than `min_depth`.

    Args:
        model: lens and intrinsics.
        camera_from_points: (4, 4), the points' frame at their moment into the optical frame at the image's moment.
        xyz: (N, 3), metres; NaN rows are left out.
        min_depth: z-depth, metres; nearer returns are the vehicle itself.
    """
    seen = transform_points(camera_from_points, xyz)
    with np.errstate(invalid="ignore"):
        index = np.flatnonzero((seen[:, 2] > min_depth) & np.isfinite(seen).all(axis=1))
    seen = seen[index]
    pixels, in_image = model.project(seen)
    return Projected(index, pixels, seen[:, 2], np.linalg.norm(seen, axis=1), in_image)


def hidden_points(model: CameraModel, points: Projected, occlusion: Occlusion = Occlusion()) -> np.ndarray:
    """(n,) bool: which of the projected points another one hides. All of them must be in the image.

    Cost: one pass over a small buffer for each factor of 1.4 in distance, whatever the number of points.
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
