"""What prepared recordings know of a frame in three dimensions: its truth, and where RayIoU's rays begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from renderocc_model.field.classes import ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import invert, transform_points

from ..prepare.tables import Tables
from ..supervision.voxel_truth import crop_slices
from .rayiou import DEFAULT_ORIGIN, select_origins
from .volumes import volume_grid

__all__ = ["FrameTruth", "occupied_classes", "ray_origins", "truth_of"]


@dataclass(frozen=True, eq=False)
class FrameTruth:
    """The truth of one frame in the grid of a model.

    semantics: (X, Y, Z) uint8 class ids.
    mask: (X, Y, Z) bool, what the cameras see; None where the recording does not say, and everything counts.
    """

    semantics: np.ndarray
    mask: np.ndarray | None


def truth_of(tables: Tables, frame: int, grid: VoxelGrid, truth_grid: VoxelGrid | None = None) -> FrameTruth | None:
    """The truth of a frame, cut to `grid`; None where the recording has none.

    Args:
        truth_grid: of the truth; what its shape tells when None.
    Raises:
        ValueError: the truth's grid is not known, or is not one that `grid` is a part of; names recording and frame.
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
    """(N, 3) where RayIoU's rays begin: the LiDAR's places in all frames of the recording, in base_link of this one.

    Args:
        lidar: where the LiDAR is in base_link, metres.
    Returns:
        those that `select_origins` keeps; of a vehicle that drives there is at least its own.
    """
    base_from_odom = invert(tables.odom_from_base[frame])
    places = [transform_points(base_from_odom @ pose, np.array([lidar], float))[0] for pose in tables.odom_from_base]
    return select_origins(np.array(places), grid)


def occupied_classes(field: SemanticDensityField, classes: ClassTable, threshold: float) -> np.ndarray:
    """(X, Y, Z) uint8: the most likely class where the occupancy probability exceeds the threshold, else free.

    What the node calls unknown is decided too, by what the network supposes there: a mask says where it counts.
    """
    ids = torch.tensor(classes.occupied_ids, dtype=torch.uint8, device=field.device)
    occupied = field.occupancy_probability() > threshold
    return torch.where(occupied, ids[field.semantics.argmax(dim=-1)], classes.free).to(torch.uint8).cpu().numpy()
