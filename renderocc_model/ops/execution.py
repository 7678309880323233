"""What operators need to run their compiled loops: the choice of a backend, its module, threads, and the device."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import torch

from .left_out import left_out

__all__ = [
    "BACKENDS",
    "OLDEST_TRITON",
    "PRIVATE_BYTES",
    "choose_backend",
    "choose_without_triton",
    "cpu_loops_of",
    "device_obstacle",
    "float32_array",
    "in_threads",
    "on_device",
    "runs_of_equal_work",
    "triton_loops_of",
]

BACKENDS = ("auto", "reference", "cpu", "triton")
OLDEST_TRITON = "3.2"  # the first with `gather`; it comes with PyTorch 2.6
PRIVATE_BYTES = 2**29  # most address space for the threads' own gradients; voxels that no ray touches take no memory


def choose_backend(backend: str, obstacle: Callable[[str], str | None], operator: str = "") -> str:
    """Which implementation an operator takes; whether what it needs is installed does not count.

    Args:
        backend: one of BACKENDS; "auto" takes the first of "cpu" and "triton" that nothing keeps from it, or else
            "reference". A "triton" that is left out (`ops.left_out`) is not taken by "auto".
        obstacle: what keeps "cpu" or "triton" from what is asked, None if nothing does; nothing keeps the reference.
            Often `device_obstacle`.
        operator: its name in `left_out.GPU_PARTS`, if it has Triton kernels.
    Raises:
        ValueError: the backend is unknown or cannot do what is asked.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    if backend == "auto":
        chosen = next((name for name in ("cpu", "triton") if not obstacle(name)), "reference")
        return "reference" if chosen == "triton" and operator in left_out() else chosen
    if backend != "reference" and (found := obstacle(backend)):
        raise ValueError(f"backend {backend!r} {found}; use backend='reference'")
    return backend


def device_obstacle(backend: str, device: torch.device, inputs: str) -> str | None:
    """What keeps the loops of "cpu" or "triton" from tensors on a device, None if nothing does.

    Triton's loops are for CUDA devices. They run on a CPU where Triton interprets them (TRITON_INTERPRET=1).

    Args:
        inputs: what errors call the tensors, with its verb: "the data are".
    """
    kinds = {"cpu"} if backend == "cpu" or os.environ.get("TRITON_INTERPRET") == "1" else set()
    kinds |= {"cuda"} if backend == "triton" else set()
    if device.type in kinds:
        return None
    return f"works on {'the CPU' if backend == 'cpu' else 'CUDA devices'}, and {inputs} on {device}"


def choose_without_triton(backend: str, tensor: torch.Tensor, name: str) -> str:
    """`choose_backend` of an operator with loops for CPUs alone, which work in float32.

    Args:
        tensor, name: the operator's input that decides, and what errors call it.
    """

    def obstacle(kind: str) -> str | None:
        if kind == "triton":
            return "has no loops for this operator"
        if elsewhere := device_obstacle(kind, tensor.device, f"the {name} are"):
            return elsewhere
        return f"works in float32, and the {name} are float64" if tensor.dtype == torch.float64 else None

    return choose_backend(backend, obstacle)


def cpu_loops_of(package: str, doing: str) -> ModuleType:
    """The module `cpu_loops` of an operator's package, which loads Numba.

    Args:
        doing: what needs the loops, as the subject of the error's sentence.
    Raises:
        ModuleNotFoundError: Numba is not installed.
    """
    return _load(f"{package}.cpu_loops", ("numba", "llvmlite"), f"{doing} on the CPU needs Numba", "numba")


def triton_loops_of(package: str, doing: str) -> ModuleType:
    """The module `triton_loops` of an operator's package, which loads Triton; as `cpu_loops_of`."""
    return _load(f"{package}.triton_loops", ("triton",), f"{doing} on a GPU needs Triton", f"'triton>={OLDEST_TRITON}'")


def _load(module: str, needed: Sequence[str], sentence: str, requirement: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in needed:
            raise
        raise ModuleNotFoundError(
            f"{sentence}: python3 -m pip install {requirement} (backend='reference' works without it, slowly)",
            name=error.name,
        ) from None


def float32_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers for compiled loops: float32, C-contiguous, without a copy where they are so already."""
    return tensor.detach().to(torch.float32).contiguous().numpy()


def in_threads(work: Callable, items: Sequence, threads: int) -> None:
    """Call `work` with each of the items, in threads that are gone on return; the first error is raised."""
    if threads == 1 or len(items) == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, items))


def runs_of_equal_work(order: np.ndarray, work: np.ndarray, parts: int) -> list[np.ndarray]:
    """Cut rows into `parts` runs of equal work; a row without work counts as a little work.

    Args:
        order: (R,) rows in the order in which they are worked on.
        work: (R,) of each row.
    """
    ends = (work[order] + 4).cumsum()
    cuts = ends.searchsorted(np.arange(1, parts) * (int(ends[-1]) / parts)) if len(ends) else [0] * (parts - 1)
    return np.split(order, cuts)


def on_device(device: torch.device):
    """Triton launches on the current device, which need not be that of the data."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
