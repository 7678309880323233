"""Starts the loops of `triton_loops`: shapes to launch grids."""

from __future__ import annotations

import torch
from torch import Tensor

from ..execution import on_device, triton_loops_of
from . import CAMERA_NUMBERS, Sight

__all__ = ["look", "march"]

_RAYS, _SAMPLES = 8, 16  # a warp's tile of four samples a thread
_BLOCK = 256  # voxels of a program


def march(density: Tensor, sight: Sight, distances: Tensor, limit: float, step: float) -> None:
    """Write how far each ray sees, in voxels."""
    rays = len(distances)
    with on_device(density.device):
        _loops().march[(-(-rays // _RAYS),)](
            density,
            sight.cameras,
            sight.directions,
            sight.owner,
            distances,
            rays,
            float(limit),
            float(step),
            **_shape(density),
            NUMBERS=CAMERA_NUMBERS,
            RAYS=_RAYS,
            SAMPLES=_SAMPLES,
            num_warps=1,
        )


def look(sight: Sight, distances: Tensor, visible: Tensor, bias: float, nearest: float) -> None:
    """Write which voxels a camera sees."""
    count = visible.numel()
    masked = sight.masks.numel() > 1
    with on_device(visible.device):
        _loops().look[(-(-count // _BLOCK),)](
            sight.cameras,
            distances,
            sight.masks,
            visible.view(torch.int8),
            count,
            float(bias),
            float(nearest),
            **_shape(visible),
            CAMERAS=len(sight.cameras),
            NUMBERS=CAMERA_NUMBERS,
            ROWS=sight.masks.shape[1],
            COLUMNS=sight.masks.shape[2],
            MASKED=masked,
            BLOCK=_BLOCK,
            num_warps=4,
        )


def _shape(volume: Tensor) -> dict[str, int]:
    return dict(zip("XYZ", (int(size) for size in volume.shape)))


def _loops():
    """The module of the loops, which loads Triton."""
    return triton_loops_of(__package__, "finding visible voxels")
