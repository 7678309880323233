"""Image bytes, raw or compressed, to RGB at a power-of-two reduction, touching as few bytes as possible.

Raw pictures are reduced in the layout they come in and converted afterwards, when few pixels are left: averaging and
the conversions are both linear. JPEG is reduced inside its decoder, which stops below the rows that are wanted. A
reduced pixel is the mean of factor x factor pixels; each halving rounds to 8 bits, half up.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .compiled import compiled_loops

__all__ = [
    "ENCODINGS",
    "MAX_PIXELS",
    "ImageError",
    "check_png_chunks",
    "check_raw",
    "compressed_size",
    "decode_compressed",
    "decode_raw",
    "is_common_jpeg",
]

MAX_PIXELS = 64_000_000  # a picture with more is refused before memory is taken for it
_LARGEST_SIDE = 32768
_FACTORS = (1, 2, 4, 8)

# ITU-R BT.601 in video range (Y 16..235, chroma 16..240), as OpenCV and cv_bridge convert YUV.
_LUMA, _RED_V, _GREEN_U, _GREEN_V, _BLUE_U = 1.164, 1.596, -0.391, -0.813, 2.018


class ImageError(ValueError):
    """Image bytes that cannot be decoded; the message says what came, what was expected and what to do."""


def decode_raw(
    data: np.ndarray,
    height: int,
    width: int,
    step: int,
    encoding: str,
    is_bigendian: bool = False,
    factor: int = 1,
    region: tuple[slice, slice] | None = None,
) -> np.ndarray:
    """Decode the pixels of a sensor_msgs/Image.

    Args:
        data: (bytes,) uint8, `step * height` of them (half as many again for nv12). It is only read.
        height, width: pixels.
        step: bytes from one row to the next; more than the row needs is padding.
        encoding: one of `ENCODINGS`.
        is_bigendian: byte order of mono16.
        factor: 1, 2, 4 or 8.
        region: (rows, columns) slices in pixels; the rest of the picture is not read. They start at multiples of
            2 * factor and lie inside the picture (`UndistortTable.region` does).
    Returns:
        (height // factor, width // factor, 3) uint8 RGB, or of the region; rgb8 at factor 1 is `data`'s own memory.
    Raises:
        ImageError: unknown encoding, or sizes that do not fit together.
    """
    check_raw(data, height, width, step, encoding)
    if factor not in _FACTORS:
        raise ImageError(f"factor is {factor}; expected 1, 2, 4 or 8")
    pixel_bytes, _, convert = _LAYOUTS[encoding]
    rows = height * 3 // 2 if encoding == "nv12" else height
    rows_slice, columns_slice = _whole_blocks(height, width, factor, region)
    picture = data.reshape(rows, step)
    luma = picture[rows_slice, columns_slice.start * pixel_bytes : columns_slice.stop * pixel_bytes]
    if encoding == "nv12":
        chroma = picture[height + rows_slice.start // 2 : height + rows_slice.stop // 2, columns_slice]
        return _from_nv12(luma, chroma, factor)
    if encoding == "mono16":
        return _from_mono16(luma, bool(is_bigendian), factor)
    return convert(luma, factor)


def check_raw(data: np.ndarray, height: int, width: int, step: int, encoding: str) -> None:
    """Raise the ImageError that `decode_raw` would raise for these arguments, if any."""
    if encoding not in _LAYOUTS:
        raise ImageError(f"encoding is '{encoding}'; expected one of {', '.join(ENCODINGS)}")
    pixel_bytes, multiple, _ = _LAYOUTS[encoding]
    _check_size(height, width, multiple, encoding)
    row_bytes = width * pixel_bytes
    if step < row_bytes:
        raise ImageError(
            f"step is {step} bytes but a row of {width} {encoding} pixels takes {row_bytes}; set step to at least that"
        )
    rows = height * 3 // 2 if encoding == "nv12" else height
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ImageError(f"image data is {data.dtype} of shape {data.shape}; expected a row of bytes")
    if data.size != step * rows:
        raise ImageError(
            f"image data is {data.size} bytes but {rows} rows of step {step} are {step * rows}; "
            f"publish data, height and step that agree"
        )


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
    if factor not in _FACTORS:
        raise ImageError(f"factor is {factor}; expected 1, 2, 4 or 8")
    header = _checked_header(data, max_pixels)
    height, width = header.height, header.width
    kind = "JPEG" if header.is_jpeg else "PNG"
    rows, columns = _whole_blocks(height, width, factor, region)
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
    return cv2.cvtColor(picture if header.is_jpeg else _reduced(picture, factor), cv2.COLOR_BGR2RGB)


def compressed_size(data: np.ndarray) -> tuple[int, int]:
    """(height, width) in the header of a JPEG or PNG, without decoding it; ImageError as in `decode_compressed`."""
    header = _header(data)
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


def _halved(picture: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels; OpenCV has a vector path for this one reduction, twice it is faster than 4 x 4 at once."""
    return cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)


