"""Pixels that the messages do not describe: unused bits are found from the data, mosaics that would be grey refused."""

import cv2
import numpy as np
import pytest

from renderocc_model.images.decoding import decode_compressed
from renderocc_model.images.encodings import decode_raw
from renderocc_model.rosio.cdr_messages import CompressedImageMessage, ImageMessage
from renderocc_model.rosio.pixel_format import MOSAICS, MosaicError, PixelFormat

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
    assert f"use the lower {bits}" in pixels.warning and f"{times} times brighter" in pixels.warning


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


def decoded(message):
    """RGB of an image, by the decoders of the project."""
    if isinstance(message, ImageMessage):
        layout = (message.height, message.width, message.step, message.encoding, message.is_bigendian)
        return decode_raw(message.data, *layout)
    return decode_compressed(message.data)


def scene(height=24, width=32):
    """A smooth coloured picture, RGB."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = (np.sin(columns / 9), np.cos(rows / 7), np.sin((rows + columns) / 11))
    return np.stack([np.rint(base + 50 * wave) for base, wave in zip((180, 120, 70), waves)], -1).astype(np.uint8)


def mosaic(picture, pattern):
    """What a sensor with this pattern of the first two rows' first two pixels sees of a picture."""
    grey = np.empty(picture.shape[:2], np.uint8)
    for place, colour in enumerate(pattern):
        grey[place // 2 :: 2, place % 2 :: 2] = picture[place // 2 :: 2, place % 2 :: 2, "rgb".index(colour)]
    return grey


PATTERNS = [name[6:10] for name in MOSAICS[2:]]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "form", ["bayer_{}8; png compressed ", "bayer_{}8; jpeg compressed ", "bayer_{}8", "bayer_{}16; png"]
)
def test_a_mosaic_in_a_file_becomes_the_picture_in_colour(form, pattern):
    ending, wide = ".jpg" if "jpeg" in form else ".png", "16" in form
    pixels = mosaic(scene(), pattern)
    message = packed(pixels.astype(np.uint16) * 257 if wide else pixels, form.format(pattern), ending)
    pixels = PixelFormat()
    pixels.take(message)
    picture = decoded(pixels.plain(message))
    # The colours between the pixels of the sensor are interpolated, and JPEG blurs what it takes for fine texture.
    assert np.abs(picture.astype(int) - scene())[2:-2, 2:-2].mean() < (12 if ending == ".jpg" else 2)


@pytest.mark.parametrize(
    "form, ending", [("png", ".png"), ("jpeg", ".jpg"), ("mono8; png compressed ", ".png"), ("", ".png")]
)
def test_a_mosaic_that_nobody_names_is_refused_until_its_pattern_is_set(form, ending):
    message = packed(mosaic(scene(), "grbg"), form, ending)
    with pytest.raises(ValueError, match="look like those of a Bayer mosaic; set the parameter 'mosaic'"):
        PixelFormat().take(message)
    pixels = PixelFormat(mosaic="bayer_grbg8")
    pixels.take(message)
    assert np.abs(decoded(pixels.plain(message)).astype(int) - scene())[2:-2, 2:-2].mean() < 12
    grey = PixelFormat(mosaic="none")
    grey.take(message)
    assert grey.plain(message) is message


def test_a_mosaic_called_mono8_is_refused_too():
    pixels = mosaic(scene(), "rggb")
    message = ImageMessage(0, "camera", 24, 32, "mono8", False, 32, pixels.ravel())
    with pytest.raises(ValueError, match="encoding 'mono8', but their pixels look like"):
        PixelFormat().take(message)
    PixelFormat(mosaic="none").take(message)


def test_a_mosaic_stays_refused_when_later_images_show_nothing():
    pixels, message = PixelFormat(), packed(mosaic(scene(), "rggb"), "png")
    for given in (message, packed(np.full((24, 32), 90, np.uint8), "png"), message):
        with pytest.raises(MosaicError):
            pixels.take(given)


