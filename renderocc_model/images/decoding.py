"""JPEG and PNG to RGB at a power-of-two reduction, touching as few bytes as possible.

JPEG is reduced inside its decoder, which stops below the rows that are wanted; PNG is reduced afterwards. What a header
asks for is looked at before memory is taken for it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from .reduction import FACTORS, LARGEST_SIDE, MAX_PIXELS, ImageError, reduced, whole_blocks

__all__ = [
    "check_png_chunks",
    "checked_size",
    "compressed_channels",
    "compressed_size",
    "decode_compressed",
    "is_common_jpeg",
]

_MOST_SEGMENTS = 4096  # of a JPEG's header, with the fill bytes between them; cameras write about ten
_MOST_SCANS = 64  # of a JPEG; encoders write about ten
_MOST_CHUNKS = 65536  # of a PNG; encoders split pixels every 8 kB or more
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by the colour type in its header
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Files that are not read: name, offset and bytes that begin there.
_OTHER_FORMATS = (
    ("a WebP", 8, b"WEBP"),
    ("a BMP", 0, b"BM"),
    ("a TIFF", 0, b"II*\0"),
    ("a TIFF", 0, b"MM\0*"),
    ("a GIF", 0, b"GIF8"),
    ("an AVIF", 4, b"ftypavi"),
    ("a HEIF", 4, b"ftyphei"),
    ("a JPEG 2000", 0, b"\0\0\0\x0cjP  "),
    ("a JPEG XL", 0, b"\xff\x0a"),
    ("a JPEG XL", 0, b"\0\0\0\x0cJXL "),
)
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; the three others are tables
_SEQUENTIAL_MARKERS = (0xC0, 0xC1)  # of these, those whose picture comes once, in full
_COMMON_MARKERS = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all Huffman-coded
_RESTART_INTERVAL = 0xDD
_CODED_ROWS = 32  # the most rows that are coded together; what is interpolated from them looks no further
_REDUCED_JPEG = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def decode_compressed(
    data: np.ndarray,
    factor: int = 1,
    max_pixels: int = MAX_PIXELS,
    region: tuple[slice, slice] | None = None,
) -> np.ndarray:
    """Decode a JPEG or a PNG; an EXIF orientation is ignored, as calibrations belong to the pixels as stored.

    Truncated files are found by their missing end marker, damaged PNGs by their checksums. JPEG has no checksums:
    damage inside it that the decoder survives shows in the picture and cannot be told from it.

    Args:
        data: (bytes,) uint8.
        factor: 1, 2, 4 or 8.
        max_pixels: largest width x height, read from the header before anything is decoded.
        region: as in `decode_raw`; what lies below it is not decoded, if the file is an ordinary JPEG.
    Returns:
        (height // factor, width // factor, 3) uint8 RGB, or of the region; grey pictures have three equal channels, 16
        bits become 8.
    Raises:
        ImageError: neither JPEG nor PNG, too large, truncated or corrupt.
    """
    if factor not in FACTORS:
        raise ImageError(f"factor is {factor}; expected 1, 2, 4 or 8")
    header = _checked_header(data, max_pixels)
    height, width = header.height, header.width
    kind = "JPEG" if header.is_jpeg else "PNG"
    rows, columns = whole_blocks(height, width, factor, region)
    mode = cv2.IMREAD_COLOR
    if header.is_jpeg:
        data, height = _without_rows_below(data, header, rows.stop)
        mode = _REDUCED_JPEG[factor]
    try:
        picture = cv2.imdecode(data, mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{kind} cannot be decoded ({error.err}); it is corrupt") from None
    if picture is None:
        raise ImageError(f"{kind} of {data.size} bytes cannot be decoded; it is corrupt")
    if header.is_jpeg:
        # The decoder keeps a last, incomplete block as a pixel of its own.
        picture = picture[: height // factor, : width // factor]
        height, width = height // factor, width // factor
        rows, columns = (slice(part.start // factor, part.stop // factor) for part in (rows, columns))
    if picture.shape[:2] != (height, width):
        raise ImageError(
            f"{kind} decoded to {picture.shape[1]}x{picture.shape[0]} but its header asks for {width}x{height}"
        )
    picture = picture[rows, columns]
    return cv2.cvtColor(picture if header.is_jpeg else reduced(picture, factor), cv2.COLOR_BGR2RGB)


def compressed_size(data: np.ndarray) -> tuple[int, int]:
    """(height, width) in the header of a JPEG or PNG, without decoding it; ImageError as in `decode_compressed`."""
    header = _header(data)
    return header.height, header.width


def compressed_channels(data: np.ndarray) -> int:
    """Channels in the header of a JPEG or PNG: 1 of grey pictures; ImageError as in `decode_compressed`."""
    return _header(data).channels


def checked_size(data: np.ndarray) -> tuple[int, int]:
    """(height, width) of a JPEG or PNG, after a look at its end: whole files can be decoded, as far as can be told.

    Raises:
        ImageError: as `decode_compressed`, of what it finds before it decodes.
    """
    header = _checked_header(data, MAX_PIXELS)
    return header.height, header.width


def is_common_jpeg(data: np.ndarray) -> bool:
    """Whether these bytes are a JPEG that decoders on devices know: Huffman-coded, 8 bits, grey or three colours.

    Raises:
        ImageError: as `decode_compressed`, of what it finds before it decodes.
    """
    return _checked_header(data, MAX_PIXELS).is_common


def _checked_header(data: np.ndarray, max_pixels: int) -> _Header:
    header = _header(data)
    if header.height * header.width > max_pixels:
        raise ImageError(
            f"image is {header.width}x{header.height}; expected at most {max_pixels} pixels, reduce it at the camera"
        )
    if header.is_jpeg:
        _check_jpeg_is_complete(data, header.body)
        if not header.frame:
            _check_scans(data)
    else:
        check_png_chunks(data)
    return header


@dataclass(frozen=True)
class _Header:
    """What a file says of its picture.

    body: offset where a JPEG's entropy-coded data begins.
    frame: offset of a JPEG's frame header if its rows are coded one after the other, from top to bottom; else 0.
    is_common: see `is_common_jpeg`.
    channels: of its pixels.
    """

    height: int
    width: int
    is_jpeg: bool = False
    body: int = 0
    frame: int = 0
    is_common: bool = False
    channels: int = 3


def _header(data: np.ndarray) -> _Header:
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ImageError(f"image data is {data.dtype} of shape {data.shape}; expected a row of bytes")
    start = data[:24].tobytes()
    if start.startswith(b"\xff\xd8"):
        header = _jpeg_header(data)
    elif start.startswith(_PNG_SIGNATURE):
        if len(start) < 24 or start[12:16] != b"IHDR":
            raise ImageError(f"PNG of {data.size} bytes has no complete header; it is truncated or corrupt")
        width, height = struct.unpack(">II", start[16:24])
        header = _Header(height, width, channels=_PNG_CHANNELS.get(data[25], 3) if data.size > 25 else 3)
    else:
        raise ImageError(f"compressed image {_described(start)}; expected JPEG (ff d8) or PNG (89 50 4e 47)")
    if not (1 <= header.height <= LARGEST_SIDE and 1 <= header.width <= LARGEST_SIDE):
        raise ImageError(
            f"image header says {header.width}x{header.height}; expected sides of 1 to {LARGEST_SIDE}, it is corrupt"
        )
    return header


def _described(start: bytes) -> str:
    """The first bytes of a file that is neither JPEG nor PNG, with its format if that is known."""
    names = (name for name, offset, magic in _OTHER_FORMATS if start[offset:].startswith(magic))
    name = next(names, "")
    return f"begins with {start[:8].hex(' ') or 'nothing'}{f' ({name})' if name else ''}"


def _jpeg_header(data: np.ndarray) -> _Header:
    """Walk the marker segments to the end of the first start-of-scan header (ITU-T T.81 B.1)."""
    size, frame, offset = None, 0, 2
    in_order, components, is_common = False, 0, False
    for _ in range(_MOST_SEGMENTS):  # megabytes of fill bytes would take seconds
        if offset + 4 > data.size:
            break
        if data[offset] != 0xFF:
            raise ImageError(f"JPEG has no marker at byte {offset}; it is corrupt")
        marker = int(data[offset + 1])
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        length = int(data[offset + 2]) << 8 | int(data[offset + 3])
        if length < 2:
            raise ImageError(f"JPEG segment at byte {offset} has length {length}; it is corrupt")
        if marker in _SIZE_MARKERS and size is None and offset + 10 <= data.size:
            size = struct.unpack(">HH", data[offset + 5 : offset + 9].tobytes())
            frame, in_order, components = offset, marker in _SEQUENTIAL_MARKERS, int(data[offset + 9])
            is_common = marker in _COMMON_MARKERS and data[offset + 4] == 8 and components in (1, 3)
        if marker == _RESTART_INTERVAL:
            in_order = False  # leave alone what has marks inside
        if marker == 0xDA:
            if size is None:
                raise ImageError("JPEG has no frame header before its data; it is corrupt")
            in_order = in_order and offset + 4 < data.size and data[offset + 4] == components  # one scan of all colours
            height, width = size
            body = offset + 2 + length
            return _Header(height, width, True, body, frame if in_order else 0, bool(is_common), components)
        offset += 2 + length
    raise ImageError(f"JPEG of {data.size} bytes ends inside its header, or has no end of segments; it is truncated")


def _without_rows_below(data: np.ndarray, header: _Header, stop: int) -> tuple[np.ndarray, int]:
    """A JPEG that ends some rows after `stop`, where that can be had by telling a smaller height, and its height.

    The decoder then stops there. It would go on to the end marker, to complain of what it skipped; without that
    marker it does not.
    """
    height = -(-(stop + _CODED_ROWS) // _CODED_ROWS) * _CODED_ROWS
    if not header.frame or height >= header.height:
        return data, header.height
    content = bytearray(data)
    del content[content.find(b"\xff\xd9", header.body) :]
    content[header.frame + 5 : header.frame + 7] = struct.pack(">H", height)
    return np.frombuffer(content, np.uint8), height


def _check_jpeg_is_complete(data: np.ndarray, body: int) -> None:
    """The end marker cannot occur inside entropy-coded data; some cameras pad after it, so it is searched for."""
    tail = max(body, data.size - 4096)
    if data[tail:].tobytes().rfind(b"\xff\xd9") < 0 and data[body:].tobytes().rfind(b"\xff\xd9") < 0:
        raise ImageError(
            f"JPEG of {data.size} bytes ends without its end marker; "
            f"it is truncated, check the link and the driver's buffer"
        )


def _check_scans(data: np.ndarray) -> None:
    """Each scan of a progressive JPEG is a pass over all of the picture, were it thirty bytes long."""
    scans = data.tobytes().count(b"\xff\xda")
    if scans > _MOST_SCANS:
        raise ImageError(f"JPEG has {scans} scans; expected at most {_MOST_SCANS}, it is corrupt or made to take hours")


def check_png_chunks(data: np.ndarray) -> None:
    """Walk a PNG's chunks to IEND: OpenCV takes the memory that a chunk's length asks for, whether it is there or not.

    Raises:
        ImageError: cut off, a checksum that is wrong, or more chunks than encoders write.
    """
    content, offset = np.ascontiguousarray(data).data, len(_PNG_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if offset + 12 > len(content):
            break
        length, kind = struct.unpack(">I4s", content[offset : offset + 8])
        end = offset + 12 + length
        if end > len(content):
            break
        if zlib.crc32(content[offset + 4 : end - 4]) != struct.unpack(">I", content[end - 4 : end])[0]:
            raise ImageError(f"PNG chunk {kind.decode('latin-1')!r} at byte {offset} fails its checksum; it is corrupt")
        if kind == b"IEND":
            return
        offset = end
    raise ImageError(f"PNG of {len(content)} bytes ends without its last chunk; it is truncated")
