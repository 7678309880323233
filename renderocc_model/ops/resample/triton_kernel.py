"""Resampling on GPUs: the kernel of `triton_loops`, its arguments, and the tables' maps on the device."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...geometry.undistortion import FILL_COLOUR, UndistortTable
from ...images.preprocessing import IMAGE_MEAN, IMAGE_STD
from .layout import PLANAR, PixelLayout

__all__ = ["resample"]

BLOCK = 128  # pixels of a program, four warps

# encoding: (name of the layout, bytes per pixel, its FIRST and SECOND); see `triton_loops.resample`.
_LAYOUTS = {
    PLANAR: ("COLOURS", 1, -1, -1),
    "rgb8": ("COLOURS", 3, 0, 2),
    "bgr8": ("COLOURS", 3, 2, 0),
    "rgba8": ("COLOURS", 4, 0, 2),
    "bgra8": ("COLOURS", 4, 2, 0),
    "mono8": ("COLOURS", 1, 0, 0),
    "mono16": ("MONO16", 2, 0, 0),
    "yuv422": ("PACKED", 2, 1, 0),
    "uyvy": ("PACKED", 2, 1, 0),
    "yuv422_yuy2": ("PACKED", 2, 0, 0),
    "yuyv": ("PACKED", 2, 0, 0),
    "nv12": ("NV12", 1, 0, 0),
    "bayer_rggb8": ("MOSAIC", 1, 0, 0),
    "bayer_bggr8": ("MOSAIC", 1, 1, 1),
    "bayer_gbrg8": ("MOSAIC", 1, 1, 0),
    "bayer_grbg8": ("MOSAIC", 1, 0, 1),
}
_SCALE = tuple(1 / (255 * std) for std in IMAGE_STD)
_OFFSET = tuple(-mean / std for mean, std in zip(IMAGE_MEAN, IMAGE_STD))

_maps: WeakKeyDictionary[UndistortTable, dict[torch.device, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def resample(data: Tensor, layout: PixelLayout, table: UndistortTable, out: Tensor) -> None:
    """What `ops.resample.resample` does, with arguments that it has checked; on the current stream."""
    loops = _loops()
    name, across, first, second = _LAYOUTS[layout.encoding]
    if layout.encoding == "mono16":
        first = int(layout.is_bigendian)
    places, fractions = _maps_on(table, data.device)
    rows, columns = table.region
    factor, top = table.factor, rows.start - layout.first_row
    bottom = top + (rows.stop - rows.start) // factor * factor
    right = columns.start + (columns.stop - columns.start) // factor * factor
    normalised = out.dtype != torch.uint8
    channel, row, column = out.stride() if normalised else (out.stride(2), out.stride(0), out.stride(1))
    pixels = table.view.height * table.view.width
    # Triton launches on the current device, which need not be the data's.
    with torch.cuda.device(data.device if data.device.type == "cuda" else -1):
        loops.resample[(-(-pixels // BLOCK),)](
            data,
            places,
            fractions,
            out,
            pixels,
            table.view.width,
            layout.step,
            layout.step * layout.row_count,
            top,
            columns.start,
            bottom,
            right,
            row,
            column,
            channel,
            LAYOUT=getattr(loops, name),
            FACTOR=factor,
            ACROSS=across,
            FIRST=first,
            SECOND=second,
            NORMALISED=normalised,
            SCALE=_SCALE,
            OFFSET=_OFFSET,
            FILL=FILL_COLOUR,
            BLOCK=BLOCK,
        )


def _maps_on(table: UndistortTable, device: torch.device) -> tuple[Tensor, Tensor]:
    """(pixels, 2) and (pixels,) int16; kept as long as the table is."""
    kept = _maps.setdefault(table, {})
    if device not in kept:
        kept[device] = tuple(torch.from_numpy(numbers).to(device) for numbers in table.fixed_point())
    return kept[device]


def _loops():
    """The module of the loops, which loads Triton."""
    try:
        from . import triton_loops
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ModuleNotFoundError(
            "camera images on a GPU need Triton: python3 -m pip install 'triton>=3.2' (decode them on the CPU without)",
            name=error.name,
        ) from None
    return triton_loops
