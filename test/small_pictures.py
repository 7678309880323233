"""Small pictures for the tests of decoding, and their reduction by independent arithmetic."""

import numpy as np

HEIGHT, WIDTH = 48, 64


def noise(*shape):
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def smooth_picture(height=HEIGHT, width=WIDTH):
    """(height, width, 3) float RGB that changes by less than 4 levels a pixel, inside what BT.601 can hold."""
    row, column = np.mgrid[:height, :width]
    waves = np.stack([np.sin(column / 18), np.cos(row / 14), np.sin((row + column) / 22)], axis=-1)
    return 128 + 50 * waves


def blocks(picture, factor):
    """Mean over factor x factor blocks; what fills no block is left out."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    whole = picture[: height * factor, : width * factor].astype(float)
    return whole.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))
