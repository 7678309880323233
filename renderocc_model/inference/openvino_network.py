"""A network in OpenVINO, in the place of `InferenceNetwork`: on CPUs, and on Intel's GPUs and NPUs.

It has been run on CPUs only. No machine with a GPU or NPU of Intel was available.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..network.checkpoint import CheckpointError
from ..network.fusion import EarlierFrame, no_earlier_frame
from ..network.network import OccupancyNetwork
from ..ops.voxel_pooling import PoolingPlan, pool
from .folding import folded_for_inference
from .openvino_graphs import converted, import_openvino, stage_shapes
from .precision import OPENVINO_DEVICES
from .prepared_network import Prediction

__all__ = ["OpenVinoNetwork"]

_DEVICES = dict(zip(OPENVINO_DEVICES, ("CPU", "GPU", "NPU")))  # OpenVINO's names
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVinoNetwork:
    """Runs the image network, fusion and the volume encoder in OpenVINO.

    Comparison with earlier images, pooling and classes are this package's.

    Converting takes some seconds. Pictures of any number of cameras run through the same model.

    Args:
        network: is not changed.
        precision: float32, bfloat16 or float16: the numbers that OpenVINO computes with where it can. Weights, inputs
            and outputs are float32.
        device: one of OPENVINO_DEVICES.
        threads: of a CPU; 0: as many as torch has.
        models: both of the network (openvino.Model), which then need not be converted. INT8 layers stay what they are.
    Raises:
        ValueError: OpenVINO is not installed, or does not have the device.
        CheckpointError: OpenVINO cannot run the network.
    """

    def __init__(
        self,
        network: OccupancyNetwork,
        precision: str,
        device: str = "cpu",
        threads: int = 0,
        models: tuple[Any, Any] | None = None,
    ) -> None:
        openvino = import_openvino()
        core, name = openvino.Core(), _DEVICES[device]
        if name not in {found.partition(".")[0] for found in core.available_devices}:
            raise ValueError(
                f"device is '{device}', but OpenVINO finds only {', '.join(core.available_devices)}; install the "
                f"device's driver, or use device 'cpu'"
            )
        self.config = network.config
        self._network = network = folded_for_inference(network).float().cpu()
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        if name == "CPU":
            settings |= {"INFERENCE_NUM_THREADS": threads or torch.get_num_threads(), "NUM_STREAMS": 1}
            settings |= {"ENABLE_CPU_PINNING": False}  # other threads work, too, and may have the same core
        try:
            compiled = [core.compile_model(model, name, settings) for model in models or converted(network)]
        except RuntimeError as error:
            raise CheckpointError(
                f"OpenVINO cannot run this network ({str(error)[:200]}); use backend torch"
            ) from error
        self._tensor = openvino.Tensor
        self._image, self._volume = (model.create_infer_request() for model in compiled)

    @property
    def joins_frames(self) -> bool:
        """Whether an earlier frame is used."""
        return self._network.fusion is not None

    def predict(
        self, pictures: Tensor, cameras: Tensor, plan: PoolingPlan, earlier: EarlierFrame | None = None
    ) -> Prediction:
        """Predict one frame; as `InferenceNetwork.predict`, everything on the CPU."""
        config, network = self.config, self._network
        pooled, *keys = self.pooled(pictures, cameras, plan, earlier)
        given = self.volume_inputs(pooled, earlier)
        density, voxels, *joined = self._run(self._volume, given, stage_shapes(config, 1)[1].outputs)
        shaped = voxels.view(*config.grid.shape, config.heads.voxel_channels)
        kept = network.kept(pooled, joined[0].movedim(-1, 1) if joined else pooled, *keys)
        return Prediction.of_layers(density[0], config.heads.density_layers, shaped, network.heads.logits_of, kept)

    def pooled(
        self, pictures: Tensor, cameras: Tensor, plan: PoolingPlan, earlier: EarlierFrame | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The volume of one frame before fusion, as `OccupancyNetwork.volume_of` gives it, and the images' keys, None
        of networks without stereo; arguments of `predict`."""
        shapes = stage_shapes(self.config, len(pictures))[0]
        network = self._network
        logits, context, *others = self._run(self._image, (pictures, cameras), shapes.outputs)
        heights = others.pop(0).movedim(-1, 1) if self.config.lift.heights.count else None
        keys = others.pop() if others else None
        logits = network.lift.with_heights(logits, heights, cameras)
        depth = network.depth_of(logits, keys, None if earlier is None else earlier.images)
        return network.volume_of(pool(depth, context.movedim(-1, 1), plan), 1), keys

    def volume_inputs(self, pooled: Tensor, earlier: EarlierFrame | None) -> tuple[Tensor, ...]:
        """The inputs of `VolumeStage`; zeros if the network joins frames and there is no earlier one."""
        if self._network.fusion is None:
            return (pooled.movedim(1, -1),)
        earlier = earlier or no_earlier_frame(pooled.shape, None, pooled)
        return tuple(part.movedim(1, -1) for part in (pooled, *earlier[:2]))

    def _run(self, request: Any, given: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """The outputs, float32, in memory of their own: OpenVINO writes there, and nothing is copied."""
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in given]
        results = [torch.empty(shape, dtype=torch.float32) for shape in shapes]
        for number, array in enumerate(arrays):
            request.set_input_tensor(number, self._tensor(array, shared_memory=True))
        for number, result in enumerate(results):
            request.set_output_tensor(number, self._tensor(result.numpy(), shared_memory=True))
        request.infer()
        return results
