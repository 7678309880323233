"""Loads segmentation networks: ONNX files by onnxruntime on a chosen device, and TorchScript files by torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .mapping import LabelError

__all__ = ["PROVIDERS", "load_network"]

# Short names of onnxruntime's execution providers.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
_REMEDIES = {
    "cuda": "pip install onnxruntime-gpu in place of onnxruntime",
    "tensorrt": "pip install onnxruntime-gpu in place of onnxruntime, and TensorRT",
    "openvino": "pip install onnxruntime-openvino in place of onnxruntime",
}


def load_network(path: Path, provider: str = "auto") -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs a network on float32 (N, 3, H, W) and returns its first output.

    Args:
        path: a .onnx file, or a TorchScript file with any other ending.
        provider: for ONNX a key of `PROVIDERS`; "auto" is cuda if onnxruntime has it, else cpu. For TorchScript "auto",
            "cpu" or "cuda".
    Raises:
        LabelError: it is no such file, or the provider cannot be used here.
    """
    return _onnx(path, provider) if path.suffix == ".onnx" else _torchscript(path, provider)


def _onnx(path: Path, provider: str) -> Callable[[np.ndarray], np.ndarray]:
    try:
        import onnxruntime
    except ImportError as error:
        raise LabelError(f"{path}: ONNX networks need onnxruntime ({error}); pip install onnxruntime") from None
    there = onnxruntime.get_available_providers()
    if provider == "auto":
        provider = "cuda" if PROVIDERS["cuda"] in there else "cpu"
    wanted = PROVIDERS[provider]
    if wanted not in there:
        short = [name for name, full in PROVIDERS.items() if full in there]
        remedy = _REMEDIES.get(provider, "install the onnxruntime that has it")
        raise LabelError(f"--provider {provider}: onnxruntime has {', '.join(short)} here; {remedy}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=list(dict.fromkeys([wanted, PROVIDERS["cpu"]]))
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class but Exception
        raise LabelError(f"{path}: not an ONNX network: {' '.join(str(error).split())[:300]}") from None
    if wanted not in session.get_providers():  # onnxruntime goes on with the CPU, and warns in its log
        raise LabelError(f"--provider {provider}: onnxruntime could not start it; are its libraries installed?")
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def _torchscript(path: Path, provider: str) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    if provider not in ("auto", "cpu", "cuda"):
        raise LabelError(
            f"--provider {provider} is for ONNX networks; {path.name} is TorchScript, which has cpu and cuda"
        )
    if provider == "cuda" and not torch.cuda.is_available():
        raise LabelError("--provider cuda: torch finds no GPU here; leave it out")
    device = "cuda" if provider != "cpu" and torch.cuda.is_available() else "cpu"
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise LabelError(f"{path}: not a TorchScript network: {' '.join(str(error).split())[:300]}") from None

    def run(array: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = network(torch.from_numpy(array).to(device))
        if isinstance(out, dict):  # torchvision's segmentation networks
            out = out["out"]
        return out.cpu().numpy()

    return run