def _reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    while factor > 1:
        picture, factor = _halved(picture), factor // 2
    return picture


def _from_colours(channels: int, code: int | None) -> Callable[[np.ndarray, int], np.ndarray]:
    """Converter of interleaved 8-bit colours; `code` reorders them, where they are not RGB already."""

    def convert(rows: np.ndarray, factor: int) -> np.ndarray:
        picture = _reduced(rows.reshape(rows.shape[0], -1, channels), factor)
        return picture if code is None else cv2.cvtColor(picture, code)

    return convert


def _from_mono8(rows: np.ndarray, factor: int) -> np.ndarray:
    return cv2.cvtColor(_reduced(rows, factor), cv2.COLOR_GRAY2RGB)


def _from_mono16(rows: np.ndarray, is_bigendian: bool, factor: int) -> np.ndarray:
    pixels = rows.view(">u2" if is_bigendian else "<u2")
    pixels = np.require(pixels, dtype=np.uint16, requirements="A")  # copies only where bytes must swap or move
    pixels = _reduced(pixels, factor)
    return cv2.cvtColor(cv2.convertScaleAbs(pixels, alpha=1 / 257), cv2.COLOR_GRAY2RGB)  # 65535 / 257 = 255


def _from_nv12(luma: np.ndarray, chroma: np.ndarray, factor: int) -> np.ndarray:
    chroma = chroma.reshape(chroma.shape[0], -1, 2)
    if factor == 1:
        return cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2RGB_NV12)
    # A chroma pixel is 2 x 2 pixels wide already. Split first: there is no fast path for two channels.
    u, v = (_reduced(plane, factor // 2) for plane in cv2.split(chroma))
    return cv2.transform(cv2.merge([_reduced(luma, factor), u, v]), _YUV_TO_RGB)


def _from_yuv422(code: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Converter of two pixels in four bytes, the chroma shared by both."""

    def convert(rows: np.ndarray, factor: int) -> np.ndarray:
        if factor == 1:
            return cv2.cvtColor(rows.reshape(rows.shape[0], -1, 2), code)
        # Halvings of whole four-byte groups keep the format: they average even columns with even and odd with odd. The
        # last halving averages the two columns, and so is left until after the conversion.
        groups = _reduced(rows.reshape(rows.shape[0], -1, 4), factor // 2)
        return _halved(cv2.cvtColor(groups.reshape(groups.shape[0], -1, 2), code))

    return convert


def _from_bayer(code: int, red_row: int, red_column: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Converter of a mosaic."""

    def convert(rows: np.ndarray, factor: int) -> np.ndarray:
        height, width = rows.shape
        if factor == 1 or min(height, width) < 8:
            return _reduced(cv2.cvtColor(rows, code), factor)
        planes = np.empty((3, height // 2, width // 2), np.uint8)
        step = rows.strides[0]
        data = np.lib.stride_tricks.as_strided(rows, ((height - 1) * step + width,), (1,), writeable=False)
        compiled_loops().halve_mosaic(data, step, red_row, red_column, planes)
        halved = cv2.merge(tuple(planes))
        # OpenCV's outermost pixels repeat those next to them.
        halved[0], halved[-1] = (_halved(cv2.cvtColor(rows[part], code))[row] for part, row in _ENDS)
        halved[:, 0], halved[:, -1] = (_halved(cv2.cvtColor(rows[:, part], code))[:, row] for part, row in _ENDS)
        return _reduced(halved, factor // 2)

    return convert


_ENDS = ((slice(0, 4), 0), (slice(-4, None), -1))


_YUV_TO_RGB = np.array(
    [
        [_LUMA, 0.0, _RED_V, -16 * _LUMA - 128 * _RED_V],
        [_LUMA, _GREEN_U, _GREEN_V, -16 * _LUMA - 128 * (_GREEN_U + _GREEN_V)],
        [_LUMA, _BLUE_U, 0.0, -16 * _LUMA - 128 * _BLUE_U],
    ]
)
_UYVY = _from_yuv422(cv2.COLOR_YUV2RGB_UYVY)
_YUYV = _from_yuv422(cv2.COLOR_YUV2RGB_YUYV)
# encoding: (bytes per pixel of its rows, what width [and for nv12 and bayer, height] must be a multiple of, converter).
# OpenCV names a mosaic after the second row's second and third pixel, ROS after the first row's first two.
_LAYOUTS: dict[str, tuple[int, int, Callable[[np.ndarray, int], np.ndarray] | None]] = {
    "rgb8": (3, 1, _from_colours(3, None)),
    "bgr8": (3, 1, _from_colours(3, cv2.COLOR_BGR2RGB)),
    "rgba8": (4, 1, _from_colours(4, cv2.COLOR_RGBA2RGB)),
    "bgra8": (4, 1, _from_colours(4, cv2.COLOR_BGRA2RGB)),
    "mono8": (1, 1, _from_mono8),
    "mono16": (2, 1, None),
    "yuv422": (2, 2, _UYVY),
    "uyvy": (2, 2, _UYVY),
    "yuv422_yuy2": (2, 2, _YUYV),
    "yuyv": (2, 2, _YUYV),
    "nv12": (1, 2, None),
    "bayer_rggb8": (1, 2, _from_bayer(cv2.COLOR_BayerBG2RGB, 0, 0)),
    "bayer_bggr8": (1, 2, _from_bayer(cv2.COLOR_BayerRG2RGB, 1, 1)),
    "bayer_gbrg8": (1, 2, _from_bayer(cv2.COLOR_BayerGR2RGB, 1, 0)),
    "bayer_grbg8": (1, 2, _from_bayer(cv2.COLOR_BayerGB2RGB, 0, 1)),
}
ENCODINGS = tuple(_LAYOUTS)


def _check_size(height: int, width: int, multiple: int, encoding: str) -> None:
    if not (1 <= height <= _LARGEST_SIDE and 1 <= width <= _LARGEST_SIDE) or height * width > MAX_PIXELS:
        raise ImageError(
            f"image is {width}x{height}; expected sides of 1 to {_LARGEST_SIDE} and at most {MAX_PIXELS} pixels"
        )
    rows_too = encoding == "nv12" or encoding.startswith("bayer")
    if width % multiple or (rows_too and height % multiple):
        sides = "sides" if rows_too else "a width"
        raise ImageError(f"image is {width}x{height}; {encoding} needs {sides} in even pixels")


def _whole_blocks(height: int, width: int, factor: int, region: tuple[slice, slice] | None) -> tuple[slice, slice]:
    """Rows and columns to read: the region, or all, without what does not fill a block of factor x factor pixels."""
    parts = []
    for name, size, part in zip(("rows", "columns"), (height, width), region or (slice(0, height), slice(0, width))):
        if not 0 <= part.start < part.stop <= size or part.start % (2 * factor):
            raise ImageError(
                f"region {name} {part.start}..{part.stop} do not fit an image of {width}x{height} at factor {factor}"
            )
        parts.append(slice(part.start, part.start + (part.stop - part.start) // factor * factor))
    if any(part.stop == part.start for part in parts):
        raise ImageError(f"image is {width}x{height}; too small to reduce by {factor}")
    return parts[0], parts[1]


_MOST_SEGMENTS = 4096  # of a JPEG's header, with the fill bytes between them; cameras write about ten
_MOST_SCANS = 64  # of a JPEG; encoders write about ten
_MOST_CHUNKS = 65536  # of a PNG; encoders split pixels every 8 kB or more
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
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


@dataclass(frozen=True)
class _Header:
    """What a file says of its picture.

    body: offset where a JPEG's entropy-coded data begins.
    frame: offset of a JPEG's frame header if its rows are coded one after the other, from top to bottom; else 0.
    is_common: see `is_common_jpeg`.
    """

    height: int
    width: int
    is_jpeg: bool = False
    body: int = 0
    frame: int = 0
    is_common: bool = False


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
        header = _Header(height, width)
    else:
        seen = start[:8].hex(" ") or "nothing"
        raise ImageError(f"compressed image begins with {seen}; expected JPEG (ff d8) or PNG (89 50 4e 47)")
    if not (1 <= header.height <= _LARGEST_SIDE and 1 <= header.width <= _LARGEST_SIDE):
        raise ImageError(
            f"image header says {header.width}x{header.height}; expected sides of 1 to {_LARGEST_SIDE}, it is corrupt"
        )
    return header


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
            return _Header(*size, True, offset + 2 + length, frame if in_order else 0, bool(is_common))
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
    content, offset = memoryview(np.ascontiguousarray(data)), len(_PNG_SIGNATURE)
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
