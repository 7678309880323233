"""Camera bytes to the network's view in one pass: reduce, convert colours, undistort, crop, normalise.

Implementations of one signature, compared with each other in the tests:

    reference       the path of CPUs, `decode_raw` and `UndistortTable.apply`, one pass after the other
    triton          one kernel on CUDA devices (`triton_kernel`)

Both work in the same fixed-point numbers: from raw images they make the same view, byte for byte. Only for reduced nv12
they sometimes differ by one level.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..left_out import left_out
from .layout import PLANAR, PixelLayout

if TYPE_CHECKING:
    import torch

    from ...geometry.undistortion import UndistortTable

__all__ = ["BACKENDS", "PLANAR", "PixelLayout", "resample"]

BACKENDS = ("auto", "reference", "triton")


def resample(
    data: torch.Tensor,
    layout: PixelLayout,
    table: UndistortTable,
    dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """A camera's view of the bytes of its picture.

    Args:
        data: (bytes,) uint8 on the device that does the work.
        layout: of these bytes; at least the rows of `table.region` are there.
        table: of the camera and its view.
        dtype: uint8 (the default), or float32, float16, bfloat16: normalised as by `images.preprocessing.normalise`.
        out: where the result is written, of its type and shape, with any strides; new memory if not given.
        backend: "reference", for the CPU; "triton", for CUDA devices; or "auto", by the device. Where the kernel
            is left out (`ops.left_out`), the data of a CUDA device are brought to the CPU and the view back.
    Returns:
        (height, width, 3) uint8 RGB, or (3, height, width) normalised, channels last in memory.
    Raises:
        ValueError: data, layout and table do not fit together, or the backend is unknown or not for that device.
        ImportError: Triton is wanted and not installed.
    """
    import torch

    from ..execution import device_obstacle

    dtype = dtype or (torch.uint8 if out is None else out.dtype)
    _check(data, layout, table, dtype, out)
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(map(repr, BACKENDS))}")
    if backend == "auto" and data.device.type != "cpu" and "resample" in left_out():
        made = resample(data.cpu(), layout, table, dtype, backend="reference").to(data.device)
        return made if out is None else out.copy_(made)
    if backend == "auto":
        backend = "reference" if data.device.type == "cpu" else "triton"
    chosen = importlib.import_module(f".{'reference' if backend == 'reference' else 'triton_kernel'}", __name__)
    if obstacle := device_obstacle("cpu" if backend == "reference" else backend, data.device, "the data are"):
        raise ValueError(f"backend {backend!r} {obstacle}")
    if out is None:
        height, width = table.view.height, table.view.width
        out = torch.empty((height, width, 3), dtype=dtype, device=data.device)
        out = out if dtype == torch.uint8 else out.permute(2, 0, 1)
    chosen.resample(data, layout, table, out)
    return out


def _check(data: torch.Tensor, layout: PixelLayout, table: UndistortTable, dtype: torch.dtype, out) -> None:
    import torch

    from ...images.encodings import ENCODINGS

    model, view, rows = table.model, table.view, table.region[0]
    if layout.encoding not in (*ENCODINGS, PLANAR):
        raise ValueError(f"encoding is '{layout.encoding}'; expected one of {', '.join((*ENCODINGS, PLANAR))}")
    if (layout.width, layout.height) != (model.width, model.height):
        raise ValueError(f"picture is {layout.width}x{layout.height}; the table is for {model.width}x{model.height}")
    if data.dtype != torch.uint8 or data.ndim != 1 or not data.is_contiguous() or data.numel() != layout.size:
        raise ValueError(f"data are {data.dtype} of shape {tuple(data.shape)}; expected {layout.size} bytes in a row")
    last = layout.first_row + layout.row_count
    if layout.first_row % 2 or last % 2 and last != layout.height or layout.first_row > rows.start or last < rows.stop:
        raise ValueError(f"rows {layout.first_row}..{last} are there; expected {rows.start}..{rows.stop}, in pairs")
    shape = (view.height, view.width, 3) if dtype == torch.uint8 else (3, view.height, view.width)
    if dtype not in (torch.uint8, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype is {dtype}; expected uint8, float32, float16 or bfloat16")
    if out is not None and (out.dtype != dtype or tuple(out.shape) != shape or out.device != data.device):
        raise ValueError(
            f"out is {out.dtype} of shape {tuple(out.shape)} on {out.device}; expected {dtype} {shape} on {data.device}"
        )
