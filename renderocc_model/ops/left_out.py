"""Which parts of the GPU path this process does without, because a check found that they cannot be relied on.

Where a part is left out, `backend="auto"` takes the reference in its place. Who names a backend gets what is named.
"""

from __future__ import annotations

__all__ = ["GPU_PARTS", "leave_out", "left_out", "use_again"]

# name -> what it is, and what does its work where it is left out.
GPU_PARTS = {
    "voxel_pooling": ("the Triton kernels of voxel pooling", "PyTorch"),
    "visibility": ("the Triton kernels of visibility", "PyTorch"),
    "render": ("the Triton kernels of rendering", "PyTorch"),
    "termination": ("the Triton kernels of ray termination", "PyTorch"),
    "resample": ("the Triton kernel that makes views of images", "the CPU"),
    "cuda_graph": ("the CUDA graph", "launches one by one"),
    "nvjpeg": ("nvJPEG", "the CPU's decoder"),
}

_left_out: dict[str, str] = {}


def leave_out(part: str, reason: str) -> None:
    """Do without a part from now on, in this process, on all devices.

    Args:
        part: a name in GPU_PARTS.
        reason: what was found, for diagnostics.
    Raises:
        ValueError: there is no such part.
    """
    if part not in GPU_PARTS:
        raise ValueError(f"part is {part!r}; expected one of {', '.join(GPU_PARTS)}")
    _left_out[part] = reason


def left_out() -> dict[str, str]:
    """The parts that are left out, and why."""
    return dict(_left_out)


def use_again() -> None:
    """Leave nothing out."""
    _left_out.clear()
