"""What the pixels of a camera's images mean, where the messages do not say it or the decoders cannot follow.

`PixelFormat` looks at one camera's images. It refuses what would be decoded to something else than the picture, finds
out how many of 16 bits are used, and turns what the decoders do not read (mosaics in PNG or JPEG, unused bits, colours
of 16 bits) into raw images that they read.
"""

from __future__ import annotations

import cv2
import numpy as np

from renderocc_model.images.decoding import compressed_channels, compressed_size, is_common_jpeg
from renderocc_model.images.encodings import ENCODINGS, check_raw
from renderocc_model.images.reduction import MAX_PIXELS, ImageError

from .cdr_messages import CompressedImageMessage, ImageMessage

__all__ = ["BIT_DEPTHS", "MOSAICS", "MosaicError", "PixelFormat"]

MOSAICS = ("auto", "none", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
BIT_DEPTHS = (0, 8, 9, 10, 11, 12, 13, 14, 15, 16)  # 0: as the data shows
_LOOKED_AT = 5  # first images whose pixels are looked at; later ones with a number that is a power of two
_SENSOR_BITS = (10, 12, 14)
_PNG = b"\x89PNG\r\n\x1a\n"
_OF_PNG = slice(16, 26)  # width, height, bit depth and colour type in its header
# Encodings of 16 bits for a channel: the one of 8 bits, and its channels.
_OF_16_BITS = {"rgb16": ("rgb8", 3), "bgr16": ("bgr8", 3), "rgba16": ("rgba8", 4), "bgra16": ("bgra8", 4)}
_OF_16_BITS |= {f"{name[:-1]}16": (name, 1) for name in MOSAICS[2:]}
_OF_DEPTH = {"16UC1", "32FC1"}
_CHEQUERED, _FAINT = 1.5, 2.0  # a mosaic's neighbours differ so many times more than its pixels two apart; grey levels


class MosaicError(ValueError):
    """Grey images that look like a Bayer mosaic whose pattern nobody names."""


class PixelFormat:
    """The pixels of one camera's images.

    Args:
        bit_depth: bits that 16-bit images use; 0 finds it out from the images that were taken in.
        mosaic: one of `MOSAICS`, the pattern of grey PNG or JPEG images; "auto" goes by their format, and refuses
            images that look like a mosaic without saying it; "none" takes them as grey.
    Attributes:
        sixteen_bit: 16-bit images that were looked at.
        brightest: their largest value.
    """

    def __init__(self, bit_depth: int = 0, mosaic: str = "auto") -> None:
        self._bit_depth, self._mosaic = bit_depth, mosaic
        self.sixteen_bit = 0
        self.brightest = 0
        self._taken = 0
        self._refusal = ""

    def take(self, message: ImageMessage | CompressedImageMessage) -> None:
        """Look at an image.

        Raises:
            MosaicError: it, or an image before it, seems to be a mosaic of which the pattern is not known.
            ValueError: its encoding is not known, or its sizes do not fit together.
        """
        if self._refusal:
            raise MosaicError(self._refusal)
        self._taken += 1
        looked_at = self._taken <= _LOOKED_AT or not self._taken & (self._taken - 1)
        if isinstance(message, CompressedImageMessage):
            self._take_compressed(message, looked_at)
        else:
            self._take_raw(message, looked_at)

    def plain(self, message: ImageMessage | CompressedImageMessage) -> ImageMessage | CompressedImageMessage:
        """The image as the decoders read it; nearly always the message itself.

        Raises:
            ImageError: it has to be changed, and cannot be decoded.
        """
        if isinstance(message, CompressedImageMessage):
            return self._plain_compressed(message)
        if message.encoding == "mono16" and self.bits < 16:
            return self._shifted(message)
        if message.encoding in _OF_16_BITS:
            return self._in_8_bits(message)
        return message

    @staticmethod
    def knows(encoding: str) -> bool:
        """Whether raw images of this encoding can be read."""
        return encoding in ENCODINGS or encoding in _OF_16_BITS

    @staticmethod
    def is_depth(encoding: str) -> bool:
        """Whether raw images of this encoding hold depth, so that they are no pictures."""
        return encoding in _OF_DEPTH

    @property
    def bits(self) -> int:
        """Bits that 16-bit images use."""
        if self._bit_depth:
            return self._bit_depth
        return next((bits for bits in _SENSOR_BITS if 0 < self.brightest < 1 << bits), 16)

    @property
    def warning(self) -> str:
        """That images seem to use the lower bits of 16 only, and are decoded so; empty if it is not a guess."""
        if self._bit_depth or self.bits == 16:
            return ""
        return (
            f"images have 16 bits, of which they seem to use the lower {self.bits} (the brightest pixel of "
            f"{self.sixteen_bit} is {self.brightest}); they are decoded {1 << (16 - self.bits)} times brighter"
        )

    def _take_raw(self, message: ImageMessage, looked_at: bool) -> None:
        encoding = message.encoding
        if encoding in _OF_16_BITS:
            self._check_16_bits(message)
        elif self.is_depth(encoding):
            raise ValueError(
                f"encoding {encoding!r} is that of depth images, which are no pictures; leave it out of the parameter "
                "'cameras' (`renderocc label --depth-topic` takes it as depth)"
            )
        elif not self.knows(encoding):
            raise ValueError(
                f"encoding {encoding!r} cannot be decoded; expected one of {', '.join((*ENCODINGS, *_OF_16_BITS))}; "
                "convert the images (image_proc, or the camera driver's pixel format); the node alone can "
                "read more, where cv_bridge is installed"
            )
        else:
            check_raw(message.data, message.height, message.width, message.step, encoding)
        if not looked_at:
            return
        if encoding == "mono16" or encoding in _OF_16_BITS:
            self._note(_values(message))
        elif encoding == "mono8" and self._mosaic == "auto":
            rows = message.data[: message.height * message.step].reshape(message.height, -1)[:, : message.width]
            self._refuse_mosaic(rows, f"encoding {encoding!r}")

    def _take_compressed(self, message: CompressedImageMessage, looked_at: bool) -> None:
        pattern = self._pattern(message.format)
        if not looked_at or (_png_bits(message.data) != 16 and (pattern or self._mosaic == "none")):
            return
        if _png_bits(message.data) != 16 and _channels(message.data) != 1:
            return  # nearly always
        picture = _decoded(message.data)
        if picture is None:
            return  # what is wrong with it is said where it is decoded
        if picture.dtype == np.uint16:
            self._note(picture)
        if picture.ndim == 2 and not pattern and self._mosaic == "auto":
            self._refuse_mosaic(picture, f"format {message.format!r}")

    def _note(self, pixels: np.ndarray) -> None:
        self.sixteen_bit += 1
        self.brightest = max(self.brightest, int(pixels.max(initial=0)))

    def _refuse_mosaic(self, picture: np.ndarray, named: str) -> None:
        if _is_chequered(picture):
            self._refusal = (
                f"the images are grey by their {named}, but their pixels look like those of a Bayer mosaic; set the "
                f"parameter 'mosaic' to its pattern ({', '.join(MOSAICS[2:])}), or to none if they are grey"
            )
            raise MosaicError(self._refusal)

    def _pattern(self, form: str) -> str:
        """The mosaic's pattern by the parameter or the format of a CompressedImage; empty for none."""
        if self._mosaic != "auto":
            return "" if self._mosaic == "none" else self._mosaic
        source, _, rest = form.partition(";")
        target = rest.replace("compressed", " ").split()[1:]
        name = (target[0] if target else source).strip().replace("16", "8")
        return name if name in MOSAICS[2:] else ""

    def _plain_compressed(self, message: CompressedImageMessage) -> ImageMessage | CompressedImageMessage:
        pattern, sixteen = self._pattern(message.format), _png_bits(message.data) == 16
        if not pattern and not (sixteen and self.bits < 16):
            return message
        if not sixteen and _channels(message.data) != 1:
            return message
        picture = _decoded(message.data)
        if picture is None:
            return message  # its decoder says what is wrong with it
        if picture.ndim == 2:
            return self._raw(message, picture, pattern or "mono16")
        return self._raw(message, picture[..., :3], "bgr16")

    def _raw(self, message: CompressedImageMessage, picture: np.ndarray, encoding: str) -> ImageMessage:
        """A decoded picture as a raw image: mono16 stays in 16 bits, colours and mosaics get 8."""
        if picture.dtype == np.uint16:
            picture = self._brightened(picture)
            if encoding != "mono16":
                picture = (picture >> 8).astype(np.uint8)
        encoding = _OF_16_BITS.get(encoding, (encoding,))[0]
        rows = np.ascontiguousarray(picture).reshape(picture.shape[0], -1).view(np.uint8)
        height, width = picture.shape[:2]
        return ImageMessage(
            message.stamp_ns, message.frame_id, height, width, encoding, False, rows.shape[1], rows.reshape(-1)
        )

    def _shifted(self, message: ImageMessage) -> ImageMessage:
        data = np.ascontiguousarray(self._brightened(_values(message)), "<u2").view(np.uint8)
        return message._replace(is_bigendian=False, step=2 * message.width, data=data.reshape(-1))

    def _in_8_bits(self, message: ImageMessage) -> ImageMessage:
        self._check_16_bits(message)
        encoding, channels = _OF_16_BITS[message.encoding]
        data = (self._brightened(_values(message)) >> 8).astype(np.uint8)
        return message._replace(encoding=encoding, step=channels * message.width, data=data.reshape(-1))

    def _brightened(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels with their used bits as the upper ones of 16; what exceeds them is white."""
        if self.bits == 16:
            return pixels
        return np.minimum(pixels, (1 << self.bits) - 1).astype(np.uint16) << np.uint16(16 - self.bits)

    @staticmethod
    def _check_16_bits(message: ImageMessage) -> None:
        encoding, channels = _OF_16_BITS[message.encoding]
        if message.step < 2 * channels * message.width:
            raise ImageError(
                f"step is {message.step} bytes but a row of {message.width} {message.encoding} pixels takes "
                f"{2 * channels * message.width}; set step to at least that"
            )
        # A layout of 8 bits with the same step has the same number of bytes and the same limits of size.
        check_raw(message.data, message.height, message.width, message.step, encoding)


def _values(message: ImageMessage) -> np.ndarray:
    """(height, values of a row) of 16 bits, in native byte order."""
    channels = _OF_16_BITS.get(message.encoding, ("", 1))[1]
    rows = message.data[: message.height * message.step].reshape(message.height, -1)[:, : 2 * channels * message.width]
    return np.ascontiguousarray(rows).view(">u2" if message.is_bigendian else "<u2").astype(np.uint16, copy=False)


def _is_chequered(picture: np.ndarray) -> bool:
    """Whether neighbours differ much more than pixels two apart, along rows and along columns alike: optics blur, and
    only the colours of a mosaic alternate from pixel to pixel."""
    pixels = picture.astype(np.float32)
    if picture.dtype == np.uint16:
        pixels *= 255.0 / max(float(pixels.max(initial=0)), 1.0)
    if min(pixels.shape) < 4:
        return False
    for axis in (0, 1):
        lines = np.moveaxis(pixels, axis, 0)
        near, far = float(np.abs(lines[1:] - lines[:-1]).mean()), float(np.abs(lines[2:] - lines[:-2]).mean())
        if near < _FAINT or near < _CHEQUERED * far:
            return False
    return True


def _png_bits(data: np.ndarray) -> int:
    """Bits of a PNG's samples; 0 of other files."""
    start = data[: _OF_PNG.stop].tobytes()
    return start[24] if start.startswith(_PNG) and len(start) == _OF_PNG.stop else 0


def _channels(data: np.ndarray) -> int:
    """Channels of a file; 0 if it cannot be read."""
    try:
        return compressed_channels(data)
    except ImageError:
        return 0


def _decoded(data: np.ndarray) -> np.ndarray | None:
    """The picture with its own channels and bits; None if it is too large or cannot be decoded."""
    try:
        height, width = compressed_size(data)
        is_common_jpeg(data)  # finds damage that decoders take memory or time for
        if height * width > MAX_PIXELS:
            return None
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except (ValueError, cv2.error):
        return None
