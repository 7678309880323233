"""Lens models: OpenCV as the independent method, hand-worked points, folds, and inverses."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderocc_model.geometry.distortion import BrownConrady, KannalaBrandt, make_lens
from renderocc_model.geometry.distortion_names import conventional_distortion

ZERO = np.zeros(3)
BROWN = {
    "barrel": (-0.3, 0.1, 0.001, -0.002),
    "barrel with k3": (-0.35, 0.15, 0.0005, -0.001, -0.03),
    "pincushion": (0.1, 0.2, -0.001, 0.002, 0.0),
    "strong tangential": (-0.2, 0.0, 0.02, 0.03, 0.0),
    "rational": (1.2, 0.4, 0.001, 0.0002, 0.01, 1.5, 0.7, 0.05),
    "thin prism": (-0.3, 0.1, 0.001, -0.002, 0.0, 0.1, 0.02, 0.001, 0.001, 0.002, -0.001, 0.0005),
    "tilted": (-0.3, 0.1, 0.001, -0.002, 0.0, 0.1, 0.02, 0.001, 0.001, 0.002, -0.001, 0.0005, 0.05, -0.03),
}
FISHEYE = {
    "mild": (-0.0195, -0.00303, -0.00063, 0.0000929),
    "strong": (0.2423, 0.5059, -0.4873, 0.1775),
    "ideal": (0.0, 0.0, 0.0, 0.0),
    "folds": (-0.1, 0.0, 0.0, 0.0),
}


def directions_within(angle: float, count: int = 3000) -> np.ndarray:
    """Random directions (count, 3) no further than `angle` from the z axis, of random lengths."""
    rng = np.random.default_rng(1)
    theta, phi, length = angle * np.sqrt(rng.random(count)), rng.random(count) * 2 * np.pi, rng.uniform(0.1, 50, count)
    sideways = np.sin(theta)
    return np.stack([sideways * np.cos(phi), sideways * np.sin(phi), np.cos(theta)], axis=-1) * length[:, None]


def test_a_point_distorted_by_hand():
    # x = 0.5, y = 0: r^2 = 0.25. Radial 1 - 0.3 * 0.25 + 0.1 * 0.0625 = 0.93125, so 0.465625;
    # tangential in x: p2 (r^2 + 2 x^2) = -0.002 * 0.75 = -0.0015; in y: p1 r^2 = 0.001 * 0.25 = 0.00025.
    points, valid = BrownConrady(BROWN["barrel"]).distort(np.array([[1.0, 0.0, 2.0]]))
    assert valid.all()
    assert points[0] == pytest.approx([0.464125, 0.00025], abs=1e-15)


def test_a_fisheye_point_distorted_by_hand():
    # 90 degrees to the right: theta = pi/2; theta (1 - 0.1 theta^2) = 1.570796 * (1 - 0.2467401) = 1.183218.
    points, valid = KannalaBrandt((-0.1, 0.0, 0.0, 0.0)).distort(np.array([[3.0, 0.0, 0.0]]))
    assert valid.all()
    assert points[0] == pytest.approx([1.183218, 0.0], abs=1e-6)


@pytest.mark.parametrize("name", BROWN)
def test_brown_conrady_equals_opencv(name):
    lens = BrownConrady(BROWN[name])
    directions = directions_within(min(lens.largest_angle, math.radians(85)) * 0.999)
    points, valid = lens.distort(directions)
    expected = cv2.projectPoints(directions, ZERO, ZERO, np.eye(3), np.array(BROWN[name]))[0][:, 0]
    assert valid.all()
    assert np.allclose(points, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FISHEYE)
def test_kannala_brandt_equals_opencv(name):
    lens = KannalaBrandt(FISHEYE[name])
    directions = directions_within(min(lens.largest_angle, math.radians(89)) * 0.999)
    points, valid = lens.distort(directions)
    plane = directions[:, None, :2] / directions[:, None, 2:]
    expected = cv2.fisheye.distortPoints(plane, np.eye(3), np.array(FISHEYE[name]))[:, 0]
    assert valid.all()
    assert np.allclose(points, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("coefficients", [*BROWN.values(), (0.0,) * 5])
def test_brown_conrady_comes_back_everywhere_in_its_field(coefficients):
    lens = BrownConrady(coefficients)
    directions = directions_within(min(lens.largest_angle, math.radians(88)) * 0.995)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points, _ = lens.distort(directions)
    back = lens.undistort(points)
    assert np.isfinite(back).all()
    again, _ = lens.distort(back)
    assert np.abs(again - points).max() < 1e-12 * (1 + np.abs(points).max())  # 1e-9 px at a focal length of 1000 px
    assert np.abs(back - directions).max() < 1e-9


@pytest.mark.parametrize("name", FISHEYE)
def test_kannala_brandt_comes_back_everywhere_in_its_field(name):
    lens = KannalaBrandt(FISHEYE[name])
    directions = directions_within(lens.largest_angle * 0.998)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points, valid = lens.distort(directions)
    assert valid.all()
    back = lens.undistort(points)
    assert np.abs(back - directions).max() < 1e-9
    assert np.linalg.norm(back, axis=1) == pytest.approx(np.ones(len(back)))


def test_a_fisheye_sees_behind_itself():
    lens = KannalaBrandt(FISHEYE["mild"])
    behind = np.array([[math.sin(2.0), 0, math.cos(2.0)]])  # 115 degrees off the axis
    points, valid = lens.distort(behind)
    assert valid[0] and np.allclose(lens.undistort(points), behind, atol=1e-12)


@pytest.mark.parametrize("lens", [BrownConrady(BROWN["barrel"]), KannalaBrandt(FISHEYE["mild"])])
def test_directions_that_lead_nowhere_are_invalid(lens):
    nowhere = np.array([[0, 0, -1.0], [0, 0, 0], [np.nan, 0, 1], [0, np.inf, 1], [np.inf, np.inf, np.inf]])
    points, valid = lens.distort(nowhere)
    assert not valid.any() and np.isnan(points).all()


def test_the_axis_itself_stays_where_it_is():
    for lens in (BrownConrady(BROWN["tilted"]), KannalaBrandt(FISHEYE["strong"])):
        points, valid = lens.distort(np.array([[0, 0, 2.5]]))
        assert valid[0] and np.abs(points).max() < 1e-15
        assert lens.undistort(np.zeros((1, 2)))[0] == pytest.approx([0, 0, 1])


def test_a_lens_that_folds_maps_nothing_beyond_the_fold():
    # r (1 - 0.4 r^2) grows until 1 = 1.2 r^2: r = 0.912871, 42.392 degrees, where it reaches 0.608581.
    lens = BrownConrady((-0.4, 0.0, 0.0, 0.0))
    assert lens.largest_radius == pytest.approx(0.9128709)
    assert math.degrees(lens.largest_angle) == pytest.approx(42.39, abs=0.01)
    # r = 1.5 would come back to 0.15, in the middle of the picture.
    points, valid = lens.distort(np.array([[0.912, 0, 1], [0.914, 0, 1], [1.5, 0, 1], [0, -100, 1]]))
    assert valid.tolist() == [True, False, False, False]
    assert np.isnan(points[1:]).all()
    directions = lens.undistort(np.array([[0.608, 0], [0.609, 0], [0, 5.0]]))
    assert np.isfinite(directions).all(axis=1).tolist() == [True, False, False]


def test_a_fisheye_that_folds_maps_nothing_beyond_the_fold():
    # theta (1 - 0.1 theta^2) grows until 1 = 0.3 theta^2: theta = 1.825742, 104.6 degrees, where it reaches 1.217161.
    lens = KannalaBrandt(FISHEYE["folds"])
    assert lens.largest_angle == pytest.approx(1.8257419)
    angles = np.array([1.82, 1.83, 3.0])
    _, valid = lens.distort(np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=-1))
    assert valid.tolist() == [True, False, False]
    assert np.isfinite(lens.undistort(np.array([[1.217, 0], [1.218, 0]]))).all(axis=1).tolist() == [True, False]


def test_a_pole_of_the_rational_model_bounds_its_field():
    # Denominator 1 - r^2 is zero at r = 1; nothing at or beyond it is mapped.
    lens = BrownConrady((0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0))
    assert lens.largest_radius == pytest.approx(1.0)
    assert lens.distort(np.array([[0.99, 0, 1], [1.01, 0, 1]]))[1].tolist() == [True, False]


def test_tangential_distortion_shrinks_the_one_to_one_field():
    radial = BrownConrady((-0.4, 0.0, 0.0, 0.0))
    both = BrownConrady((-0.4, 0.0, 0.02, 0.03))
    assert both.largest_radius < radial.largest_radius
    # Inside the field the mapping is one-to-one: the determinant of a numerical Jacobian is positive all over it.
    directions = directions_within(both.largest_angle * 0.999)
    plane = directions[:, :2] / directions[:, 2:]

    def mapped(shift):
        return both.distort(np.concatenate([plane + shift, np.ones((len(plane), 1))], axis=1))[0]

    step = 1e-6
    across = (mapped((step, 0)) - mapped((-step, 0))) / (2 * step)
    down = (mapped((0, step)) - mapped((0, -step))) / (2 * step)
    determinant = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    assert (determinant[np.isfinite(determinant)] > 0).all()


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(
        st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01), st.floats(-0.1, 0.1)
    ),
    st.floats(0.01, 0.99),
    st.floats(0, 6.28),
)
def test_any_plumb_bob_comes_back_or_has_no_answer_but_never_another_one(coefficients, share, phi):
    lens = BrownConrady(coefficients)
    radius = share * min(lens.largest_radius, 3.0)
    direction = np.array([[radius * math.cos(phi), radius * math.sin(phi), 1.0]])
    points, valid = lens.distort(direction)
    assert valid.all()
    assert np.allclose(lens.undistort(points), direction / np.linalg.norm(direction), atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-0.3, 0.5), st.floats(-0.3, 0.5), st.floats(-0.5, 0.3), st.floats(-0.1, 0.3)),
    st.floats(0.01, 0.99),
    st.floats(0, 6.28),
)
def test_any_fisheye_comes_back(coefficients, share, phi):
    lens = KannalaBrandt(coefficients)
    theta = share * lens.largest_angle
    direction = np.array([[math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)]])
    points, valid = lens.distort(direction)
    assert valid.all()
    assert np.allclose(lens.undistort(points), direction, atol=1e-7)


def test_no_points_have_no_directions():
    for lens in (BrownConrady(BROWN["thin prism"]), KannalaBrandt(FISHEYE["mild"])):
        assert lens.distort(np.empty((0, 3)))[0].shape == (0, 2)
        assert lens.undistort(np.empty((0, 2))).shape == (0, 3)


def test_plumb_bob_without_coefficients_does_not_distort():
    points, _ = make_lens("plumb_bob", ()).distort(np.array([[1.0, 2.0, 4.0]]))
    assert points[0].tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("model", "coefficients", "message"),
    [
        (
            "fisheye",
            (0,) * 4,
            "distortion_model is 'fisheye'; expected one of plumb_bob, rational_polynomial, equidistant",
        ),
        ("", (), "distortion_model is ''"),
        ("plumb_bob", (0,) * 3, "plumb_bob has 3 coefficients; expected 4 or 5"),
        ("rational_polynomial", (0,) * 5, "rational_polynomial has 5 coefficients; expected 8 or 12 or 14"),
        ("equidistant", (), "equidistant has 0 coefficients; expected 4"),
        ("equidistant", (0, 0, 0, math.nan), "equidistant coefficients are (0, 0, 0, nan); expected finite numbers"),
    ],
)
def test_a_lens_that_cannot_be_says_what_is_wrong(model, coefficients, message):
    with pytest.raises(ValueError) as error:
        make_lens(model, coefficients)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["fisheye", "Kannala-Brandt", "kannala_brandt4", "KB4", "Equidistant", "equidistant"])
def test_the_fisheye_model_is_known_by_its_other_names(name):
    assert conventional_distortion(name, (0.1, 0, 0, 0.2)) == ("equidistant", (0.1, 0, 0, 0.2))


@pytest.mark.parametrize(
    ("name", "given", "model", "kept"),
    [
        ("Plumb_Bob", (0.1, 0.2, 0, 0), "plumb_bob", (0.1, 0.2, 0, 0)),
        ("radtan", (0.1, 0.2, 0, 0, 0.3), "plumb_bob", (0.1, 0.2, 0, 0, 0.3)),
        ("plumb_bob", (0.1, 0.2, 0, 0, 0.3, 0, 0, 0), "plumb_bob", (0.1, 0.2, 0, 0, 0.3)),
        ("rational polynomial", (1, 2, 3, 4, 5, 6, 7, 8, 0), "rational_polynomial", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("equidistant", (0.1, 0, 0, 0, 0), "equidistant", (0.1, 0, 0, 0)),
        ("equidistant", (0, 0, 0, 0), "equidistant", (0, 0, 0, 0)),  # a fisheye lens without corrections
        ("", (), "plumb_bob", ()),
        ("none", (0, 0, 0, 0, 0), "plumb_bob", ()),
        ("pinhole", (0, 0, 0), "plumb_bob", ()),
        ("Inverse Brown Conrady", (0, 0, 0, 0, 0), "plumb_bob", ()),
        ("rational_polynomial", (), "plumb_bob", ()),
        ("plumb_bob", (0, 0, 0), "plumb_bob", ()),
    ],
)
def test_names_and_zeros_that_say_nothing_are_understood(name, given, model, kept):
    assert conventional_distortion(name, given) == (model, kept)
    make_lens(model, kept)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("plumb_bob", (1, 2, 3, 4, 5, 6, 7, 8), "plumb_bob has 8 coefficients.*are those of rational_polynomial"),
        ("rational_polynomial", (1, 2, 3, 4, 5), "rational_polynomial has 5 coefficients.*are those of plumb_bob"),
        ("equidistant", (1, 2, 3, 4, 5), "equidistant has 5 coefficients; expected 4"),
        ("equidistant", (), "equidistant has 0 coefficients; expected 4"),
        ("", (0.1, 0, 0, 0, 0), "distortion_model is ''"),
        ("pinhole", (0, 0, math.nan), "distortion_model is 'pinhole'"),
        ("Inverse Brown Conrady", (0.1, 0, 0, 0, 0), "'Inverse Brown Conrady'; expected one of plumb_bob"),
        ("thin_prism_fisheye", (0, 0, 0, 0), "'thin_prism_fisheye'"),  # no pinhole, although all are zero
        ("double_sphere", (), "'double_sphere'"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_model_that_fits(name, given, message):
    with pytest.raises(ValueError, match=message):
        conventional_distortion(name, given)
