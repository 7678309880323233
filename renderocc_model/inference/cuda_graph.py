"""Record the work that a function launches on a GPU, to launch it again as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["record_graph"]

_WARM_UPS = 3  # runs before the recording: the first compiles and chooses kernels and takes memory
T = TypeVar("T")


def record_graph(function: Callable[[], T], device: torch.device) -> Callable[[], T]:
    """Record a function that works on fixed memory as a CUDA graph.

    Its result lies in memory of the graph: each replay overwrites it. Convolution algorithms are chosen by timing them,
    as sizes will not change.

    Args:
        function: launches the same work in every call, and never waits for the device.
        device: a CUDA device.
    Returns:
        launches the work, on the current stream, without waiting for it.
    Raises:
        RuntimeError: something in the function cannot be recorded.
    """
    chosen_by_trying = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with torch.cuda.device(device):
            aside, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    function()
            current.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may decode pictures on the device meanwhile.
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                result = function()
    finally:
        torch.backends.cudnn.benchmark = chosen_by_trying

    def replay() -> T:
        with torch.cuda.device(device):
            graph.replay()
        return result

    return replay
