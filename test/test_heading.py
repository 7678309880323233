"""Driving directions that cannot be true: a base frame with other axes, or an ego pose that is the wrong way round."""

import numpy as np
import pytest
import tiny_bag
from tiny_bag import START_NS, Plan, write_bag

from renderocc_model.geometry.transforms import invert, transform_from
from renderocc_model.rosio.heading import direction_fault
from training.check import main as check
from training.recordings.frames import Recording


def drive(seconds: float = 10.0, speed: float = 5.0, rate: float = 50.0) -> np.ndarray:
    """Poses (N, 4, 4) of a curve: 5 m/s, and a turn of 0.2 rad/s."""
    t = np.arange(0, seconds, 1 / rate)
    x, y = speed / 0.2 * np.sin(0.2 * t), speed / 0.2 * (1 - np.cos(0.2 * t))
    return np.array(
        [transform_from((x[i], y[i], 0), (0, 0, np.sin(0.1 * t[i]), np.cos(0.1 * t[i]))) for i in range(len(t))]
    )


def turned(angle: float) -> np.ndarray:
    return transform_from((0, 0, 0), (0, 0, np.sin(np.radians(angle) / 2), np.cos(np.radians(angle) / 2)))


def fault(poses: np.ndarray) -> str:
    return direction_fault(poses, np.zeros(len(poses), int))


def test_a_drive_along_x_is_not_suspected():
    assert fault(drive()) == ""
    noisy = drive()
    noisy[:, :3, 3] += np.random.default_rng(0).normal(0, 0.05, (len(noisy), 3))
    assert fault(noisy) == ""
    assert fault(drive()[:, :, :] @ turned(20)) == ""  # a mount that is a little off


def test_a_frame_whose_y_or_z_points_forward_is_named():
    for axes in (turned(90), turned(-90), transform_from((0, 0, 0), (0, np.sqrt(0.5), 0, np.sqrt(0.5)))):
        assert "but not along the frame's x axis" in fault(drive() @ axes)


def test_a_drive_that_is_all_backwards_is_named():
    assert "drives all of its 49 m backwards" in fault(drive() @ turned(180))
    straight = drive(speed=5.0)
    straight[:] = np.eye(4)
    straight[:, 0, 3] = np.arange(len(straight)) * 0.1
    assert fault(straight) == "" and "the wrong way round" in fault(invert(straight))


def test_parking_a_short_way_and_standing_are_not_judged():
    poses = drive(seconds=1.5) @ turned(180)
    assert fault(poses) == ""
    there_and_back = np.concatenate([drive(), drive()[::-1]])
    assert fault(there_and_back) == ""  # forward into a street and back out of it
    still = np.tile(np.eye(4), (5000, 1, 1))
    still[:, :3, 3] += np.random.default_rng(0).normal(0, 0.05, (5000, 3))
    assert fault(still) == ""


def test_a_way_across_a_jump_does_not_count():
    poses = drive()
    poses[250:, 1, 3] += 15.0
    pieces = (np.arange(len(poses)) >= 250).astype(int)
    assert direction_fault(poses, pieces) == ""


def test_check_label_and_doctor_name_it_alike(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rclpy")
    from renderocc_model.base.findings import Findings
    from renderocc_ros.commands.doctor.bag import check_bag
    from renderocc_ros.parameters import NodeConfig

    def sideways(stamp_ns):
        pose = np.eye(4)
        pose[1, 3] = 10.0 * (stamp_ns - START_NS) / 1e9
        return pose

    monkeypatch.setattr(tiny_bag, "odom_from_base", sideways)
    bag = write_bag(tmp_path / "drive", Plan(frames=6))
    check([str(bag)])
    findings = Findings()
    check_bag(findings, bag, NodeConfig())
    with Recording(bag) as recording:
        warnings = recording.warnings()
    for lines in (
        [line for line in capsys.readouterr().out.splitlines() if line.startswith("warn")],
        [item.line() for item in findings.items if item.level == "warn"],
        warnings,
    ):
        assert sum("but not along the frame's x axis" in line for line in lines) == 1, lines
