"""Triangulates matches with known poses: tracks by COLMAP, positions by least squares, with their accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .colmap import colmap_camera, import_pycolmap
from .settings import MotionDepth
from .views import View

__all__ = ["Points", "triangulate"]

_ROUNDS = (2.0, 1.0, 1.0)  # times the largest error: the observations that each round of least squares keeps


@dataclass(frozen=True)
class Points:
    """Triangulated points and the features that see them.

    Attributes:
        xyz: (P, 3) positions in odom, metres.
        covariance: (P, 3, 3) of the positions, square metres, for features that are exact to a pixel.
        point: (K,) index of the point of each observation.
        view: (K,) index of its view.
        feature: (K,) index of its feature in the view.
        error: (K,) pixels between the feature and the projected point.
    """

    xyz: np.ndarray
    covariance: np.ndarray
    point: np.ndarray
    view: np.ndarray
    feature: np.ndarray
    error: np.ndarray


_NONE = np.zeros(0, np.int64)
_NO_POINTS = Points(np.zeros((0, 3)), np.zeros((0, 3, 3)), _NONE, _NONE, _NONE, np.zeros(0))


def triangulate(views: Sequence[View], matches: Mapping[tuple[int, int], np.ndarray], settings: MotionDepth) -> Points:
    """Points of the matches between views.

    COLMAP joins matches to tracks and finds, for each, the largest part that one point explains. Then each point is the
    least-squares solution of its rays, observations that are too far from it are dropped, and points that one view
    alone sees or that are seen under too small an angle are left out.

    Args:
        views: the images.
        matches: {(one, other): (K, 2) indices of features}.
        settings: thresholds.
    """
    if not matches:
        return _NO_POINTS
    point, view, feature = _tracks(views, matches, settings)
    origins = np.stack([one.odom_from_camera[:3, 3] for one in views])[view]
    rays, angles = np.zeros((len(view), 3)), np.zeros(len(view))
    for index, one in enumerate(views):
        chosen = view == index
        rays[chosen] = one.features.directions[feature[chosen]] @ one.odom_from_camera[:3, :3].T
        angles[chosen] = one.features.angles[feature[chosen]]
    kept = np.arange(len(point))
    for factor in _ROUNDS:
        if not len(kept):
            break
        _, point_of = np.unique(point[kept], return_inverse=True)
        xyz, _ = _solve(origins[kept], rays[kept], angles[kept], point_of)
        good = _errors(origins[kept], rays[kept], angles[kept], xyz[point_of]) < factor * settings.max_pixel_error
        good &= np.bincount(point_of[good], minlength=len(xyz))[point_of] >= 2
        good &= _widest(origins[kept], xyz[point_of], point_of, good)[point_of] > np.radians(settings.min_parallax)
        kept = kept[good]
    if not len(kept):
        return _NO_POINTS
    _, point_of = np.unique(point[kept], return_inverse=True)
    xyz, covariance = _solve(origins[kept], rays[kept], angles[kept], point_of)
    error = _errors(origins[kept], rays[kept], angles[kept], xyz[point_of])
    return Points(xyz, covariance, point_of, view[kept], feature[kept], error)


def _tracks(
    views: Sequence[View], matches: Mapping[tuple[int, int], np.ndarray], settings: MotionDepth
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """COLMAP's tracks: point, view and feature of each observation."""
    pycolmap = import_pycolmap()
    pycolmap.set_random_seed(0)  # of its RANSAC: a window gives the same points in every process, and after others
    scene, graph = pycolmap.Reconstruction(), pycolmap.CorrespondenceGraph()
    ids = {name: number for number, name in enumerate(dict.fromkeys(view.camera for view in views), 1)}
    for name, number in ids.items():
        model = next(view.model for view in views if view.camera == name)
        scene.add_camera_with_trivial_rig(colmap_camera(name, model, number))
    for index, view in enumerate(views, 1):
        pose = np.linalg.inv(view.odom_from_camera)[:3]
        image = pycolmap.Image(
            name=str(index), keypoints=view.features.pixels + 0.5, camera_id=ids[view.camera], image_id=index
        )
        scene.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
        graph.add_image(index, len(view.features))
    for (one, other), pairs in matches.items():
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
        geometry.inlier_matches = pairs.astype(np.uint32)
        graph.add_two_view_geometry(one + 1, other + 1, geometry)
    graph.finalize()
    triangulator = pycolmap.IncrementalTriangulator(graph, scene, pycolmap.ObservationManager(scene, graph))
    options = pycolmap.IncrementalTriangulatorOptions()
    widest = max(float(np.median(view.features.angles)) for view in views if len(view.features))
    options.create_max_angle_error = options.continue_max_angle_error = np.degrees(
        2 * settings.max_pixel_error * widest
    )
    options.merge_max_reproj_error = options.complete_max_reproj_error = 2 * settings.max_pixel_error
    options.min_angle = settings.min_parallax
    options.ignore_two_view_tracks = False
    options.random_seed = 0
    for index in range(1, len(views) + 1):
        triangulator.triangulate_image(options, index)
    triangulator.complete_all_tracks(options)
    triangulator.merge_all_tracks(options)
    found = [
        (number, element.image_id - 1, element.point2D_idx)
        for number, point in enumerate(scene.points3D.values())
        for element in point.track.elements
    ]
    return tuple(np.array(found, np.int64).reshape(-1, 3).T)  # type: ignore[return-value]


def _solve(
    origins: np.ndarray, rays: np.ndarray, angles: np.ndarray, point: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of the angles between rays and points: positions (P, 3) and their covariances (P, 3, 3).

    A point x on a ray (c, f) at the distance d has the error (1 - f f^T)(x - c) / (d s), s being the angle of a pixel.
    The first solution weighs all rays alike, the next ones by d.
    """
    count = int(point.max()) + 1
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    distance = np.ones(len(rays))
    for _ in range(3):
        weighted = across / (distance * angles)[:, None, None] ** 2
        normal, right = np.zeros((count, 3, 3)), np.zeros((count, 3))
        np.add.at(normal, point, weighted)
        np.add.at(right, point, np.einsum("kij,kj->ki", weighted, origins))
        normal += np.eye(3) * 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None]
        xyz = np.linalg.solve(normal, right[..., None])[..., 0]
        distance = np.maximum(np.linalg.norm(xyz[point] - origins, axis=1), 0.1)
    return xyz, np.linalg.inv(normal)


def _errors(origins: np.ndarray, rays: np.ndarray, angles: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Angle between each ray and the direction to its point, in pixels; infinite behind the camera."""
    towards = xyz - origins
    along = np.einsum("ij,ij->i", towards, rays)
    aside = np.linalg.norm(towards - along[:, None] * rays, axis=1)
    return np.where(along > 0, np.arctan2(aside, along) / angles, np.inf)


def _widest(origins: np.ndarray, xyz: np.ndarray, point: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Twice the largest angle between the rays to a point and their mean, (P,): about the widest angle between two."""
    towards = xyz - origins
    towards /= np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
    count = int(point.max()) + 1
    mean = np.zeros((count, 3))
    np.add.at(mean, point[good], towards[good])
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
    apart = np.arccos(np.clip(np.einsum("ij,ij->i", towards, mean[point]), -1, 1))
    widest = np.zeros(count)
    np.maximum.at(widest, point[good], apart[good])
    return 2 * widest
