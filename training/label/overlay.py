"""Pictures to look at: a camera's image with its depth labels above, and with its classes below."""

from __future__ import annotations

import cv2
import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable

__all__ = ["overlay"]

_FAR = 60.0  # metres at which the colours of distance end
_DIM = 0.45  # brightness of the image under its labels
_DENSE = 0.3  # share of labelled pixels from which labels are blended in, not drawn as dots


def overlay(image: np.ndarray, depth: np.ndarray, semantic: np.ndarray | None, classes: ClassTable) -> np.ndarray:
    """The image with depth (red is near, blue far), and below it with classes in their table's colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) metres, 0 where there is none.
        semantic: (H, W) uint8 class ids, 255 unlabelled; None where there are no classes.
        classes: their table.
    Returns:
        (2 H, W, 3) uint8 RGB, or (H, W, 3) without classes.
    """
    # Logarithmic: near things take as many colours as far ones.
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
