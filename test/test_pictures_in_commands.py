"""Videos, mosaics and rectified pictures in the commands: what cannot be used is named once, with what to do."""

import builtins
import json

import cv2
import numpy as np
import pytest

pytest.importorskip("av")

from rectified import STORE
from test_pixel_format import mosaic, scene
from tiny_bag import HEIGHT, WIDTH, Plan, write_bag
from town import rewritten
from videos import FFMPEG, FOXGLOVE, as_video

from renderocc_model.rosio import cdr
from training.check import main as check
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import main as prepare

INFO = "sensor_msgs/msg/CameraInfo"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("plain") / "drive", Plan(frames=9))


def findings_of(bag, capsys, *options) -> tuple[int, list[dict]]:
    """Exit status of check, and its failures and warnings about cameras."""
    capsys.readouterr()
    status = check([str(bag), "--json", *options])
    findings = json.loads(capsys.readouterr().out)["recordings"][0]["findings"]
    return status, [item for item in findings if item["level"] != "ok" and "camera 'front'" in item["subject"]]


@pytest.mark.parametrize("kind, codec", [(FOXGLOVE, "h264"), (FFMPEG, "h265")])
def test_pictures_before_the_first_key_frame_are_left_out_and_counted(plain, tmp_path, capsys, kind, codec):
    bag = as_video(plain, tmp_path / "cut", kind, codec, every=4, lost={("front", 0), ("front", 1)})
    status, faults = findings_of(bag, capsys)
    assert status == 0
    (fault,) = [item for item in faults if "key frame" in item["text"]]
    # Of pictures 0 to 8 with key frames 0, 4 and 8, the first two are gone: 2 and 3 are left without a key frame.
    assert "no key frame has come before it (and 1 more such messages)" in fault["text"]
    assert prepare([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1", "--anchor", "wide"]) == 0
    samples = RayDataset(tmp_path / "tables", SampleConfig(height=32, width=64, rays=10))
    present = [samples.sample(0, index).current.present.tolist() for index in range(len(samples))]
    assert [one[0] for one in present] == [False] * 4 + [True] * 5 and all(one[1] for one in present)


def test_without_pyav_check_and_prepare_say_what_to_install(plain, tmp_path, capsys, monkeypatch):
    bag = as_video(plain, tmp_path / "video", FOXGLOVE)
    real = builtins.__import__

    def missing(name, *rest):
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    status, faults = findings_of(bag, capsys)
    assert status == 1 and any("pip install av" in item["text"] for item in faults)
    assert prepare([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1"]) == 2
    assert "pip install av" in capsys.readouterr().err


def test_a_video_of_another_size_than_its_calibration_is_named(plain, tmp_path, capsys):
    def half(topic, when, data):
        if topic == "/front/camera_info":
            message = STORE.deserialize_cdr(data, INFO)
            message.width, message.height = WIDTH * 2, HEIGHT * 2
            data = STORE.serialize_cdr(message, INFO)
        return [(topic, when, data)]

    bag = as_video(rewritten(plain, tmp_path / "half", half), tmp_path / "video", FFMPEG)
    status, faults = findings_of(bag, capsys)
    assert status == 1
    assert any("image is 64x48 but camera_info says 128x96" in item["text"] for item in faults)


def grey_mosaics(form):
    """Images of the front camera become PNGs of a mosaic with this format."""

    def change(topic, when, data):
        if topic == "/front/image_raw/compressed":
            message = cdr.read_compressed_image(data)
            png = cv2.imencode(".png", mosaic(scene(HEIGHT, WIDTH), "gbrg"))[1].tobytes()
            data = cdr.write_compressed_image(message.stamp_ns, message.frame_id, form, png)
        return [(topic, when, data)]

    return change


def test_a_mosaic_that_nobody_names_is_one_fault_and_its_pattern_mends_it(plain, tmp_path, capsys):
    bag = rewritten(plain, tmp_path / "mosaic", grey_mosaics("png"))
    status, faults = findings_of(bag, capsys)
    assert status == 1 and len([item for item in faults if "Bayer mosaic" in item["text"]]) == 1
    assert prepare([str(bag), "--out", str(tmp_path / "refused"), "--jobs", "1"]) == 2
    assert "set the parameter 'mosaic'" in capsys.readouterr().err
    assert findings_of(bag, capsys, "--mosaic", "bayer_gbrg8")[0] == 0
    for name, options in (("named", ["--mosaic", "bayer_gbrg8"]), ("grey", ["--mosaic", "none"])):
        assert prepare([str(bag), "--out", str(tmp_path / name), "--jobs", "1", *options]) == 0
        view = RayDataset(tmp_path / name, SampleConfig(height=32, width=64, rays=10)).sample(0, 0).current.views[0]
        red, _, blue = view.reshape(-1, 3).mean(0)
        # The scene is 110 levels more red than blue.
        assert (red - blue > 80) if name == "named" else abs(red - blue) < 1


def test_a_mosaic_that_the_format_names_needs_no_option(plain, tmp_path, capsys):
    bag = rewritten(plain, tmp_path / "mosaic", grey_mosaics("bayer_gbrg8; png compressed "))
    assert findings_of(bag, capsys)[0] == 0
    assert prepare([str(bag), "--out", str(tmp_path / "tables"), "--jobs", "1"]) == 0
    view = RayDataset(tmp_path / "tables", SampleConfig(height=32, width=64, rays=10)).sample(0, 0).current.views[0]
    red, _, blue = view.reshape(-1, 3).mean(0)
    assert red - blue > 80


def test_a_calibration_whose_k_and_p_contradict_each_other_is_warned_of(plain, tmp_path, capsys):
    def half(topic, when, data):
        if topic == "/front/camera_info":
            message = STORE.deserialize_cdr(data, INFO)
            message.d, message.p = np.zeros(5), message.p * np.repeat((0.5, 0.5, 1), 4)
            data = STORE.serialize_cdr(message, INFO)
        return [(topic, when, data)]

    status, faults = findings_of(rewritten(plain, tmp_path / "half", half), capsys)
    assert status == 0 and any("K and P differ (focal lengths 40.0 and 20.0" in item["text"] for item in faults)
