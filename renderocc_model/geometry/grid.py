"""The voxel grid: where the volume lies in a vehicle frame, and how points and voxel indices correspond."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["OCC3D_GRID", "SEMANTIC_KITTI_GRID", "VoxelGrid"]

_MOST_VOXELS = 1e6  # along an axis
_WHOLE_VOXELS = 1e-4  # how far, in voxels, an extent may be from a whole number of them


@dataclass(frozen=True)
class VoxelGrid:
    """An axis-aligned box of cubic voxels; volumes are indexed [x, y, z], voxel (0, 0, 0) at the lower corner.

    Args:
        lower: corner with the smallest coordinates, metres in `frame`.
        upper: corner with the largest coordinates, metres in `frame`.
        voxel_size: edge of a voxel, metres.
        frame: the frame the corners are given in.
    Raises:
        ValueError: a number is not finite, a side is not positive, or not a whole number of voxels long.
    """

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    voxel_size: float
    frame: str = "base_link"

    def __post_init__(self) -> None:
        lower = _three_floats("lower", self.lower)
        upper = _three_floats("upper", self.upper)
        try:
            voxel_size = float(self.voxel_size)
        except (TypeError, ValueError, OverflowError):
            voxel_size = math.nan
        if not (math.isfinite(voxel_size) and voxel_size > 0):
            raise ValueError(f"grid: voxel_size is {self.voxel_size}; give a positive number of metres")
        if not isinstance(self.frame, str) or not self.frame:
            raise ValueError(f"grid: frame is {self.frame!r}; name the frame the corners are in, e.g. 'base_link'")
        for axis, low, high in zip("xyz", lower, upper):
            if not high > low:
                raise ValueError(f"grid: upper {axis} {high} is not above lower {axis} {low}; correct the corners")
            voxels = (high - low) / voxel_size
            if not voxels <= _MOST_VOXELS:
                raise ValueError(f"grid: {axis} runs {low} to {high} m, too many voxels of {voxel_size} m")
            if abs(voxels - round(voxels)) > _WHOLE_VOXELS or round(voxels) < 1:
                raise ValueError(
                    f"grid: {axis} runs {low} to {high} m, which is {voxels:.4f} voxels of {voxel_size} m; "
                    f"choose corners a whole number of voxels apart"
                )
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)
        object.__setattr__(self, "voxel_size", voxel_size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (x, y, z)."""
        x, y, z = (round((high - low) / self.voxel_size) for low, high in zip(self.lower, self.upper))
        return x, y, z

    @property
    def size(self) -> int:
        """Number of voxels in the whole grid."""
        x, y, z = self.shape
        return x * y * z

    def centres(self) -> np.ndarray:
        """Positions of the voxel centres, (X, Y, Z, 3) float32, metres in `frame`."""
        axes = [low + (np.arange(count) + 0.5) * self.voxel_size for low, count in zip(self.lower, self.shape)]
        centres = np.empty((*self.shape, 3), dtype=np.float32)
        centres[..., 0] = axes[0][:, None, None]
        centres[..., 1] = axes[1][None, :, None]
        centres[..., 2] = axes[2][None, None, :]
        return centres

    def index_of(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Voxels that hold the given points; a voxel owns its lower faces and not its upper ones.

            >>> OCC3D_GRID.index_of(np.array([[0.1, 0.0, -0.9], [50.0, 0.0, 0.0]]))
            (array([[100, 100,   0],
                   [ -1,  -1,  -1]]), array([ True, False]))

        Args:
            points: (N, 3), metres in `frame`. NaN and infinite points are outside.
        Returns:
            indices (N, 3) int64, -1 in all three places for a point outside; inside (N,) bool.
        Raises:
            ValueError: points is not (N, 3).
        """
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"grid: points have shape {points.shape}; expected (N, 3)")
        cells = np.floor((points - np.array(self.lower)) / self.voxel_size)
        inside = ((cells >= 0) & (cells < np.array(self.shape))).all(axis=1)  # false for NaN
        indices = np.full(points.shape, -1, dtype=np.int64)
        indices[inside] = cells[inside].astype(np.int64)
        return indices, inside

    def to_dict(self) -> dict:
        """Plain lists and numbers, as YAML and JSON take them; `from_dict` reads it back."""
        return {
            "lower": list(self.lower),
            "upper": list(self.upper),
            "voxel_size": self.voxel_size,
            "frame": self.frame,
        }

    @classmethod
    def from_dict(cls, mapping: Mapping) -> VoxelGrid:
        """The grid that `to_dict` described. ValueError names a missing or an unknown key."""
        missing = {"lower", "upper", "voxel_size"} - set(mapping)
        unknown = set(mapping) - {"lower", "upper", "voxel_size", "frame"}
        if missing or unknown:
            raise ValueError(
                f"grid: missing keys {sorted(missing)}, unknown keys {sorted(map(str, unknown))}; "
                f"expected lower, upper, voxel_size and optionally frame"
            )
        return cls(**{str(key): value for key, value in mapping.items()})


def _three_floats(name: str, values) -> tuple[float, float, float]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"grid: {name} is {values!r}; expected three numbers x, y, z in metres") from None
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"grid: {name} is {values!r}; expected three finite numbers x, y, z in metres")
    return numbers


# 200 x 200 x 16 voxels around the ego vehicle (Occ3D-nuScenes).
OCC3D_GRID = VoxelGrid((-40.0, -40.0, -1.0), (40.0, 40.0, 5.4), 0.4)
# 256 x 256 x 32 voxels ahead of the LiDAR (SemanticKITTI scene completion).
SEMANTIC_KITTI_GRID = VoxelGrid((0.0, -25.6, -2.0), (51.2, 25.6, 4.4), 0.2, frame="velodyne")
