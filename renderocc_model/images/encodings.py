"""Raw pixel layouts of sensor_msgs/Image: one entry of `_LAYOUTS` for each encoding, and its conversion to RGB.

Pictures are reduced in the layout they come in and converted afterwards, when few pixels are left: averaging and the
conversions are both linear. A reduced pixel is the mean of factor x factor pixels; each halving rounds to 8 bits, half
up.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .compiled import compiled_loops
from .reduction import FACTORS, LARGEST_SIDE, MAX_PIXELS, ImageError, halved, reduced, whole_blocks

__all__ = ["ENCODINGS", "check_raw", "decode_raw"]

# ITU-R BT.601 in video range (Y 16..235, chroma 16..240), as OpenCV and cv_bridge convert YUV.
_LUMA, _RED_V, _GREEN_U, _GREEN_V, _BLUE_U = 1.164, 1.596, -0.391, -0.813, 2.018


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
    if factor not in FACTORS:
        raise ImageError(f"factor is {factor}; expected 1, 2, 4 or 8")
    pixel_bytes, _, convert = _LAYOUTS[encoding]
    rows = height * 3 // 2 if encoding == "nv12" else height
    rows_slice, columns_slice = whole_blocks(height, width, factor, region)
    picture = data.reshape(rows, step)
    luma = picture[rows_slice, columns_slice.start * pixel_bytes : columns_slice.stop * pixel_bytes]
    if encoding == "nv12":
        chroma = picture[height + rows_slice.start // 2 : height + rows_slice.stop // 2, columns_slice]
        return _from_nv12(luma, chroma, factor)
    if encoding == "mono16":
        return _from_mono16(luma, bool(is_bigendian), factor)
    assert convert is not None  # all others have one
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


def _from_colours(channels: int, code: int | None) -> Callable[[np.ndarray, int], np.ndarray]:
    """Converter of interleaved 8-bit colours; `code` reorders them, where they are not RGB already."""

    def convert(rows: np.ndarray, factor: int) -> np.ndarray:
        picture = reduced(rows.reshape(rows.shape[0], -1, channels), factor)
        return picture if code is None else cv2.cvtColor(picture, code)

    return convert


def _from_mono8(rows: np.ndarray, factor: int) -> np.ndarray:
    return cv2.cvtColor(reduced(rows, factor), cv2.COLOR_GRAY2RGB)


def _from_mono16(rows: np.ndarray, is_bigendian: bool, factor: int) -> np.ndarray:
    pixels = rows.view(">u2" if is_bigendian else "<u2")
    pixels = np.require(pixels, dtype=np.uint16, requirements="A")  # copies only where bytes must swap or move
    pixels = reduced(pixels, factor)
    return cv2.cvtColor(cv2.convertScaleAbs(pixels, alpha=1 / 257), cv2.COLOR_GRAY2RGB)  # 65535 / 257 = 255


def _from_nv12(luma: np.ndarray, chroma: np.ndarray, factor: int) -> np.ndarray:
    chroma = chroma.reshape(chroma.shape[0], -1, 2)
    if factor == 1:
        return cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2RGB_NV12)
    # A chroma pixel is 2 x 2 pixels wide already. Split first: there is no fast path for two channels.
    u, v = (reduced(plane, factor // 2) for plane in cv2.split(chroma))
    return cv2.transform(cv2.merge([reduced(luma, factor), u, v]), _YUV_TO_RGB)


def _from_yuv422(code: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Converter of two pixels in four bytes, the chroma shared by both."""

    def convert(rows: np.ndarray, factor: int) -> np.ndarray:
        if factor == 1:
            return cv2.cvtColor(rows.reshape(rows.shape[0], -1, 2), code)
        # Halvings of whole four-byte groups keep the format: they average even columns with even and odd with odd. The
        # last halving averages the two columns, and so is left until after the conversion.
        groups = reduced(rows.reshape(rows.shape[0], -1, 4), factor // 2)
        return halved(cv2.cvtColor(groups.reshape(groups.shape[0], -1, 2), code))

    return convert


def _from_bayer(code: int, red_row: int, red_column: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Converter of a mosaic."""

    def convert(rows: np.ndarray, factor: int) -> np.ndarray:
        height, width = rows.shape
        if factor == 1 or min(height, width) < 8:
            return reduced(cv2.cvtColor(rows, code), factor)
        planes = np.empty((3, height // 2, width // 2), np.uint8)
        step = rows.strides[0]
        data = np.lib.stride_tricks.as_strided(rows, ((height - 1) * step + width,), (1,), writeable=False)
        compiled_loops().halve_mosaic(data, step, red_row, red_column, planes)
        picture = cv2.merge(tuple(planes))
        # OpenCV's outermost pixels repeat those next to them.
        picture[0], picture[-1] = (halved(cv2.cvtColor(rows[part], code))[row] for part, row in _ENDS)
        picture[:, 0], picture[:, -1] = (halved(cv2.cvtColor(rows[:, part], code))[:, row] for part, row in _ENDS)
        return reduced(picture, factor // 2)

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
    if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE) or height * width > MAX_PIXELS:
        raise ImageError(
            f"image is {width}x{height}; expected sides of 1 to {LARGEST_SIDE} and at most {MAX_PIXELS} pixels"
        )
    rows_too = encoding == "nv12" or encoding.startswith("bayer")
    if width % multiple or (rows_too and height % multiple):
        sides = "sides" if rows_too else "a width"
        raise ImageError(f"image is {width}x{height}; {encoding} needs {sides} in even pixels")
