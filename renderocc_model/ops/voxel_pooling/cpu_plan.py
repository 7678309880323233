"""Placing and sorting frustum points on the CPU's cores, by the compiled loops of `cpu_loops`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..execution import cpu_loops_of, in_threads

__all__ = ["place_points", "sort_points"]

POINTS_WORTH_A_THREAD = 2**17  # about half a millisecond each; starting a thread takes a tenth of one


def place_points(start: Tensor, step: Tensor, depths: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """What `plan.place_points` does, on the CPU."""
    views, _, height, width = step.shape
    index = torch.empty(views, len(depths), height, width, dtype=torch.int64)
    planes, loops = views * len(depths), _loops()
    written = index.view(planes, height * width).numpy()
    arrays = start.numpy(), step.flatten(2).numpy(), depths.numpy(), tuple(int(size) for size in sizes)
    parts = max(1, min(torch.get_num_threads(), index.numel() // POINTS_WORTH_A_THREAD))
    edges = [planes * part // parts for part in range(parts + 1)]
    in_threads(lambda part: loops.place_points(*arrays, written, edges[part], edges[part + 1]), range(parts), parts)
    return index


def sort_points(
    index: np.ndarray, cells: int, frames: int, per_view: int, area: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """cell, start, point and pixel of a `PoolingPlan` on the CPU.

    Args:
        index: (points,) int64, cells of a frame or -1.
        cells: of a frame.
        per_view, area: points and pixels of a view.
    Raises:
        ValueError: a number in `index` is neither a cell nor -1.
    """
    loops, points = _loops(), index.size
    cell, point, pixel = (np.empty(points, np.int32) for _ in range(3))
    start = np.zeros(frames * cells + 1, np.int32)
    if points == 0:
        return cell, start, point, pixel
    parts = max(1, min(torch.get_num_threads(), points // POINTS_WORTH_A_THREAD))
    counts = np.zeros((parts, frames * cells), np.int32)
    edges = np.linspace(0, points, parts + 1).astype(np.int64)
    wrong = [-1] * parts

    def count(part: int) -> None:
        run = edges[part], edges[part + 1]
        wrong[part] = loops.count_points(index, cells, points // frames, cell, counts[part], *run)

    def write(part: int) -> None:
        loops.write_points(cell, counts[part], point, pixel, per_view, area, edges[part], edges[part + 1])

    in_threads(count, range(parts), parts)
    if any(number != -1 for number in wrong):
        culprit = next(number for number in wrong if number != -1)
        raise ValueError(f"voxel pooling: voxel_index holds {culprit}; expected cells 0 to {cells - 1}, or -1 for none")
    loops.share_out(counts, start)
    in_threads(write, range(parts), parts)
    return cell, start, point, pixel


def _loops():
    """The module of the loops, which loads Numba."""
    return cpu_loops_of(__package__, "voxel pooling")
