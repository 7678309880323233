"""From image bytes to network input: one path, whatever the bytes were, and errors that name the camera."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from realdata import REALDATA, needs_realdata

from renderocc_model.geometry.rig import Rig
from renderocc_model.geometry.undistortion import FILL_COLOUR, UndistortTable, network_view
from renderocc_model.images.preprocessing import (
    IMAGE_MEAN,
    IMAGE_STD,
    Preprocessor,
    normalise,
    view_from_raw,
    view_from_rgb,
)
from renderocc_model.images.reduction import ImageError

RIGS = Path(__file__).resolve().parents[1] / "config" / "rigs"
NUSCENES = Rig.load(RIGS / "nuscenes_keyframe.yaml")
FISHEYE = Rig.load(RIGS / "fisheye_4cam.yaml")


def picture_of(model):
    row, column = np.mgrid[: model.height, : model.width]
    waves = np.stack([np.sin(column / 40), np.cos(row / 30), np.sin((row + column) / 50)], axis=-1)
    return np.rint(128 + 60 * waves).astype(np.uint8)


def test_views_are_those_of_the_mounted_cameras():
    preprocessor = Preprocessor(FISHEYE, 128, 352)
    for camera in FISHEYE:
        assert preprocessor.view(camera.name) == network_view(camera.model, 128, 352, camera.base_from_camera)
        assert preprocessor.valid(camera.name).shape == (128, 352)


@pytest.mark.parametrize("size", [(128, 352), (256, 704)])
@pytest.mark.parametrize("name", ["camera_front", "camera_left"])
def test_all_kinds_of_bytes_give_the_same_view(size, name):
    model = FISHEYE[name].model
    rgb = picture_of(model)
    preprocessor = Preprocessor(FISHEYE, *size)
    expected = preprocessor.from_rgb(name, rgb)
    assert expected.shape == (*size, 3) and expected.dtype == np.uint8
    padded = np.zeros((model.height, model.width * 3 + 8), np.uint8)
    padded[:, : model.width * 3] = rgb[..., ::-1].reshape(model.height, -1)
    table = preprocessor.table(name)
    raw = view_from_raw(table, padded.reshape(-1), model.height, model.width, padded.shape[1], "bgr8")
    assert np.array_equal(raw, expected)
    for extension, options, tolerance in ((".png", [], 0), (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 98], 6)):
        data = cv2.imencode(extension, rgb[..., ::-1], options)[1].ravel()
        compressed = preprocessor.from_compressed(name, data)
        assert np.abs(compressed.astype(int) - expected).max() <= tolerance


def test_the_view_shows_the_pixels_that_its_directions_lead_to():
    camera = NUSCENES["cam_back"]
    rgb = picture_of(camera.model)
    preprocessor = Preprocessor(NUSCENES, 128, 352)
    view = preprocessor.from_rgb("cam_back", rgb)
    pixels, _ = camera.model.project(preprocessor.view("cam_back").directions()[::16, ::16].reshape(-1, 3))
    columns, rows = np.rint(pixels).astype(int).T
    # 60 levels over 30 pixels: a source pixel out of place is 2 levels.
    assert np.abs(view[::16, ::16].reshape(-1, 3).astype(int) - rgb[rows, columns]).max() < 5


def test_a_reversed_or_sliced_picture_is_taken_as_it_looks():
    rgb = picture_of(NUSCENES["cam_front"].model)
    preprocessor = Preprocessor(NUSCENES, 128, 352)
    assert np.array_equal(
        preprocessor.from_rgb("cam_front", rgb[..., ::-1][..., ::-1]), preprocessor.from_rgb("cam_front", rgb)
    )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda p: p.from_rgb("cam_front", np.zeros((600, 800, 3), np.uint8)),
            "camera 'cam_front': image is 800x600 but camera_info says 1600x900; publish a matching camera_info",
        ),
        (
            lambda p: p.from_compressed(
                "cam_back_left", cv2.imencode(".jpg", np.zeros((90, 160, 3), np.uint8))[1].ravel()
            ),
            "camera 'cam_back_left': image is 160x90 but camera_info says 1600x900",
        ),
        (
            lambda p: p.from_compressed("cam_back_left", np.zeros(100, np.uint8)),
            "camera 'cam_back_left': compressed image begins with 00 00",
        ),
        (
            lambda p: p.from_rgb("cam_front", np.zeros((900, 1600), np.uint8)),
            "camera 'cam_front': image is uint8 of shape (900, 1600)",
        ),
        (lambda p: p.from_rgb("cam_front", np.zeros((900, 1600, 3))), "camera 'cam_front': image is float64"),
    ],
)
def test_errors_name_the_camera(act, message):
    with pytest.raises(ImageError) as error:
        act(Preprocessor(NUSCENES, 128, 352))
    assert message in str(error.value)


def test_raw_images_that_do_not_fit_their_step_or_calibration_are_refused():
    table = Preprocessor(NUSCENES, 128, 352).table("cam_back")
    with pytest.raises(ImageError, match="step is 4799 bytes but a row of 1600 bgr8 pixels takes 4800"):
        view_from_raw(table, np.zeros(900 * 4800, np.uint8), 900, 1600, 4799, "bgr8")
    with pytest.raises(ImageError, match="image is 1601x900 but camera_info says 1600x900"):
        view_from_raw(table, np.zeros(10, np.uint8), 900, 1601, 4803, "bgr8")


def test_an_unknown_camera_is_named():
    with pytest.raises(ValueError, match="camera 'front' is not in the rig; it has cam_front, cam_front_right"):
        Preprocessor(NUSCENES, 128, 352).view("front")


def test_normalised_views_equal_the_definition():
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8))
    result = normalise(views)
    assert result.shape == (2, 3, 5, 6) and result.dtype == torch.float32
    expected = (views.numpy() / 255 - IMAGE_MEAN) / IMAGE_STD
    assert np.allclose(result.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (3, 5), (7, 33), (128, 352)])
def test_views_of_any_layout_normalise_to_the_same_numbers(size):
    views = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    planar = views.movedim(-1, 1).contiguous().movedim(1, -1)
    assert planar.is_contiguous() == (size == (1, 1))
    part = torch.cat([views, views], dim=2)[:, :, : size[1]]
    for other in (planar, part):  # a last bit more or less, where a product and a sum are rounded once
        torch.testing.assert_close(normalise(other), normalise(views), rtol=0, atol=1e-6)


def test_batches_normalise_view_by_view():
    views = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    assert torch.equal(normalise(views)[1, 2], normalise(views[1, 2][None])[0])
    assert normalise(views, torch.float16).dtype == torch.float16
    assert normalise(views[:, :0]).shape == (2, 0, 3, 4, 5)


def test_the_fill_colour_is_zero_after_normalisation():
    grey = torch.tensor(FILL_COLOUR, dtype=torch.uint8).expand(1, 2, 2, 3)
    assert normalise(grey).abs().max() < 0.5 / 255 / 0.224 + 1e-6  # half a level of the narrowest channel


@pytest.mark.parametrize("views", [torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)])
def test_what_is_no_view_is_not_normalised(views):
    with pytest.raises(ValueError, match=r"expected uint8 \(\.\.\., H, W, 3\)"):
        normalise(views)


def test_a_camera_of_its_own_works_without_a_rig():
    camera = NUSCENES["cam_front"]
    table = UndistortTable(camera.model, network_view(camera.model, 64, 176))
    with pytest.raises(ImageError, match="^image is 1600x900 but camera_info says 1600x901"):
        other = dataclasses.replace(camera.model, height=901)
        view_from_rgb(UndistortTable(other, network_view(other, 64, 176)), picture_of(camera.model))
    assert view_from_rgb(table, picture_of(camera.model)).shape == (64, 176, 3)


@needs_realdata
@pytest.mark.parametrize("name", ["ddad_6cam", "nuscenes_keyframe", "fisheye_4cam"])
def test_real_jpegs_look_the_same_by_every_path(name):
    from rosbags.highlevel import AnyReader

    preprocessor = Preprocessor(Rig.load(RIGS / f"{name}.yaml"), 128, 352)
    seen = set()
    with AnyReader([REALDATA / name]) as reader:
        for connection, _, raw in reader.messages():
            camera = connection.topic.split("/")[1]
            if not connection.topic.endswith("/compressed") or camera in seen:
                continue
            seen.add(camera)
            data = np.asarray(reader.deserialize(raw, connection.msgtype).data)
            quick = preprocessor.from_compressed(camera, data)
            full = preprocessor.from_rgb(camera, cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
            assert preprocessor.valid(camera).all()
            # Reduction inside the JPEG decoder and reduction of its full picture differ by rounding and ringing.
            assert np.abs(quick.astype(int) - full).mean() < 1.5
            assert quick.std() > 20
    assert seen == set(preprocessor.rig.names)
