"""Frames of one set of cameras in fixed memory, which the replay of a CUDA graph needs.

Inputs are copied from pinned memory into fixed tensors. The computation, recorded once, reads them and writes one block
of bytes (`compaction.Record`), which is copied into pinned memory. The host waits once, for this copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..field.field import occupancy_probability
from ..network.fusion import EarlierFrame, no_earlier_frame
from ..ops.visibility import CAMERA_NUMBERS, ViewFrusta, cast
from ..ops.voxel_pooling import PoolingPlan
from .compaction import Record, packed_voxels
from .prepared_network import InferenceNetwork, Prediction

__all__ = ["FixedFrames", "FrameInputs", "Recorder"]

# Takes a function of no arguments, gives one that does the same work; `cuda_graph.record_graph`, for its device.
Recorder = Callable[[Callable[[], tuple[Tensor, Prediction]]], Callable[[], tuple[Tensor, Prediction]]]


@dataclass(frozen=True, eq=False)
class FrameInputs:
    """Inputs of one frame besides its pictures.

    Attributes:
        lift_cameras: (N, CAMERA_PARAMETERS) float32 on the device.
        plan: on the device.
        camera_table: (N, CAMERA_NUMBERS) float32, from `ViewFrusta.camera_table`, on the host.
        threshold: (X, Y, 1) float32 on the device, occupied above this probability.
        earlier: an earlier frame, placed for these cameras, if the network joins one and there is one.
    """

    lift_cameras: Tensor
    plan: PoolingPlan
    camera_table: np.ndarray
    threshold: Tensor
    earlier: EarlierFrame | None = None


class FixedFrames:
    """Runs frame after frame of one set of cameras in the same memory.

    Args:
        network: what is recorded.
        view_frusta: of the cameras.
        channel_ids: (C,) uint8 class ids of the logits' channels, on the device.
        first: inputs of a frame; those of later frames must have the same shapes.
        pictures: (N, H, W, 3), the shape of a frame's pictures.
        device: where everything is computed.
        recorder: turns the computation into one that repeats faster; None: the computation is called as it is.
        capacity: occupied voxels there is room for; an eighth of the grid, if left out.
    Raises:
        RuntimeError: what the recorder raises.
    """

    def __init__(
        self,
        network: InferenceNetwork,
        view_frusta: ViewFrusta,
        channel_ids: Tensor,
        first: FrameInputs,
        pictures: tuple[int, ...],
        device: torch.device,
        recorder: Recorder | None = None,
        capacity: int | None = None,
    ) -> None:
        self._network, self._view_frusta, self._channel_ids = network, view_frusta, channel_ids
        self._device = device
        self._voxel_size = network.config.grid.voxel_size
        voxels = network.config.grid.size
        self.record = Record.of_grid(voxels) if capacity is None else Record(voxels, capacity)
        pinned = {"pin_memory": device.type == "cuda"}
        self._host_pictures = torch.zeros(pictures, dtype=torch.uint8, **pinned)
        self._host_numbers = torch.zeros(pictures[0] * CAMERA_NUMBERS, dtype=torch.float32, **pinned)
        self._host_record = torch.zeros(self.record.size, dtype=torch.uint8, **pinned)
        self._pictures = torch.zeros(pictures, dtype=torch.uint8, device=device)
        self._numbers = torch.zeros(self._host_numbers.shape, dtype=torch.float32, device=device)
        self._lift_cameras, self._threshold = first.lift_cameras.clone(), first.threshold.clone()
        self._threshold_given = first.threshold
        self._earlier: EarlierFrame | None = None
        if network.joins_frames:
            like = torch.empty(0, dtype=network.dtype, device=device)
            config = network.config
            self._earlier = no_earlier_frame((1, *config.volume_shape), config.earlier_keys_shape(pictures[0]), like)
        self._plan = _copied(first.plan)
        self._plan_given: PoolingPlan | None = None
        self._place(first)
        self._compute = self._frame if recorder is None else recorder(self._frame)

    @property
    def buffer(self) -> np.ndarray:
        """(N, H, W, 3) uint8 pinned memory: pictures that are written here need not be copied on the host."""
        return self._host_pictures.numpy()

    def upload(self, views: np.ndarray | Tensor) -> Tensor:
        """Begin to copy a frame's pictures to the device, and return where they will be."""
        views = views if isinstance(views, Tensor) else torch.from_numpy(np.require(views, requirements=["C", "W"]))
        if self._device.type == "cuda" and views.device.type == "cpu" and not views.is_pinned():
            views = self._host_pictures.copy_(views)
        return self._pictures.copy_(views, non_blocking=True)

    def run(self, inputs: FrameInputs) -> tuple[np.ndarray, Prediction]:
        """Compute the frame whose pictures were uploaded last.

        Returns:
            the record (`self.record` reads it), valid until the next frame; and the prediction, in memory of its own.
        """
        self._place(inputs)
        record, prediction = self._compute()
        self._host_record.copy_(record, non_blocking=True)
        own = prediction.detached()
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the only wait of the host
        return self._host_record.numpy(), own

    def network_alone(self) -> Prediction:
        """The network's part of a frame, on what was uploaded and placed last."""
        return self._network.predict(self._pictures, self._lift_cameras, self._plan, self._earlier)

    def _place(self, inputs: FrameInputs) -> None:
        self._host_numbers.numpy()[:] = inputs.camera_table.reshape(-1)
        self._numbers.copy_(self._host_numbers, non_blocking=True)
        if inputs.threshold is not self._threshold_given:
            self._threshold.copy_(inputs.threshold)
            self._threshold_given = inputs.threshold
        if self._earlier is not None:
            fixed = self._earlier.tensors()
            given = (None,) * len(fixed) if inputs.earlier is None else inputs.earlier.tensors()
            for one, other in zip(fixed, given, strict=True):
                one.zero_() if other is None else one.copy_(other)
        if inputs.plan is not self._plan_given:  # the same object while no camera moves
            self._plan.copy_(inputs.plan)
            self._lift_cameras.copy_(inputs.lift_cameras)
            self._plan_given = inputs.plan

    def _frame(self) -> tuple[Tensor, Prediction]:
        """Launches the same work for every frame, all of it on the fixed tensors."""
        prediction = self.network_alone()
        frusta = self._view_frusta.of_table(self._numbers.view(-1, CAMERA_NUMBERS))
        visible = cast(prediction.met, frusta, layers=prediction.layer_count)
        confidence = occupancy_probability(prediction.density, self._voxel_size)
        found = packed_voxels(prediction, confidence, visible, self._threshold, self._channel_ids, self.record)
        return found, prediction


def _copied(plan: PoolingPlan) -> PoolingPlan:
    parts = {name: getattr(plan, name).clone() for name in ("cell", "start", "point", "pixel")}
    copied = replace(plan, **parts)
    copied.tensors()  # compute its lazy tensors now, before anything is recorded
    return copied
