"""`renderocc truth --join`: several recordings of one place, and what keeps them from being joined."""

import json
import re

import numpy as np
import pytest
import tiny_bag
from disguised_vehicle import as_odometry
from town import STORE, rewritten

from renderocc_model.field.classes import OCC3D_NUSCENES
from training.evaluate.truth import main
from training.evaluate.truth.agreement import offset_at
from training.evaluate.truth.joining import Footprint, footprint, neighbours
from training.evaluate.truth.sweeps import Sweep
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

POLE, ROAD = (OCC3D_NUSCENES.id_of(name) for name in ("manmade", "driveable_surface"))
CUT_NS = 1_700_000_000_750_000_000  # between the second and the third of three frames
POSES, MANY_M = "tf2_msgs/msg/TFMessage", 5000.0


def along(x0, x1, y=0.0):
    return np.stack([np.arange(x0, x1, 1.0), np.full(x1 - x0, y)], axis=-1)


def test_recordings_are_neighbours_where_their_drives_come_within_reach():
    drives = {"a": along(0, 100), "b": along(90, 200, 30.0), "c": along(230, 300), "d": along(0, 9, 4000.0)}
    footprints = {name: Footprint("map", places) for name, places in drives.items()}
    # b passes 30 m beside a, c begins sqrt(31^2 + 30^2) = 43.1 m after b's last place (199, 30)
    assert neighbours(footprints, 40.0)[0] == {"a": ["b"], "b": ["a"], "c": [], "d": []}
    near, alone = neighbours(footprints, 44.0)
    assert near == {"a": ["b"], "b": ["a", "c"], "c": ["b"], "d": []}
    assert alone == ["d: is 4.0 km from the nearest other recording; nothing is joined with it"]


def test_frames_of_different_names_are_not_joined():
    with pytest.raises(ValueError, match="the ego poses of a are in 'map', those of b in 'odom'; .* --odom-frame"):
        neighbours({"a": Footprint("map", along(0, 9)), "b": Footprint("odom", along(0, 9))}, 40.0)


def test_drives_that_never_come_near_each_other_have_nothing_to_join():
    with pytest.raises(ValueError, match="nothing to join; the nearest are a and b, 191 m apart in 'map'"):
        neighbours({"a": Footprint("map", along(0, 10)), "b": Footprint("map", along(200, 210))}, 40.0)


def street(seed, shift=(0.0, 0.0, 0.0)):
    """Sixty poles of 0.3 m at places that the seed draws, on flat ground; points are drawn anew each time."""
    places, rng = (
        np.random.default_rng(seed).uniform(-24, 24, (60, 2)),
        np.random.default_rng([seed, *map(ord, str(shift))]),
    )
    angle = rng.uniform(0, 2 * np.pi, (60, 60))
    x, y = (places[:, axis, None] + 0.3 * way(angle) for axis, way in ((0, np.cos), (1, np.sin)))
    poles = np.stack([x, y, rng.uniform(0, 2, (60, 60))], axis=-1).reshape(-1, 3)
    ground = np.concatenate([rng.uniform(-25, 25, (8000, 2)), rng.normal(0, 0.02, (8000, 1))], axis=1)
    names = np.repeat(np.array([POLE, ROAD], np.uint8), [len(poles), len(ground)])
    return [Sweep(0, np.zeros(3), np.concatenate([poles, ground]) + shift, names)]


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.6, -0.5, 0.3)])
def test_how_far_what_two_drives_saw_lies_apart_is_measured(shift):
    offset = offset_at(np.zeros(3), street(1), street(1, shift), OCC3D_NUSCENES)
    assert np.allclose(offset.shift, shift, atol=0.05) and offset.share > 0.9


def test_another_street_does_not_fit_wherever_it_is_shifted():
    assert offset_at(np.zeros(3), street(1), street(2), OCC3D_NUSCENES).share < 0.15


def test_along_a_wall_nothing_tells_where_a_drive_is_so_no_offset_is_claimed():
    def wall(shift):
        x = np.random.default_rng(int(shift * 10)).uniform(-60, 60, 4000)
        points = np.stack([x, np.full(4000, 5.05), np.zeros(4000)], axis=-1)
        return [Sweep(0, np.zeros(3), points, np.full(4000, POLE, np.uint8))]

    assert offset_at(np.zeros(3), wall(0.0), wall(1.0), OCC3D_NUSCENES).metres == 0


def moved(shift):
    """A change of a recording whose ego poses are moved by `shift` metres along x."""

    def change(topic, stamp, data):
        message = STORE.deserialize_cdr(data, POSES)
        for one in message.transforms:
            if one.child_frame_id == "base_link":
                one.transform.translation.x += shift
        return bytes(STORE.serialize_cdr(message, POSES))

    return change


def cut(bag, out, early, shift=0.0):
    """The part of a recording before or after `CUT_NS`, with the static transforms."""

    def change(topic, stamp, data):
        if topic != "/tf_static" and (stamp < CUT_NS) != early:
            return []
        return [(topic, stamp, moved(shift)(topic, stamp, data) if topic == "/tf" and shift else data)]

    return rewritten(bag, out, change, truth=False)


