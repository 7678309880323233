"""The town as rectified pictures and as H.264 video: what becomes of it is what becomes of the plain recording."""

import json

import numpy as np
import pytest

pytest.importorskip("av")

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
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import main as prepare
from training.label import main as label
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

WRITERS = {
    "rectified": as_rectified,
    "foxglove": lambda bag, out: as_video(bag, out, FOXGLOVE),
    "ffmpeg": lambda bag, out: as_video(bag, out, FFMPEG, every=3, reordered=1),
}
DISGUISES = tuple(WRITERS)
CAMERAS = ("cam_back", "cam_back_left", "cam_back_right", "cam_front", "cam_front_left", "cam_front_right")


class Drives(dict):
    """{"plain" or a disguise: (recording, its labels, its tables)}, made by the commands when they are asked for."""

    def __init__(self, plain, folder) -> None:
        super().__init__()
        self.plain, self.folder = plain, folder

    def __missing__(self, name):
        bag = self.plain if name == "plain" else WRITERS[name](self.plain, self.folder / name / "drive")
        sidecar, tables = self.folder / f"{name}_labels", self.folder / f"{name}_tables"
        assert label([str(bag), "--out", str(sidecar), "--label-field", "label", "--jobs", "1"]) == 0
        options = ["--labels", str(sidecar), "--out", str(tables), "--jobs", "1"]
        assert prepare([str(bag), *options]) == 0
        self[name] = bag, sidecar, tables
        return self[name]


@pytest.fixture(scope="module")
def drives(town_bag, tmp_path_factory):
    return Drives(town_bag, tmp_path_factory.mktemp("disguises"))


@pytest.mark.parametrize("name", DISGUISES)
def test_check_finds_no_fault(drives, name, capsys):
    bag = drives[name][0]
    capsys.readouterr()  # what making it said
    assert check([str(bag), "--no-labels", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["recordings"][0]["findings"]
    assert not [item for item in findings if item["level"] == "FAIL" or "go back" in item["text"]]
    cameras = [item["text"] for item in findings if item["subject"] == "cameras"]
    assert cameras == [f"6: {', '.join(CAMERAS)}"]


@pytest.mark.parametrize("name", DISGUISES)
def test_doctor_finds_the_same_rig(town_bag, drives, name):
    plain, other = Findings(), Findings()
    expected, found = check_bag(plain, town_bag, NodeConfig()), check_bag(other, drives[name][0], NodeConfig())
    assert found.names == expected.names == CAMERAS
    for camera in CAMERAS:
        assert found[camera].model == expected[camera].model
        np.testing.assert_allclose(found[camera].base_from_camera, expected[camera].base_from_camera, atol=1e-9)
    lines = [[(item["level"], item["subject"]) for item in one.as_dict()["findings"]] for one in (plain, other)]
    bad = [[line for line in one if line[0] != "ok"] for one in lines]
    assert [line for line in bad[1] if line not in bad[0]] in ([], [("note", "cameras")])


@pytest.mark.parametrize("name", DISGUISES)
def test_labels_are_those_of_the_plain_recording(drives, name):
    with (
        Recording(*drives["plain"][:2]) as plain,
        Recording(*drives[name][:2]) as other,
    ):
        assert other.cameras == plain.cameras == CAMERAS and other.stamps == plain.stamps
        assert other.models == plain.models
        for camera in CAMERAS:
            np.testing.assert_allclose(other.mount(camera), plain.mount(camera), atol=1e-9)
            for stamp in plain.stamps[camera]:
                np.testing.assert_array_equal(other.depth(camera, stamp), plain.depth(camera, stamp))
                np.testing.assert_array_equal(other.semantic(camera, stamp), plain.semantic(camera, stamp))


@pytest.mark.parametrize("name", DISGUISES)
def test_training_samples_are_those_of_the_plain_recording(drives, name):
    config = SampleConfig(height=64, width=176, rays=2000)
    plain, other = (RayDataset(drives[one][2], config, seed=0) for one in ("plain", name))
    assert len(plain) == len(other) == 3
    for index in range(len(plain)):
        one, two = plain.sample(0, index), other.sample(0, index)
        np.testing.assert_allclose(two.rays.origins, one.rays.origins, atol=1e-6)
        np.testing.assert_allclose(two.rays.directions, one.rays.directions, atol=1e-6)
        np.testing.assert_array_equal(two.rays.distances, one.rays.distances)
        np.testing.assert_array_equal(two.rays.classes, one.rays.classes)
        apart = np.abs(two.current.views.astype(int) - one.current.views)
        if name == "rectified":
            assert apart.max() == 0
        else:
            assert apart.mean() < 3  # of 255: H.264, and JPEG in the tables; measured: 2.0


@pytest.mark.parametrize("name", DISGUISES)
def test_it_is_trained_on(drives, name, tmp_path):
    assert_trained_on(drives[name][2], tmp_path)


@pytest.mark.parametrize("name", DISGUISES)
def test_the_node_sees_what_it_sees_of_the_plain_recording(drives, name):
    predictor = Predictor.untrained(small_config("tiny"), device="cpu")
    config = NodeConfig(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0)
    plain, _ = frames_of(drives["plain"][0], config, predictor)
    template = "{camera}/image_rect" if name == "rectified" else "{camera}/image_raw"
    predictor.reset()
    changed = NodeConfig(cameras=CAMERAS, max_wait=5.0, camera_timeout=60.0, image_topic=template)
    other, said = frames_of(drives[name][0], changed, predictor)
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
