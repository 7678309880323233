"""Numbers a network is run in: their names, what a CPU is good at, and the context that runs in them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

__all__ = ["PRECISIONS", "autocast", "cpu_multiplies_bfloat16"]

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
