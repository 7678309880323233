"""Pixels that the messages do not describe: unused bits are found from the data, mosaics that would be grey refused."""

import cv2
import numpy as np
import pytest

from renderocc_model.rosio.cdr_messages import CompressedImageMessage, ImageMessage
from renderocc_model.rosio.pixel_format import PixelFormat

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint16)


def raw(pixels, encoding="mono16", big=False, pad=0):
    rows = np.ascontiguousarray(pixels, ">u2" if big else "<u2").view(np.uint8).reshape(24, -1)
    data = np.pad(rows, ((0, 0), (0, pad)), constant_values=255)
    return ImageMessage(0, "camera", 24, 32, encoding, big, data.shape[1], data.ravel())


def packed(pixels, form, ending=".png"):
    return CompressedImageMessage(0, "camera", form, cv2.imencode(ending, pixels)[1].ravel())


@pytest.mark.parametrize("bits, times", [(10, 64), (12, 16), (14, 4)])
@pytest.mark.parametrize(
    "make", [raw, lambda p: raw(p, big=True, pad=6), lambda p: packed(p, "mono16; png compressed ")]
)
def test_bits_that_are_not_used_are_found_from_the_data(make, bits, times):
    pixels = PixelFormat()
    pixels.take(make(PICTURE << (bits - 8)))
    assert f"use the lower {bits}" in pixels.warning and f"{times} times too dark" in pixels.warning


@pytest.mark.parametrize("shift", [8, 7])
def test_bright_16_bit_images_and_black_ones_are_not_suspected(shift):
    for given in (raw(PICTURE << shift), packed(PICTURE << shift, "mono16; png compressed "), raw(PICTURE * 0)):
        pixels = PixelFormat()
        pixels.take(given)
        assert pixels.warning == ""


def test_the_brightest_of_the_first_images_counts():
    pixels = PixelFormat()
    for image in (PICTURE, PICTURE << 2, PICTURE << 8):
        pixels.take(raw(image))
    assert pixels.warning == "" and pixels.sixteen_bit == 3


@pytest.mark.parametrize("form", ["bayer_rggb8; png compressed ", "bayer_gbrg8; jpeg compressed", "bayer_rggb8"])
def test_a_mosaic_in_a_file_is_refused(form):
    ending = ".jpg" if "jpeg" in form else ".png"
    with pytest.raises(ValueError, match="Bayer mosaic"):
        PixelFormat().take(packed(PICTURE.astype(np.uint8), form, ending))


def test_a_picture_in_colour_is_no_mosaic_whatever_the_camera_gave():
    colour = np.stack([PICTURE.astype(np.uint8)] * 3, axis=-1)
    for form in ("bayer_rggb8; jpeg compressed bgr8", "bayer_rggb8; png compressed ", "bayer_rggb8"):
        PixelFormat().take(packed(colour, form))
    PixelFormat().take(packed(PICTURE.astype(np.uint8), "mono8; png compressed "))
    PixelFormat().take(CompressedImageMessage(0, "camera", "bayer_rggb8; png compressed ", np.zeros(40, np.uint8)))


def test_an_encoding_that_nobody_decodes_is_named():
    with pytest.raises(ValueError, match="encoding 'bayer_rggb16' cannot be decoded"):
        PixelFormat().take(raw(PICTURE, "bayer_rggb16"))


def test_sizes_that_do_not_fit_together_are_named():
    with pytest.raises(ValueError, match="image data is 1000 bytes but 24 rows of step 64 are 1536"):
        PixelFormat().take(raw(PICTURE)._replace(data=np.zeros(1000, np.uint8)))
