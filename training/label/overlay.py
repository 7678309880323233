"""Draws previews: an image with its depth labels, and below it the image with its classes."""

from __future__ import annotations

import cv2
import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable

__all__ = ["overlay"]

_FAR = 60.0  # metres; all larger distances have the same colour
_DIM = 0.45  # brightness of the image under its labels
_DENSE = 0.3  # share of labelled pixels; denser labels are blended with the image, others are drawn as dots


def overlay(image: np.ndarray, depth: np.ndarray, semantic: np.ndarray | None, classes: ClassTable) -> np.ndarray:
    """Draw depth (red is near, blue is far) over an image and, below, classes in the colours of their table.

    Args:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) metres; 0 is unknown.
        semantic: (H, W) uint8 class ids; 255 is unlabelled. None without classes.
        classes: the class table.
    Returns:
        (2 H, W, 3) uint8 RGB, or (H, W, 3) without classes.
    """
    # A logarithmic scale gives near and far objects the same number of colours.
    share = np.log(np.clip(depth, 1.0, _FAR)) / np.log(_FAR)
    turbo = cv2.applyColorMap(np.rint(255 * (1 - share)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    pictures = [_painted(image, turbo, depth > 0)]
    if semantic is not None:
        pictures.append(_painted(image, classes.palette()[semantic], semantic != UNLABELLED))
    return np.vstack(pictures)


def _painted(image: np.ndarray, colours: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    dim = (image * _DIM).astype(np.uint8)
    if labelled.mean() > _DENSE:
        blend = (0.5 * image + 0.5 * colours).astype(np.uint8)
        return np.where(labelled[..., None], blend, dim)
    picture = np.ascontiguousarray(dim)
    radius = max(1, round(image.shape[1] / 700))
    rows, columns = np.nonzero(labelled)
    for row, column, colour in zip(rows.tolist(), columns.tolist(), colours[rows, columns].tolist()):
        cv2.circle(picture, (column, row), radius, colour, cv2.FILLED)
    return picture
