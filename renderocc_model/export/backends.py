"""Running exported networks: one class for each runtime, all called as `network(pictures, geometry, earlier)`."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from renderocc_model.export.archive import check_torch_version, checked_archive
from renderocc_model.export.file import ENDINGS, OPENVINO_ENDING, is_exported, read_description
from renderocc_model.export.graph import FrameArguments, output_names
from renderocc_model.network.checkpoint import CheckpointError, Description
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.fusion import EarlierFrame
from renderocc_model.network.lift import LiftGeometry

__all__ = ["BACKENDS", "Exported", "chosen_backend", "load_exported"]

BACKENDS = ("auto", "torch", "onnxruntime", "tensorrt", "openvino")
# (Pictures (N, H, W, 3) uint8, geometry of one frame, an earlier frame or None) -> density (X, Y, Z) and semantics
# (X, Y, Z, C), float32, and then what `Prediction.kept` says.
ExportedNetwork = Callable[[Tensor, LiftGeometry, EarlierFrame | None], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Exported:
    """An exported network that is ready to run, and the description in its file."""

    network: ExportedNetwork
    description: Description
    backend: str


def chosen_backend(path: str | Path, backend: str, device: torch.device | str = "auto") -> str:
    """The backend for a file.

    "auto" is onnxruntime for .onnx, torch for .pt2 and openvino for .openvino; for a checkpoint's file the fastest that
    is installed for the device: OpenVINO without a CUDA device, else torch.

    Args:
        path: of the file; empty for a network that is in memory, which "auto" runs in torch: converting takes seconds.
        backend: one of BACKENDS.
        device: as for `Predictor`.
    Raises:
        ValueError: there is no such backend, or it does not run files with this ending.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; choose one of {', '.join(BACKENDS)}")
    possible = {
        ENDINGS["onnx"]: ("onnxruntime", "tensorrt"),
        ENDINGS["torch_export"]: ("torch",),
        OPENVINO_ENDING: ("openvino",),
    }.get(Path(path).suffix, ("torch", "openvino"))
    if backend == "auto":
        return "openvino" if "openvino" in possible and _prefers_openvino(path, str(device)) else possible[0]
    if backend not in possible:
        remedy = (
            f"it is run by {' or '.join(possible)}"
            if "torch" not in possible
            else "give the checkpoint itself"
            if backend == "openvino"
            else "write an .onnx file for it with `renderocc export --format onnx`"
        )
        raise ValueError(f"{path}: backend {backend} does not run {Path(path).suffix or 'such'} files; {remedy}")
    return backend


def _prefers_openvino(path: str | Path, device: str) -> bool:
    if device.startswith("intel"):
        return True
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    return bool(str(path)) and on_cpu and importlib.util.find_spec("openvino") is not None


def load_exported(
    path: str | Path, backend: str, device: torch.device, precision: str = "float32", threads: int = 0
) -> Exported:
    """Load a file that `renderocc export` wrote.

    Args:
        backend: as `chosen_backend` gives it.
        device: where pictures and geometry will be, and the results.
        precision: float32, or float16 (tensorrt).
        threads: of onnxruntime on the CPU; 0: as many as torch has.
    Raises:
        CheckpointError: the file cannot be used.
        ValueError: the backend is not installed, is too old for the file, or does not run on the device.
    """
    path = Path(path)
    assert is_exported(path)
    description = read_description(path)
    if precision != "float32" and backend != "tensorrt":
        raise ValueError(
            f"precision is {precision}, but {path.name} computes in float32 with {backend}; leave precision auto"
        )
    network: ExportedNetwork
    if backend == "onnxruntime":
        network = OnnxRuntimeNetwork(path, description.config, device, threads)
    elif backend == "tensorrt":
        from renderocc_model.export.tensorrt import TensorRTNetwork

        network = TensorRTNetwork(path, description.config, device, precision)
    else:
        network = TorchExportNetwork(path, description.config, device)
    return Exported(network, description, backend)


class OnnxRuntimeNetwork:
    """An .onnx file in onnxruntime, on the CPU."""

    def __init__(self, path: Path, config: ModelConfig, device: torch.device, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(
                f"backend is onnxruntime, which cannot be imported ({error}); python3 -m pip install onnxruntime"
            ) from None
        if device.type != "cpu":
            raise ValueError(
                f"backend onnxruntime runs on the CPU here, not on '{device}'; set device to cpu, or for a GPU use "
                f"backend tensorrt, or the checkpoint with backend torch"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions for damaged files have no common base class
            raise CheckpointError(
                f"{path}: onnxruntime cannot use it ({str(error)[:200]}); export the checkpoint again"
            ) from error
        self._arguments, self._outputs = FrameArguments(config), list(output_names(config))

    def __call__(
        self, pictures: Tensor, geometry: LiftGeometry, earlier: EarlierFrame | None = None
    ) -> tuple[Tensor, ...]:
        given = self._arguments(pictures, geometry, earlier)
        results = self._session.run(self._outputs, {name: tensor.numpy() for name, tensor in given.items()})
        return tuple(map(torch.from_numpy, results))


class TorchExportNetwork:
    """A .pt2 archive, run by torch on any of its devices."""

    def __init__(self, path: Path, config: ModelConfig, device: torch.device) -> None:
        check_torch_version(torch.__version__)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(checked_archive(path))
                if device.type != "cpu":
                    from torch.export.passes import move_to_device_pass

                    program = move_to_device_pass(program, device)
        except CheckpointError:
            raise
        except Exception as error:  # on a damaged archive the readers raise errors of many types
            raise CheckpointError(
                f"{path}: torch cannot load it ({str(error)[:200]}); export the checkpoint again with this version"
            ) from error
        self._module = program.module()
        self._arguments = FrameArguments(config)

    def __call__(
        self, pictures: Tensor, geometry: LiftGeometry, earlier: EarlierFrame | None = None
    ) -> tuple[Tensor, ...]:
        return tuple(self._module(*self._arguments(pictures, geometry, earlier).values()))
