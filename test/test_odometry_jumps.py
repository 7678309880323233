"""Which poses follow from those before, and which have jumped."""

from __future__ import annotations

import math

import numpy as np

from renderocc_model.inference.odometry_jumps import OdometryJumps


def pose(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    made = np.eye(4)
    made[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    made[:2, 3] = x, y
    return made


def jumps(poses, seconds: float = 0.1) -> list[int]:
    """The numbers of the poses that are said to have jumped."""
    detection = OdometryJumps()
    return [number for number, one in enumerate(poses) if detection.add(one, int((1 + number * seconds) * 1e9))]


def test_driving_braking_and_turning_are_no_jumps():
    assert jumps([pose(3.0 * n) for n in range(20)]) == []  # 30 m/s
    x, speed, way = 0.0, 30.0, []
    for _ in range(40):  # 10 m/s^2
        way.append(pose(x))
        x, speed = x + 0.1 * speed, max(0.0, speed - 1.0)
    assert jumps(way) == []
    circle = [pose(7 * math.sin(0.12 * n), 7 - 7 * math.cos(0.12 * n), 0.12 * n) for n in range(120)]
    assert jumps(circle) == []  # 8.4 m/s on a radius of 7 m, also through 180 degrees


def test_a_robot_that_begins_to_turn_on_the_spot_has_not_jumped():
    assert jumps([pose(0), pose(0), pose(0, yaw=0.2), pose(0, yaw=0.45), pose(0, yaw=0.7)]) == []


def test_noise_and_drift_are_no_jumps():
    noise = np.random.default_rng(0).normal(0, 0.03, (200, 2))
    assert jumps([pose(n * 0.5 + dx, n * 0.02 + dy) for n, (dx, dy) in enumerate(noise)]) == []


def test_a_step_of_the_pose_is_a_jump_once():
    way = [pose(n * 0.5, 0.0 if n < 10 else 1.0) for n in range(20)]
    assert jumps(way) == [10]


def test_a_turn_that_no_vehicle_makes_is_a_jump_once():
    way = [pose(n * 0.5, yaw=0.0 if n < 10 else 0.6) for n in range(20)]
    assert jumps(way) == [10]


def test_after_a_pause_the_vehicle_may_be_further():
    detection = OdometryJumps()
    assert not detection.add(pose(0.0), 10**9)
    assert not detection.add(pose(1.0), 11 * 10**8)
    # 2 s later it should be at 21 m; with 12 m/s^2 it may be 48 m off, and half a metre.
    assert not detection.add(pose(21.0 + 48.4), 31 * 10**8)
    detection.clear()
    detection.add(pose(0.0), 10**9)
    detection.add(pose(1.0), 11 * 10**8)
    assert detection.add(pose(21.0 + 48.6), 31 * 10**8)


def test_the_first_pose_and_the_first_after_clearing_can_be_anywhere():
    detection = OdometryJumps()
    assert not detection.add(pose(1e6), 10**9)
    detection.clear()
    assert not detection.add(pose(-1e6), 2 * 10**9)


def test_no_vehicle_is_faster_than_70_m_s():
    assert jumps([pose(0), pose(7.4)]) == []  # 7 m, and half a metre
    assert jumps([pose(0), pose(7.6)]) == [1]


def test_poses_of_almost_the_same_time_give_no_speed():
    detection = OdometryJumps()
    for x, milliseconds in ((0.0, 1000), (0.3, 1001), (0.0, 1100), (0.0, 1200)):
        assert detection.add(pose(x), milliseconds * 10**6) == ""
