"""Reads and writes 2D label images: class ids (mono8), and z-depth (16UC1 in millimetres or 32FC1 in metres)."""

from __future__ import annotations

import cv2
import numpy as np

from renderocc_model.images.decoding import check_png_chunks, compressed_size
from renderocc_model.images.reduction import ImageError
from renderocc_model.rosio.cdr_messages import CompressedImageMessage, ImageMessage

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
    """The label image cannot be used. The text says what came, what was expected and what to do."""


def semantic_image(message: ImageMessage | CompressedImageMessage, height: int, width: int) -> np.ndarray:
    """Decode class ids.

    Args:
        message: PNG of one 8-bit channel, or raw mono8 / 8UC1.
        height, width: size of the camera's image. Label and image have the same pixels.
    Returns:
        (height, width) uint8; 255 is unlabelled.
    Raises:
        LabelImageError: the size, type or encoding is wrong, or the data is damaged.
    """
    if isinstance(message, CompressedImageMessage):
        image = png_image(message.data, height, width)
        if image.dtype != np.uint8 or image.ndim != 2:
            raise LabelImageError(f"semantic label is {_kind(image)}; write a PNG of one 8-bit channel, class ids")
        return image
    return raw_channel(message, height, width, {"mono8": np.uint8, "8UC1": np.uint8}, "semantic")


def depth_image(message: ImageMessage | CompressedImageMessage, height: int, width: int) -> np.ndarray:
    """Decode z-depth.

    Args:
        message: PNG of one 16-bit channel in millimetres, or raw 16UC1 / mono16 in millimetres or 32FC1 in metres.
        height, width: size of the camera's image.
    Returns:
        (height, width) float32 metres along the optical axis; 0 is unknown. NaN and infinity become 0.
    Raises:
        LabelImageError: the size, type or encoding is wrong, or the data is damaged.
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
        raise LabelImageError(f"depth label holds {image.min():g} m; write 0 or NaN where the depth is unknown")
    return np.where(np.isfinite(image), image, np.float32(0))


def semantic_png(classes: np.ndarray) -> bytes:
    """Encode class ids, (H, W) uint8, as a PNG that `semantic_image` reads."""
    return cv2.imencode(".png", classes, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def depth_png(depth: np.ndarray) -> bytes:
    """Encode z-depth, (H, W) metres, as a PNG that `depth_image` reads. 65.535 m and more becomes 0, unknown."""
    millimetres = np.where(depth < FARTHEST, np.rint(depth * 1000), 0).astype(np.uint16)
    return cv2.imencode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def png_image(data: np.ndarray, height: int, width: int) -> np.ndarray:
    """Decode a PNG without any conversion; colours are in the order blue, green, red.

    Raises:
        LabelImageError: it is damaged, or has another size.
    """
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
    """Decode a raw image of one channel, to native byte order.

    Args:
        encodings: {encoding: NumPy type} of those that are allowed.
        what: the label's kind, for error texts.
    Raises:
        LabelImageError: the size or the encoding is wrong, or the number of bytes does not fit them.
    """
    _check_size(message.height, message.width, height, width)
    if message.encoding not in encodings:
        raise LabelImageError(f"{what} label is encoded as '{message.encoding}'; expected {' or '.join(encodings)}")
    kind = np.dtype(encodings[message.encoding])
    row = width * kind.itemsize
    if message.step < row or message.data.size != message.step * height:
        raise LabelImageError(
            f"{what} label has {message.data.size} bytes at step {message.step}; expected {height} rows of at least "
            f"{row} bytes"
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
