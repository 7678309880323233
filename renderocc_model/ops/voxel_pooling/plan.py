"""Which frustum points are summed into which cell: sorted once, used by every forward and backward pass.

Points are counted through (N, D, H, W) and pixels through (N, H, W). With the points of a cell next to each other, one
thread or program computes a cell's sum alone, always in the same order, and writes it once.
Backward needs no order: the gradients of a pixel's depths and of its context are read from the D cells of its points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from . import cpu_plan

__all__ = ["PoolingPlan", "make_plan", "place_points", "placed_by_torch", "sorted_by_torch"]

_MOST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class PoolingPlan:
    """The points of each cell. Made by `make_plan`; all tensors lie on one device and are never written again.

    Their shapes depend on the numbers of points and cells alone, not on where the points lie: a captured CUDA graph
    can be given another plan by `copy_`.

    Attributes:
        shape: (N, D, H, W) of the depths.
        cells: of the result.
        cell: (N, D, H, W) int32, cell of each point, -1 for none.
        start: (cells + 1,) int32: the points of cell c are point[start[c]:start[c + 1]].
        point: (N * D * H * W,) int32, the points by cell, then by number; what follows the last cell's is undefined.
        pixel: (N * D * H * W,) int32, the pixels of these.
        piece: most points of a cell that one program on a GPU sums; cells in front of a camera have a thousand points.
    """

    shape: tuple[int, int, int, int]
    cells: int
    cell: Tensor
    start: Tensor
    point: Tensor
    pixel: Tensor
    piece: int = 128

    @property
    def device(self) -> torch.device:
        return self.start.device

    @cached_property
    def further(self) -> tuple[Tensor, Tensor]:
        """The pieces of `piece` points beyond the first of each cell, for GPUs; made without waiting for the device.

        Returns:
            (cells + 1,) int32, the number of pieces in all cells before; and (points // piece,) int32, the cell of each
            piece, `cells` or more in entries without a piece.
        """
        pieces = torch.div(self.start.diff() - 1, self.piece, rounding_mode="floor").clamp(min=0)
        before = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)]).to(torch.int32)
        number = torch.arange(len(self.point) // self.piece, device=self.device, dtype=torch.int32)
        return before, torch.searchsorted(before[1:], number, right=True, out_int32=True)

    def tensors(self) -> tuple[Tensor, ...]:
        """All that a GPU's passes read."""
        return (self.cell, self.start, self.point, self.pixel, *self.further)

    def copy_(self, other: PoolingPlan) -> None:
        """Copy another plan with as many points and cells into the memory of this one.

        Raises:
            ValueError: the shapes or the numbers of cells differ.
        """
        if (self.shape, self.cells) != (other.shape, other.cells):
            raise ValueError(
                f"voxel pooling: a plan of {self.shape} points and {self.cells} cells cannot take over one of "
                f"{other.shape} points and {other.cells} cells; make a plan of its own"
            )
        for mine, theirs in zip(self.tensors(), other.tensors()):
            mine.copy_(theirs, non_blocking=True)


def place_points(start: Tensor, step: Tensor, depths: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """Cells of the frustum points start + step * depth, the same on every device: compiled on the CPU, else by PyTorch.

    Args:
        start: (N, 3) float32, where each view's rays begin, in cells from the lower corner.
        step: (N, 3, H, W) float32, cells that a ray moves on for each metre of depth.
        depths: (D,) float32 metres.
        sizes: (X, Y, S) cells.
    Returns:
        (N, D, H, W) int64, (x * Y + y) * S + s; -1 outside.
    """
    place = cpu_plan.place_points if step.device.type == "cpu" else placed_by_torch
    return place(start.contiguous(), step.contiguous(), depths.contiguous(), sizes)


def placed_by_torch(start: Tensor, step: Tensor, depths: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """`place_points` on any device."""
    index = inside = None
    for axis, count in enumerate(sizes):
        place = torch.floor(start[:, axis].view(-1, 1, 1, 1) + step[:, axis, None] * depths.view(1, -1, 1, 1))
        place = place.to(torch.int32)
        axis_inside = (place >= 0) & (place < count)
        index = place if index is None else index * count + place
        inside = axis_inside if inside is None else inside & axis_inside
    return torch.where(inside, index, -1).to(torch.int64)


def make_plan(voxel_index: Tensor, voxel_count: int, frames: int = 1) -> PoolingPlan:
    """Sort frustum points by cell: on the CPU by counting, in compiled loops; elsewhere by PyTorch, without waiting.

    Args:
        voxel_index: (N, D, H, W) int64, the cell of each point in 0..voxel_count-1, or -1 for none.
        voxel_count: number of cells of a frame.
        frames: N counts the views of so many frames, one frame after the other; cells of the second frame are
            voxel_count .. 2 * voxel_count - 1 of the result, and so on.
    Raises:
        ValueError: the shape, the type or a number does not fit; cells beyond the last are an error on the CPU, and
            count as none elsewhere.
        ImportError: on the CPU, Numba is not installed.
    """
    _check(voxel_index, voxel_count, frames)
    views, bins, height, width = (int(size) for size in voxel_index.shape)
    cells, area = voxel_count * frames, height * width
    if voxel_index.device.type == "cpu":
        arrays = cpu_plan.sort_points(voxel_index.reshape(-1).numpy(), voxel_count, frames, bins * area, area)
        cell, start, point, pixel = map(torch.from_numpy, arrays)
    else:
        cell, start, point, pixel = sorted_by_torch(voxel_index, voxel_count, frames)
    return PoolingPlan((views, bins, height, width), cells, cell.view(voxel_index.shape), start, point, pixel)


def sorted_by_torch(voxel_index: Tensor, voxel_count: int, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """cell, start, point, pixel by PyTorch's sort, as `cpu_plan.sort_points`."""
    views, bins, height, width = voxel_index.shape
    device, cells = voxel_index.device, voxel_count * frames
    frame = torch.div(torch.arange(views, device=device), max(views // frames, 1), rounding_mode="floor")
    first = frame.view(-1, 1, 1, 1) * voxel_count
    inside = (voxel_index >= 0) & (voxel_index < voxel_count)
    cell = torch.where(inside, voxel_index + first, -1).to(torch.int32).flatten()
    key, order = torch.sort(torch.where(cell >= 0, cell, cells), stable=True)
    bounds = torch.arange(cells + 1, device=device, dtype=torch.int32)
    start = torch.searchsorted(key, bounds, out_int32=True)
    pixel = torch.div(order, bins * height * width, rounding_mode="floor") * (height * width)
    pixel += order % (height * width)
    return cell, start, order.to(torch.int32), pixel.to(torch.int32)


def _check(voxel_index: Tensor, voxel_count: int, frames: int) -> None:
    if voxel_index.ndim != 4 or voxel_index.dtype != torch.int64:
        raise ValueError(
            f"voxel pooling: voxel_index is {tuple(voxel_index.shape)} {voxel_index.dtype}; expected (N, D, H, W) int64"
        )
    if voxel_count < 0:
        raise ValueError(f"voxel pooling: voxel_count is {voxel_count}; expected zero or more")
    if frames < 1 or voxel_index.shape[0] % frames:
        raise ValueError(
            f"voxel pooling: {voxel_index.shape[0]} views cannot be those of {frames} frames; give as many for each"
        )
    if max(voxel_index.numel(), voxel_count * frames) > _MOST:
        raise ValueError(
            f"voxel pooling: {voxel_index.numel()} points and {voxel_count * frames} cells; "
            f"at most {_MOST} of each can be counted: pool fewer frames at a time"
        )
