"""From the densities of all voxels to a list of the occupied ones, and to the bytes that are copied from a GPU.

Two ways to the same list: `found_voxels` has as many entries as there are occupied voxels, which the host has to wait
for; `packed_voxels` has room for a fixed number of them, so that a CUDA graph can hold it, and is one piece of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..field.occupancy import OccupiedVoxels
from .prepared_network import Prediction

__all__ = ["Record", "found_voxels", "occupied_and_surface", "packed_voxels"]

_HEADER = 4  # int32: occupied voxels, whether all densities are finite and none is negative, unused, unused


@dataclass(frozen=True)
class Record:
    """Layout of the packed bytes: header, then for each entry its index, confidence, label and whether it is surface,
    then a bit for each voxel, whether it is visible, the first in the lowest bit.

    Attributes:
        voxels: of the grid.
        capacity: entries.
    """

    voxels: int
    capacity: int

    @staticmethod
    def of_grid(voxels: int) -> Record:
        """Room for an eighth of the voxels: twice what a dense street has."""
        return Record(voxels, max(1024, -(-voxels // 8)))

    @property
    def size(self) -> int:
        """Bytes."""
        return 4 * _HEADER + 10 * self.capacity + -(-self.voxels // 8)

    def count(self, record: np.ndarray) -> int:
        """How many voxels are occupied; more than `capacity` if they did not fit."""
        return int(record[:4].view(np.int32)[0])

    def is_sound(self, record: np.ndarray) -> bool:
        """Whether all densities are finite and none is negative."""
        return bool(record[4:8].view(np.int32)[0])

    def entries(self, record: np.ndarray) -> OccupiedVoxels:
        """The occupied voxels, copied."""
        count, capacity, first = self.count(record), self.capacity, 4 * _HEADER

        def part(offset: int, dtype: type) -> np.ndarray:
            begin = first + offset * capacity
            return record[begin : begin + count * np.dtype(dtype).itemsize].view(dtype).copy()

        return OccupiedVoxels(part(0, np.int32), part(8, np.uint8), part(4, np.float32), part(9, np.bool_))

    def visible_bits(self, record: np.ndarray) -> np.ndarray:
        """The bits of `visible`, copied; `numpy.unpackbits(bits, count=voxels, bitorder="little")` takes them apart."""
        return record[self.size - -(-self.voxels // 8) : self.size].copy()


def occupied_and_surface(confidence: Tensor, visible: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor]:
    """Which voxels (X, Y, Z) are occupied, and which of these have a neighbour that is not, as `Occupancy.surface`."""
    occupied = visible & (confidence > threshold)
    inner = occupied.clone()
    for axis, size in enumerate(occupied.shape):
        inner.narrow(axis, 1, size - 1).logical_and_(occupied.narrow(axis, 0, size - 1))
        inner.narrow(axis, 0, size - 1).logical_and_(occupied.narrow(axis, 1, size - 1))
        inner.select(axis, 0).fill_(False)
        inner.select(axis, size - 1).fill_(False)
    return occupied, occupied & ~inner


def found_voxels(
    prediction: Prediction, confidence: Tensor, visible: Tensor, threshold: Tensor | float, channel_ids: Tensor
) -> OccupiedVoxels:
    """The occupied voxels of a prediction.

    Args:
        confidence, visible: (X, Y, Z) occupancy probability, and whether a camera sees the voxel.
        threshold: occupied above this confidence; one for all voxels, or (X, Y, 1).
        channel_ids: (C,) uint8 class ids of the logits' channels.
    """
    occupied, surface = occupied_and_surface(confidence, visible, threshold)
    index = occupied.view(-1).nonzero()[:, 0]
    labels = channel_ids[prediction.logits_at(index).argmax(dim=1)]
    parts = index, labels, confidence.reshape(-1)[index], surface.view(-1)[index]
    return OccupiedVoxels(*(part.cpu().numpy() for part in parts))


def packed_voxels(
    prediction: Prediction, confidence: Tensor, visible: Tensor, threshold: Tensor, channel_ids: Tensor, record: Record
) -> Tensor:
    """The occupied voxels, and the visible ones, as the bytes (record.size,) of a record. No shape depends on the
    data."""
    occupied, surface = (part.view(-1) for part in occupied_and_surface(confidence, visible, threshold))
    capacity, device = record.capacity, occupied.device
    place = torch.cumsum(occupied, 0, dtype=torch.int32)
    # Voxels that are not occupied or exceed the capacity go to an extra entry, which is dropped. Empty entries hold 0.
    slot = torch.where(occupied & (place <= capacity), place - 1, capacity).long()
    numbers = torch.arange(record.voxels, device=device)
    index = torch.zeros(capacity + 1, dtype=torch.int64, device=device).scatter_(0, slot, numbers)[:capacity]
    labels = channel_ids.index_select(0, prediction.logits_at(index).argmax(dim=1))
    lowest, highest = prediction.density.aminmax()
    sound = (lowest >= 0) & (highest < float("inf"))  # neither holds for NaN
    nothing = torch.zeros(_HEADER - 2, dtype=torch.int32, device=device)
    parts = (
        torch.cat([place[-1:], sound.to(torch.int32).view(1), nothing]),
        index.to(torch.int32),
        confidence.view(-1).index_select(0, index),
        labels,
        surface.index_select(0, index).to(torch.uint8),
        _packed_bits(visible.view(-1)),
    )
    return torch.cat([part.view(torch.uint8) for part in parts])


def _packed_bits(flags: Tensor) -> Tensor:
    eights = torch.nn.functional.pad(flags.to(torch.uint8), (0, -len(flags) % 8)).view(-1, 8)
    bits = torch.arange(8, dtype=torch.uint8, device=flags.device)
    return (eights << bits).sum(dim=1, dtype=torch.int32).to(torch.uint8)
