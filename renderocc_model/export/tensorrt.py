"""An exported .onnx file in TensorRT 10, where that is installed.

It has not been run yet, as no machine with TensorRT was available.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renderocc_model.export.graph import FrameArguments
from renderocc_model.network.checkpoint import CheckpointError
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.fusion import EarlierFrame
from renderocc_model.network.lift import LiftGeometry

__all__ = ["TensorRTNetwork"]

_ROOM = 2  # an engine takes inputs up to this many times as long as those it was made for


class TensorRTNetwork:
    """Builds an engine when the first frame tells the sizes, which takes minutes; a larger frame builds another.

    Raises:
        ValueError: TensorRT is not installed, or the device is no GPU.
    """

    def __init__(self, path: Path, config: ModelConfig, device: torch.device, precision: str) -> None:
        try:
            import tensorrt
        except ImportError as error:
            raise ValueError(
                f"backend is tensorrt, which cannot be imported ({error}); python3 -m pip install tensorrt, "
                f"or use backend onnxruntime"
            ) from None
        if device.type != "cuda":
            raise ValueError(f"backend tensorrt needs a GPU, the device is '{device}'; use backend onnxruntime")
        self._tensorrt = tensorrt
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._path, self._device, self._half = path, device, precision == "float16"
        self._arguments = FrameArguments(config)
        self._shapes: dict[str, tuple[int, ...]] = {
            "density": config.grid.shape,
            "semantics": (*config.grid.shape, config.class_count),
        }
        if config.fusion.enabled:
            self._shapes["volume"] = (1, *config.volume_shape)
        self._keys_shape = config.keys_shape
        self._largest: dict[str, tuple[int, ...]] = {}
        self._context: Any = None

    def __call__(
        self, pictures: Tensor, geometry: LiftGeometry, earlier: EarlierFrame | None = None
    ) -> tuple[Tensor, ...]:
        given = self._arguments(pictures, geometry, earlier)
        given = {name: tensor.contiguous() for name, tensor in given.items()}
        if self._context is None or not self._fits(given):
            self._build(given)
        keys = self._keys_shape(len(pictures))
        shapes = self._shapes if keys is None else {**self._shapes, "keys": keys}
        results = {name: torch.empty(shape, device=self._device) for name, shape in shapes.items()}
        for name, tensor in given.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
        for name, tensor in (*given.items(), *results.items()):
            self._context.set_tensor_address(name, tensor.data_ptr())
        # The engine works on torch's stream, after what made its inputs and before what reads its outputs.
        if not self._context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise ValueError(f"{self._path}: TensorRT could not run it; see its messages above")
        return tuple(results.values())

    def _fits(self, given: dict[str, Tensor]) -> bool:
        return all(
            length <= most for name, tensor in given.items() for length, most in zip(tensor.shape, self._largest[name])
        )

    def _build(self, given: dict[str, Tensor]) -> None:
        trt = self._tensorrt
        self._context = None
        builder = trt.Builder(self._logger)
        network = builder.create_network(0)
        onnx = trt.OnnxParser(network, self._logger)
        if not onnx.parse_from_file(str(self._path)):
            reasons = "; ".join(str(onnx.get_error(number)) for number in range(onnx.num_errors))
            raise CheckpointError(f"{self._path}: TensorRT cannot read it ({reasons[:300]}); use backend onnxruntime")
        settings = builder.create_builder_config()
        if self._half:
            settings.set_flag(trt.BuilderFlag.FP16)
        profile = builder.create_optimization_profile()
        for number in range(network.num_inputs):
            tensor = network.get_input(number)
            now = tuple(given[tensor.name].shape)
            free = [length < 0 for length in tensor.shape]
            self._largest[tensor.name] = tuple(n * _ROOM if f else n for n, f in zip(now, free))
            least = tuple(1 if f else n for n, f in zip(now, free))
            profile.set_shape(tensor.name, least, now, self._largest[tensor.name])
        settings.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, settings)
        if plan is None:
            raise CheckpointError(f"{self._path}: TensorRT cannot build an engine from it; see its messages above")
        self._engine = trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        self._context = self._engine.create_execution_context()
