"""From a network's prediction to occupied, free and unknown voxels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..field.classes import ClassTable
from ..field.field import occupancy_probability
from ..field.occupancy import Occupancy, OccupiedVoxels
from ..field.threshold import Threshold, checked_threshold, threshold_of_voxels
from ..geometry.grid import VoxelGrid
from ..ops.visibility import CameraFrusta, cast
from .compaction import Record, found_voxels
from .prepared_network import Prediction

__all__ = ["OccupancyReader"]


class OccupancyReader:
    """Reads densities and class logits as occupancy. Unknown voxels are outside all views, or hidden behind others.

    Args:
        grid, classes: of the network.
        device: of its output.
        threshold: a voxel is occupied where its probability exceeds it.
    Attributes:
        threshold: as given, or as `set_threshold` was told.
        voxel_threshold: (X, Y, 1) float32 on the device.
        channel_ids: (C,) uint8 on the device, class ids of the logits' channels.
    """

    def __init__(self, grid: VoxelGrid, classes: ClassTable, device: torch.device, threshold: Threshold) -> None:
        self._grid, self._classes, self._device = grid, classes, device
        self.channel_ids = torch.tensor(classes.occupied_ids, dtype=torch.uint8, device=device)
        self.set_threshold(threshold)

    def set_threshold(self, threshold: Threshold) -> None:
        """Use another threshold. ValueError if it cannot be one."""
        self.threshold = checked_threshold(threshold)
        self.voxel_threshold = threshold_of_voxels(self.threshold, self._grid, self._device)
        self._threshold_array = self.voxel_threshold.cpu().numpy()

    def of_prediction(self, prediction: Prediction, frusta: CameraFrusta) -> Occupancy:
        """Occupancy as the cameras of `frusta` see it.

        Raises:
            ValueError: a density is negative or not finite.
        """
        lowest, highest = (float(value) for value in prediction.density.aminmax())
        if not (lowest >= 0 and highest < float("inf")):
            raise _unusable(f"densities from {lowest} to {highest}")
        confidence = occupancy_probability(prediction.density, self._grid.voxel_size)
        visible = cast(prediction.met, frusta, layers=prediction.layer_count)
        voxels = found_voxels(prediction, confidence, visible, self.voxel_threshold, self.channel_ids)
        return self._made(prediction, voxels, lambda: visible.cpu().numpy(), confidence)

    def of_record(self, record: Record, found: np.ndarray, prediction: Prediction) -> Occupancy | None:
        """Occupancy of a frame that was packed into bytes.

        Args:
            record: the layout of `found`.
            found: (record.size,) uint8, from `FixedFrames.run`.
        Returns:
            None if there are more occupied voxels than the record has room for; use `of_prediction` then.
        Raises:
            ValueError: a density is negative or not finite.
        """
        if not record.is_sound(found):
            raise _unusable("densities that are negative or not finite")
        if record.count(found) > record.capacity:
            return None
        bits, grid = record.visible_bits(found), self._grid

        def visible() -> np.ndarray:
            return np.unpackbits(bits, count=grid.size, bitorder="little").view(np.bool_).reshape(grid.shape)

        return self._made(prediction, record.entries(found), visible)

    def _made(
        self,
        prediction: Prediction,
        voxels: OccupiedVoxels,
        visible: Callable[[], np.ndarray],
        confidence: Tensor | None = None,
    ) -> Occupancy:
        size = self._grid.voxel_size

        def probability() -> np.ndarray:
            found = occupancy_probability(prediction.density, size) if confidence is None else confidence
            return found.cpu().numpy()

        return Occupancy.predicted(
            self._grid,
            self._classes,
            voxels,
            visible,
            probability,
            partial(prediction.field, self._grid),
            self._threshold_array,
        )


def _unusable(found: str) -> ValueError:
    return ValueError(f"the network's output cannot be used ({found}); try precision float32, or another checkpoint")
