"""2D label images as they lie in recordings: class ids (mono8) and z-depth (16UC1 millimetres or 32FC1 metres)."""

from __future__ import annotations

import cv2
import numpy as np

from renderocc_model.images.decoding import ImageError, check_png_chunks, compressed_size
from renderocc_model.rosio.cdr_reader import CompressedImageMessage, ImageMessage

__all__ = [
    "FARTHEST",
    "LabelImageError",
    "depth_image",
    "depth_png",
    "png_image",
    "raw_channel",
    "semantic_image",
    "semantic_png",
]

FARTHEST = 65.535  # metres that 16 bits of millimetres hold


class LabelImageError(ValueError):
    """A label image that cannot be used; says what came, what was expected and what to do."""


def semantic_image(message: ImageMessage | CompressedImageMessage, height: int, width: int) -> np.ndarray:
    """Class ids of a label image.

    Args:
        message: PNG of one 8-bit channel, or raw mono8 / 8UC1.
        height, width: the camera's size; labels lie in its distorted image plane, pixel for pixel.
    Returns:
        (height, width) uint8; 255 unlabelled.
    Raises:
        LabelImageError: another size, type or encoding, or damaged.
    """
    if isinstance(message, CompressedImageMessage):
        image = png_image(message.data, height, width)
        if image.dtype != np.uint8 or image.ndim != 2:
            raise LabelImageError(f"semantic label is {_kind(image)}; write a PNG of one 8-bit channel, class ids")
        return image
    return raw_channel(message, height, width, {"mono8": np.uint8, "8UC1": np.uint8}, "semantic")


def depth_image(message: ImageMessage | CompressedImageMessage, height: int, width: int) -> np.ndarray:
    """z-depth of a label image.

    Args:
        message: PNG of one 16-bit channel in millimetres, or raw 16UC1 / mono16 in millimetres or 32FC1 in metres.
        height, width: the camera's size.
    Returns:
        (height, width) float32 metres along the optical axis; 0 where there is none (NaN and infinity become 0).
    Raises:
        LabelImageError: another size, type or encoding, or damaged.
    """
    if isinstance(message, CompressedImageMessage):
        image = png_image(message.data, height, width)
        if image.dtype != np.uint16 or image.ndim != 2:
            raise LabelImageError(f"depth label is {_kind(image)}; write a PNG of one 16-bit channel, millimetres")
    else:
        encodings = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
        image = raw_channel(message, height, width, encodings, "depth")
    if image.dtype == np.uint16:
        return image.astype(np.float32) * np.float32(0.001)
    if (image < 0).any():
        raise LabelImageError(f"depth label holds {image.min():g} m; depths are positive, 0 or NaN where there is none")
    return np.where(np.isfinite(image), image, np.float32(0))


def semantic_png(classes: np.ndarray) -> bytes:
    """The PNG that `semantic_image` reads back: class ids, (H, W) uint8."""
    return cv2.imencode(".png", classes, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def depth_png(depth: np.ndarray) -> bytes:
    """The PNG in millimetres that `depth_image` reads back: (H, W) metres, 0 for none; none is left beyond 65.535 m."""
    millimetres = np.where(depth < FARTHEST, np.rint(depth * 1000), 0).astype(np.uint16)
    return cv2.imencode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def png_image(data: np.ndarray, height: int, width: int) -> np.ndarray:
    """A PNG of this size as it is stored, colours blue first; LabelImageError where it is damaged or another size."""
    try:
        found = compressed_size(data)
    except ImageError as error:
        raise LabelImageError(f"label image cannot be read: {error}") from None
    _check_size(*found, height, width)
    if bytes(data[:4]) != b"\x89PNG":
        raise LabelImageError("label image is a JPEG, which changes ids and depths; write PNG")
    try:
        check_png_chunks(data)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (ImageError, cv2.error) as error:
        raise LabelImageError(f"label image of {data.size} bytes cannot be decoded: {error}") from None
    if image is None or image.shape[:2] != (height, width):
        raise LabelImageError(f"label image of {data.size} bytes cannot be decoded; its PNG is cut off or corrupt")
    return image


def raw_channel(message: ImageMessage, height: int, width: int, encodings: dict, what: str) -> np.ndarray:
    """The one channel of a raw image in native byte order; `encodings` are those that may come and their types.

    Raises:
        LabelImageError: another size, another encoding, or not as many bytes as it says.
    """
    _check_size(message.height, message.width, height, width)
    if message.encoding not in encodings:
        raise LabelImageError(f"{what} label is encoded as '{message.encoding}'; expected {' or '.join(encodings)}")
    kind = np.dtype(encodings[message.encoding])
    row = width * kind.itemsize
    if message.step < row or message.data.size != message.step * height:
        raise LabelImageError(
            f"{what} label has {message.data.size} bytes at step {message.step}; {height} rows of at least {row} bytes "
            "were expected"
        )
    order = ">" if message.is_bigendian else "<"
    rows = np.ascontiguousarray(message.data.reshape(height, message.step)[:, :row])
    return rows.view(kind.newbyteorder(order)).astype(kind, copy=False)


def _check_size(found_height: int, found_width: int, height: int, width: int) -> None:
    if (found_height, found_width) != (height, width):
        raise LabelImageError(
            f"label image is {found_width}x{found_height} but the camera is {width}x{height}; write labels in the "
            "camera's own image plane, pixel for pixel"
        )


def _kind(image: np.ndarray) -> str:
    return f"{image.dtype} with {1 if image.ndim == 2 else image.shape[2]} channel(s)"
