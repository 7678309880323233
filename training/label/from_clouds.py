"""Makes the labels of one image from LiDAR points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.geometry.camera_model import CameraModel
from training.recordings.raw_classes import NO_SURFACE

from .clouds import LabelledCloud
from .projection import Occlusion, Projected, hidden_points, project_points

__all__ = ["Labels", "labels_from_clouds"]


@dataclass(frozen=True)
class Labels:
    """Labels of one image: depth (H, W) float32 metres, 0 unknown; semantic (H, W) uint8, or None without classes."""

    depth: np.ndarray
    semantic: np.ndarray | None


def labels_from_clouds(
    model: CameraModel,
    clouds: list[tuple[np.ndarray, LabelledCloud]],
    classes: ClassTable,
    dense: np.ndarray | None = None,
    occlusion: Occlusion | None = Occlusion(),
    min_depth: float = 1.0,
) -> Labels:
    """Depth and classes of the pixels that points project to. Where several meet, the nearest point is used.

    Only the first cloud (of each LiDAR) labels classes that move, because such objects have moved at the time of the
    others. If the first cloud has classes, points of other clouds without a class are left out, too (sweeps between
    labelled keyframes). If no cloud has classes, moving objects are smeared.

    Args:
        model: the camera's model.
        clouds: (camera_from_cloud (4, 4), cloud) of each, the nearest in time first.
        classes: the class table.
        dense: (H, W) class ids of the image, if they come from another source than the points.
        occlusion: how hidden points are found; None keeps them.
        min_depth: smallest z-depth of a point, metres.
    """
    shown, ids_of, later_of = [], [], []
    for number, (camera_from_cloud, cloud) in enumerate(clouds):
        points = project_points(model, camera_from_cloud, cloud.xyz, min_depth)
        points = points.kept(points.in_image)
        shown.append(points)
        none = np.full(len(points.index), UNLABELLED, np.uint8)
        ids_of.append(none if cloud.classes is None else cloud.classes[points.index])
        later_of.append(np.full(len(points.index), number > 0 and not cloud.nearest))
    points, ids, later = Projected.joined(shown), np.concatenate(ids_of), np.concatenate(later_of)
    columns, rows = np.floor(points.pixels.T + 0.5).astype(np.int64)
    classified = dense is not None or any(cloud.classes is not None for _, cloud in clouds)
    judged = ids if dense is None else dense[rows, columns]
    may_move = np.isin(judged, (*classes.dynamic, *classes.may_move)) | (classified & (judged >= NO_SURFACE))
    keep = np.flatnonzero(~(later & may_move))
    if occlusion is not None:
        keep = keep[~hidden_points(model, points.kept(keep), occlusion)]
    keep = keep[np.argsort(-points.depth[keep], kind="stable")]  # the nearest is written last
    columns, rows = columns[keep], rows[keep]
    depth = np.zeros((model.height, model.width), np.float32)
    depth[rows, columns] = points.depth[keep]
    if dense is not None or not classified:
        return Labels(depth, dense)
    semantic = np.full(depth.shape, UNLABELLED, np.uint8)
    semantic[rows, columns] = ids[keep]
    return Labels(depth, semantic)
