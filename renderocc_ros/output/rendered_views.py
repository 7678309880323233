"""Class colours and depth of the field as a camera sees it, rendered along rays as in training and evaluation."""

from __future__ import annotations

import numpy as np
import torch

from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.rays import camera_ray_shape, camera_rays, depth_from_distance
from renderocc_model.geometry.undistortion import View
from renderocc_model.ops.render import intersect_box, render
from renderocc_model.ops.render.surfaces import read_surfaces


def rendered_view(
    occupancy: Occupancy, view: View, base_from_camera: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Render the volume's field through a camera's view.

    Args:
        occupancy: the volume, with its field.
        view: the camera's undistorted view.
        base_from_camera: (4, 4) pose of the optical frame in the grid's frame.
        stride: one ray for stride x stride pixels of the view.
    Returns:
        colours: (rows, columns, 3) uint8 RGB of the classes, black where the ray passes through.
        depth: (rows, columns) float32 z-depth in metres, NaN where the ray passes through (REP 117, REP 118).
    """
    rows, columns = camera_ray_shape(view, stride)
    rays = camera_rays(view, base_from_camera, stride)
    with torch.inference_mode():
        # The reference implementation: loading or compiling the other ones would delay a frame while driving.
        result = render(occupancy.field, rays.to(occupancy.field.device), step=1.0, backend="reference")
        grid = occupancy.field.grid
        far = intersect_box(rays.origins, rays.directions, grid.lower, grid.upper)[1].to(result.distance)
        surfaces = read_surfaces(result, far)
        opaque, channel = surfaces.opaque.cpu().numpy(), surfaces.channels.cpu().numpy()
        distance = surfaces.distances.float().cpu().numpy()
    ids = np.asarray(occupancy.classes.occupied_ids)[channel]
    colours = np.where(opaque[:, None], occupancy.classes.palette()[ids], 0).astype(np.uint8)
    camera_directions = rays.directions.numpy() @ np.asarray(base_from_camera)[:3, :3]
    depth = np.where(opaque, depth_from_distance(distance, camera_directions), np.nan).astype(np.float32)
    return colours.reshape(rows, columns, 3), depth.reshape(rows, columns)
