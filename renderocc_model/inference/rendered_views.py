"""Class colours and depth of the field as each camera sees it, by the rule of training and evaluation."""

from __future__ import annotations

import numpy as np
import torch

from ..field.classes import ClassTable
from ..field.field import SemanticDensityField
from ..field.occupancy import Occupancy
from ..geometry.grid import VoxelGrid
from ..geometry.rays import Rays, camera_ray_shape, camera_rays, depth_from_distance
from ..geometry.undistortion import View
from ..ops.render import render_surfaces

__all__ = ["ViewRenderer", "rendered_view", "warm_up"]


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
    return ViewRenderer(view, stride).render(occupancy, base_from_camera)


class ViewRenderer:
    """Renders through one view; what its rays have in common is computed once.

    Args:
        view: the camera's undistorted view.
        stride: one ray for stride x stride pixels of the view.
    """

    def __init__(self, view: View, stride: int) -> None:
        self.view, self.stride = view, stride
        self._shape = camera_ray_shape(view, stride)
        self._directions = camera_rays(view, np.eye(4), stride).directions.double().numpy()  # in the optical frame

    def render(self, occupancy: Occupancy, base_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Arguments and results as for `rendered_view`."""
        field, classes = occupancy.field, occupancy.classes
        if field is None:
            raise ValueError("the volume has no field of the network, which a view is rendered from")
        pose = np.asarray(base_from_camera, np.float64)
        directions = torch.from_numpy(self._directions @ pose[:3, :3].T)
        origins = torch.from_numpy(pose[:3, 3]).expand(len(directions), 3)
        surfaces = render_surfaces(field, Rays(origins, directions).to(field.device, torch.float32), step=_step(field))
        opaque, channels = surfaces.opaque.cpu().numpy(), surfaces.channels.cpu().numpy()
        colours = np.where(opaque[:, None], _palette(classes)[channels], np.uint8(0))
        depth = depth_from_distance(surfaces.distances.float().cpu().numpy(), self._directions)
        depth = np.where(opaque, depth, np.nan).astype(np.float32)
        return colours.reshape(*self._shape, 3), depth.reshape(self._shape)


def _step(field: SemanticDensityField) -> float:
    """Voxels between samples; a layer may be all that light meets of a voxel."""
    return 1.0 if field.layers is None else 0.5


def _palette(classes: ClassTable) -> np.ndarray:
    """(C, 3) uint8 RGB of the channels."""
    return classes.palette()[np.asarray(classes.occupied_ids)].astype(np.uint8)


def warm_up(grid: VoxelGrid, classes: ClassTable, device: torch.device, layers: int = 1) -> None:
    """Load or compile what renders views of fields with this many layers in a voxel, so that the first subscriber does
    not wait for it."""
    x, y, z = grid.shape
    density = torch.zeros(x, y, z * layers, device=device)
    logits = torch.zeros(*grid.shape, len(classes.occupied_ids), device=device)
    field = SemanticDensityField.of_layers(grid, density, logits)
    ray = torch.tensor([[1.0, 0.0, 0.0]], device=device)
    render_surfaces(field, Rays(torch.zeros_like(ray), ray), step=_step(field))
