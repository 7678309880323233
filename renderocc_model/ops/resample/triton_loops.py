"""The resampling kernel for GPUs, in Triton.

One lane makes one pixel of the view. It interpolates between four pixels of the reduced picture, and computes each of
these from the camera's bytes: in every colour the mean of FACTOR x FACTOR pixels, by repeated halving with one rounding
to 8 bits each time, as the CPU does it. The reduced picture is never stored. About four neighbouring lanes compute each
byte of it, from the first-level cache.

Bytes, for six 1600x900 pictures and views of 352x128: the rows that the views show, 2.8 MB a picture in rgb8, are read
once from memory: 17 MB, 5 us at 3.35 TB/s. Loads: 4 x 16 bytes in three colours a pixel, 52 million in all, or 1.6
million warp loads. At one a cycle on each of 132 multiprocessors they take 7 us, and several times as long because
their addresses are not neighbours. These are estimates; nothing has been timed.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["COLOURS", "MONO16", "MOSAIC", "NV12", "PACKED", "resample"]

COLOURS, MONO16, NV12, PACKED, MOSAIC = 0, 1, 2, 3, 4  # LAYOUT
_COLOURS, _MONO16, _NV12, _PACKED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)

# BT.601 in video range: OpenCV's integers, times 2^20, and the factors of `images.encodings` for reduced nv12.
LUMA, RED_V, GREEN_U = tl.constexpr(1220542), tl.constexpr(1673527), tl.constexpr(-409993)
GREEN_V, BLUE_U, HALF = tl.constexpr(-852492), tl.constexpr(2116026), tl.constexpr(1 << 19)
LUMA_REAL, RED_V_REAL, GREEN_U_REAL = tl.constexpr(1.164), tl.constexpr(1.596), tl.constexpr(-0.391)
GREEN_V_REAL, BLUE_U_REAL = tl.constexpr(-0.813), tl.constexpr(2.018)


# --- means -----------------------------------------------------------------------------------------------------------


@triton.jit
def _wide(data, at, exists, BIG: tl.constexpr):
    """A two-byte number as int32."""
    first = tl.load(data + at, mask=exists, other=0).to(tl.int32)
    second = tl.load(data + at + 1, mask=exists, other=0).to(tl.int32)
    return first * 256 + second if BIG else second * 256 + first


@triton.jit
def _mean_2(data, at, across, down, exists, WIDE: tl.constexpr, BIG: tl.constexpr):
    if WIDE:
        total = _wide(data, at, exists, BIG) + _wide(data, at + across, exists, BIG)
        total += _wide(data, at + down, exists, BIG) + _wide(data, at + down + across, exists, BIG)
    else:
        data += at
        total = tl.load(data, mask=exists, other=0).to(tl.int32)
        total += tl.load(data + across, mask=exists, other=0).to(tl.int32)
        total += tl.load(data + down, mask=exists, other=0).to(tl.int32)
        total += tl.load(data + down + across, mask=exists, other=0).to(tl.int32)
    return (total + 2) >> 2


@triton.jit
def _mean_4(data, at, across, down, exists, WIDE: tl.constexpr, BIG: tl.constexpr):
    total = tl.zeros_like(at)
    for part in range(4):
        total += _mean_2(data, at + 2 * (part % 2) * across + 2 * (part // 2) * down, across, down, exists, WIDE, BIG)
    return (total + 2) >> 2


@triton.jit
def _mean(data, at, across, down, exists, FACTOR: tl.constexpr, WIDE: tl.constexpr = False, BIG: tl.constexpr = False):
    """Mean of FACTOR x FACTOR numbers, the first of them at `at`, with one rounding for each halving."""
    if FACTOR == 1 and WIDE:
        value = _wide(data, at, exists, BIG)
    elif FACTOR == 1:
        value = tl.load(data + at, mask=exists, other=0).to(tl.int32)
    elif FACTOR == 2:
        value = _mean_2(data, at, across, down, exists, WIDE, BIG)
    elif FACTOR == 4:
        value = _mean_4(data, at, across, down, exists, WIDE, BIG)
    else:
        value = tl.zeros_like(at)
        for part in range(4):
            value += _mean_4(
                data, at + 4 * (part % 2) * across + 4 * (part // 2) * down, across, down, exists, WIDE, BIG
            )
        value = (value + 2) >> 2
    return value


# --- colours ---------------------------------------------------------------------------------------------------------


@triton.jit
def _byte(value):
    return tl.minimum(tl.maximum(value, 0), 255)


@triton.jit
def _rounded(value):
    return _byte((tl.maximum(value, 0.0) + 0.5).to(tl.int32))


@triton.jit
def _from_yuv(y, u, v):
    """RGB of a pixel as OpenCV converts single pixels."""
    luma, u, v = tl.maximum(y - 16, 0) * LUMA, u - 128, v - 128
    red = _byte((luma + (HALF + RED_V * v)) >> 20)
    green = _byte((luma + (HALF + GREEN_U * u + GREEN_V * v)) >> 20)
    return red, green, _byte((luma + (HALF + BLUE_U * u)) >> 20)


@triton.jit
def _from_mean_yuv(y, u, v):
    """RGB of a mean, in floating point, as `images.encodings` converts reduced nv12."""
    luma, u, v = LUMA_REAL * (y - 16).to(tl.float32), (u - 128).to(tl.float32), (v - 128).to(tl.float32)
    green = _rounded(luma + GREEN_U_REAL * u + GREEN_V_REAL * v)
    return _rounded(luma + RED_V_REAL * v), green, _rounded(luma + BLUE_U_REAL * u)


@triton.jit
def _packed(data, row, column, step, exists, LUMA_AT: tl.constexpr, FACTOR: tl.constexpr):
    """RGB of a reduced pixel of two pixels in four bytes."""
    if FACTOR == 1:
        at = row * step + (column // 2) * 4
        y = tl.load(data + at + LUMA_AT + 2 * (column % 2), mask=exists, other=0).to(tl.int32)
        u = tl.load(data + at + 1 - LUMA_AT, mask=exists, other=0).to(tl.int32)
        v = tl.load(data + at + 3 - LUMA_AT, mask=exists, other=0).to(tl.int32)
        red, green, blue = _from_yuv(y, u, v)
    else:
        # All halvings but the last are of YUV numbers; the last is of converted pixels.
        HALVED: tl.constexpr = FACTOR // 2
        red, green, blue = tl.zeros_like(row), tl.zeros_like(row), tl.zeros_like(row)
        for line in range(2):
            at = (HALVED * (2 * row + line)) * step + 4 * HALVED * column
            u = _mean(data, at + 1 - LUMA_AT, 4, step, exists, HALVED)
            v = _mean(data, at + 3 - LUMA_AT, 4, step, exists, HALVED)
            for pixel in range(2):
                y = _mean(data, at + LUMA_AT + 2 * pixel, 4, step, exists, HALVED)
                one, two, three = _from_yuv(y, u, v)
                red, green, blue = red + one, green + two, blue + three
        red, green, blue = (red + 2) >> 2, (green + 2) >> 2, (blue + 2) >> 2
    return red, green, blue


@triton.jit
def _nv12(data, row, column, step, plane, exists, FACTOR: tl.constexpr):
    if FACTOR == 1:
        at = plane + (row // 2) * step + (column // 2) * 2
        y = tl.load(data + row * step + column, mask=exists, other=0).to(tl.int32)
        u = tl.load(data + at, mask=exists, other=0).to(tl.int32)
        v = tl.load(data + at + 1, mask=exists, other=0).to(tl.int32)
        red, green, blue = _from_yuv(y, u, v)
    else:
        HALVED: tl.constexpr = FACTOR // 2
        at = plane + (HALVED * row) * step + 2 * HALVED * column
        y = _mean(data, (FACTOR * row) * step + FACTOR * column, 1, step, exists, FACTOR)
        u = _mean(data, at, 2, step, exists, HALVED)
        v = _mean(data, at + 1, 2, step, exists, HALVED)
        red, green, blue = _from_mean_yuv(y, u, v)
    return red, green, blue


@triton.jit
def _mosaic_pixel(
    data, row, column, step, top, left, bottom, right, exists, RED_ROW: tl.constexpr, RED_COLUMN: tl.constexpr
):
    """RGB of a pixel from its eight neighbours; the outermost pixels of the region repeat the pixels next to them."""
    row = tl.minimum(tl.maximum(row, top + 1), bottom - 2)
    column = tl.minimum(tl.maximum(column, left + 1), right - 2)
    data += row * step + column
    own = tl.load(data, mask=exists, other=0).to(tl.int32)
    beside = tl.load(data - 1, mask=exists, other=0).to(tl.int32) + tl.load(data + 1, mask=exists, other=0)
    upright = tl.load(data - step, mask=exists, other=0).to(tl.int32) + tl.load(data + step, mask=exists, other=0)
    aslant = tl.load(data - step - 1, mask=exists, other=0).to(tl.int32)
    aslant += tl.load(data - step + 1, mask=exists, other=0)
    aslant += tl.load(data + step - 1, mask=exists, other=0)
    aslant += tl.load(data + step + 1, mask=exists, other=0)
    red_row, red_column = row % 2 == RED_ROW, column % 2 == RED_COLUMN
    beside_mean, upright_mean, aslant_mean = (beside + 1) >> 1, (upright + 1) >> 1, (aslant + 2) >> 2
    red = tl.where(red_row, tl.where(red_column, own, beside_mean), tl.where(red_column, upright_mean, aslant_mean))
    blue = tl.where(red_row, tl.where(red_column, aslant_mean, upright_mean), tl.where(red_column, beside_mean, own))
    green = tl.where(red_row == red_column, (beside + upright + 2) >> 2, own)
    return red, green, blue


@triton.jit
def _mosaic_2(
    data, row, column, step, top, left, bottom, right, exists, RED_ROW: tl.constexpr, RED_COLUMN: tl.constexpr
):
    red, green, blue = tl.zeros_like(row), tl.zeros_like(row), tl.zeros_like(row)
    for part in range(4):
        one, two, three = _mosaic_pixel(
            data, row + part // 2, column + part % 2, step, top, left, bottom, right, exists, RED_ROW, RED_COLUMN
        )
        red, green, blue = red + one, green + two, blue + three
    return (red + 2) >> 2, (green + 2) >> 2, (blue + 2) >> 2


@triton.jit
def _mosaic_4(
    data, row, column, step, top, left, bottom, right, exists, RED_ROW: tl.constexpr, RED_COLUMN: tl.constexpr
):
    red, green, blue = tl.zeros_like(row), tl.zeros_like(row), tl.zeros_like(row)
    for part in range(4):
        one, two, three = _mosaic_2(
            data,
            row + 2 * (part // 2),
            column + 2 * (part % 2),
            step,
            top,
            left,
            bottom,
            right,
            exists,
            RED_ROW,
            RED_COLUMN,
        )
        red, green, blue = red + one, green + two, blue + three
    return (red + 2) >> 2, (green + 2) >> 2, (blue + 2) >> 2


@triton.jit
def _mosaic(
    data,
    row,
    column,
    step,
    top,
    left,
    bottom,
    right,
    exists,
    RED_ROW: tl.constexpr,
    RED_COLUMN: tl.constexpr,
    FACTOR: tl.constexpr,
):
    row, column = FACTOR * row, FACTOR * column
    box = step, top, left, bottom, right
    if FACTOR == 1:
        red, green, blue = _mosaic_pixel(data, row, column, *box, exists, RED_ROW, RED_COLUMN)
    elif FACTOR == 2:
        red, green, blue = _mosaic_2(data, row, column, *box, exists, RED_ROW, RED_COLUMN)
    elif FACTOR == 4:
        red, green, blue = _mosaic_4(data, row, column, *box, exists, RED_ROW, RED_COLUMN)
    else:
        red, green, blue = tl.zeros_like(row), tl.zeros_like(row), tl.zeros_like(row)
        for part in range(4):
            one, two, three = _mosaic_4(
                data, row + 4 * (part // 2), column + 4 * (part % 2), *box, exists, RED_ROW, RED_COLUMN
            )
            red, green, blue = red + one, green + two, blue + three
        red, green, blue = (red + 2) >> 2, (green + 2) >> 2, (blue + 2) >> 2
    return red, green, blue


# --- views -----------------------------------------------------------------------------------------------------------


@triton.jit
def resample(
    data,
    places,
    fractions,
    out,
    pixels,
    width,
    step,
    plane,
    top,
    left,
    bottom,
    right,
    out_row,
    out_column,
    out_channel,
    LAYOUT: tl.constexpr,
    FACTOR: tl.constexpr,
    ACROSS: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    NORMALISED: tl.constexpr,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    FILL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Make a view.

    Args:
        data: (bytes,) uint8; row numbers below count from its first row.
        places: (pixels, 2) int16, column and row in the reduced region; fractions: (pixels,) int16, 32 y + x in 32nds,
            -1 where the camera has no pixel.
        out: uint8, or floating-point numbers if NORMALISED; its strides over rows, columns and channels, in elements.
        width: of the view. step: bytes. plane: offset of nv12's chroma, or bytes from one colour to the next.
        top, left, bottom, right: the table's region, in pixels, of whole blocks.
        LAYOUT: COLOURS, ACROSS bytes a pixel, red at FIRST and blue at SECOND if they are not planes (FIRST -1: planes;
            FIRST = SECOND: grey); MONO16, big-endian if FIRST; NV12; PACKED, luma at FIRST; MOSAIC, red at row FIRST,
            column SECOND.
        SCALE, OFFSET, FILL: of the three colours.
    """
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = pixel < pixels
    fraction = tl.load(fractions + pixel, mask=exists, other=-1).to(tl.int32)
    seen = fraction >= 0
    across, along = fraction % 32, fraction // 32
    x = tl.load(places + 2 * pixel, mask=seen, other=0).to(tl.int32)
    y = tl.load(places + 2 * pixel + 1, mask=seen, other=0).to(tl.int32)
    rows, columns = (bottom - top) // FACTOR, (right - left) // FACTOR
    red_sum, green_sum, blue_sum = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
    for corner in tl.static_range(4):
        column = tl.minimum(tl.maximum(x + corner % 2, 0), columns - 1) + left // FACTOR
        row = tl.minimum(tl.maximum(y + corner // 2, 0), rows - 1) + top // FACTOR
        if corner % 2 == 0:
            weight = 32 - across
        else:
            weight = across
        if corner // 2 == 0:
            weight *= 32 - along
        else:
            weight *= along
        if LAYOUT == _COLOURS:
            at = (FACTOR * row) * step + FACTOR * column * ACROSS
            if FIRST < 0:
                red = _mean(data, at, ACROSS, step, seen, FACTOR)
                green = _mean(data, at + plane, ACROSS, step, seen, FACTOR)
                blue = _mean(data, at + 2 * plane, ACROSS, step, seen, FACTOR)
            else:
                red = _mean(data, at + FIRST, ACROSS, step, seen, FACTOR)
                green, blue = red, red
                if FIRST != SECOND:
                    green = _mean(data, at + 1, ACROSS, step, seen, FACTOR)
                    blue = _mean(data, at + SECOND, ACROSS, step, seen, FACTOR)
        elif LAYOUT == _MONO16:
            at = (FACTOR * row) * step + 2 * FACTOR * column
            red = (_mean(data, at, 2, step, seen, FACTOR, True, FIRST == 1) + 128) // 257
            green, blue = red, red
        elif LAYOUT == _NV12:
            red, green, blue = _nv12(data, row, column, step, plane, seen, FACTOR)
        elif LAYOUT == _PACKED:
            red, green, blue = _packed(data, row, column, step, seen, FIRST, FACTOR)
        else:
            red, green, blue = _mosaic(data, row, column, step, top, left, bottom, right, seen, FIRST, SECOND, FACTOR)
        red_sum, green_sum, blue_sum = red_sum + weight * red, green_sum + weight * green, blue_sum + weight * blue
    out += (pixel // width) * out_row + (pixel % width) * out_column
    red = tl.where(seen, (red_sum + 512) >> 10, FILL[0])
    green = tl.where(seen, (green_sum + 512) >> 10, FILL[1])
    blue = tl.where(seen, (blue_sum + 512) >> 10, FILL[2])
    if NORMALISED:
        red = red.to(tl.float32) * SCALE[0] + OFFSET[0]
        green = green.to(tl.float32) * SCALE[1] + OFFSET[1]
        blue = blue.to(tl.float32) * SCALE[2] + OFFSET[2]
    tl.store(out, red.to(out.dtype.element_ty), mask=exists)
    tl.store(out + out_channel, green.to(out.dtype.element_ty), mask=exists)
    tl.store(out + 2 * out_channel, blue.to(out.dtype.element_ty), mask=exists)
