"""What is kept of a frame for later ones: its volume, moved by ego motion and joined to theirs, and its keys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.network.layers import convolution, without_effect
from renderocc_model.network.lift import LiftGeometry
from renderocc_model.network.stereo import EarlierImages, earlier_images, no_images

__all__ = ["EarlierFrame", "KeptFrame", "VolumeFusion", "no_earlier_frame", "placed"]


@dataclass(frozen=True)
class KeptFrame:
    """What is kept of one frame (or a batch of frames) for a later one.

    Attributes:
        volume: (B, C, X, Y), pooled features over the ground plane, or (B, C, X, Y, Z).
        base_from_volume: (B, 4, 4) float64, from the base frame the features were made in to the base frame of now.
        valid: (B,) bool, false for frames that have no predecessor; their features are not looked at.
        keys: (B, N, K, h, w), what images are compared with, of networks with stereo.
        base_from_pixel: (B, N, 4, 4) float64, as in `LiftGeometry`, of the keys' cameras and the base frame then.
    """

    volume: Tensor
    base_from_volume: Tensor
    valid: Tensor
    keys: Tensor | None = None
    base_from_pixel: Tensor | None = None

    @staticmethod
    def current(volume: Tensor, keys: Tensor | None = None) -> KeptFrame:
        """A frame that was predicted just now; keys (B * N, K, h, w) only of networks with stereo."""
        batch, device = volume.shape[0], volume.device
        identity = torch.eye(4, dtype=torch.float64, device=device).expand(batch, 4, 4)
        valid = torch.ones(batch, dtype=torch.bool, device=device)
        return KeptFrame(volume, identity, valid, None if keys is None else keys.unflatten(0, (batch, -1)))

    def with_cameras(self, geometry: LiftGeometry) -> KeptFrame:
        """With the geometry of the keys' cameras, which a later frame needs to be compared with them."""
        return self if self.keys is None else replace(self, base_from_pixel=geometry.base_from_pixel)

    def moved(self, current_base_from_previous_base: Tensor, valid: Tensor | None = None) -> KeptFrame:
        """The same after the vehicle moved on.

        Args:
            current_base_from_previous_base: (B, 4, 4) or (4, 4).
            valid: (B,) bool; false where the sample has no predecessor. None: as before.
        """
        motion = torch.as_tensor(current_base_from_previous_base, dtype=torch.float64, device=self.volume.device)
        return replace(
            self, base_from_volume=motion @ self.base_from_volume, valid=self.valid if valid is None else valid
        )


class EarlierFrame(NamedTuple):
    """An earlier frame as the current one is joined with it.

    Attributes:
        volume: (B, C, X, Y[, Z]), on the grid of now; 0 where the mask is.
        mask: (B, 1, X, Y[, Z]), 1 in cells that lie in the grid of a valid earlier frame, else 0.
        keys, pixels: of `EarlierImages`, for networks with stereo.
    """

    volume: Tensor
    mask: Tensor
    keys: Tensor | None = None
    pixels: Tensor | None = None

    @property
    def images(self) -> EarlierImages | None:
        return None if self.keys is None or self.pixels is None else EarlierImages(self.keys, self.pixels)

    def tensors(self) -> tuple[Tensor, ...]:
        """Those that there are."""
        return tuple(part for part in self if part is not None)


def no_earlier_frame(shape: Sequence[int], keys: Sequence[int] | None, like: Tensor) -> EarlierFrame:
    """What is joined where there is no earlier frame: zeros, of a tensor's kind.

    Args:
        shape: (B, C, X, Y[, Z]), of the volume.
        keys: (M, V, K, h, w), their shape, for networks with stereo.
    """
    batch, channels, *places = shape
    volume, mask = like.new_zeros(batch, channels, *places), like.new_zeros(batch, 1, *places)
    return EarlierFrame(volume, mask, *(() if keys is None else no_images(keys, like)))


def placed(kept: KeptFrame, grid: VoxelGrid, geometry: LiftGeometry | None = None, views: int = 1) -> EarlierFrame:
    """An earlier frame for the current one: its volume resampled, and where its images showed what pixels show now.

    Features over the ground plane are moved by the planar part of the motion.

    Args:
        kept: moved to now.
        grid: of the network.
        geometry, views: of the current frame, and how many earlier images each of its cameras is compared with; for
            networks with stereo.
    Raises:
        ValueError: there are keys, but not the geometry of both frames.
    """
    volume, mask = _warped(kept, grid)
    if kept.keys is None:
        return EarlierFrame(volume, mask)
    if kept.base_from_pixel is None or geometry is None:
        raise ValueError("fusion: keys were kept without their cameras; call kept.with_cameras(geometry)")
    then = kept.base_from_volume[:, None] @ kept.base_from_pixel * kept.valid[:, None, None, None]
    return EarlierFrame(volume, mask, *earlier_images(geometry.base_from_pixel, kept.keys, then, views))


