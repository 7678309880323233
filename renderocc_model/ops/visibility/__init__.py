"""Visibility of voxels in two passes of compiled loops: how far each ray sees, then which voxels a ray reaches.

What visible means is written in `cameras`, whose PyTorch functions are the reference. Here all shapes follow from the
views alone; where the cameras stand is in a table of numbers. So a frame's inputs are a few kilobytes, and nothing
waits for a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..execution import cpu_loops_of, in_threads

__all__ = ["CAMERA_NUMBERS", "Sight", "seen_voxels"]

# Of a camera: position (3), rotation base_from_camera (9), K times its inverse (9), width, height, spacing of the rays
# in pixels, rows and columns of rays, its first ray, its mask or -1.
CAMERA_NUMBERS = 28
WORTH_A_THREAD = 20_000  # voxels


@dataclass(frozen=True, eq=False)
class Sight:
    """Where cameras look.

    Attributes:
        cameras: (N, CAMERA_NUMBERS) float32, lengths in voxels, positions from the grid's lower corner. The only part
            that changes when cameras move.
        directions: (R, 3) float32 unit directions of all rays in their cameras' frames.
        owner: (R,) int32, the camera of a ray.
        masks: (M, height, width) uint8, zero where a view's pixel does not exist.
    """

    cameras: Tensor
    directions: Tensor
    owner: Tensor
    masks: Tensor

    def to(self, device: torch.device) -> Sight:
        return Sight(*(tensor.to(device) for tensor in (self.cameras, self.directions, self.owner, self.masks)))


def seen_voxels(density: Tensor, sight: Sight, limit: float, step: float, bias: float, nearest: float) -> Tensor:
    """Bool (X, Y, Z): seen by one of the cameras.

    Args:
        density: (X, Y, Z) float32, 1/m, contiguous, on the device of `sight`.
        limit: what the densities at a ray's samples sum up to where its view ends.
        step, bias, nearest: as `STEP`, `BIAS` and `NEAREST` of `visibility`, in voxels.
    Raises:
        ImportError: what compiles the loops of a CPU or a GPU, Numba or Triton, is not installed.
    """
    rays = len(sight.directions)
    distances = torch.empty(rays, dtype=torch.float32, device=density.device)
    visible = torch.empty(density.shape, dtype=torch.bool, device=density.device)
    if density.device.type == "cuda":
        from . import triton_launch

        triton_launch.march(density, sight, distances, limit, step)
        triton_launch.look(sight, distances, visible, bias, nearest)
    else:
        _on_cpu(density, sight, distances, visible, limit, step, bias, nearest)
    return visible


def _on_cpu(density, sight, distances, visible, limit, step, bias, nearest) -> None:
    loops = cpu_loops_of(__package__, "finding visible voxels")
    volume, cameras, directions, owner, masks = (
        tensor.numpy() for tensor in (density, sight.cameras, sight.directions, sight.owner, sight.masks)
    )
    reach, seen = distances.numpy(), visible.numpy()
    limit, step, bias, nearest = (np.float32(number) for number in (limit, step, bias, nearest))

    def march(part: tuple[int, int]) -> None:
        loops.march(volume, cameras, directions, owner, *part, limit, step, reach)

    def look(part: tuple[int, int]) -> None:
        loops.look(cameras, reach, masks, *part, bias, nearest, seen)

    threads = max(1, min(torch.get_num_threads(), math.ceil(visible.numel() / WORTH_A_THREAD)))
    in_threads(march, _parts(len(directions), threads), threads)
    in_threads(look, _parts(visible.shape[0], threads), threads)


def _parts(count: int, threads: int) -> list[tuple[int, int]]:
    """More than threads: some see far, some near, and the one that is early shall have something to do."""
    edges = np.linspace(0, count, (4 * threads if threads > 1 else 1) + 1).astype(int).tolist()
    return list(zip(edges[:-1], edges[1:]))
