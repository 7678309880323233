"""Visibility on GPUs: starts the loops of `triton_loops`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..execution import on_device, triton_loops_of
from .frusta import BIAS, CAMERA_NUMBERS, NEAREST, STEP, CameraFrusta

__all__ = ["cast", "cast_rays", "mark_voxels"]

_RAYS, _SAMPLES = 8, 16  # a warp's tile of four samples a thread
_BLOCK = 256  # voxels of a program


def cast(density: Tensor, frusta: CameraFrusta, layers: int = 1) -> Tensor:
    """What `ops.visibility.cast` does, with arguments that it has prepared; on the current stream."""
    distances = torch.empty(len(frusta.directions), dtype=torch.float32, device=density.device)
    shape = (*density.shape[:2], density.shape[2] // layers)
    visible = torch.empty(shape, dtype=torch.bool, device=density.device)
    cast_rays(density, frusta, distances, layers)
    mark_voxels(frusta, distances, visible)
    return visible


def cast_rays(density: Tensor, frusta: CameraFrusta, distances: Tensor, layers: int = 1) -> None:
    """Write how far each ray sees, in voxels."""
    rays = len(distances)
    with on_device(density.device):
        _loops().cast_rays[(-(-rays // _RAYS),)](
            density,
            frusta.cameras,
            frusta.directions,
            frusta.owner,
            distances,
            rays,
            float(frusta.limit),
            STEP,
            **_shape(density),
            LAYERS=layers,
            NUMBERS=CAMERA_NUMBERS,
            RAYS=_RAYS,
            SAMPLES=_SAMPLES,
            num_warps=1,
        )


def mark_voxels(frusta: CameraFrusta, distances: Tensor, visible: Tensor) -> None:
    """Write which voxels a camera sees."""
    count = visible.numel()
    with on_device(visible.device):
        _loops().mark_voxels[(-(-count // _BLOCK),)](
            frusta.cameras,
            distances,
            frusta.masks,
            visible.view(torch.int8),
            count,
            BIAS,
            NEAREST,
            **_shape(visible),
            CAMERAS=len(frusta.cameras),
            NUMBERS=CAMERA_NUMBERS,
            ROWS=frusta.masks.shape[1],
            COLUMNS=frusta.masks.shape[2],
            MASKED=len(frusta.masks) > 0,
            BLOCK=_BLOCK,
            num_warps=4,
        )


def _shape(volume: Tensor) -> dict[str, int]:
    return dict(zip("XYZ", (int(size) for size in volume.shape)))


def _loops():
    """The module of the loops, which loads Triton."""
    return triton_loops_of(__package__, "finding visible voxels")
