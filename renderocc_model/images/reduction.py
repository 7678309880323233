"""Sizes of pictures and their reduction by powers of two, for all encodings."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["FACTORS", "LARGEST_SIDE", "MAX_PIXELS", "ImageError", "halved", "reduced", "whole_blocks"]

MAX_PIXELS = 64_000_000  # a picture with more is refused before memory is taken for it
LARGEST_SIDE = 32768
FACTORS = (1, 2, 4, 8)


class ImageError(ValueError):
    """Image bytes that cannot be decoded; the message says what came, what was expected and what to do."""


def halved(picture: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels; OpenCV has a vector path for this one reduction, twice it is faster than 4 x 4 at once."""
    return cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)


def reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    while factor > 1:
        picture, factor = halved(picture), factor // 2
    return picture


def whole_blocks(height: int, width: int, factor: int, region: tuple[slice, slice] | None) -> tuple[slice, slice]:
    """Rows and columns to read: the region, or all, without what does not fill a block of factor x factor pixels."""
    parts = []
    for name, size, part in zip(("rows", "columns"), (height, width), region or (slice(0, height), slice(0, width))):
        if not 0 <= part.start < part.stop <= size or part.start % (2 * factor):
            raise ImageError(
                f"region {name} {part.start}..{part.stop} do not fit an image of {width}x{height} at factor {factor}"
            )
        parts.append(slice(part.start, part.start + (part.stop - part.start) // factor * factor))
    if any(part.stop == part.start for part in parts):
        raise ImageError(f"image is {width}x{height}; too small to reduce by {factor}")
    return parts[0], parts[1]
