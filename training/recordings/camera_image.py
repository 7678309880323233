"""Decodes an image of a recording, and holds its size against the camera's calibration."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.images.decoding import decode_compressed
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio import cdr

__all__ = ["camera_image"]


def camera_image(message: cdr.ImageMessage | cdr.CompressedImageMessage, model: CameraModel) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB of a message.

    Raises:
        ValueError: it cannot be decoded, or has another size than the camera_info says.
    """
    if isinstance(message, cdr.CompressedImageMessage):
        image = decode_compressed(message.data)
    else:
        image = decode_raw(*message.pixel_arguments)
    if image.shape[:2] != (model.height, model.width):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ValueError(
            f"image is {size} but camera_info says {model.width}x{model.height}; record a matching camera_info"
        )
    return image
