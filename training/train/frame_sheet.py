"""Draws a frame: images, labelled and rendered classes and distances, and the volume from above."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.drawing import bird_eye_view
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.field.threshold import Threshold, threshold_of_voxels
from renderocc_model.geometry.rays import camera_ray_shape, camera_rays
from renderocc_model.geometry.undistortion import View
from renderocc_model.ops.render import intersect_box, render
from renderocc_model.ops.render.surfaces import read_surfaces
from renderocc_model.ops.visibility import visible_voxels

from ..data.sample import Sample

__all__ = ["draw_frame"]

_COLUMN = 352  # width of a view, pixels
_RAYS_ACROSS = 176  # rays in this width: one for every second pixel
_NOTHING = (40, 44, 52)  # colour without a label, and where light leaves the grid
_TITLES = ("image", "labelled class", "rendered class", "labelled distance", "rendered distance")
_BAR = 22  # height of the titles, pixels


def draw_frame(
    field: SemanticDensityField, sample: Sample, classes: ClassTable, threshold: Threshold = 0.5
) -> np.ndarray:
    """Draw a row of images for each camera, and the volume from above.

    Args:
        field: the network's prediction for the sample's current frame.
        sample: its views and its labelled rays of the current frame are drawn.
        classes: the class table.
        threshold: a voxel is drawn as occupied if 1 - exp(-density * voxel_size) exceeds it.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    frame = sample.current
    farthest = float(np.linalg.norm(np.subtract(field.grid.upper, field.grid.lower)[:2])) / 2
    palette = classes.palette()
    rows = []
    for camera in np.flatnonzero(frame.present).tolist():
        view = View(frame.views.shape[2], frame.views.shape[1], frame.intrinsics[camera])
        pose = frame.base_from_camera[camera]
        label_classes, label_distances = _labels(sample, camera, view, pose)
        found_classes, found_distances = _rendered(field, classes, view, pose)
        tiles = (
            frame.views[camera],
            _painted(label_classes, palette),
            _painted(found_classes, palette),
            _distance_colours(label_distances, farthest),
            _distance_colours(found_distances, farthest),
        )
        rows.append(np.concatenate([_fitted(tile, view) for tile in tiles], axis=1))
    if not rows:
        rows = [np.full((_COLUMN // 2, len(_TITLES) * _COLUMN, 3), _NOTHING, np.uint8)]
    sheet = np.concatenate([_titles(), *rows])
    above = bird_eye_view(occupancy_of(field, sample, classes, threshold))
    scale = sheet.shape[0] / above.shape[0]
    above = cv2.resize(above, (round(above.shape[1] * scale), sheet.shape[0]), interpolation=cv2.INTER_AREA)
    return np.concatenate([sheet, above], axis=1)


def occupancy_of(field: SemanticDensityField, sample: Sample, classes: ClassTable, threshold: Threshold) -> Occupancy:
    """The volume that the node would publish."""
    frame = sample.current
    size = frame.views.shape[2], frame.views.shape[1]
    views = [View(*size, K) for K in frame.intrinsics]
    visible = visible_voxels(field, views, frame.base_from_camera, frame.present)
    confidence = field.occupancy_probability()
    ids = torch.tensor(classes.occupied_ids, dtype=torch.uint8, device=field.device)
    limit = threshold_of_voxels(threshold, field.grid, field.device)
    labels = torch.where(confidence > limit, ids[field.semantics.argmax(dim=-1)], classes.free)
    semantics = torch.where(visible, labels, UNLABELLED).to(torch.uint8)
    return Occupancy(
        field.grid, classes, semantics.cpu().numpy(), confidence.float().cpu().numpy(), visible.cpu().numpy(), field
    )


def _labels(sample: Sample, camera: int, view: View, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class and distance images (H, W) of a view, from the labelled rays; 255 and 0 without a label."""
    rays = sample.rays
    assert rays.frame_offsets is not None and rays.classes is not None and rays.distances is not None
    own = (np.asarray(sample.ray_cameras) == camera) & (rays.frame_offsets.numpy() == 0)
    directions = rays.directions.numpy()[own] @ pose[:3, :3]
    pixels = directions @ view.K.T
    columns, lines = np.rint(pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)).astype(int).T
    inside = (directions[:, 2] > 0) & (columns >= 0) & (columns < view.width) & (lines >= 0) & (lines < view.height)
    classes = np.full((view.height, view.width), UNLABELLED, np.uint8)
    distances = np.zeros((view.height, view.width), np.float32)
    # Dots of 2 x 2 pixels: single pixels would vanish when the sheet is made smaller.
    for down in (0, 1):
        for right in (0, 1):
            place = (
                np.minimum(lines[inside] + down, view.height - 1),
                np.minimum(columns[inside] + right, view.width - 1),
            )
            classes[place] = rays.classes.numpy()[own][inside]
            distances[place] = np.nan_to_num(rays.distances.numpy()[own][inside])
    return classes, distances


def _rendered(
    field: SemanticDensityField, classes: ClassTable, view: View, pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Class and distance images of a view as the field looks, coarser than the view; 255 and 0 where light leaves."""
    stride = max(round(view.width / _RAYS_ACROSS), 1)
    rays = camera_rays(view, pose, stride).to(field.device)
    with torch.no_grad():
        result = render(field, rays)
    _, far = intersect_box(rays.origins, rays.directions, field.grid.lower, field.grid.upper)
    ids = torch.tensor(classes.occupied_ids, device=field.device)
    surfaces = read_surfaces(result, far)
    labels = torch.where(surfaces.opaque, ids[surfaces.channels], UNLABELLED)
    distances = torch.where(surfaces.opaque, surfaces.distances, 0.0)
    shape = camera_ray_shape(view, stride)
    return labels.to(torch.uint8).view(shape).cpu().numpy(), distances.float().view(shape).cpu().numpy()


def _painted(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    return np.where((labels == UNLABELLED)[..., None], np.array(_NOTHING, np.uint8), palette[labels])


def _distance_colours(distances: np.ndarray, farthest: float) -> np.ndarray:
    """Colours of distances on a logarithmic scale from 1 m (red) to `farthest` (blue)."""
    known = distances > 0
    share = np.log(np.maximum(distances, 1.0)) / np.log(farthest)
    levels = (255 * (1 - np.clip(share, 0, 1))).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(known[..., None], colours, np.array(_NOTHING, np.uint8))


def _fitted(tile: np.ndarray, view: View) -> np.ndarray:
    size = (_COLUMN, round(view.height * _COLUMN / view.width))
    smaller = tile.shape[1] > _COLUMN
    return cv2.resize(tile, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)


def _titles() -> np.ndarray:
    bar = np.full((_BAR, len(_TITLES) * _COLUMN, 3), 255, np.uint8)
    for number, title in enumerate(_TITLES):
        cv2.putText(
            bar, title, (number * _COLUMN + 6, _BAR - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA
        )
    return bar
