"""Six views to occupancy by each library that can run the network: CPU time of one thread, all in turn in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from renderocc_model.export import export_checkpoint
from renderocc_model.export.openvino_file import write_openvino_file
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable
from renderocc_model.inference.openvino_quantising import NetworkInputs, import_nncf, quantised
from renderocc_model.inference.precision import cpu_multiplies_bfloat16
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint
from renderocc_model.network.lift import Frustums
from renderocc_model.network.untrained import surround_cameras

__all__ = ["BACKENDS", "backend_lines", "measure_backends"]

_CAMERAS = 6
_UNCOUNTED = 2  # first frames: kernels are chosen, memory is taken
_CALIBRATION_FRAMES = 2  # of noise: INT8 is as fast whatever the ranges are
_TORCH = ("torch, float32", "torch, bfloat16")

Frame = tuple[np.ndarray, list[UndistortTable], np.ndarray]


def measure_backends(checkpoint: Checkpoint, frames: int) -> dict[str, float | str]:
    """{library and precision: median CPU seconds of `Predictor.predict`, or why it was not measured}.

    Cameras stand still on the vehicle, so the plan of the pooling is made once.

    Args:
        checkpoint: on the CPU.
        frames: number of frames that the medians are of.
    """
    given = [_frame(checkpoint, seed) for seed in range(3)]
    results: dict[str, float | str] = {}
    with _one_thread(), TemporaryDirectory() as folder:
        predictors: dict[str, Predictor] = {}
        for name, make in BACKENDS.items():
            try:
                predictors[name] = make(checkpoint, Path(folder), given)
            except ValueError as error:  # a package is missing, and the text says what to install
                results[name] = str(error)
        times: dict[str, list[float]] = {name: [] for name in predictors}
        for number in range(_UNCOUNTED + frames):
            for name, predictor in predictors.items():
                began = time.process_time()
                predictor.predict(*given[number % len(given)])
                times[name].append(time.process_time() - began)
    results |= {name: statistics.median(seconds[_UNCOUNTED:]) for name, seconds in times.items()}
    return {name: results[name] for name in BACKENDS}


def backend_lines(results: dict[str, float | str], frames: int) -> list[str]:
    """A Markdown table with the ratios to torch in both precisions."""
    lines = [
        f"{_CAMERAS} views to occupancy, CPU time of one thread, median of {frames}, poses as in the last frame",
        "",
        "| library, numbers | frame | to torch float32 | to torch bfloat16 |",
        "|---|---|---|---|",
    ]
    for name, found in results.items():
        if isinstance(found, str):
            lines.append(f"| {name} | not measured: {found} | | |")
            continue
        ratios = [f"{found / reference:.2f}" if isinstance(reference := results[one], float) else "" for one in _TORCH]
        lines.append(f"| {name} | {found * 1e3:.1f} ms | {' | '.join(ratios)} |")
    return lines


def _frame(checkpoint: Checkpoint, seed: int) -> Frame:
    height, width = checkpoint.config.images.height, checkpoint.config.images.width
    views, poses = surround_cameras(_CAMERAS, height, width)
    tables = [UndistortTable(CameraModel(width, height, view.K, "plumb_bob", (0.0,) * 5), view) for view in views]
    return np.random.default_rng(seed).integers(0, 256, (_CAMERAS, height, width, 3), dtype=np.uint8), tables, poses


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain(backend: str, precision: str) -> Callable[[Checkpoint, Path, list[Frame]], Predictor]:
    def made(checkpoint: Checkpoint, folder: Path, frames: list[Frame]) -> Predictor:
        if precision == "bfloat16" and not cpu_multiplies_bfloat16():
            raise ValueError("this CPU has no instructions for bfloat16")
        return Predictor(checkpoint, device="cpu", precision=precision, backend=backend)

    return made


def _in_onnxruntime(checkpoint: Checkpoint, folder: Path, frames: list[Frame]) -> Predictor:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{error.name} cannot be imported; python3 -m pip install -r requirements-export.txt"
        ) from None
    export_checkpoint(checkpoint, folder / "network.onnx", "onnx")
    return Predictor(folder / "network.onnx", device="cpu")


def _in_int8(checkpoint: Checkpoint, folder: Path, frames: list[Frame]) -> Predictor:
    import_nncf()
    inputs = []
    for pictures, tables, poses in frames[:_CALIBRATION_FRAMES]:
        geometry = Frustums(checkpoint.config, [table.view for table in tables]).place(poses)
        inputs.append(NetworkInputs(torch.from_numpy(pictures), geometry))
    path = folder / "network.openvino"
    write_openvino_file(path, replace(checkpoint, provenance={}), quantised(checkpoint.network, inputs))
    return Predictor(path, device="cpu")


BACKENDS: dict[str, Callable[[Checkpoint, Path, list[Frame]], Predictor]] = {
    "torch, float32": _plain("torch", "float32"),
    "torch, bfloat16": _plain("torch", "bfloat16"),
    "onnxruntime, float32": _in_onnxruntime,
    "OpenVINO, float32": _plain("openvino", "float32"),
    "OpenVINO, bfloat16": _plain("openvino", "bfloat16"),
    "OpenVINO, INT8 and float32": _in_int8,
}
