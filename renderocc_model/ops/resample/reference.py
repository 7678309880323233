"""Resampling one pass after the other, on the CPU: what `decode_raw`, `UndistortTable.apply` and `normalise` do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...geometry.undistortion import UndistortTable
from ...images.encodings import decode_raw
from ...images.preprocessing import normalise
from .layout import PLANAR, PixelLayout

__all__ = ["resample"]


def resample(data: Tensor, layout: PixelLayout, table: UndistortTable, out: Tensor) -> None:
    """What `ops.resample.resample` does, with arguments that it has checked."""
    whole, encoding, step = _all_rows(data.numpy(), layout)
    picture = decode_raw(
        whole, layout.height, layout.width, step, encoding, layout.is_bigendian, table.factor, table.region
    )
    view = torch.from_numpy(table.apply(picture))
    out.copy_(view if out.dtype == torch.uint8 else normalise(view))


def _all_rows(data: np.ndarray, layout: PixelLayout) -> tuple[np.ndarray, str, int]:
    """Bytes, encoding and step of the picture with grey rows where there are none."""
    first, last = layout.first_row, layout.first_row + layout.row_count
    if layout.encoding == PLANAR:
        picture = np.full((layout.height, layout.width, 3), 128, np.uint8)
        picture[first:last] = data.reshape(3, layout.row_count, layout.step)[:, :, : layout.width].transpose(1, 2, 0)
        return picture.reshape(-1), "rgb8", 3 * layout.width
    rows = layout.height * 3 // 2 if layout.encoding == "nv12" else layout.height
    picture = np.full((rows, layout.step), 128, np.uint8)
    there = data.reshape(-1, layout.step)
    picture[first:last] = there[: layout.row_count]
    if layout.encoding == "nv12":
        picture[layout.height + first // 2 : layout.height + last // 2] = there[layout.row_count :]
    return picture.reshape(-1), layout.encoding, layout.step
