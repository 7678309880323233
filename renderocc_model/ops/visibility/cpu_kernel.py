"""Visibility on the CPU's cores: the compiled loops of `cpu_loops`, run by threads."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..execution import cpu_loops_of, in_threads
from .frusta import BIAS, NEAREST, STEP, CameraFrusta

__all__ = ["cast"]

VOXELS_WORTH_A_THREAD = 20_000


def cast(density: Tensor, frusta: CameraFrusta, layers: int = 1) -> Tensor:
    """What `ops.visibility.cast` does, with arguments that it has prepared."""
    loops = cpu_loops_of(__package__, "finding visible voxels")
    volume, cameras, directions, owner, masks = (
        tensor.numpy() for tensor in (density, frusta.cameras, frusta.directions, frusta.owner, frusta.masks)
    )
    shape = (*volume.shape[:2], volume.shape[2] // layers)
    reach, seen = np.empty(len(directions), np.float32), np.empty(shape, np.bool_)
    limit, step, bias, nearest = (np.float32(number) for number in (frusta.limit, STEP, BIAS, NEAREST))

    def cast_rays(part: tuple[int, int]) -> None:
        loops.cast_rays(volume, layers, cameras, directions, owner, *part, limit, step, reach)

    def mark_voxels(part: tuple[int, int]) -> None:
        loops.mark_voxels(cameras, reach, masks, *part, bias, nearest, seen)

    threads = max(1, min(torch.get_num_threads(), math.ceil(seen.size / VOXELS_WORTH_A_THREAD)))
    in_threads(cast_rays, _parts(len(directions), threads), threads)
    in_threads(mark_voxels, _parts(len(seen), threads), threads)
    return torch.from_numpy(seen)


def _parts(count: int, threads: int) -> list[tuple[int, int]]:
    """More parts than threads: rays differ in length, and no thread should wait for another."""
    edges = np.linspace(0, count, (4 * threads if threads > 1 else 1) + 1).astype(int).tolist()
    return list(zip(edges[:-1], edges[1:]))
