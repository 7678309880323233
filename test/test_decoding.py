"""JPEG and PNG files to RGB: reductions, regions of a file, padding, and refusals of damaged files."""

import zlib

import cv2
import numpy as np
import pytest
from small_pictures import HEIGHT, WIDTH, blocks, noise, smooth_picture

from renderocc_model.images.decoding import compressed_size, decode_compressed
from renderocc_model.images.reduction import ImageError


def jpeg_of(picture, *options):
    return cv2.imencode(".jpg", picture[..., ::-1], list(options))[1].ravel()


def png_of(picture):
    return cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1].ravel()


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(48, 64), (45, 53), (90, 161)])
def test_a_jpeg_comes_back_reduced(factor, size):
    rgb = np.rint(smooth_picture(*size)).astype(np.uint8)
    picture = decode_compressed(jpeg_of(rgb, cv2.IMWRITE_JPEG_QUALITY, 100), factor)
    assert picture.shape == (size[0] // factor, size[1] // factor, 3) and picture.dtype == np.uint8
    assert np.abs(picture - blocks(rgb, factor)).max() < 6
    assert np.abs(picture - blocks(rgb, factor)).mean() < 1.5


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(48, 64), (45, 53)])
def test_a_png_comes_back_reduced(factor, size):
    rgb = noise(*size, 3)
    picture = decode_compressed(png_of(rgb), factor)
    assert picture.shape == (size[0] // factor, size[1] // factor, 3)
    assert np.abs(picture - blocks(rgb, factor)).max() <= 0.5 * np.log2(factor) + 1e-9


def test_grey_and_deep_and_transparent_pngs_become_rgb():
    grey = noise(20, 30)
    assert np.array_equal(decode_compressed(png_of(grey)), np.repeat(grey[..., None], 3, axis=2))
    deep = decode_compressed(png_of(np.full((20, 30), 40000, np.uint16)))
    assert deep[0, 0].astype(int) == pytest.approx(
        [155, 155, 155], abs=2
    )  # 40000 / 257 = 155.6; the decoder drops low bytes
    transparent = cv2.imencode(".png", np.dstack([grey, grey, grey, grey]))[1].ravel()
    assert decode_compressed(transparent).shape == (20, 30, 3)


def test_progressive_and_grey_jpegs_become_rgb():
    rgb = np.rint(smooth_picture()).astype(np.uint8)
    progressive = decode_compressed(jpeg_of(rgb, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 2)
    assert np.abs(progressive - blocks(rgb, 2)).max() < 12
    grey = cv2.imencode(".jpg", rgb[..., 0])[1].ravel()
    assert decode_compressed(grey).shape == (HEIGHT, WIDTH, 3)


def test_the_size_is_read_without_decoding():
    jpeg, png = jpeg_of(noise(45, 53, 3)), png_of(noise(33, 21, 3))
    assert compressed_size(jpeg) == (45, 53)
    assert compressed_size(png) == (33, 21)
    assert compressed_size(png[:24]) == (33, 21)


def test_an_exif_orientation_does_not_turn_the_picture():
    jpeg = jpeg_of(noise(16, 32, 3)).tobytes()
    # APP1 with one TIFF entry: tag 0x0112 (orientation), short, 6: turn by 90 degrees.
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + entry + bytes(4)
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    data = np.frombuffer(turned, np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape[:2] == (32, 16)  # the file does say so
    assert decode_compressed(data).shape[:2] == (16, 32)


def test_padding_after_the_end_is_tolerated():
    jpeg = jpeg_of(noise(48, 64, 3))
    padded = np.concatenate([jpeg, np.zeros(20_000, np.uint8)])
    assert np.array_equal(decode_compressed(padded), decode_compressed(jpeg))
    png = png_of(noise(48, 64, 3))
    assert np.array_equal(decode_compressed(np.concatenate([png, np.zeros(100, np.uint8)])), decode_compressed(png))


@pytest.mark.parametrize(
    "options",
    [
        (),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        "grey",
        "png",
        "padded",
    ],
    ids=str,
)
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_region_of_a_file_is_the_same_part_of_the_whole_without_a_word(factor, options, capfd):
    rgb = noise(205, 150, 3)
    if options == "png":
        data = png_of(rgb)
    elif options == "grey":
        data = cv2.imencode(".jpg", rgb[..., 0])[1].ravel()
    else:
        data = jpeg_of(rgb, *(() if options == "padded" else options))
        if options == "padded":
            data = np.concatenate([data, np.frombuffer(b"\x00\xff\xd9" * 50, np.uint8)])
    whole = decode_compressed(data, factor)
    for start, stop in ((0, 16), (16, 80), (32, 97), (64, 168), (0, 205)):
        region = (slice(start, stop), slice(16, 144))
        part = decode_compressed(data, factor, region=region)
        rows = slice(start // factor, start // factor + (stop - start) // factor)
        assert np.array_equal(part, whole[rows, 16 // factor : 144 // factor])
    assert capfd.readouterr().err == ""  # libjpeg speaks of what it skips


def test_rows_below_the_region_are_not_decoded():
    jpeg = jpeg_of(noise(512, 64, 3))
    damaged = jpeg.copy()
    damaged[len(jpeg) // 2 : -2] = 0x55
    region = (slice(0, 64), slice(0, 64))
    assert np.array_equal(decode_compressed(damaged, 2, region=region), decode_compressed(jpeg, 2, region=region))
    assert not np.array_equal(decode_compressed(damaged, 2), decode_compressed(jpeg, 2))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_jpeg_is_refused_rather_than_filled_with_grey(share):
    jpeg = jpeg_of(noise(200, 300, 3))
    with pytest.raises(ImageError, match=r"JPEG of \d+ bytes ends without its end marker; it is truncated"):
        decode_compressed(jpeg[: int(len(jpeg) * share)])


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_picture():
    thumbnail = jpeg_of(noise(16, 16, 3)).tobytes()
    jpeg = jpeg_of(noise(200, 300, 3)).tobytes()
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = np.frombuffer(jpeg[:2] + segment + jpeg[2:], np.uint8)
    assert compressed_size(whole) == (200, 300)
    assert decode_compressed(whole).shape == (200, 300, 3)
    with pytest.raises(ImageError, match="truncated"):
        decode_compressed(whole[:-500])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.999])
def test_a_truncated_png_is_refused(share):
    png = png_of(noise(200, 300, 3))
    with pytest.raises(ImageError, match="ends without its last chunk; it is truncated"):
        decode_compressed(png[: int(len(png) * share)])


def test_a_damaged_png_fails_its_checksum():
    png = png_of(noise(200, 300, 3)).copy()
    png[len(png) // 2] ^= 0x10
    with pytest.raises(ImageError, match="PNG chunk 'IDAT' at byte .* fails its checksum; it is corrupt"):
        decode_compressed(png)


def test_a_png_whose_data_does_not_fill_its_size_is_refused():
    png = png_of(noise(20, 30, 3)).tobytes()
    header = png[12:16] + (40).to_bytes(4, "big") + (4000).to_bytes(4, "big") + png[24:29]
    forged = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    with pytest.raises(ImageError, match="corrupt|decoded to"):
        decode_compressed(np.frombuffer(forged, np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing; expected JPEG"),
        (b"\x00\x00\x01\x67 video", "begins with 00 00 01 67 20 76 69 64; expected JPEG"),
        (b"\xff\xd8", "ends inside its header"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "ends inside its header"),
        (b"\xff\xd8\x12\x34\x56\x78", "no marker at byte 2"),
        (b"\xff\xd8\xff\xe0\x00\x01....", "segment at byte 2 has length 1"),
        (b"\xff\xd8\xff\xda\x00\x08......", "no frame header before its data"),
        (b"\x89PNG\r\n\x1a\n", "PNG of 8 bytes has no complete header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8) + bytes(8), "has no complete header"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(8), "image header says 0x0"),
    ],
)
def test_what_is_no_picture_says_so(content, message):
    for function in (decode_compressed, compressed_size):
        with pytest.raises(ImageError) as error:
            function(np.frombuffer(content, np.uint8))
        assert message in str(error.value)


def test_a_jpeg_that_cannot_be_decoded_says_so():
    jpeg = jpeg_of(noise(48, 64, 3)).tobytes()
    start = jpeg.index(b"\xff\xc0")
    wrong = jpeg[:start] + b"\xff\xc3" + jpeg[start + 2 :]  # lossless, which no camera uses
    with pytest.raises(ImageError, match="JPEG"):
        decode_compressed(np.frombuffer(wrong, np.uint8))


def test_a_header_that_promises_too_much_is_refused_before_decoding():
    jpeg = jpeg_of(noise(16, 16, 3)).tobytes()
    start = jpeg.index(b"\xff\xc0")
    huge = jpeg[: start + 5] + b"\x75\x30\x75\x30" + jpeg[start + 9 :]  # 30000 x 30000
    with pytest.raises(ImageError, match="image is 30000x30000; expected at most 64000000 pixels"):
        decode_compressed(np.frombuffer(huge, np.uint8))
    with pytest.raises(ImageError, match="at most 100 pixels"):
        decode_compressed(jpeg_of(noise(16, 16, 3)), max_pixels=100)


def test_every_single_damaged_byte_gives_a_picture_or_an_image_error():
    jpeg, png = jpeg_of(noise(16, 24, 3)), png_of(noise(8, 8, 3))
    for original in (jpeg, png):
        rng = np.random.default_rng(1)
        for position in rng.choice(len(original), 150):
            damaged = original.copy()
            damaged[position] ^= 1 << int(rng.integers(8))
            try:
                picture = decode_compressed(damaged, 2, max_pixels=10**6)
                height, width = compressed_size(damaged)
                assert picture.shape == (height // 2, width // 2, 3)
            except ImageError:
                pass
