"""Reads a frame's 3D truth and the origins of RayIoU's rays from prepared recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from renderocc_model.field.classes import ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.field.threshold import Threshold, threshold_of_voxels
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import invert, transform_points

from ..data.prepare.tables import Tables
from ..supervision.voxel_truth import crop_slices
from .rayiou import DEFAULT_ORIGIN, select_origins
from .volumes import volume_grid

__all__ = ["FrameTruth", "occupied_classes", "ray_origins", "truth_of"]


@dataclass(frozen=True, eq=False)
class FrameTruth:
    """The truth of one frame in the grid of a model.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids.
        mask: (X, Y, Z) bool, voxels that the cameras see. None if the recording has no mask; then all voxels count.
    """

    semantics: np.ndarray
    mask: np.ndarray | None


def truth_of(tables: Tables, frame: int, grid: VoxelGrid, truth_grid: VoxelGrid | None = None) -> FrameTruth | None:
    """The truth of a frame, cut to `grid`; None if the recording has no truth.

    Args:
        tables: the recording.
        frame: number of the frame.
        grid: grid of the result.
        truth_grid: grid of the truth; None to find it from the truth's shape.
    Raises:
        ValueError: the truth's grid is not known, or `grid` is not a part of it. The text names recording and frame.
    """
    arrays = tables.truth_arrays(frame)
    if arrays is None:
        return None
    shape = arrays["semantics"].shape
    try:
        whole = truth_grid or (grid if shape == grid.shape else volume_grid(shape, tables.classes))
        if any(array.shape != whole.shape for array in arrays.values()):
            shapes = [array.shape for array in arrays.values()]
            raise ValueError(f"3D truth has shapes {shapes}, its grid {whole.shape}; give the grid of the truth")
        slices = crop_slices(whole, grid)
    except ValueError as error:
        raise ValueError(f"{tables.folder}, frame {frame}: {error}") from None
    mask = arrays.get("mask_camera")
    return FrameTruth(np.ascontiguousarray(arrays["semantics"][slices]), None if mask is None else mask[slices] != 0)


def ray_origins(tables: Tables, frame: int, grid: VoxelGrid, lidar: Sequence[float] = DEFAULT_ORIGIN) -> np.ndarray:
    """Origins of RayIoU's rays: the LiDAR's positions in all frames of the recording, in base_link of this
    frame. Frames that a jump of the ego pose separates from this one are left out.

    Args:
        tables: the recording.
        frame: number of the frame.
        grid: grid of the volumes.
        lidar: position of the LiDAR in base_link, metres.
    Returns:
        (N, 3) origins that `select_origins` selects.
    """
    base_from_odom = invert(tables.odom_from_base[frame])
    poses = tables.odom_from_base[tables.pieces == tables.pieces[frame]]
    places = [transform_points(base_from_odom @ pose, np.array([lidar], float))[0] for pose in poses]
    return select_origins(np.array(places), grid)


def occupied_classes(field: SemanticDensityField, classes: ClassTable, threshold: Threshold) -> np.ndarray:
    """(X, Y, Z) uint8: the most likely class if the occupancy probability exceeds the threshold, else free.

    Voxels that the node would call unknown also get the network's result. A mask says which voxels count.
    """
    ids = torch.tensor(classes.occupied_ids, dtype=torch.uint8, device=field.device)
    occupied = field.occupancy_probability() > threshold_of_voxels(threshold, field.grid, field.device)
    return torch.where(occupied, ids[field.semantics.argmax(dim=-1)], classes.free).to(torch.uint8).cpu().numpy()
