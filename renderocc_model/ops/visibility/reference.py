"""Visibility in plain PyTorch: how far each ray sees, then which voxels the rays of a camera reach.

All sizes are worked out on the host, from the table of cameras: nothing waits for a GPU when the frusta are on the
host. Quantities that are linear in position are sums of one term for (x, y) and one for z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..render import runs_of_similar_length
from .frusta import BIAS, NEAREST, STEP, CameraFrusta

__all__ = ["cast"]

_CPU_RUN, _GPU_RUN = 2**17, 2**25  # samples processed at once: what fits into a core's cache; everything


def cast(density: Tensor, frusta: CameraFrusta, layers: int = 1) -> Tensor:
    """What `ops.visibility.cast` does, for a density (X, Y, Z * layers) float32 on any device."""
    shape = (*density.shape[:2], density.shape[2] // layers)
    table = frusta.cameras.cpu().double().numpy()
    distances = _ray_lengths(density, table, frusta, layers)
    visible = torch.zeros(shape, dtype=torch.bool, device=density.device)
    for row in table:
        camera = _Camera.of_row(row)
        box = camera.box(shape)
        if box is None:
            continue
        rays = distances[camera.first : camera.first + camera.rows * camera.columns]
        rays = rays.view(1, camera.rows, camera.columns)
        # Cell (r, c) of the shadow map: the farthest of the four rays at its corners, in voxels.
        shadow = torch.nn.functional.max_pool2d(rays, kernel_size=2, stride=1)[0]
        mask = None if camera.mask < 0 else frusta.masks[camera.mask]
        visible[box] |= _seen_in_box(camera, mask, shadow, box, density.device)
    return visible


@dataclass(frozen=True, eq=False)
class _Camera:
    """One row of the table of cameras. Voxel (i, j, k) fills [i, i + 1) x [j, j + 1) x [k, k + 1)."""

    position: np.ndarray
    rotation: np.ndarray
    pixels: np.ndarray  # (3, 3): from an offset in the grid's axes to homogeneous pixels
    width: float
    height: float
    stride: float
    rows: int
    columns: int
    first: int
    mask: int

    @classmethod
    def of_row(cls, row: np.ndarray) -> _Camera:
        whole = (int(number) for number in row[24:28])
        return cls(row[:3], row[3:12].reshape(3, 3), row[12:21].reshape(3, 3), *row[21:24].tolist(), *whole)

    def box(self, shape: Sequence[int]) -> tuple[slice, ...] | None:
        """Slices of the grid that hold every voxel centre in the view; None if there are none.

        A view is a pyramid from the camera to infinity. Cut at the grid's farthest corner it is the convex hull of
        five points, whose bounding box is the answer.
        """
        corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * np.array(shape)
        reach = float(((corners - self.position) @ self.rotation[:, 2]).max())
        if reach <= 0:
            return None
        edges = np.array([(u, v, 1) for u in (-0.5, self.width - 0.5) for v in (-0.5, self.height - 0.5)])
        far = self.position + reach * edges @ np.linalg.inv(self.pixels).T
        points = np.concatenate([far, self.position[None]])
        first = np.clip(np.floor(points.min(axis=0) - 0.5), 0, shape).astype(int)
        last = np.clip(np.ceil(points.max(axis=0) + 0.5), 0, shape).astype(int)
        if (first >= last).any():
            return None
        return tuple(slice(int(low), int(high)) for low, high in zip(first, last))


def _ray_lengths(density: Tensor, table: np.ndarray, frusta: CameraFrusta, layers: int) -> Tensor:
    """(R,) distance in voxels at which the densities at a ray's samples add up to more than the limit, or infinity."""
    device, cells = density.device, density.shape
    shape, per_voxel = (*cells[:2], cells[2] // layers), (1, 1, layers)
    owner, directions = frusta.owner.cpu().numpy(), frusta.directions.cpu().double().numpy()
    rotations = table[:, 3:12].reshape(-1, 3, 3)
    rays = np.concatenate([table[owner, :3], np.einsum("rij,rj->ri", rotations[owner], directions)], axis=1)
    near, far = _intersect(rays, shape)
    # A steep ray must not jump over a layer: shorter steps, of which more make the limit.
    finer = np.maximum(1, layers * np.abs(rays[:, 5]))
    counts = np.ceil((far - near) * finer / STEP).astype(np.int32)
    order = np.argsort(counts, kind="stable")
    rows = _to_device(order, device)
    ray_numbers = (rays, near[:, None], counts[:, None], STEP / finer[:, None], frusta.limit * finer[:, None])
    numbers = _float32(np.concatenate(ray_numbers, axis=1)[order], device)
    flat, strides = density.reshape(-1), (cells[1] * cells[2], cells[2], 1)
    result = torch.full((len(rays),), math.inf, device=device)
    for first, last, longest in runs_of_similar_length(counts[order], _GPU_RUN if device.type == "cuda" else _CPU_RUN):
        part = numbers[first:last]
        start, samples, step, limit = (part[:, column : column + 1] for column in range(6, 10))
        steps = torch.arange(longest, device=device, dtype=torch.float32)
        # Beyond a ray's end its last sample is repeated; what this adds lies outside the grid and does not count.
        along = start + (torch.minimum(steps, samples - 1) + 0.5) * step
        index = torch.zeros(along.shape, dtype=torch.int32, device=device)
        for axis in range(3):
            place = torch.addcmul(part[:, axis : axis + 1], part[:, axis + 3 : axis + 4], along)
            cell = place.mul_(per_voxel[axis]).clamp_(0, cells[axis] - 0.5).to(torch.int32)
            index.add_(cell, alpha=strides[axis])
        depth = flat.index_select(0, index.view(-1)).view(index.shape).cumsum(dim=1)
        passed = torch.searchsorted(depth, limit.contiguous(), right=True)
        distance = torch.where(passed < samples, start + passed * step, math.inf)
        result.index_copy_(0, rows[first:last], distance[:, 0])
    return result


def _intersect(rays: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (origin, direction) enter and leave the grid, (R,) each, in voxels; 0 and 0 where they miss it.

    A ray that runs exactly along a face (0 / 0, NaN) counts as one that misses: nothing ends its view.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / rays[:, 3:]
        at_low, at_high = -rays[:, :3] * inverse, (np.array(shape) - rays[:, :3]) * inverse
    near = np.minimum(at_low, at_high).max(axis=1).clip(min=0)
    far = np.maximum(at_low, at_high).min(axis=1)
    misses = ~(far > near)
    return np.where(misses, 0, near), np.where(misses, 0, far)


def _seen_in_box(
    camera: _Camera, mask: Tensor | None, shadow: Tensor, box: tuple[slice, ...], device: torch.device
) -> Tensor:
    """Bool over the voxels of the box: their centre is in the view and light reaches their near side."""
    centres = [np.arange(part.start, part.stop) + 0.5 - camera.position[axis] for axis, part in enumerate(box)]
    nearest = [axis - np.clip(axis, -0.5, 0.5) for axis in centres]
    u, v, w = camera.pixels
    left, top = u + 0.5 * w, v + 0.5 * w
    # In the view: on the inner side of the pyramid's four faces, and far enough in front of the camera.
    faces = [(left, 0.0), ((camera.width - 0.5) * w - u, 0.0), (top, 0.0), ((camera.height - 0.5) * w - v, 0.0)]
    seen = torch.ones([part.stop - part.start for part in box], dtype=torch.bool, device=device)
    for form, least in (*faces, (w, NEAREST)):
        ground, height = _terms(form, centres, device)
        seen.logical_and_(ground >= least - height)
    if mask is not None:
        seen.logical_and_(_on_valid_pixels(camera, centres, mask.to(device, torch.bool), device))

    scale = _sum(w, nearest, device).clamp_(min=NEAREST).mul_(camera.stride).reciprocal_()
    column = _sum(left, nearest, device).mul_(scale).clamp_(0, camera.columns - 2).to(torch.int32)
    row = _sum(top, nearest, device).mul_(scale).clamp_(0, camera.rows - 2).to(torch.int32)
    cell = row.mul_(camera.columns - 1).add_(column)
    reach = (shadow + BIAS).square().view(-1).index_select(0, cell.view(-1)).view(cell.shape)
    x, y, z = (axis * axis for axis in nearest)
    distance = _float32(x[:, None, None] + y[None, :, None], device) + _float32(z, device)
    return seen.logical_and_(distance <= reach)


def _on_valid_pixels(camera: _Camera, centres: list[np.ndarray], mask: Tensor, device: torch.device) -> Tensor:
    """Whether the pixel a centre falls on exists; undefined for centres outside the view."""
    u, v, w = camera.pixels
    scale = _sum(w, centres, device).clamp_(min=NEAREST).reciprocal_()
    column = _sum(u, centres, device).mul_(scale).add_(0.5).clamp_(0, camera.width - 1).to(torch.int32)
    row = _sum(v, centres, device).mul_(scale).add_(0.5).clamp_(0, camera.height - 1).to(torch.int32)
    return mask.reshape(-1).index_select(0, row.mul_(mask.shape[1]).add_(column).view(-1)).view(row.shape)


def _sum(form: np.ndarray, axes: list[np.ndarray], device: torch.device) -> Tensor:
    """form . (x, y, z), (X, Y, Z)."""
    ground, height = _terms(form, axes, device)
    return ground + height


def _terms(form: np.ndarray, axes: list[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """form . (x, y, z) as (X, Y, 1) + (Z,)."""
    ground = (form[0] * axes[0])[:, None, None] + (form[1] * axes[1])[None, :, None]
    return _float32(ground, device), _float32(form[2] * axes[2], device)


def _float32(values: np.ndarray, device: torch.device) -> Tensor:
    return _to_device(values.astype(np.float32), device)


def _to_device(values: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
