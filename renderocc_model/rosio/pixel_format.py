"""What the pixels of a camera's images mean, where the messages do not say it or the decoders cannot follow.

`PixelFormat` looks at one camera's images: it refuses what would be decoded to something else than the picture, and
guesses from the data how many of 16 bits are used.
"""

from __future__ import annotations

import cv2
import numpy as np

from renderocc_model.images.decoding import compressed_size, is_common_jpeg
from renderocc_model.images.encodings import ENCODINGS, check_raw
from renderocc_model.images.reduction import MAX_PIXELS

from .cdr_messages import CompressedImageMessage, ImageMessage

__all__ = ["PixelFormat"]

_LOOKED_AT = 5  # 16-bit images whose brightest pixel is looked for
_SENSOR_BITS = (10, 12, 14)
_PNG = b"\x89PNG\r\n\x1a\n"
_OF_PNG = slice(16, 26)  # width, height, bit depth and colour type in its header


class PixelFormat:
    """The pixels of one camera's images, of which the first are looked at.

    Attributes:
        sixteen_bit: 16-bit images that were looked at.
        brightest: their largest value.
    """

    def __init__(self) -> None:
        self.sixteen_bit = 0
        self.brightest = 0

    def take(self, message: ImageMessage | CompressedImageMessage) -> None:
        """Look at an image.

        Raises:
            ValueError: its encoding is not known, its sizes do not fit together, or it is a mosaic in a PNG or JPEG,
                which would become grey.
        """
        if isinstance(message, CompressedImageMessage):
            self._take_compressed(message)
        else:
            self._take_raw(message)

    @property
    def warning(self) -> str:
        """That images use the lower bits of 16 only, and are decoded too dark; empty if they do not."""
        bits = next((bits for bits in _SENSOR_BITS if self.brightest < 1 << bits), 16)
        if not self.sixteen_bit or bits == 16 or not self.brightest:
            return ""
        return (
            f"images have 16 bits, of which they seem to use the lower {bits} (the brightest pixel of the first "
            f"{self.sixteen_bit} is {self.brightest}); they are decoded {1 << (16 - bits)} times too dark"
        )

    def _take_raw(self, message: ImageMessage) -> None:
        if message.encoding not in ENCODINGS:
            raise ValueError(
                f"encoding {message.encoding!r} cannot be decoded; expected one of {', '.join(ENCODINGS)}; convert the "
                "images (image_proc, or the camera driver's pixel format)"
            )
        check_raw(message.data, message.height, message.width, message.step, message.encoding)
        if message.encoding == "mono16" and self.sixteen_bit < _LOOKED_AT:
            rows = message.data[: message.height * message.step].reshape(message.height, -1)[:, : 2 * message.width]
            kind = ">u2" if message.is_bigendian else "<u2"
            self._note(np.ascontiguousarray(rows).view(kind))

    def _take_compressed(self, message: CompressedImageMessage) -> None:
        source, _, rest = message.format.partition(";")
        target = rest.replace("compressed", " ").split()[1:]
        mosaic = source.strip().startswith("bayer_") and (not target or target[0].startswith("bayer_"))
        sixteen = self.sixteen_bit < _LOOKED_AT and _png_bits(message.data) == 16
        if not sixteen and not mosaic:
            return  # nearly always
        picture = _decoded(message.data)
        if picture is None:
            return  # what is wrong with it is said where it is decoded
        if mosaic and picture.ndim == 2:
            raise ValueError(_mosaic_text(message.format))
        if picture.dtype == np.uint16:
            self._note(picture)

    def _note(self, pixels: np.ndarray) -> None:
        self.sixteen_bit += 1
        self.brightest = max(self.brightest, int(pixels.max(initial=0)))


def _mosaic_text(form: str) -> str:
    return (
        f"the format {form!r} says that these are the pixels of a Bayer mosaic, which would be decoded as grey; "
        "publish colour pictures (image_proc debayer before compression)"
    )


def _png_bits(data: np.ndarray) -> int:
    """Bits of a PNG's samples; 0 of other files."""
    start = data[: _OF_PNG.stop].tobytes()
    return start[24] if start.startswith(_PNG) and len(start) == _OF_PNG.stop else 0


def _decoded(data: np.ndarray) -> np.ndarray | None:
    """The picture with its own channels and bits; None if it is too large or cannot be decoded."""
    try:
        height, width = compressed_size(data)
        is_common_jpeg(data)  # finds damage that decoders take memory or time for
        if height * width > MAX_PIXELS:
            return None
        return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error):
        return None
