"""The town as rectified pictures and as H.264 video: what becomes of it is what becomes of the plain recording."""

import json

import numpy as np
import pytest

pytest.importorskip("av")

from disguised_drives import CAMERAS, Drives, assert_same_labels, samples_with_the_same_rays
from node_frames import frames_of
from rectified import TURNED, as_rectified
from small_models import small_config
from small_training import assert_trained_on
from videos import FFMPEG, FOXGLOVE, as_video

from renderocc_model.base.findings import Findings
from renderocc_model.inference.predictor import Predictor
from renderocc_ros.commands.doctor.bag import check_bag
from renderocc_ros.parameters import NodeConfig
from training.check import main as check
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

DISGUISES = {
    "rectified": (as_rectified, {}),
    "foxglove": (lambda bag, out: as_video(bag, out, FOXGLOVE), {}),
    "ffmpeg": (lambda bag, out: as_video(bag, out, FFMPEG, every=3, reordered=1), {}),
}


@pytest.fixture(scope="module")
def drives(town_bag, tmp_path_factory):
    return Drives(town_bag, tmp_path_factory.mktemp("disguises"), DISGUISES)


@pytest.mark.parametrize("name", DISGUISES)
def test_check_finds_no_fault(drives, name, capsys):
    bag = drives[name].bag
    capsys.readouterr()  # what making it said
    assert check([str(bag), "--no-labels", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["recordings"][0]["findings"]
    assert not [item for item in findings if item["level"] == "FAIL" or "go back" in item["text"]]
    cameras = [item["text"] for item in findings if item["subject"] == "cameras"]
    assert cameras == [f"6: {', '.join(CAMERAS)}"]


@pytest.mark.parametrize("name", DISGUISES)
def test_doctor_finds_the_same_rig(town_bag, drives, name):
    plain, other = Findings(), Findings()
    expected, found = check_bag(plain, town_bag, NodeConfig()), check_bag(other, drives[name].bag, NodeConfig())
    assert found.names == expected.names == CAMERAS
    for camera in CAMERAS:
        assert found[camera].model == expected[camera].model
        np.testing.assert_allclose(found[camera].base_from_camera, expected[camera].base_from_camera, atol=1e-9)
    lines = [[(item["level"], item["subject"]) for item in one.as_dict()["findings"]] for one in (plain, other)]
    bad = [[line for line in one if line[0] != "ok"] for one in lines]
    assert [line for line in bad[1] if line not in bad[0]] in ([], [("note", "cameras")])


@pytest.mark.parametrize("name", DISGUISES)
def test_labels_are_those_of_the_plain_recording(drives, name):
    plain, other = drives["plain"], drives[name]
    with Recording(plain.bag, plain.labels) as recorded, Recording(other.bag, other.labels) as disguised:
        assert_same_labels(disguised, recorded)
        assert disguised.models == recorded.models
        for camera in CAMERAS:
            np.testing.assert_allclose(disguised.mount(camera), recorded.mount(camera), atol=1e-9)


@pytest.mark.parametrize("name", DISGUISES)
def test_training_samples_are_those_of_the_plain_recording(drives, name):
    for two, one in samples_with_the_same_rays(drives[name], drives["plain"]):
        apart = np.abs(two.current.views.astype(int) - one.current.views)
        if name == "rectified":
            assert apart.max() == 0
        else:
            assert apart.mean() < 3  # of 255: H.264, and JPEG in the tables; measured: 2.0


@pytest.mark.parametrize("name", DISGUISES)
def test_it_is_trained_on(drives, name, tmp_path):
    assert_trained_on(drives[name].tables, tmp_path)


@pytest.mark.parametrize("name", DISGUISES)
def test_the_node_sees_what_it_sees_of_the_plain_recording(drives, name):
    predictor = Predictor.untrained(small_config("tiny"), device="cpu")
    config = NodeConfig(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0)
    plain, _ = frames_of(drives["plain"].bag, config, predictor)
    template = "{camera}/image_rect" if name == "rectified" else "{camera}/image_raw"
    predictor.reset()
    changed = NodeConfig(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0, image_topic=template)
    other, said = frames_of(drives[name].bag, changed, predictor)
    assert set(other) <= set(plain) and len(other) >= (1 if name == "ffmpeg" else 2), said
    for stamp, frame in other.items():
        if name == "ffmpeg" and frame.missing:
            continue  # how late B pictures come is learned from the first ones
        assert frame.used == plain[stamp].used == CAMERAS, (frame.missing, said)
        one, two = plain[stamp].occupancy, frame.occupancy
        if name == "rectified":
            np.testing.assert_array_equal(one.semantics, two.semantics)
            np.testing.assert_array_equal(one.occupied, two.occupied)
            for camera in CAMERAS:  # rendered views are in the frame that they name, which is turned
                turned = plain[stamp].base_from_frame(camera)[:3, :3] @ TURNED
                np.testing.assert_allclose(frame.base_from_frame(camera)[:3, :3], turned, atol=1e-6)
        else:
            assert (one.occupied == two.occupied).mean() > 0.98  # measured: 0.999
