"""Encodes images and labels as the files that a recording holds."""

from __future__ import annotations

import cv2
import numpy as np

from training.recordings.label_images import depth_png, semantic_png

__all__ = ["JPEG_QUALITY", "encode"]

JPEG_QUALITY = 92


def encode(
    image: np.ndarray, semantic: np.ndarray | None, depth: np.ndarray | None, quality: int = JPEG_QUALITY
) -> dict[str, bytes]:
    """The files of a camera image: JPEG of the image, PNGs of the labels (depth in millimetres, 0 beyond 65.5 m)."""
    files = {"image_raw": cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()}
    if semantic is not None:
        files["semantic"] = semantic_png(semantic)
    if depth is not None:
        files["depth"] = depth_png(depth)
    return files
