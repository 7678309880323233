"""Rigid transforms and quaternions, against hand-worked numbers and scipy's independent arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from renderocc_model.geometry.transforms import (
    interpolate,
    invert,
    matrix_from_quaternion,
    quaternion_from_matrix,
    slerp,
    transform_from,
    transform_points,
)

HALF = math.sqrt(0.5)
components = st.floats(-1, 1)
quaternions = st.tuples(*[components] * 4).filter(lambda q: np.linalg.norm(q) > 1e-3)
translations = st.tuples(*[st.floats(-1e4, 1e4)] * 3)


def test_a_quarter_turn_about_z_takes_x_to_y():
    rotation = matrix_from_quaternion([0, 0, HALF, HALF])
    assert rotation @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-15)
    assert rotation @ [0, 1, 0] == pytest.approx([-1, 0, 0], abs=1e-15)


def test_the_optical_frame_of_a_camera_that_looks_ahead():
    # REP-103: optical z is base x, optical x is base -y, optical y is base -z; as a quaternion (-1, 1, -1, 1) / 2.
    base_from_camera = transform_from([1.5, 0, 1.6], [-0.5, 0.5, -0.5, 0.5])
    # 10 m ahead of the camera, 2 m to its right, 1 m below it.
    assert transform_points(base_from_camera, [[2, 1, 10]])[0] == pytest.approx([11.5, -2, 0.6])


@given(quaternions)
def test_matrices_of_quaternions_equal_scipys(quaternion):
    assert np.allclose(matrix_from_quaternion(quaternion), Rotation.from_quat(quaternion).as_matrix(), atol=1e-14)


def test_stacks_of_quaternions_give_stacks_of_matrices():
    quaternions = np.random.default_rng(0).normal(size=(2, 3, 4))
    matrices = matrix_from_quaternion(quaternions)
    assert matrices.shape == (2, 3, 3, 3)
    assert np.allclose(matrices[1, 2], matrix_from_quaternion(quaternions[1, 2]))


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 7.0, 1e200])
def test_the_length_of_a_quaternion_does_not_matter(scale):
    assert np.allclose(matrix_from_quaternion(np.array([0, 0, HALF, HALF]) * scale) @ [1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [0, 0, 0, np.nan], [0, np.inf, 0, 1]])
def test_a_quaternion_that_is_no_rotation_is_refused(bad):
    with pytest.raises(ValueError, match="is no rotation; publish a unit quaternion"):
        matrix_from_quaternion(bad)


@given(quaternions)
def test_quaternions_come_back_from_their_matrices_up_to_sign(quaternion):
    unit = np.array(quaternion) / np.linalg.norm(quaternion)
    back = quaternion_from_matrix(matrix_from_quaternion(quaternion))
    assert back[3] >= 0
    assert min(np.abs(back - unit).max(), np.abs(back + unit).max()) < 1e-12


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_have_exact_quaternions(axis):
    diagonal = -np.ones(3)
    diagonal[axis] = 1
    assert np.abs(quaternion_from_matrix(np.diag(diagonal))) == pytest.approx(np.eye(4)[axis])


@pytest.mark.parametrize("matrix", [2 * np.eye(3), np.diag([1, 1, -1]), np.full((3, 3), np.nan), np.eye(4)])
def test_a_matrix_that_is_no_rotation_has_no_quaternion(matrix):
    with pytest.raises(ValueError, match="orthonormal 3x3 matrix with determinant 1"):
        quaternion_from_matrix(matrix)


@given(quaternions, translations)
def test_a_transform_and_its_inverse_cancel(quaternion, translation):
    a_from_b = transform_from(translation, quaternion)
    assert np.allclose(invert(a_from_b) @ a_from_b, np.eye(4), atol=1e-9)
    assert np.allclose(invert(a_from_b), np.linalg.inv(a_from_b), atol=1e-9)


def test_stacks_of_transforms_are_inverted_one_by_one():
    stack = np.stack([transform_from([i, 2, 3], [0, 0, i, 1]) for i in range(4)])
    assert np.allclose(invert(stack)[3], np.linalg.inv(stack[3]))


def test_a_translation_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="three finite numbers in metres"):
        transform_from([0, 0, np.nan], [0, 0, 0, 1])
    with pytest.raises(ValueError, match=r"quaternion: expected \(x, y, z, w\)"):
        transform_from([0, 0, 0], [0, 0, 1])


def test_points_keep_their_shape():
    a_from_b = transform_from([1, 2, 3], [0, 0, 0, 1])
    assert transform_points(a_from_b, np.zeros((0, 3))).shape == (0, 3)
    assert transform_points(a_from_b, np.zeros((2, 5, 3)))[1, 4].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., 3\)"):
        transform_points(a_from_b, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="expected one 4x4 matrix"):
        transform_points(np.stack([a_from_b] * 3), np.zeros((3, 3)))


@given(quaternions, quaternions, st.floats(0, 1))
def test_slerp_equals_scipys(start, end, fraction):
    start, end = (np.array(q) / np.linalg.norm(q) for q in (start, end))
    assume(abs(start @ end) > 1e-6)  # half a turn apart both ways round are as short, and scipy may take the other
    expected = Slerp([0, 1], Rotation.from_quat([start, end]))([fraction]).as_matrix()[0]
    assert np.allclose(matrix_from_quaternion(slerp(start, end, fraction)), expected, atol=1e-7)


def test_slerp_turns_at_a_constant_rate_the_short_way_round():
    # 30 degrees about z, written as the quaternion of -330 degrees: a third of the way is 10 degrees.
    start, end = np.array([0, 0, 0, 1.0]), -np.array([0, 0, math.sin(math.radians(15)), math.cos(math.radians(15))])
    turned = slerp(start, end, 1 / 3)
    assert turned == pytest.approx([0, 0, math.sin(math.radians(5)), math.cos(math.radians(5))])


@given(quaternions, st.floats(0, 1), st.floats(0, 1e-6))
def test_slerp_between_nearly_equal_rotations_stays_a_rotation(start, fraction, difference):
    start = np.array(start)
    turned = slerp(start, start + difference, fraction)
    assert np.linalg.norm(turned) == pytest.approx(1)
    assert abs(turned @ start) / np.linalg.norm(start) == pytest.approx(1, abs=1e-5)


def test_interpolation_reaches_both_ends_and_moves_evenly():
    start, end = transform_from([0, 0, 0], [0, 0, 0, 1]), transform_from([4, 8, 0], [0, 0, HALF, HALF])
    assert np.allclose(interpolate(start, end, 0), start)
    assert np.allclose(interpolate(start, end, 1), end)
    quarter = interpolate(start, end, 0.25)
    assert quarter[:3, 3] == pytest.approx([1, 2, 0])
    # A quarter of 90 degrees.
    assert math.degrees(math.atan2(quarter[1, 0], quarter[0, 0])) == pytest.approx(22.5)


@pytest.mark.parametrize("fraction", [-0.01, 1.01, np.nan])
def test_extrapolation_is_refused(fraction):
    with pytest.raises(ValueError, match="extrapolating a pose is guessing"):
        interpolate(np.eye(4), np.eye(4), fraction)
