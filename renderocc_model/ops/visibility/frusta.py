"""Camera frusta as tables of numbers: what every implementation of `ops.visibility.cast` reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...geometry.grid import VoxelGrid
from ...geometry.undistortion import View

__all__ = ["BIAS", "CAMERA_NUMBERS", "NEAREST", "STEP", "CameraFrusta", "ViewFrusta"]

# Of a camera: position (3), rotation base_from_camera (9), K times its inverse (9), width, height, spacing of the rays
# in pixels, rows and columns of rays, its first ray, its mask or -1.
CAMERA_NUMBERS = 28
STEP = 0.75  # voxels between two samples of a ray, and of a steep one at most as many layers
BIAS = 0.5  # voxels that a voxel may lie beyond the end of the rays around it
NEAREST = 0.05  # voxels in front of a camera from which on points count as in front
_FARTHEST = 1e9  # voxels or pixels: the most that the loops can count in 32 bits


@dataclass(frozen=True, eq=False)
class CameraFrusta:
    """Cameras, where they stand, and the rays of their shadow maps.

    Attributes:
        cameras: (N, CAMERA_NUMBERS) float32, lengths in voxels, positions from the grid's lower corner. The only part
            that changes when cameras move.
        directions: (R, 3) float32 unit directions of all rays in their cameras' frames.
        owner: (R,) int32, the camera of a ray.
        masks: (M, height, width) uint8, zero where a view's pixel does not exist.
        limit: sum of the densities at a ray's samples at which its view ends.
    """

    cameras: Tensor
    directions: Tensor
    owner: Tensor
    masks: Tensor
    limit: float

    def to(self, device: torch.device) -> CameraFrusta:
        """The same frusta on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("cameras", "directions", "owner", "masks")}
        return replace(self, **tensors)


class ViewFrusta:
    """The part of the frusta of a set of views that does not depend on the cameras' poses; it is computed once.

    Args:
        grid: the volume.
        views: N >= 1 pinhole views.
        valid: for each view (height, width) bool, its pixels that exist, or None for all of them.
        device: where the rays and masks are kept.
        minimum_transmittance: in (0, 1), the share of light that must reach a voxel for it to count as seen.
    Raises:
        ValueError: a mask has another size than its view, or minimum_transmittance is out of its range.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        views: Sequence[View],
        valid: Sequence[np.ndarray | Tensor | None],
        device: torch.device,
        minimum_transmittance: float = 0.5,
    ) -> None:
        if not 0 < minimum_transmittance < 1:
            raise ValueError(
                f"minimum_transmittance is {minimum_transmittance}; expected a number between 0 and 1, usually 0.5"
            )
        self._grid = grid
        # As a sum of densities, instead of the integral of the density over metres.
        self._limit = -math.log(minimum_transmittance) / (STEP * grid.voxel_size)
        self._K = np.array([view.K for view in views])
        rays = [_ray_directions(view, grid) for view in views]
        sizes = [directions.shape[:2] for directions, _ in rays]
        counts = [rows * columns for rows, columns in sizes]
        firsts = np.cumsum([0, *counts[:-1]])
        masks, mask_of_view = _stacked_masks(views, valid)
        self._fixed = np.array(
            [
                (view.width, view.height, stride, rows, columns, first, mask)
                for view, (_, stride), (rows, columns), first, mask in zip(views, rays, sizes, firsts, mask_of_view)
            ],
            dtype=np.float64,
        )
        directions = np.concatenate([directions.reshape(-1, 3) for directions, _ in rays]).astype(np.float32)
        owner = np.repeat(np.arange(len(views), dtype=np.int32), counts)
        self._rays_and_masks = tuple(torch.from_numpy(array).to(device) for array in (directions, owner, masks))

    def at(self, base_from_camera: np.ndarray) -> CameraFrusta:
        """The frusta of cameras that stand at these (N, 4, 4) poses; the table of cameras is on the host.

        Raises:
            ValueError: a camera is too far away to count in 32 bits.
        """
        return self.of_table(torch.from_numpy(self.camera_table(base_from_camera)))

    def of_table(self, cameras: Tensor) -> CameraFrusta:
        """The frusta of a `camera_table`, on whatever device it lies."""
        directions, owner, masks = self._rays_and_masks
        return CameraFrusta(cameras, directions, owner, masks, self._limit)

    def camera_table(self, base_from_camera: np.ndarray) -> np.ndarray:
        """`CameraFrusta.cameras` of these (N, 4, 4) poses; errors as of `at`."""
        rotation = base_from_camera[:, :3, :3]
        position = (base_from_camera[:, :3, 3] - np.array(self._grid.lower)) / self._grid.voxel_size
        pixels = self._K @ rotation.transpose(0, 2, 1)
        table = np.concatenate([position, rotation.reshape(-1, 9), pixels.reshape(-1, 9), self._fixed], axis=1)
        if not np.abs(table).max(initial=0) < _FARTHEST:
            raise ValueError(f"base_from_camera has a camera {np.abs(position).max():.3g} voxels away; leave it out")
        return table.astype(np.float32)


def _ray_directions(view: View, grid: VoxelGrid) -> tuple[np.ndarray, float]:
    """Unit directions (rows, columns, 3) of a view's rays, and how many pixels they are apart.

    Ray (r, c) leaves through column c * stride - 0.5, row r * stride - 0.5. The four rays around a cell of the shadow
    map are its corners.
    """
    reach = max(grid.shape[0], grid.shape[1]) / 2
    stride = max(1.0, view.K[0, 0] / reach)  # a voxel at a distance of `reach` voxels is this many pixels wide
    columns, rows = math.ceil(view.width / stride), math.ceil(view.height / stride)
    pixels = np.stack(np.meshgrid(np.arange(columns + 1) * stride - 0.5, np.arange(rows + 1) * stride - 0.5), axis=-1)
    return view.directions_of(pixels), stride


def _stacked_masks(views: Sequence[View], valid: Sequence[np.ndarray | Tensor | None]) -> tuple[np.ndarray, list[int]]:
    """All masks as one (M, height, width) uint8 array, filled up to the largest, and each view's place in it or -1."""
    masks: list[np.ndarray] = []
    places = []
    for number, (view, mask) in enumerate(zip(views, valid)):
        if mask is None:
            places.append(-1)
            continue
        if tuple(mask.shape) != (view.height, view.width):
            raise ValueError(
                f"valid of camera {number} is {tuple(mask.shape)}; expected {(view.height, view.width)}, as its view"
            )
        places.append(len(masks))
        masks.append(np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask, dtype=bool))
    height, width = (max((mask.shape[axis] for mask in masks), default=1) for axis in (0, 1))
    stack = np.zeros((len(masks), height, width), np.uint8)
    for place, mask in enumerate(masks):
        stack[place, : mask.shape[0], : mask.shape[1]] = mask
    return stack, places
