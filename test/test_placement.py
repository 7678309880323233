"""Placement of cameras at their own stamps."""

import numpy as np
import pytest

from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.placement import place_cameras

SECOND = 1_000_000_000
IDENTITY = (0.0, 0.0, 0.0, 1.0)


def moving_vehicle() -> TransformBuffer:
    """10 m/s along odom's x from t = 0; a camera 2 m ahead of base_link, mounted without rotation."""
    transforms = TransformBuffer()
    transforms.set("odom", "base_link", 0, (0.0, 0.0, 0.0), IDENTITY)
    transforms.set("odom", "base_link", SECOND, (10.0, 0.0, 0.0), IDENTITY)
    transforms.set("base_link", "camera", 0, (2.0, 0.0, 0.0), IDENTITY, static=True)
    return transforms


def test_a_later_image_is_placed_ahead_by_the_way_driven_since():
    placements = place_cameras(
        moving_vehicle(), {"a": ("camera", 500_000_000), "b": ("camera", 543_000_000)}, 500_000_000, "base_link", "odom"
    )
    assert placements.base_from_camera["a"][:3, 3] == pytest.approx([2.0, 0.0, 0.0])
    assert placements.base_from_camera["b"][:3, 3] == pytest.approx([2.43, 0.0, 0.0])  # 43 ms at 10 m/s
    assert placements.odom_from_base[:3, 3] == pytest.approx([5.0, 0.0, 0.0])
    assert placements.mounts["b"][:3, 3] == pytest.approx([2.0, 0.0, 0.0])
    assert placements.ego_motion_missing == "" and placements.unplaced == {}


def test_a_turning_vehicle_turns_the_later_camera():
    """Quarter turn about z in one second: at half of it, a camera 2 m ahead has moved to 45 degrees."""
    transforms = TransformBuffer()
    transforms.set("odom", "base_link", 0, (0.0, 0.0, 0.0), IDENTITY)
    half = np.sqrt(0.5)
    transforms.set("odom", "base_link", SECOND, (0.0, 0.0, 0.0), (0.0, 0.0, half, half))
    transforms.set("base_link", "camera", 0, (2.0, 0.0, 0.0), IDENTITY, static=True)
    placed = place_cameras(transforms, {"a": ("camera", SECOND // 2)}, 0, "base_link", "odom").base_from_camera["a"]
    assert placed[:3, 3] == pytest.approx([np.sqrt(2), np.sqrt(2), 0.0])
    assert placed[:3, 0] == pytest.approx([half, half, 0.0])


def test_without_ego_motion_at_one_stamp_all_cameras_get_their_mounts_and_the_reason_is_given():
    placements = place_cameras(
        moving_vehicle(), {"a": ("camera", SECOND // 2), "b": ("camera", 2 * SECOND)}, SECOND // 2, "base_link", "odom"
    )
    assert placements.base_from_camera["a"] == pytest.approx(placements.base_from_camera["b"])
    assert "extrapolation into the future" in placements.ego_motion_missing
    assert placements.odom_from_base is None


def test_an_empty_odom_frame_means_static_mounts():
    placements = place_cameras(moving_vehicle(), {"a": ("camera", 5)}, 5, "base_link", "")
    assert placements.base_from_camera["a"][:3, 3] == pytest.approx([2.0, 0.0, 0.0])
    assert "odom_frame" in placements.ego_motion_missing


def test_a_camera_without_a_mount_is_named_and_the_others_are_placed():
    placements = place_cameras(
        moving_vehicle(), {"a": ("camera", 5), "lost": ("lost_optical", 5)}, 5, "base_link", "odom"
    )
    assert set(placements.base_from_camera) == {"a"}
    assert "lost_optical" in placements.unplaced["lost"]


def test_a_mount_given_by_hand_needs_no_tf_but_still_moves_with_the_vehicle():
    mount = np.eye(4)
    mount[:3, 3] = 1.0, 2.0, 3.0
    placements = place_cameras(
        moving_vehicle(), {"a": ("nowhere", 100_000_000)}, 0, "base_link", "odom", fixed_mounts={"a": mount}
    )
    assert placements.base_from_camera["a"][:3, 3] == pytest.approx([2.0, 2.0, 3.0])  # 0.1 s at 10 m/s further on
