"""The town in a namespace with prefixed frames, and with odometry as a topic: all is as of the plain recording."""

import json

import numpy as np
import pytest
import yaml
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
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import main as prepare
from training.label import main as label
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

DISGUISES = {"namespaced": (as_namespaced, NAMESPACED), "odometry": (as_odometry, {"odom_topic": ODOMETRY})}
CAMERAS = ("cam_back", "cam_back_left", "cam_back_right", "cam_front", "cam_front_left", "cam_front_right")


class Drives(dict):
    """{"plain" or a disguise: (recording, parameter file, labels, tables)}, made when they are asked for."""

    def __init__(self, plain, folder) -> None:
        super().__init__()
        self.plain, self.folder = plain, folder

    def __missing__(self, name):
        params = self.folder / f"{name}.yaml"
        write, settings = (lambda bag, out: bag, {}) if name == "plain" else DISGUISES[name]
        bag = write(self.plain, self.folder / name / "drive")
        params.write_text(yaml.safe_dump({"/**/renderocc": {"ros__parameters": settings}}))
        sidecar, tables = self.folder / f"{name}_labels", self.folder / f"{name}_tables"
        options = ["--params", str(params), "--jobs", "1"]
        assert label([str(bag), "--out", str(sidecar), "--label-field", "label", *options]) == 0
        assert prepare([str(bag), "--labels", str(sidecar), "--out", str(tables), *options]) == 0
        self[name] = bag, params, sidecar, tables
        return self[name]


@pytest.fixture(scope="module")
def drives(town_bag, tmp_path_factory):
    return Drives(town_bag, tmp_path_factory.mktemp("vehicles"))


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
    expected = check_bag(Findings(), drives["plain"][0], NodeConfig())
    found = check_bag(findings, drives[name][0], NodeConfig(**DISGUISES[name][1]))
    assert findings.could_run and found.names == expected.names == CAMERAS
    for camera in CAMERAS:
        np.testing.assert_array_equal(found[camera].base_from_camera, expected[camera].base_from_camera)


@pytest.mark.parametrize("name", DISGUISES)
def test_labels_and_poses_are_those_of_the_plain_recording(drives, name):
    bag, params, sidecar, _ = drives[name]
    with (
        Recording(drives["plain"][0], drives["plain"][2]) as plain,
        Recording(bag, sidecar, vehicle_of_file(params)) as other,
    ):
        assert other.cameras == plain.cameras == CAMERAS and other.stamps == plain.stamps
        for camera in CAMERAS:
            for stamp in plain.stamps[camera]:
                np.testing.assert_allclose(other.odom_from_base(stamp), plain.odom_from_base(stamp), atol=1e-9)
                np.testing.assert_array_equal(other.depth(camera, stamp), plain.depth(camera, stamp))
                np.testing.assert_array_equal(other.semantic(camera, stamp), plain.semantic(camera, stamp))


@pytest.mark.parametrize("name", DISGUISES)
def test_training_samples_are_those_of_the_plain_recording(drives, name):
    config = SampleConfig(height=64, width=176, rays=2000)
    plain, other = (RayDataset(drives[one][3], config, seed=0) for one in ("plain", name))
    for index in range(len(plain)):
        one, two = plain.sample(0, index), other.sample(0, index)
        np.testing.assert_allclose(two.rays.origins, one.rays.origins, atol=1e-6)
        np.testing.assert_allclose(two.rays.directions, one.rays.directions, atol=1e-6)
        np.testing.assert_array_equal(two.rays.distances, one.rays.distances)
        np.testing.assert_array_equal(two.current.views, one.current.views)


@pytest.mark.parametrize("name", DISGUISES)
def test_it_is_trained_on(drives, name, tmp_path):
    assert_trained_on(drives[name][3], tmp_path)


@pytest.mark.parametrize("name", DISGUISES)
def test_the_node_sees_what_it_sees_of_the_plain_recording(drives, name):
    predictor = Predictor.untrained(small_config("tiny"), device="cpu")
    waits = dict(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0)
    plain, _ = frames_of(drives["plain"][0], NodeConfig(**waits), predictor)
    predictor.reset()
    other, said = frames_of(drives[name][0], NodeConfig(**waits, **DISGUISES[name][1]), predictor)
    assert set(other) == set(plain) and len(other) >= 2, said
    for stamp, frame in other.items():
        assert frame.used == plain[stamp].used == CAMERAS and not frame.ego_motion_missing, (frame.missing, said)
        np.testing.assert_array_equal(frame.occupancy.semantics, plain[stamp].occupancy.semantics)


def test_odometry_that_is_the_only_one_is_found_and_named(drives, town_bag):
    with Recording(drives["odometry"][0]) as found, Recording(town_bag) as plain:
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
