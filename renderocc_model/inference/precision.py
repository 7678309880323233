"""On which device and in which precision a network runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

__all__ = [
    "OPENVINO_DEVICES",
    "PRECISIONS",
    "autocast",
    "chosen_device",
    "chosen_precision",
    "cpu_multiplies_bfloat16",
    "exported_device",
    "exported_precision",
    "openvino_device",
    "openvino_precision",
]

OPENVINO_DEVICES = ("cpu", "intel_gpu", "intel_npu")
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which a network runs in a precision, a key of PRECISIONS."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, PRECISIONS[precision])


def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it (AVX512-BF16, AMX); elsewhere it is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def openvino_device(device: torch.device | str) -> str:
    """The device of a network in OpenVINO: "auto" is the CPU.

    Raises:
        ValueError: OpenVINO has no such device.
    """
    found = "cpu" if str(device) == "auto" else str(device)
    if found not in OPENVINO_DEVICES:
        raise ValueError(
            f"device is '{device}', on which OpenVINO does not run; use {', '.join(OPENVINO_DEVICES)}, or backend torch"
        )
    return found


def openvino_precision(precision: str, device: str, quantised: bool = False) -> str:
    """The precision of a network in OpenVINO for "auto", or the one that is named.

    Args:
        device: as `openvino_device` gives it.
        quantised: most layers compute in INT8, and this is for the rest. On CPUs "auto" is float32 then: INT8 layers
            get and give float32 faster than bfloat16.
    Raises:
        ValueError: there is no such precision, or not on the device.
    """
    if device == "cpu":
        if quantised and precision == "auto":
            return "float32"
        return chosen_precision(precision, torch.device("cpu"))
    if precision == "auto":
        return "float16"
    if precision not in ("float32", "float16"):
        raise ValueError(f"precision is '{precision}'; on {device} choose auto, float32 or float16")
    return precision


def chosen_device(device: torch.device | str) -> torch.device:
    """The device for "auto" (CUDA where there is any, else the CPU), or the one that is named.

    Raises:
        ValueError: it is not there.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(device) in OPENVINO_DEVICES[1:]:
        raise ValueError(f"device is '{device}', which backend openvino runs on; set backend to openvino")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is '{device}', but torch sees no CUDA device; check nvidia-smi, or use device 'cpu'")
    return chosen


def chosen_precision(precision: str, device: torch.device) -> str:
    """The precision for "auto" (16 bits where the device multiplies them fast), or the one that is named.

    Raises:
        ValueError: there is no such precision, or not on the device.
    """
    if precision == "auto":
        on_cpu = "bfloat16" if cpu_multiplies_bfloat16() else "float32"
        return "float16" if device.type == "cuda" else on_cpu
    if precision not in PRECISIONS:
        raise ValueError(f"precision is '{precision}'; choose auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 needs CUDA; on the CPU use float32, or bfloat16 where the CPU has it")
    return precision


def exported_device(device: torch.device | str, backend: str) -> torch.device:
    """`chosen_device` for an exported network: with "auto", onnxruntime works on the CPU."""
    return chosen_device("cpu" if backend == "onnxruntime" and str(device) == "auto" else device)


def exported_precision(precision: str, backend: str) -> str:
    """`chosen_precision` for an exported network, whose backend decides."""
    if precision == "auto":
        return "float16" if backend == "tensorrt" else "float32"
    if precision not in PRECISIONS or (backend == "tensorrt" and precision == "bfloat16"):
        raise ValueError(f"precision is '{precision}'; choose auto, float32, or with backend tensorrt float16")
    return precision