@pytest.fixture(scope="module")
def parts(town_bag, tmp_path_factory):
    """The first two frames of the town, and the third: two drives in one frame."""
    folder = tmp_path_factory.mktemp("parts")
    return [cut(town_bag, folder / name, name == "early") for name in ("early", "late")]


def volumes(folder):
    return {file.name: np.load(file) for file in sorted(folder.rglob("*.npz"))}


def test_two_joined_parts_of_a_drive_have_the_truth_of_the_whole(town_bag, parts, tmp_path):
    assert main([str(town_bag), "--out", str(tmp_path / "whole")]) == 0
    assert main([*map(str, parts), "--join", "--jobs", "2", "--out", str(tmp_path / "joined")]) == 0
    assert main([str(parts[0]), "--out", str(tmp_path / "alone")]) == 0
    whole, joined, alone = (volumes(tmp_path / name) for name in ("whole", "joined", "alone"))
    assert [len(list((tmp_path / "joined" / name).glob("*.npz"))) for name in ("early", "late")] == [2, 1]
    assert joined.keys() == whole.keys()
    for name, volume in whole.items():
        assert np.array_equal(joined[name]["semantics"], volume["semantics"])
        assert np.array_equal(joined[name]["mask_lidar"], volume["mask_lidar"])
    assert any(not np.array_equal(joined[name]["semantics"], alone[name]["semantics"]) for name in alone)
    note = json.loads((tmp_path / "joined" / "early" / "truth.json").read_text())
    assert note["joined"] == [str(parts[1])]


def test_a_drive_whose_odometry_is_shifted_is_named_with_the_distance(town_bag, parts, tmp_path, capsys):
    shifted = cut(town_bag, tmp_path / "shifted", False, 1.0)
    words = [str(parts[0]), str(shifted), "--join", "--jobs", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "early and " in said and "localise both in one map" in said
    assert abs(float(re.search(r"what both saw lies ([0-9.]+) m", said)[1]) - 1) < 0.1
    assert not volumes(tmp_path / "out")


def test_a_drive_that_is_less_than_a_voxel_away_is_joined_with_a_warning(town_bag, parts, tmp_path, capsys):
    shifted = cut(town_bag, tmp_path / "shifted", False, 0.3)
    words = [str(parts[0]), str(shifted), "--join", "--jobs", "1", "--rate", "0.5"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = re.findall("what both saw lies up to ([0-9.]+) m", capsys.readouterr().err)
    assert len(said) == 2 and all(abs(float(metres) - 0.3) < 0.1 for metres in said)


def test_recordings_that_cannot_be_joined_are_refused_before_anything_is_made(town_bag, parts, tmp_path, capsys):
    far = cut(town_bag, tmp_path / "far", False, MANY_M)
    out = ["--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main([str(parts[0]), str(far), "--join", *out]) == 2
    assert "so there is nothing to join" in (said := capsys.readouterr().err) and "5.0 km apart in 'odom'" in said
    assert main([str(parts[0]), "--join", *out]) == 2
    assert "--join needs at least two recordings" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def in_map(topic, stamp, data):
    """A change of a recording whose ego poses are in the frame 'map'."""
    if topic == "/tf":
        message = STORE.deserialize_cdr(data, POSES)
        for one in message.transforms:
            one.header.frame_id = "map"
        data = bytes(STORE.serialize_cdr(message, POSES))
    return [(topic, stamp, data)]


def test_the_frame_of_odometry_is_the_one_that_its_messages_name(town_bag, tmp_path, capsys):
    same = as_odometry(town_bag, tmp_path / "same")
    other = as_odometry(rewritten(town_bag, tmp_path / "changed", in_map), tmp_path / "other")
    with Recording(town_bag) as recording, Recording(same) as found:
        assert footprint(found).frame == footprint(recording).frame == "odom"
        assert np.allclose(footprint(found).places, footprint(recording).places)
    words = [str(town_bag), str(other), "--join", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "are in 'odom', those of" in (said := capsys.readouterr().err) and "in 'map'; name one frame" in said


def test_a_drive_whose_ego_pose_jumps_is_not_in_one_frame(tmp_path, monkeypatch):
    def jumping(stamp_ns):
        """Drives at 4 m/s along x and is 30 m further along y from the third frame on."""
        pose, seconds = np.eye(4), (stamp_ns - tiny_bag.START_NS) / 1e9
        pose[:2, 3] = 4 * seconds, 30.0 * (seconds > 0.75)
        return pose

    monkeypatch.setattr(tiny_bag, "odom_from_base", jumping)
    with Recording(tiny_bag.write_bag(tmp_path / "drive")) as recording:
        with pytest.raises(ValueError, match="drive: its ego pose jumps .*; cut it there, or leave it out of --join"):
            footprint(recording)
