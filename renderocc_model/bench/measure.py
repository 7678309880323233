"""What benches measure with: clocks, peak memory and the speed of a copy, on the CPU and on CUDA devices."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["copy_speed", "peak_bytes", "reset_peak", "stopwatch"]


def stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """A clock that starts now. Each call marks a time; it returns a function that waits for the device and gives
    seconds."""
    if device.type != "cuda":
        start = time.perf_counter()
        return lambda: (lambda seconds: lambda: seconds)(time.perf_counter() - start)
    began = torch.cuda.Event(enable_timing=True)
    began.record()

    def mark() -> Callable[[], float]:
        event = torch.cuda.Event(enable_timing=True)
        event.record()

        def seconds() -> float:
            event.synchronize()
            return began.elapsed_time(event) / 1e3

        return seconds

    return mark


def copy_speed(device: torch.device | str, size: int = 2**29) -> float:
    """Bytes a second, read and written, of copying `size` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(10):
        clock = stopwatch(source.device)
        target.copy_(source)
        times.append(clock()())
    return 2 * size / min(times)


def reset_peak(device: torch.device) -> int:
    """Restart the measurement of peak memory; returns the bytes in use now.

    On the CPU these are the whole process's bytes; free memory is first returned to the system.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes(device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes in use since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
