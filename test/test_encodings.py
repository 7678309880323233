"""Raw images to RGB: every encoding against arithmetic written down here, reductions, padding, and refusals."""

import tracemalloc

import cv2
import numpy as np
import pytest
from small_pictures import HEIGHT, WIDTH, blocks, noise, smooth_picture

from renderocc_model.images.encodings import ENCODINGS, decode_raw
from renderocc_model.images.reduction import ImageError

COLOURS = [name for name in ENCODINGS if name in ("rgb8", "bgr8", "rgba8", "bgra8")]
PACKED = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv"}
MOSAICS = [name for name in ENCODINGS if name.startswith("bayer")]


def yuv_of(rgb):
    """BT.601 video range from its definition: Kr = 0.299, Kb = 0.114, Y over 219 levels, chroma over 224."""
    red, green, blue = np.moveaxis(rgb / 255, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - luma) / (2 * (1 - 0.114)), (red - luma) / (2 * (1 - 0.299))
    return 16 + 219 * luma, 128 + 224 * u, 128 + 224 * v


def bytes_of(encoding, rgb):
    """(rows, bytes per row) uint8: a picture as a driver would publish it, without padding."""
    if encoding in COLOURS:
        order = [{"r": 0, "g": 1, "b": 2, "a": 3}[letter] for letter in encoding[:-1]]
        picture = np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 77.0)], axis=-1)[..., order]
        return np.rint(picture).astype(np.uint8).reshape(len(rgb), -1)
    if encoding in PACKED:
        y, u, v = yuv_of(rgb)
        u, v = (0.5 * (plane[:, 0::2] + plane[:, 1::2]) for plane in (u, v))
        planes = {"uyvy": [u, y[:, 0::2], v, y[:, 1::2]], "yuyv": [y[:, 0::2], u, y[:, 1::2], v]}[PACKED[encoding]]
        return np.rint(np.stack(planes, axis=-1)).astype(np.uint8).reshape(len(rgb), -1)
    if encoding == "nv12":
        y, u, v = yuv_of(rgb)
        chroma = np.stack([blocks(u, 2)[..., 0], blocks(v, 2)[..., 0]], axis=-1).reshape(len(rgb) // 2, -1)
        return np.rint(np.concatenate([y, chroma])).astype(np.uint8)
    cell = {"r": 0, "g": 1, "b": 2}
    pattern = [cell[letter] for letter in encoding[6:10]]
    mosaic = np.empty(rgb.shape[:2])
    for position, colour in enumerate(pattern):
        mosaic[position // 2 :: 2, position % 2 :: 2] = rgb[position // 2 :: 2, position % 2 :: 2, colour]
    return np.rint(mosaic).astype(np.uint8)


def decode(encoding, rows, height=HEIGHT, width=WIDTH, padding=0, **arguments):
    padded = np.concatenate([rows, np.full((len(rows), padding), 199, np.uint8)], axis=1)
    return decode_raw(padded.reshape(-1), height, width, padded.shape[1], encoding, **arguments)


@pytest.mark.parametrize("padding", [0, 1, 13])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("encoding", COLOURS)
def test_colours_are_exact_at_factor_1_and_block_means_beyond(encoding, factor, padding):
    rgb = noise(HEIGHT, WIDTH, 3)
    picture = decode(encoding, bytes_of(encoding, rgb.astype(float)), padding=padding, factor=factor)
    assert picture.dtype == np.uint8 and picture.shape == (HEIGHT // factor, WIDTH // factor, 3)
    # Each of log2(factor) halvings rounds by up to half a level.
    assert np.abs(picture - blocks(rgb, factor)).max() <= 0.5 * np.log2(factor) + 1e-9


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("encoding", [*PACKED, "nv12", *MOSAICS])
def test_subsampled_and_mosaic_pictures_come_back(encoding, factor, padding):
    rgb = smooth_picture()
    picture = decode(encoding, bytes_of(encoding, rgb), padding=padding, factor=factor).astype(float)
    assert picture.shape == (HEIGHT // factor, WIDTH // factor, 3)
    difference = picture - blocks(rgb, factor)
    # Chroma and mosaics are known at half the pixels of a picture that changes by 4 levels a pixel; the outer ring
    # of a mosaic has neighbours on one side only.
    inner = difference[2:-2, 2:-2] if factor == 1 else difference[1:-1, 1:-1]
    assert np.abs(inner).max() < 6
    assert abs(inner.mean()) < 1.0


@pytest.mark.parametrize("encoding", [*PACKED, "nv12"])
def test_reduced_yuv_equals_full_yuv_reduced(encoding):
    rows = bytes_of(encoding, smooth_picture())
    full = decode(encoding, rows)
    for factor in (2, 4, 8):
        # Three halvings round luma and chroma by up to 1.5 levels, and chroma counts twice in blue.
        assert np.abs(decode(encoding, rows, factor=factor) - blocks(full, factor)).max() < 3.5


@pytest.mark.parametrize("encoding", MOSAICS)
def test_the_corner_of_a_mosaic_has_the_colour_of_its_name(encoding):
    # Only the cell's first pixel is bright: what its letter says, and nothing else, is bright in the mean.
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    mosaic[0::2, 0::2] = 200
    mean = decode(encoding, mosaic, factor=8)[1:-1, 1:-1].mean(axis=(0, 1))
    expected = {"r": [200, 0, 0], "g": [0, 100, 0], "b": [0, 0, 200]}[encoding[6]]
    assert mean == pytest.approx(expected, abs=2)


def test_packed_yuv_by_hand():
    # Y 81, U 90, V 240 is BT.601's pure red.
    for encoding, cell in {"uyvy": [90, 81, 240, 81], "yuyv": [81, 90, 81, 240]}.items():
        picture = decode(encoding, np.array([cell] * 2, np.uint8), height=2, width=2)
        assert picture.reshape(-1, 3) == pytest.approx(np.tile([255, 0, 0], (4, 1)), abs=2)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_mono8_is_grey(factor):
    grey = noise(HEIGHT, WIDTH)
    picture = decode("mono8", grey, factor=factor, padding=3)
    assert (picture == picture[..., :1]).all()
    assert np.abs(picture[..., :1] - blocks(grey, factor)).max() <= 0.5 * np.log2(factor) + 1e-9


@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_mono16_is_grey_in_either_byte_order(factor, is_bigendian, padding):
    grey = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH))
    rows = grey.astype(">u2" if is_bigendian else "<u2").view(np.uint8)
    picture = decode("mono16", rows, factor=factor, padding=padding, is_bigendian=is_bigendian)
    assert (picture == picture[..., :1]).all()
    assert np.abs(picture[..., :1] - blocks(grey, factor) / 257).max() <= 0.51


def test_mono16_ends_at_black_and_white():
    rows = np.array([[0, 65535, 257, 129]], "<u2").view(np.uint8)
    assert decode("mono16", rows, height=1, width=4)[0, :, 0].tolist() == [0, 255, 1, 1]  # 129 / 257 = 0.502


def test_data_may_begin_at_an_odd_address():
    grey = np.arange(HEIGHT * WIDTH, dtype="<u2")
    buffer = np.zeros(grey.nbytes + 1, np.uint8)
    buffer[1:] = grey.view(np.uint8)
    picture = decode_raw(buffer[1:], HEIGHT, WIDTH, 2 * WIDTH, "mono16")
    assert np.array_equal(picture[..., 0].ravel(), np.rint(grey / 257))


def test_data_may_be_read_only():
    message = bytes(noise(HEIGHT * WIDTH * 3))
    picture = decode_raw(np.frombuffer(message, np.uint8), HEIGHT, WIDTH, WIDTH * 3, "bgr8", factor=2)
    assert picture.shape == (24, 32, 3)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_region_is_the_same_part_of_the_whole(encoding, factor):
    rows_of = {"mono16": 2 * WIDTH, "mono8": WIDTH}
    rows = noise(HEIGHT, rows_of[encoding]) if encoding in rows_of else bytes_of(encoding, smooth_picture())
    region = (slice(16, 40), slice(8, 56))
    part = decode(encoding, rows, factor=factor, region=region, padding=5).astype(int)
    whole = decode(encoding, rows, factor=factor)[16 // factor : 40 // factor, 8 // factor : 56 // factor]
    # A mosaic's outermost ring is interpolated from fewer neighbours.
    assert np.abs(part - whole)[1:-1, 1:-1].max() == 0
    assert np.abs(part - whole).max() <= (8 if encoding in MOSAICS else 0)


@pytest.mark.parametrize("size", [(48, 64), (8, 8), (6, 10), (4, 4), (46, 22)])
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("encoding", MOSAICS)
def test_a_mosaic_halved_in_one_pass_equals_opencvs_interpolation_halved(encoding, factor, size):
    if min(size) < factor:
        pytest.skip("no whole block")
    mosaic = noise(*size)
    code = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}[encoding[6:10]]
    whole = mosaic[: size[0] // factor * factor, : size[1] // factor * factor]
    expected = cv2.cvtColor(whole, getattr(cv2, f"COLOR_Bayer{code}2RGB"))
    for _ in range(int(np.log2(factor))):
        height, width = expected.shape[:2]
        expected = cv2.resize(expected, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    assert np.array_equal(decode(encoding, mosaic, *size, factor=factor, padding=3), expected)


def test_reading_a_padded_picture_copies_none_of_it():
    data = noise(900 * 5000)
    decode_raw(data, 900, 1600, 5000, "bgr8", factor=4)  # what is imported or cached the first time is not counted
    tracemalloc.start()
    picture = decode_raw(data, 900, 1600, 5000, "bgr8", factor=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The halved picture is a quarter of the 4.3 MB, the next a sixteenth, and RGB another sixteenth.
    assert picture.shape == (225, 400, 3) and peak < 0.4 * 900 * 1600 * 3


def test_rgb8_at_full_size_is_the_messages_own_memory():
    data = noise(HEIGHT * (WIDTH * 3 + 4))
    assert np.shares_memory(decode_raw(data, HEIGHT, WIDTH, WIDTH * 3 + 4, "rgb8"), data)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_rows_and_columns_that_fill_no_block_are_left_out(factor):
    rgb = noise(45, 53, 3)
    picture = decode("rgb8", rgb.reshape(45, -1), height=45, width=53, factor=factor)
    assert picture.shape == (45 // factor, 53 // factor, 3)
    assert np.abs(picture - blocks(rgb, factor)).max() <= 0.5 * np.log2(factor) + 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "rgb16"}, "encoding is 'rgb16'; expected one of rgb8, bgr8"),
        ({"encoding": ""}, "encoding is ''"),
        ({"step": 191}, "step is 191 bytes but a row of 64 rgb8 pixels takes 192"),
        ({"step": 200}, "image data is 9216 bytes but 48 rows of step 200 are 9600"),
        ({"height": 47}, "but 47 rows of step 192 are 9024"),
        ({"height": 0}, "image is 64x0; expected sides of 1 to 32768"),
        ({"width": -1}, "image is -1x48"),
        ({"width": 40000}, "image is 40000x48"),
        ({"height": 30000, "width": 30000}, "at most 64000000 pixels"),
        ({"encoding": "nv12", "width": 63}, "image is 63x48; nv12 needs sides in even pixels"),
        ({"encoding": "bayer_rggb8", "height": 47}, "bayer_rggb8 needs sides in even pixels"),
        ({"encoding": "yuyv", "width": 63}, "yuyv needs a width in even pixels"),
        ({"encoding": "nv12", "step": 192}, "image data is 9216 bytes but 72 rows of step 192"),
        ({"factor": 3}, "factor is 3; expected 1, 2, 4 or 8"),
        ({"region": (slice(2, 48), slice(0, 64)), "factor": 2}, "region rows 2..48 do not fit"),
        ({"region": (slice(0, 48), slice(0, 65))}, "region columns 0..65 do not fit an image of 64x48"),
        ({"data": np.zeros((48, 192), np.uint8)}, "expected a row of bytes"),
        ({"data": np.zeros(9216, np.int8)}, "image data is int8"),
    ],
)
def test_what_does_not_fit_together_is_named(change, message):
    arguments = {"data": noise(9216), "height": 48, "width": 64, "step": 192, "encoding": "rgb8", **change}
    with pytest.raises(ImageError) as error:
        decode_raw(**arguments)
    assert message in str(error.value)


def test_a_picture_smaller_than_a_block_is_refused():
    with pytest.raises(ImageError, match="image is 4x4; too small to reduce by 8"):
        decode_raw(noise(48), 4, 4, 12, "rgb8", factor=8)
