"""Mounts of cameras that cannot be true: named by every part that uses them, alike."""

import numpy as np
import pytest
import tiny_bag
from tiny_bag import Plan, forward_mount, write_bag

from renderocc_model.base.findings import Findings
from renderocc_model.geometry.mounts import BODY_FROM_OPTICAL, mount_faults, place_faults, shared_mounts
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.geometry.transforms import invert
from training.check import main as check
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import read_header
from training.recordings.frames import Recording

FRONT = forward_mount(1.7, 0.0, 1.5)


def turned(angle: float) -> np.ndarray:
    """A rotation about the vehicle's z, degrees."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def pitched(angle: float) -> np.ndarray:
    """A rotation about the optical frame's x, degrees; positive looks up."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]])


def placed(**changes: float) -> list[str]:
    moved = FRONT.copy()
    for axis, value in changes.items():
        moved["xyz".index(axis), 3] = value
    return mount_faults(moved)


def test_mounts_that_vehicles_have_are_not_suspected():
    for yaw in (0, 55, 110, 180, -90):
        for pitch in (-45, -10, 0, 20):
            assert mount_faults(turned(yaw) @ FRONT @ pitched(pitch)) == []
    assert placed(z=-0.06) == []  # SemanticKITTI's, whose vehicle frame is the LiDAR's


def test_a_place_that_no_camera_has_is_named():
    assert placed(z=-3.0) == ["mounted -3.00 m above the vehicle's frame; expected -2.5 to 5.0 m"]
    assert placed(x=0, y=0, z=0.01)[0].startswith("mounted at the origin of the vehicle's frame")
    assert placed(x=200.0)[0].startswith("mounted 200.0 m away")
    millimetres = FRONT.copy()
    millimetres[:3, 3] *= 1000
    assert [text.split(" m ")[0] for text in mount_faults(millimetres)] == ["mounted 1500.00", "mounted 1700.0"]


@pytest.mark.parametrize("yaw", [0, 90, 180])
def test_the_frame_of_a_cameras_body_is_told_from_a_camera_that_looks_up(yaw):
    body = turned(yaw) @ FRONT @ invert(BODY_FROM_OPTICAL)
    (text,) = mount_faults(body)
    assert text.startswith("looks into the sky, 90 degrees up, as if its frame were that of the camera body")
    assert text.endswith("; an optical frame has z forward and y down")
    (text,) = mount_faults(turned(yaw) @ FRONT @ pitched(50))
    assert text == "looks into the sky, 50 degrees up; an optical frame has z forward and y down"


def test_a_transform_that_was_published_the_wrong_way_round_is_named():
    # The inverse of a level camera's rotation puts the image's upper edge to the side.
    assert any("its image is turned by 90 degrees" in text for text in mount_faults(invert(FRONT)))


def test_an_image_upside_down_and_one_that_shows_the_ground_are_named():
    upside_down = FRONT.copy()
    upside_down[:3, :2] *= -1
    assert "turned by 180 degrees" in mount_faults(upside_down)[0]
    assert mount_faults(FRONT @ pitched(-80))[0].startswith("looks into the ground, 80 degrees down")


def test_a_lidar_at_the_vehicles_origin_is_right_and_one_in_millimetres_is_named():
    assert place_faults(np.eye(4)) == []  # SemanticKITTI's
    roof = np.eye(4)
    roof[:3, 3] = 950.0, 0.0, 1840.0
    assert [text.split(" m ")[0] for text in place_faults(roof)] == ["mounted 1840.00", "mounted 950.0"]


def test_two_cameras_with_one_mount_are_named_and_a_stereo_pair_is_not():
    right = FRONT.copy()
    right[1, 3] -= 0.12
    assert shared_mounts({"left": FRONT, "right": right}) == []
    assert shared_mounts({"a": FRONT, "b": right, "c": FRONT}) == [
        "'a' and 'c' are mounted at the same place and look the same way"
    ]


@pytest.fixture
def of_bodies(tmp_path, monkeypatch):
    """A recording whose images name the frame of the camera's body."""
    cameras = [Camera(c.name, c.model, c.base_from_camera @ invert(BODY_FROM_OPTICAL)) for c in tiny_bag.RIG]
    monkeypatch.setattr(tiny_bag, "RIG", Rig(tuple(cameras)))
    return write_bag(tmp_path / "drive", Plan(frames=2))


def test_check_label_prepare_and_doctor_name_the_frame_of_the_body_alike(of_bodies, tmp_path, capsys):
    pytest.importorskip("rclpy")
    from renderocc_ros.commands.doctor.bag import check_bag
    from renderocc_ros.parameters import NodeConfig

    said = {}
    check([str(of_bodies)])
    said["check"] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warn")]
    with Recording(of_bodies) as recording:
        said["label"] = recording.warnings()  # which it prints
    said["prepare"] = read_header(prepare_recording(of_bodies, None, tmp_path / "tables", PrepareConfig()))["warnings"]
    findings = Findings()
    check_bag(findings, of_bodies, NodeConfig())
    said["doctor"] = [item.line() for item in findings.items if item.level == "warn"]
    for command, lines in said.items():
        for camera in ("front", "wide"):
            fitting = [line for line in lines if f"camera '{camera}'" in line and "that of the camera body" in line]
            assert len(fitting) == 1, (command, camera, lines)
    assert not [item for item in findings.items if item.level == "ok" and item.subject == "mounts"]


def test_the_node_judges_a_mount_once_until_it_changes():
    pytest.importorskip("rclpy")
    from renderocc_ros.frame.mounts import MountChecks

    checks, body = MountChecks("base_link"), FRONT @ invert(BODY_FROM_OPTICAL)
    first = checks.faults("front", body)
    assert "that of the camera body" in first[0] and "'base_link', or set the parameter 'camera_frame'" in first[0]
    assert checks.faults("front", body.copy()) is first
    assert checks.faults("front", FRONT) == [] and checks.faults("front", body) == first
