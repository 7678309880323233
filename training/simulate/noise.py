"""Random numbers that depend on position alone: 1/f noise on surfaces, and hashes."""

from __future__ import annotations

import numpy as np

from .loops import read_noise

__all__ = ["noise", "scramble"]

_SIZE = 512  # texels of the noise tile, a power of two
_LEVELS = 10


def _make_noise() -> tuple[np.ndarray, np.ndarray]:
    """A tileable 1/f noise tile of unit variance and its averages over 2x2, 4x4, ... texels, in one flat array."""
    rng = np.random.default_rng(20240131)
    frequency = np.hypot(np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)[None]) * _SIZE
    spectrum = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE))) / np.maximum(frequency, 2.0) ** 1.1
    spectrum[0, 0] = 0
    tile = np.fft.irfft2(spectrum, s=(_SIZE, _SIZE))
    tile = (tile / tile.std()).astype(np.float32)
    levels, starts = list[np.ndarray](), list[int]()
    for _ in range(_LEVELS):
        starts.append(sum(level.size for level in levels))
        levels.append(tile)
        tile = tile.reshape(tile.shape[0] // 2, 2, tile.shape[1] // 2, 2).mean((1, 3)) if tile.shape[0] > 1 else tile
    return np.concatenate([level.ravel() for level in levels]), np.array(starts, np.int32)


_NOISE, _STARTS = _make_noise()


def noise(s: np.ndarray, t: np.ndarray, texel: float, footprint: np.ndarray) -> np.ndarray:
    """1/f noise of unit variance at points of a surface.

    Args:
        s, t: (N,) metres.
        texel: metres of the finest detail; the pattern repeats after 512 of them.
        footprint: (N,) metres that a pixel covers there. If it is larger than `texel`, averages are read.
    """
    result = np.empty(len(s), np.float32)
    read_noise(_NOISE, _STARTS, _SIZE, *_rows(s, t), np.float32(1 / texel), *_rows(footprint), result)
    return result


def _rows(*values: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(value, np.float32) for value in values]


def scramble(*keys: np.ndarray | np.floating) -> np.ndarray:
    """A hash: pseudo-random numbers in [0, 1), the same for the same keys."""
    total = np.zeros(np.broadcast_shapes(*(np.shape(key) for key in keys)), np.float64)
    for index, key in enumerate(keys):
        total = total + np.asarray(key, np.float64) * (12.9898, 78.233, 37.719, 93.989)[index]
    return ((np.sin(total) * 43758.5453) % 1.0).astype(np.float32)
