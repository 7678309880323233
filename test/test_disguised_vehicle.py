"""The town in a namespace with prefixed frames, and with odometry as a topic: all is as of the plain recording."""

import json

import numpy as np
import pytest
from disguised_drives import CAMERAS, Drives, assert_same_labels, samples_with_the_same_rays
from disguised_vehicle import NAMESPACED, ODOMETRY, as_namespaced, as_odometry
from node_frames import frames_of
from small_models import small_config
from small_training import assert_trained_on

from renderocc_model.base.findings import Findings
from renderocc_model.inference.predictor import Predictor
from renderocc_model.rosio.parameter_file import vehicle_of_file
from renderocc_model.rosio.vehicle import Vehicle
from renderocc_ros.commands.doctor.bag import check_bag
from renderocc_ros.parameters import NodeConfig
from training.check import main as check
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

DISGUISES = {"namespaced": (as_namespaced, NAMESPACED), "odometry": (as_odometry, {"odom_topic": ODOMETRY})}


@pytest.fixture(scope="module")
def drives(town_bag, tmp_path_factory):
    return Drives(town_bag, tmp_path_factory.mktemp("vehicles"), DISGUISES)


@pytest.mark.parametrize("name", DISGUISES)
def test_check_finds_no_fault(drives, name, capsys):
    bag, params, _, _ = drives[name]
    capsys.readouterr()  # what making it said
    assert check([str(bag), "--no-labels", "--params", str(params), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["recordings"][0]["findings"]
    assert not [item for item in findings if item["level"] in ("FAIL", "warn") and item["subject"] != "labelling"]
    assert [item["text"] for item in findings if item["subject"] == "cameras"] == [f"6: {', '.join(CAMERAS)}"]


@pytest.mark.parametrize("name", DISGUISES)
def test_doctor_finds_the_same_rig(drives, name):
    findings = Findings()
    expected = check_bag(Findings(), drives["plain"].bag, NodeConfig())
    found = check_bag(findings, drives[name].bag, NodeConfig(**DISGUISES[name][1]))
    assert findings.could_run and found.names == expected.names == CAMERAS
    for camera in CAMERAS:
        np.testing.assert_array_equal(found[camera].base_from_camera, expected[camera].base_from_camera)


@pytest.mark.parametrize("name", DISGUISES)
def test_labels_and_poses_are_those_of_the_plain_recording(drives, name):
    plain, other = drives["plain"], drives[name]
    with (
        Recording(plain.bag, plain.labels) as recorded,
        Recording(other.bag, other.labels, vehicle_of_file(other.params)) as disguised,
    ):
        assert_same_labels(disguised, recorded)
        for stamp in {stamp for stamps in recorded.stamps.values() for stamp in stamps}:
            np.testing.assert_allclose(disguised.odom_from_base(stamp), recorded.odom_from_base(stamp), atol=1e-9)


@pytest.mark.parametrize("name", DISGUISES)
def test_training_samples_are_those_of_the_plain_recording(drives, name):
    for other, plain in samples_with_the_same_rays(drives[name], drives["plain"]):
        np.testing.assert_array_equal(other.current.views, plain.current.views)


@pytest.mark.parametrize("name", DISGUISES)
def test_it_is_trained_on(drives, name, tmp_path):
    assert_trained_on(drives[name].tables, tmp_path)


@pytest.mark.parametrize("name", DISGUISES)
def test_the_node_sees_what_it_sees_of_the_plain_recording(drives, name):
    predictor = Predictor.untrained(small_config("tiny"), device="cpu")
    waits = dict(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0)
    plain, _ = frames_of(drives["plain"].bag, NodeConfig(**waits), predictor)
    predictor.reset()
    other, said = frames_of(drives[name].bag, NodeConfig(**waits, **DISGUISES[name][1]), predictor)
    assert set(other) == set(plain) and len(other) >= 2, said
    for stamp, frame in other.items():
        assert frame.used == plain[stamp].used == CAMERAS and not frame.ego_motion_missing, (frame.missing, said)
        np.testing.assert_array_equal(frame.occupancy.semantics, plain[stamp].occupancy.semantics)


def test_odometry_that_is_the_only_one_is_found_and_named(drives, town_bag):
    with Recording(drives["odometry"].bag) as found, Recording(town_bag) as plain:
        stamp = plain.stamps["cam_front"][1]
        np.testing.assert_allclose(found.odom_from_base(stamp), plain.odom_from_base(stamp), atol=1e-9)
        assert any(ODOMETRY in note and "are used" in note for note in found.notes)


def test_a_constant_error_of_a_cameras_clock_is_put_right(drives, town_bag):
    with (
        Recording(town_bag, vehicle=Vehicle(clock_offsets=("cam_front: -0.02",))) as late,
        Recording(town_bag) as plain,
    ):
        assert late.stamps["cam_front"] == [stamp - 20_000_000 for stamp in plain.stamps["cam_front"]]
        assert late.stamps["cam_back"] == plain.stamps["cam_back"]
        stamp = late.stamps["cam_front"][0]
        assert late.header_stamp("cam_front", stamp) == plain.stamps["cam_front"][0]
        assert late.has_labels("cam_front", stamp)  # labels have the images' own stamps
        np.testing.assert_array_equal(late.depth("cam_front", stamp), plain.depth("cam_front", stamp + 20_000_000))
