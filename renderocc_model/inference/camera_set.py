"""What is computed once for a set of cameras, and kept while frames come from the same cameras."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..geometry.undistortion import UndistortTable
from ..network.config import ModelConfig
from ..network.lift import Frustums, LiftGeometry
from ..ops.visibility import ViewFrusta
from ..ops.voxel_pooling import PoolingPlan
from .fixed_frames import FixedFrames

__all__ = ["CameraSet", "CameraSets"]


class CameraSet:
    """What the frames of a set of cameras share: frustums, rays for visibility, and memory.

    Attributes:
        frustums: of the views, for lifting pixels into the grid.
        view_frusta: of the views, for finding visible voxels.
        frames: memory for the vehicle path; None until a frame is captured.
        used: frames that were predicted with these cameras.
    """

    def __init__(
        self, config: ModelConfig, tables: Sequence[UndistortTable], device: torch.device, minimum_transmittance: float
    ) -> None:
        views = [table.view for table in tables]
        masks = [None if table.valid.all() else table.valid for table in tables]
        self.tables = tuple(tables)
        self.frustums = Frustums(config, views, device)
        self.view_frusta = ViewFrusta(config.grid, views, masks, device, minimum_transmittance)
        self.frames: FixedFrames | None = None
        self.used = 0
        self._cells = int(np.prod(config.pooled_shape))

    def plan(self, geometry: LiftGeometry) -> PoolingPlan:
        """The pooling of one frame; kept by the geometry, which `Frustums.place` gives again while nothing moves."""
        return geometry.plan(self._cells)


class CameraSets:
    """The sets of cameras that were used last. A camera that drops out now and then makes several sets.

    Args:
        kept: how many at most.
    """

    def __init__(self, config: ModelConfig, device: torch.device, minimum_transmittance: float, kept: int = 8) -> None:
        self._arguments = config, device, minimum_transmittance
        self._kept = kept
        self._sets: dict[tuple[int, ...], CameraSet] = {}

    def of(self, tables: Sequence[UndistortTable]) -> CameraSet:
        """The set of these tables, compared as objects: a new calibration makes new ones."""
        config, device, minimum = self._arguments
        key = tuple(id(table) for table in tables)  # the set keeps its tables, so ids stay unique
        found = self._sets.pop(key, None) or CameraSet(config, tables, device, minimum)
        if len(self._sets) >= self._kept:
            self._sets.pop(next(iter(self._sets)))
        self._sets[key] = found
        return found

    def release_frames(self, kept: int) -> None:
        """Free the fixed memory of all sets but the `kept` used last."""
        with_frames = [cameras for cameras in self._sets.values() if cameras.frames is not None]
        for cameras in with_frames[: max(0, len(with_frames) - kept)]:
            cameras.frames, cameras.used = None, 0
