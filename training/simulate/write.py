"""A picture as the files that a recording holds."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["encode"]

_JPEG_QUALITY = 92


def encode(image: np.ndarray, semantic: np.ndarray | None, depth: np.ndarray | None) -> dict[str, bytes]:
    """A picture as files: JPEG of the image, PNG of the labels (depth in millimetres, 0 beyond 65.5 m)."""
    files = {
        "image_raw": cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    }
    if semantic is not None:
        files["semantic"] = cv2.imencode(".png", semantic, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
    if depth is not None:
        millimetres = np.where(depth < 65.535, np.rint(depth * 1000), 0).astype(np.uint16)
        files["depth"] = cv2.imencode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return files