def _warped(kept: KeptFrame, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """The volume on the grid of the current base frame, linear between cell centres, and its mask."""
    features = kept.volume
    axes = features.ndim - 2
    place = _previous_place(kept.base_from_volume, grid, axes)
    counts = torch.tensor(features.shape[2:], device=features.device, dtype=place.dtype)
    inside = ((place >= -0.5) & (place <= counts - 0.5)).all(dim=-1)
    mask = (inside & kept.valid.view(-1, *[1] * axes)).unsqueeze(-1)
    warped = torch.where(mask, _between_centres(features, place, counts), 0.0)
    return warped.movedim(-1, 1), mask.to(features.dtype).movedim(-1, 1)


def _between_centres(features: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    """Features (B, C, X, Y[, Z]) at fractional indices (B, X, Y[, Z], axes), channels last as they lie in memory.

    A weighted sum of the rows of the nearest centres: ten times as fast on a CPU as `grid_sample`, which wants channels
    first. In the outer halves of border cells the nearest centre's value is used.
    """
    batch, axes = len(features), place.shape[-1]
    place = torch.minimum(place.nan_to_num(0.0).clamp(min=0), counts - 1)
    low = torch.minimum(place.floor(), (counts - 2).clamp(min=0))
    share = place - low
    # Rows of one cell further along each axis; an axis of a single cell has no other row.
    steps = [math.prod(features.shape[2 + axis + 1 :]) for axis in range(axes)]
    first = torch.arange(batch, device=place.device).view(-1, *[1] * axes) * math.prod(features.shape[2:])
    for axis, step in enumerate(steps):
        first = first + low[..., axis].long() * step
    rows, weights = [], []
    for corner in itertools.product((0, 1), repeat=axes):
        ahead = [bit * step * (features.shape[2 + axis] > 1) for axis, (bit, step) in enumerate(zip(corner, steps))]
        rows.append(first + sum(ahead))
        parts = (share[..., axis] if bit else 1 - share[..., axis] for axis, bit in enumerate(corner))
        weights.append(math.prod(parts, start=torch.ones_like(first, dtype=place.dtype)))
    table = features.movedim(1, -1).reshape(-1, features.shape[1])
    index, weight = (torch.stack(one, dim=-1).reshape(-1, 2**axes) for one in (rows, weights))
    found = functional.embedding_bag(index, table, mode="sum", per_sample_weights=weight.to(table.dtype))
    return found.view(*place.shape[:-1], -1)


def _previous_place(base_from_volume: Tensor, grid: VoxelGrid, axes: int) -> Tensor:
    """Fractional index, in the previous volume, of each current cell's centre: (B, X, Y[, Z], axes) float32."""
    device = base_from_volume.device
    volume_from_base = torch.linalg.inv(base_from_volume.double())
    rotation, translation = volume_from_base[:, :axes, :axes], volume_from_base[:, :axes, 3]
    if axes == 2:
        # The planar part: heading and translation, whatever pitch and roll did to the upper left corner.
        heading = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
        cosine, sine = torch.cos(heading), torch.sin(heading)
        rotation = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], dim=-2)
    # index' = R index + (R - 1)(lower / size + 1/2) + t / size, which is the index itself for no motion.
    corner = torch.tensor(grid.lower[:axes], dtype=torch.float64, device=device) / grid.voxel_size + 0.5
    offset = (rotation - torch.eye(axes, dtype=torch.float64, device=device)) @ corner + translation / grid.voxel_size
    place = offset.float().view(-1, *[1] * axes, axes)
    for axis, count in enumerate(grid.shape[:axes]):
        index = torch.arange(count, device=device, dtype=torch.float32).view(
            [-1 if a == axis else 1 for a in range(axes)] + [1]
        )
        place = place + index * rotation[:, :, axis].float().view(-1, *[1] * axes, axes)
    return place


class VolumeFusion(nn.Module):
    """Changes the current volume by what it, an earlier one and its mask say together.

    The change begins as zero, so that a network which learned without fusion can learn on with it.
    """

    def __init__(self, dimensions: int, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 8)
        self.join = nn.Sequential(
            convolution(dimensions, 2 * channels + 1, hidden, kernel=1), convolution(dimensions, hidden, hidden)
        )
        self.change = without_effect((nn.Conv2d if dimensions == 2 else nn.Conv3d)(hidden, channels, 1))

    def forward(self, current: Tensor, earlier: EarlierFrame | None) -> Tensor:
        """(B, C, X, Y[, Z]) from the same; without an earlier frame its volume and mask are zero."""
        if earlier is None:
            earlier = no_earlier_frame(current.shape, None, current)
        if earlier.volume.shape != current.shape:
            raise ValueError(
                f"fusion: the previous volume is {tuple(earlier.volume.shape)}, the current one "
                f"{tuple(current.shape)}; forget the previous frame when batch, grid or model change"
            )
        joined = torch.cat([current, *(part.to(current.dtype) for part in earlier[:2])], dim=1)
        return current + self.change(self.join(joined))
