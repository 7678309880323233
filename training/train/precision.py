"""The precision in which a network is trained."""

from __future__ import annotations

import torch

from renderocc_model.inference.precision import cpu_multiplies_bfloat16

__all__ = ["training_precision"]


def training_precision(precision: str, device: torch.device) -> str:
    """The precision on a device. `auto` is bfloat16 if the device multiplies it, else float16 on CUDA, float32 on CPUs.

    Raises:
        ValueError: float16 on a CPU.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision is float16, which needs CUDA; on the CPU use auto, float32 or bfloat16")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if cpu_multiplies_bfloat16() else "float32"