@pytest.mark.parametrize("make", [lambda p: p, lambda p: cv2.GaussianBlur(p, (3, 3), 0), lambda p: p // 30 * 30])
def test_pictures_of_grey_cameras_are_no_mosaics(make):
    rng = np.random.default_rng(3)
    textures = [
        rng.integers(0, 256, (24, 32), np.uint8),
        cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY),
        np.full((24, 32), 90),
    ]
    textures += [
        cv2.resize(textures[0], (64, 48))[:24, :32],
        np.kron(rng.integers(0, 2, (6, 8)) * 200, np.ones((4, 4))),
    ]
    for texture in textures:
        texture = make(np.ascontiguousarray(texture, np.uint8))
        for form, ending in (("mono8; png compressed ", ".png"), ("mono8; jpeg compressed ", ".jpg"), ("jpeg", ".jpg")):
            pixels, message = PixelFormat(), packed(texture, form, ending)
            pixels.take(message)
            assert pixels.plain(message) is message


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize(
    "make", [raw, lambda p: raw(p, big=True, pad=6), lambda p: packed(p, "mono16; png compressed ")]
)
def test_images_of_few_bits_are_as_bright_as_those_of_8(bits, make):
    for pixels in (PixelFormat(), PixelFormat(bit_depth=bits)):
        message = make((PICTURE << (bits - 8)) + 1)
        pixels.take(message)
        # The 8 bits are the upper ones: off by less than one by the ratio of 255 / 256 and rounding.
        assert np.abs(decoded(pixels.plain(message))[..., 0].astype(int) - PICTURE).max() <= 1
        assert bool(pixels.warning) == (pixels.bits == bits and not pixels._bit_depth)


def test_the_bit_depth_that_is_set_holds_whatever_the_images_show():
    pixels = PixelFormat(bit_depth=12)
    dark, bright = raw(PICTURE), raw(PICTURE << 8)
    for message in (dark, bright):
        pixels.take(message)
    assert np.abs(decoded(pixels.plain(dark))[..., 0].astype(int) - (PICTURE >> 4)).max() <= 1
    assert decoded(pixels.plain(bright))[..., 0][PICTURE > 15].min() == 255  # saturated, not wrapped


def test_the_bits_of_a_stream_never_shrink():
    pixels, seen = PixelFormat(), []
    for pictures in (PICTURE << 2, PICTURE, PICTURE << 4, PICTURE, PICTURE << 8, PICTURE):
        pixels.take(raw(pictures))
        seen.append(pixels.bits)
    assert seen == [10, 10, 12, 12, 16, 16]


def test_a_bright_image_late_in_a_recording_is_seen():
    pixels = PixelFormat()
    for number in range(1, 65):
        pixels.take(raw(PICTURE << (8 if number == 64 else 4)))
    assert pixels.bits == 16


@pytest.mark.parametrize("encoding, order", [("rgb16", (0, 1, 2)), ("bgr16", (2, 1, 0)), ("rgba16", (0, 1, 2, 0))])
@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_16_bits_become_those_of_8(encoding, order, bits):
    pixels = PixelFormat()
    message = raw((scene()[..., order].astype(np.uint16) << (bits - 8)) + 3, encoding, pad=4)
    pixels.take(message)
    assert np.array_equal(decoded(pixels.plain(message)), scene())


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_mosaics_of_16_bits_are_those_of_8(pattern, big):
    pixels, narrow = PixelFormat(), mosaic(scene(), pattern)
    message = raw((narrow.astype(np.uint16) << 4) + 7, f"bayer_{pattern}16", big, pad=2)
    pixels.take(message)
    same = ImageMessage(0, "camera", 24, 32, f"bayer_{pattern}8", False, 32, narrow.ravel())
    assert np.array_equal(decoded(pixels.plain(message)), decoded(same))


def test_colour_png_of_few_bits_is_brightened():
    message = packed((scene()[..., ::-1].astype(np.uint16) << 4) + 3, "bgr16; png compressed ")
    pixels = PixelFormat()
    pixels.take(message)
    assert np.array_equal(decoded(pixels.plain(message)), scene())


def test_a_picture_in_colour_is_no_mosaic_whatever_the_camera_gave():
    colour = np.stack([PICTURE.astype(np.uint8)] * 3, axis=-1)
    for form in ("bayer_rggb8; jpeg compressed bgr8", "bayer_rggb8; png compressed ", "bayer_rggb8"):
        PixelFormat().take(packed(colour, form))
    PixelFormat().take(packed(PICTURE.astype(np.uint8), "mono8; png compressed "))
    PixelFormat().take(CompressedImageMessage(0, "camera", "bayer_rggb8; png compressed ", np.zeros(40, np.uint8)))


def test_an_encoding_that_nobody_decodes_is_named():
    with pytest.raises(ValueError, match="encoding '8UC3' cannot be decoded"):
        PixelFormat().take(raw(PICTURE, "8UC3"))


def test_sizes_that_do_not_fit_together_are_named():
    with pytest.raises(ValueError, match="image data is 1000 bytes but 24 rows of step 64 are 1536"):
        PixelFormat().take(raw(PICTURE)._replace(data=np.zeros(1000, np.uint8)))
