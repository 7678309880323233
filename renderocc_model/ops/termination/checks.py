"""What every implementation of ray termination needs of its arguments. `ops.termination` checks it for all of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...field.field import SemanticDensityField
from ...geometry.grid import VoxelGrid
from ...geometry.rays import Rays

__all__ = ["check_inputs", "check_returns"]


def check_inputs(
    field: SemanticDensityField, rays: Rays, starts: Tensor, ends: Tensor, step: float, offsets: Tensor | None
) -> None:
    """
    Raises:
        ValueError: step is not positive, devices differ, the windows or offsets are not one floating-point number for
            each ray, or (checked on the CPU only) a window is NaN or an offset is not in [0, 1).
    """
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"step is {step}; expected voxels between samples, more than 0, usually 0.5")
    if rays.origins.device != field.device:
        raise ValueError(f"rays are on {rays.origins.device} but the field is on {field.device}; move one with .to()")
    columns = {"starts": starts, "ends": ends} | ({} if offsets is None else {"offsets": offsets})
    for name, column in columns.items():
        _check_column(name, column, rays)
    if offsets is not None and field.device.type == "cpu" and len(rays):
        low, high = (float(value) for value in torch.aminmax(offsets))
        if not (low >= 0 and high < 1):
            raise ValueError(f"offsets run from {low} to {high}; expected parts of a step in [0, 1), e.g. torch.rand")


def _check_column(name: str, column: Tensor, rays: Rays) -> None:
    """
    Raises:
        ValueError: the column is not (R,), floating point, on the rays' device, or (on the CPU) has a NaN.
    """
    if tuple(column.shape) != (len(rays),) or not column.is_floating_point():
        raise ValueError(
            f"{name} are {column.dtype} of shape {tuple(column.shape)}; expected ({len(rays)},) floating point, "
            f"one number for each ray"
        )
    if column.device != rays.origins.device:
        raise ValueError(
            f"{name} are on {column.device} but the rays are on {rays.origins.device}; move one with .to()"
        )
    if column.device.type == "cpu" and column.isnan().any():
        row = int(column.isnan().nonzero()[0, 0])
        raise ValueError(f"{name}[{row}] is NaN; leave out rays without a label, or give them the window [inf, inf)")


def check_returns(
    grid: VoxelGrid,
    rays: Rays,
    distances: Tensor,
    returned: Tensor,
    margin: float,
    step: float,
    marks: Tensor | None = None,
) -> None:
    """
    Raises:
        ValueError: margin or step is not positive, distances or returned are not one number and one bool a ray, or
            marks are not one bool or byte a voxel.
    """
    for name, value in (("margin", margin), ("step", step)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; expected a number of voxels, more than 0")
    for name, column in (("distances", distances), ("returned", returned)):
        right = column.is_floating_point() if name == "distances" else column.dtype == torch.bool
        if tuple(column.shape) != (len(rays),) or not right or column.device != rays.origins.device:
            raise ValueError(
                f"{name} are {column.dtype} of shape {tuple(column.shape)} on {column.device}; expected ({len(rays)},) "
                f"{'floating point' if name == 'distances' else 'bool'} on {rays.origins.device}"
            )
    if marks is None:
        return
    if (
        tuple(marks.shape) != grid.shape
        or marks.dtype not in (torch.bool, torch.uint8)
        or marks.device != rays.origins.device
    ):
        raise ValueError(
            f"marks are {marks.dtype} of shape {tuple(marks.shape)} on {marks.device}; expected {grid.shape}, bool or "
            f"uint8, on {rays.origins.device}"
        )
