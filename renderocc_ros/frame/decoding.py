"""Decodes the images of a frame into the network's views, on the CPU or on the device that runs the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.encodings import ENCODINGS
from renderocc_model.images.preprocessing import view_from_compressed, view_from_raw, view_from_rgb
from renderocc_model.rosio import cdr
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_ros.input.intake import CameraImage

if TYPE_CHECKING:  # they load PyTorch, which takes seconds: the node is on the graph before that
    from torch import Tensor

    from renderocc_model.inference.device_decoding import DeviceDecoder


class ViewTables:
    """The resampling table of each camera. It is made when the calibration or the mount is new, and then kept.

    Args:
        height, width: size of the network's view.
    """

    REMOUNTED = 0.02  # radians; a mount that turns by more gets a new view, with its horizon in the middle

    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)
        self._kept: dict[str, tuple[CameraModel, np.ndarray, UndistortTable]] = {}

    def of(self, camera: str, model: CameraModel, mount: np.ndarray) -> UndistortTable:
        """The camera's table. mount: (4, 4) base_from_camera without ego motion."""
        kept = self._kept.get(camera)
        if kept is not None and kept[0] == model and np.abs(kept[1] - mount[:3, :3]).max() < self.REMOUNTED:
            return kept[2]
        table = UndistortTable(model, network_view(model, *self._size, mount))
        self._kept[camera] = (model, mount[:3, :3].copy(), table)
        return table


def message_of(image: CameraImage, pixels: PixelFormat | None = None) -> cdr.ImageMessage | cdr.CompressedImageMessage:
    """The message of an image, as the decoders read it.

    Args:
        image: raw or compressed.
        pixels: what is known of its camera's pixels, which looks at the image, too.
    Raises:
        ValueError: the message cannot be read, or its pixels are not what it says.
    """
    message = cdr.read_compressed_image(image.buffer) if image.compressed else cdr.read_image(image.buffer)
    if pixels is None:
        return message
    if not image.compressed and not pixels.knows(message.encoding) and not pixels.is_depth(message.encoding):
        return message  # for cv_bridge
    pixels.take(message)
    return pixels.plain(message)


def decode_view(
    image: CameraImage, table: UndistortTable, out: np.ndarray | None = None, pixels: PixelFormat | None = None
) -> np.ndarray:
    """Decode an image message and resample it into the network's view.

    Args:
        out: as in `UndistortTable.apply`.
        pixels: as for `message_of`.
    Returns:
        (height, width, 3) uint8 RGB; `out` if it is given.
    Raises:
        ValueError: the message or its pixels cannot be read, or the image's size is not that of the calibration.
    """
    if image.video is not None:
        return view_from_rgb(table, image.video.rgb(), out)
    message = message_of(image, pixels)
    if isinstance(message, cdr.CompressedImageMessage):
        return view_from_compressed(table, message.data, out)
    if message.encoding not in ENCODINGS:
        return view_from_rgb(table, rgb_by_cv_bridge(image.buffer, message.encoding), out)
    return view_from_raw(table, *message.pixel_arguments, out=out)


def decode_view_on_device(
    image: CameraImage,
    table: UndistortTable,
    decoder: DeviceDecoder,
    camera: str,
    out: Tensor,
    pixels: PixelFormat | None = None,
) -> Tensor:
    """`decode_view` on a CUDA device; the view is ready on the current stream when this returns."""
    rgb = None if image.video is None else image.video.rgb()
    if rgb is None:
        message = message_of(image, pixels)
        if isinstance(message, cdr.CompressedImageMessage):
            return decoder.view_from_compressed(table, message.data, camera, out)
        if message.encoding not in ENCODINGS:
            rgb = np.ascontiguousarray(rgb_by_cv_bridge(image.buffer, message.encoding))
    if rgb is not None:
        return decoder.view_from_raw(table, rgb.reshape(-1), *rgb.shape[:2], 3 * rgb.shape[1], "rgb8", out=out)
    return decoder.view_from_raw(table, *message.pixel_arguments, out=out)


def rgb_by_cv_bridge(buffer: bytes, encoding: str) -> np.ndarray:
    """Decode an encoding that only cv_bridge knows.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: cv_bridge is not installed, or does not know the encoding either.
    """
    known = ", ".join(ENCODINGS)
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise ValueError(
            f"encoding is '{encoding}'; expected one of {known}, or install cv_bridge, which knows more"
        ) from None
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    try:
        return CvBridge().imgmsg_to_cv2(deserialize_message(buffer, Image), "rgb8")
    # A cv_bridge that was built for another NumPy can be imported, but fails here with any of these errors.
    except (CvBridgeError, AttributeError, ImportError, RuntimeError, SystemError, TypeError, ValueError) as error:
        raise ValueError(
            f"encoding is '{encoding}' and cv_bridge cannot convert it ({error}); expected one of {known}"
        ) from None
