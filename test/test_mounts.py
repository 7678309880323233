"""Mounts given as parameters."""

import sys

import numpy as np
import pytest

from renderocc_model.geometry.mount_entries import camera_mounts, quaternion_from_euler


def test_a_level_camera_looking_ahead_sees_x_of_the_vehicle_in_depth():
    mount = camera_mounts(("front: 1.5 0 1.6 0 0 0",), ("front",))["front"]
    # A point 10 m ahead of the camera, 1 m to its right and 2 m above: optical (1, -2, 10), base (11.5, -1, 3.6).
    assert mount @ [1.0, -2.0, 10.0, 1.0] == pytest.approx([11.5, -1.0, 3.6, 1.0])


def test_yaw_to_the_left_and_pitch_downwards():
    left = camera_mounts(("left: 0 0 0 0 0 1.5707963267948966",), ("left",))["left"]
    assert left @ [0.0, 0.0, 1.0, 1.0] == pytest.approx([0.0, 1.0, 0.0, 1.0])
    down = camera_mounts(("down: 0, 0, 0, 0, 0.5235987755982988, 0",), ("down",))["down"]  # 30 degrees
    assert down @ [0.0, 0.0, 1.0, 1.0] == pytest.approx([np.sqrt(3) / 2, 0.0, -0.5, 1.0])


def test_euler_angles_are_about_the_fixed_axes_x_then_y_then_z():
    from scipy.spatial.transform import Rotation

    angles = (0.3, -0.7, 2.1)
    expected = Rotation.from_euler("xyz", angles).as_quat()
    quaternion = quaternion_from_euler(*angles)
    assert abs(float(np.dot(quaternion, expected))) == pytest.approx(1.0, abs=1e-12)


# tf_transformations comes with a whole ROS install and not from a package index: modules of its name stand in for it.
TF_TRANSFORMATIONS = {
    "used": ("def quaternion_from_euler(*angles): return [*angles, 9.0]", [1.0, 2.0, 3.0, 9.0]),
    # transforms3d 0.4.1, which Ubuntu 24.04 has, fails so under NumPy 2.
    "clash": ("import numpy; numpy.no_such_attribute", None),
}


@pytest.mark.parametrize(("program", "answer"), TF_TRANSFORMATIONS.values(), ids=TF_TRANSFORMATIONS)
def test_tf_transformations_is_used_where_it_is_installed_and_works(tmp_path, monkeypatch, program, answer):
    monkeypatch.setitem(sys.modules, "tf_transformations", None)
    own = quaternion_from_euler(1.0, 2.0, 3.0)
    (tmp_path / "tf_transformations.py").write_text(program)
    monkeypatch.delitem(sys.modules, "tf_transformations")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert quaternion_from_euler(1.0, 2.0, 3.0) == pytest.approx(own if answer is None else answer)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("front 1 2 3 0 0 0", "front 1 2 3"),
        ("front: 1 2 3", "expected"),
        ("front: 1 2 3 0 0 nan", "nan"),
        ("rear: 0 0 0 0 0 0", "rear"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(text, named):
    with pytest.raises(ValueError, match=named):
        camera_mounts((text,), ("front",))
