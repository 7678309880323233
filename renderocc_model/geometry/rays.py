"""Rays: what is rendered and what 2D labels are attached to, and the rays through a camera's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .undistortion import View

__all__ = ["Rays", "camera_ray_shape", "camera_rays", "depth_from_distance", "distance_from_depth"]

_UNIT_TOLERANCE = 1e-3  # float16 directions are off by up to 5e-4


@dataclass(frozen=True, eq=False)
class Rays:
    """R rays in base_link of the current frame, with or without 2D labels.

    Args:
        origins: (R, 3) floating point, metres.
        directions: (R, 3) unit vectors, same dtype and device as the origins.
        distances: (R,) measured Euclidean distance along the ray in metres; 0 or NaN where there is none.
        classes: (R,) integer class ids; 255 where there is none.
        weights: (R,) floating-point sampling or loss weights.
        frame_offsets: (R,) integers; 0 for rays of the current frame, k for auxiliary rays of k frames later.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or (looked at on the CPU only, see SemanticDensityField) an
            origin is not finite or a direction is not of unit length.
    """

    origins: Tensor
    directions: Tensor
    distances: Tensor | None = None
    classes: Tensor | None = None
    weights: Tensor | None = None
    frame_offsets: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, torch.as_tensor(value))
        _check_geometry(self.origins, self.directions)
        for name in ("distances", "classes", "weights", "frame_offsets"):
            column = getattr(self, name)
            if column is None:
                continue
            if tuple(column.shape) != (len(self),):
                raise ValueError(f"{name} has shape {tuple(column.shape)}; expected ({len(self)},), one for each ray")
            if column.device != self.origins.device:
                raise ValueError(f"{name} is on {column.device} but the origins are on {self.origins.device}")
            if column.is_floating_point() != (name in ("distances", "weights")):
                kind = "floating point" if name in ("distances", "weights") else "integers"
                raise ValueError(f"{name} is {column.dtype}; expected {kind}")

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, index: slice | Tensor | np.ndarray | Sequence[int]) -> Rays:
        """The chosen rays with their labels: by a slice, a boolean mask or indices (an int is refused: no batch)."""
        if isinstance(index, int):
            raise ValueError(f"rays[{index}] is one ray; write rays[{index}:{index + 1}] for a batch of one")
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.origins.device)
        return Rays(*(None if column is None else column[index] for column in self._columns()))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Rays:
        """The same rays elsewhere; `dtype` applies to the floating-point columns."""
        return Rays(
            *(
                None if column is None else column.to(device, dtype if column.is_floating_point() else None)
                for column in self._columns()
            )
        )

    @staticmethod
    def concatenate(parts: Sequence[Rays]) -> Rays:
        """All rays of `parts` in order.

        Raises:
            ValueError: there are no parts, or a column is there in some parts and missing in others.
        """
        if not parts:
            raise ValueError("no rays to concatenate; give at least one Rays (it may be empty)")
        columns = []
        for field, column in zip(fields(Rays), zip(*(part._columns() for part in parts))):
            present = sum(value is not None for value in column)
            if present not in (0, len(parts)):
                raise ValueError(f"{field.name} is given in {present} of {len(parts)} parts; give it in all or in none")
            columns.append(torch.cat(column) if present else None)
        return Rays(*columns)

    def _columns(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


def _check_geometry(origins: Tensor, directions: Tensor) -> None:
    if origins.ndim != 2 or origins.shape[1] != 3 or origins.shape != directions.shape:
        raise ValueError(
            f"origins have shape {tuple(origins.shape)}, directions {tuple(directions.shape)}; expected (R, 3) for both"
        )
    if not origins.is_floating_point() or origins.dtype != directions.dtype:
        raise ValueError(f"origins are {origins.dtype} and directions {directions.dtype}; give both one float type")
    if origins.device != directions.device:
        raise ValueError(f"origins are on {origins.device} and directions on {directions.device}; move one with .to()")
    if origins.device.type != "cpu" or not len(origins):
        return
    finite = torch.isfinite(origins).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0, 0])
        raise ValueError(f"the origin of ray {row} is {origins[row].tolist()}; leave out rays without a known pose")
    length = directions.detach().double().norm(dim=1)
    unit = (length - 1).abs() <= _UNIT_TOLERANCE  # False for NaN
    if not unit.all():
        row = int((~unit).nonzero()[0, 0])
        raise ValueError(f"the direction of ray {row} has length {float(length[row]):.6g}; divide by its norm")


def camera_ray_shape(view: View, stride: int = 1) -> tuple[int, int]:
    """(rows, columns) of the rays of `camera_rays(view, ..., stride)`, to fold per-ray results into an image."""
    if stride < 1:
        raise ValueError(f"stride is {stride}; use 1 for every pixel, 2 for every second in both directions")
    first = (stride - 1) // 2
    return len(range(first, view.height, stride)), len(range(first, view.width, stride))


def camera_rays(view: View, base_from_camera: np.ndarray, stride: int = 1) -> Rays:
    """The rays through the pixel centres of a pinhole view, row by row.

    Args:
        view: the camera's undistorted view.
        base_from_camera: (4, 4) pose of the optical frame in base_link.
        stride: take every stride-th pixel in both directions, starting at (stride - 1) // 2, so that each ray stands in
            the middle of the pixels it stands for.

    Returns:
        rows * columns rays (see `camera_ray_shape`), float32, without labels.
    """
    rows, columns = camera_ray_shape(view, stride)
    first = (stride - 1) // 2
    directions = np.asarray(view.directions(), dtype=np.float64)[first::stride, first::stride]
    directions = directions.reshape(rows * columns, 3)
    pose = np.asarray(base_from_camera, dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"base_from_camera has shape {pose.shape} or is not finite; expected a 4x4 transform")
    origins = np.broadcast_to(pose[:3, 3], (len(directions), 3))
    return Rays(
        torch.from_numpy(origins.astype(np.float32)),
        torch.from_numpy((directions @ pose[:3, :3].T).astype(np.float32)),
    )


def distance_from_depth(depth, directions):
    """Euclidean distance along a ray from z-depth: distance = depth * |d| / d_z.

    A depth image holds the z coordinate in the optical frame. The way along the ray is longer towards the image's
    corners: by 41 % at 45 degrees. NumPy arrays and tensors alike.

        >>> directions = np.array([[0.0, 0.0, 1.0], [0.75, 0.0, 1.0]])
        >>> distance_from_depth(np.array([8.0, 8.0]), directions)
        array([ 8., 10.])

    Args:
        depth: (...) z-depth in metres.
        directions: (..., 3) the pixels' directions in the *camera's* optical frame, of any length, d_z > 0.
    """
    return depth * (directions * directions).sum(-1) ** 0.5 / directions[..., 2]


def depth_from_distance(distance, directions):
    """z-depth from Euclidean distance, the inverse of `distance_from_depth` with the same arguments."""
    return distance * directions[..., 2] / (directions * directions).sum(-1) ** 0.5
