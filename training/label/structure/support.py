"""Counts, for each label of an image, neighbours with a similar depth: wrong matches stand alone."""

from __future__ import annotations

import numpy as np

__all__ = ["similar_neighbours"]

_NEAREST = 10  # neighbours that are looked at
_RADIUS = 0.06  # of the image's width, within which they lie
_SIMILAR = 0.1  # largest difference of the depths' logarithms
_ROWS = 512  # labels at a time, for the sake of memory


def similar_neighbours(pixels: np.ndarray, depth: np.ndarray, width: int) -> np.ndarray:
    """How many of the ten nearest labels of an image have a depth that differs by no more than a tenth, (N,) int.

    Args:
        pixels: (N, 2); labels at the same pixel do not count for each other.
        depth: (N,) z-depth, metres; labels behind the camera count for none.
        width: of the image, pixels. Labels farther away than 6 % of it do not count.
    """
    counts = np.zeros(len(pixels), np.int64)
    height = np.log(np.maximum(depth, 1e-3))
    take = min(_NEAREST, len(pixels))
    for first in range(0, len(pixels), _ROWS):
        rows = slice(first, first + _ROWS)
        apart = np.square(pixels[rows, None] - pixels[None]).sum(axis=2)
        apart[(apart < 1.0) | (depth <= 0)[None]] = np.inf
        nearest = np.argpartition(apart, take - 1, axis=1)[:, :take]
        close = np.take_along_axis(apart, nearest, axis=1) < (_RADIUS * width) ** 2
        similar = np.abs(height[nearest] - height[rows, None]) < _SIMILAR
        counts[rows] = (close & similar).sum(axis=1)
    return counts
