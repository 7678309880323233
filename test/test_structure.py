"""Depth from motion: cameras as COLMAP has them, matches along epipolar lines, points, and tests of the poses."""

import dataclasses
import re

import numpy as np
import pytest

pytest.importorskip("pycolmap", reason="needs pycolmap: pip install -r requirements-train.txt")

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.transforms import invert, transform_points
from training.label.structure.colmap import colmap_camera
from training.label.structure.consistency import SCALES, pose_votes, scale_votes
from training.label.structure.features import Extractor, Features, pixel_angles
from training.label.structure.judgement import check_found, check_poses, remarks
from training.label.structure.matching import epipolar_errors, match_along_lines, match_anywhere
from training.label.structure.settings import MotionDepth, NoParallax, StructureError
from training.label.structure.store import WindowStore
from training.label.structure.support import similar_neighbours
from training.label.structure.triangulation import triangulate
from training.label.structure.views import View, matching_pairs
from training.label.structure.window import ImageLabels, Report

K = [[400.0, 0, 319.5], [0, 410.0, 239.5], [0, 0, 1]]
PINHOLE = CameraModel(640, 480, K, "plumb_bob", ())
LENSES = {
    "OPENCV": CameraModel(640, 480, K, "plumb_bob", (-0.2, 0.03, 0.001, -0.002)),
    "FULL_OPENCV": CameraModel(
        640, 480, K, "rational_polynomial", (-0.2, 0.03, 0.001, -0.002, 0.01, 0.05, 0.01, 0.001)
    ),
    "OPENCV_FISHEYE": CameraModel(640, 480, K, "equidistant", (-0.02, 0.003, -0.001, 0.0001)),
}
FORWARD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1.0]])  # looks along base x, 1.5 m high


def ego(x, y=0.0, yaw=0.0):
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


def mounted(y=0.0, yaw=0.0):
    """A mount that looks forward, shifted to the left and turned to the left."""
    return ego(0.0, y, yaw) @ FORWARD


class Scene:
    """Points in odom, each with a descriptor of its own, seen without an image."""

    def __init__(self, count=300, seed=0):
        self.rng = np.random.default_rng(seed)
        self.points = self.rng.uniform([12, -10, -1], [30, 10, 5], (count, 3))
        made = self.rng.normal(size=(count, 128))
        self.descriptors = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    def view(self, camera, stamp, pose, mount, model=PINHOLE, noise=0.0, points=None):
        """A view, and for each of its features the number of the point."""
        points = self.points if points is None else points
        pixels, inside = model.project(transform_points(invert(pose @ mount), points))
        which = self.rng.permutation(np.flatnonzero(inside))
        pixels = pixels[which] + self.rng.normal(0, noise, (len(which), 2)) if noise else pixels[which]
        features = Features(pixels, model.unproject(pixels), pixel_angles(model, pixels), self.descriptors[which])
        return View(camera, stamp, model, pose, mount, float(pose[0, 3]), features), which


# -------------------------------------------------------------------------------------------------------- cameras


@pytest.mark.parametrize("kind", LENSES)
def test_colmap_projects_with_a_camera_as_we_do_half_a_pixel_further(kind):
    model = LENSES[kind]
    camera = colmap_camera("front", model, 1)
    assert camera.model_name == kind
    points = np.random.default_rng(0).uniform([-3, -2, 4], [3, 2, 9], (50, 3))
    pixels, _ = model.project(points)
    colmap = np.array([camera.img_from_cam(point) for point in points])
    np.testing.assert_allclose(colmap, pixels + 0.5, atol=1e-6)


def test_a_camera_without_a_colmap_model_is_named_with_the_reason():
    skewed = CameraModel(640, 480, [[400.0, 3.0, 320], [0, 400, 240], [0, 0, 1]], "plumb_bob", ())
    with pytest.raises(StructureError, match="camera 'left' has skew, for which COLMAP has no camera model"):
        colmap_camera("left", skewed, 1)
    prism = CameraModel(640, 480, K, "rational_polynomial", (0.1,) * 8 + (0.01, 0, 0, 0))
    with pytest.raises(StructureError, match="camera 'rear' has thin-prism coefficients.*--cameras"):
        colmap_camera("rear", prism, 1)


def test_a_pixel_spans_one_by_the_focal_length_at_the_centre():
    # On the axis a pixel is 1/400 wide and 1/410 high: the root of its solid angle is 1 / sqrt(400 * 410).
    angle = pixel_angles(PINHOLE, np.array([[319.5, 239.5]]))
    np.testing.assert_allclose(angle, 1 / np.sqrt(400 * 410), rtol=1e-5)


def test_features_lie_where_the_picture_has_corners_also_when_it_is_scaled_down():
    image = np.full((480, 640), 90, np.uint8)
    image[200:280, 300:380] = 220  # a square whose middle is (339.5, 239.5)
    for size in (1200, 320):
        features = Extractor(MotionDepth(feature_image_size=size))(image, PINHOLE)
        corners = features.pixels[np.abs(np.abs(features.pixels - (339.5, 239.5)) - 40).max(axis=1) < 8]
        assert len(corners) >= 4  # SIFT puts them somewhat inside of the square, alike at all four
        np.testing.assert_allclose((corners.min(axis=0) + corners.max(axis=0)) / 2, (339.5, 239.5), atol=0.1)
        np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-3)


# ------------------------------------------------------------------------------------------------------- matching


def test_the_distance_to_the_epipolar_line_is_shared_by_both_features():
    # Two cameras side by side, the lines are rows. The feature in the second image is 2 pixels below its row: moving
    # both features by 1 pixel mends it, and sqrt(1^2 + 1^2) is Sampson's distance.
    model = CameraModel(640, 480, [[400.0, 0, 319.5], [0, 400.0, 239.5], [0, 0, 1]], "plumb_bob", ())

    def one_feature(pixel):
        pixels = np.array([pixel])
        return Features(pixels, model.unproject(pixels), pixel_angles(model, pixels), np.ones((1, 128), np.float32))

    other_from_one = np.eye(4)
    other_from_one[0, 3] = -0.5
    error = epipolar_errors(
        one_feature((319.5, 239.5)), one_feature((299.5, 241.5)), np.array([[0, 0]]), other_from_one
    )
    np.testing.assert_allclose(error, np.sqrt(2), rtol=0.01)


@pytest.mark.parametrize("kind", LENSES)
def test_features_of_the_same_point_are_matched_through_every_lens(kind):
    scene = Scene()
    one, first = scene.view("front", 0, ego(0), mounted(), LENSES[kind], noise=0.2)
    other, second = scene.view("front", 1, ego(1.5, 0.2, 0.05), mounted(), LENSES[kind], noise=0.2)
    pose = invert(other.odom_from_camera) @ one.odom_from_camera
    matches = match_along_lines(one.features, other.features, pose, 2.0)
    assert len(matches) > 0.9 * len(np.intersect1d(first, second))
    assert (first[matches[:, 0]] == second[matches[:, 1]]).all()


def test_what_lies_off_the_epipolar_line_or_behind_the_cameras_is_not_matched():
    scene = Scene()
    one, first = scene.view("front", 0, ego(0), mounted())
    aside = scene.points + (0.0, 0.0, 1.0)  # all points have moved up by a metre
    other, second = scene.view("front", 1, ego(1.5), mounted(), points=aside)
    pose = invert(other.odom_from_camera) @ one.odom_from_camera
    assert len(match_anywhere(one.features, other.features)) > 200
    # Straight above and below the point that the vehicle drives to, up is along the line.
    assert len(match_along_lines(one.features, other.features, pose, 2.0)) < 20
    # Driving forwards things move away from the centre. If poses say backwards, the same lines fit, but the rays meet
    # behind the cameras.
    still, _ = scene.view("front", 1, ego(1.5), mounted())
    back = invert(ego(-1.5) @ mounted()) @ one.odom_from_camera
    assert len(match_along_lines(one.features, still.features, back, 2.0)) < 10


def test_two_alike_candidates_on_a_line_are_no_match():
    scene = Scene(count=40)
    scene.descriptors[:] = scene.descriptors[0]
    row = np.stack(
        [np.linspace(12, 30, 40), np.zeros(40), np.full(40, 1.0)], axis=1
    )  # all on one line of sight's plane
    one, _ = scene.view("front", 0, ego(0), mounted(), points=row)
    other, _ = scene.view("front", 1, ego(1.5), mounted(), points=row)
    pose = invert(other.odom_from_camera) @ one.odom_from_camera
    assert len(match_along_lines(one.features, other.features, pose, 2.0)) == 0


def test_an_image_is_matched_with_the_next_two_with_farther_ones_and_with_overlapping_cameras():
    scene = Scene(count=50)
    views = []
    for number in range(10):  # 1 m a frame; a second camera beside it, and one that looks back
        for camera, mount in (("front", mounted()), ("left", mounted(0.8, 0.3)), ("back", mounted(0.0, np.pi))):
            views.append(scene.view(camera, number, ego(float(number)), mount)[0])
    pairs = [(views[one], views[other]) for one, other in matching_pairs(views, MotionDepth())]
    first = [other.way for one, other in pairs if one.camera == other.camera == "front" and one.way == 0]
    assert first == [1.0, 2.0, 4.0, 8.0]
    assert any({one.camera, other.camera} == {"front", "left"} for one, other in pairs)
    assert not any("back" in (one.camera, other.camera) and one.camera != other.camera for one, other in pairs)


# --------------------------------------------------------------------------------------------------------- points


def pairs_of(views, whiches):
    """Matches of all views with each other, by the points' numbers."""
    matches = {}
    for one in range(len(views)):
        for other in range(one + 1, len(views)):
            _, a, b = np.intersect1d(whiches[one], whiches[other], return_indices=True)
            matches[one, other] = np.stack([a, b], axis=1)
    return matches


@pytest.mark.parametrize("kind", LENSES)
def test_points_are_where_they_are_and_their_accuracy_is_as_said(kind):
    scene = Scene()
    noise = 0.5
    made = [scene.view("front", n, ego(1.5 * n, 0.1 * n), mounted(), LENSES[kind], noise) for n in range(4)]
    views, whiches = [view for view, _ in made], [which for _, which in made]
    points = triangulate(views, pairs_of(views, whiches), MotionDepth(max_pixel_error=2.5))
    assert len(points.xyz) > 150 and points.error.max() < 2.5
    truth = np.zeros_like(points.xyz)
    for view in range(4):
        seen = points.view == view
        truth[points.point[seen]] = scene.points[whiches[view][points.feature[seen]]]
    off = points.xyz - truth
    # Noise of half a pixel gives a quarter of the covariance of one pixel; off' C^-1 off is then 3 in the mean.
    mahalanobis = np.einsum("ki,kij,kj->k", off, np.linalg.inv(points.covariance * noise**2), off)
    assert 2.0 < mahalanobis.mean() < 4.0


def test_a_point_that_moves_across_and_a_wrong_match_are_left_out():
    scene = Scene()
    # At the height of the camera what moves on a level stays on its epipolar line.
    moved = np.flatnonzero(np.abs(scene.points[:, 2] - 1.5) > 1.5)[::10]
    made = []
    for n in range(4):
        points = scene.points.copy()
        points[moved, 1] += 0.5 * n  # across the street, half a metre a frame
        made.append(scene.view("front", n, ego(1.5 * n), mounted(), points=points))
    views, whiches = [view for view, _ in made], [which for _, which in made]
    points = triangulate(views, pairs_of(views, whiches), MotionDepth())
    number = np.zeros(len(points.xyz), np.int64)
    for view in range(4):
        seen = points.view == view
        number[points.point[seen]] = whiches[view][points.feature[seen]]
    assert len(points.xyz) > 100
    many = np.bincount(points.point) > 2  # two rays nearly always meet somewhere
    assert not np.isin(number[many], moved).any()


def test_images_without_features_or_matches_give_no_points():
    dark = Features(np.zeros((0, 2)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 128), np.float32))
    view, _ = Scene().view("front", 0, ego(0.0), FORWARD)
    for views in ([dataclasses.replace(view, features=dark)] * 2, [view] * 2, []):
        points = triangulate(views, {}, MotionDepth())
        assert points.xyz.shape == (0, 3) and not len(points.view)


def test_points_without_parallax_are_left_out():
    scene = Scene()
    made = [scene.view("front", n, ego(0.02 * n), mounted()) for n in range(4)]
    views, whiches = [view for view, _ in made], [which for _, which in made]
    assert len(triangulate(views, pairs_of(views, whiches), MotionDepth()).xyz) == 0


def test_a_label_counts_its_neighbours_of_similar_depth():
    pixels = np.array([[10.0, 10], [12, 10], [10, 13], [11, 11], [300, 200]])
    depth = np.array([10.0, 11.0, 10.5, 30.0, 10.0])
    # 10, 11 and 10.5 m are within a tenth of each other (log 1.1 = 0.095); 30 m is not; the last one is too far
    # away for a width of 640.
    assert similar_neighbours(pixels, depth, 640).tolist() == [2, 2, 2, 0, 0]
    assert similar_neighbours(np.zeros((0, 2)), np.zeros(0), 640).tolist() == []


# ---------------------------------------------------------------------------------------------------------- poses


def driven(scale):
    """Views of two cameras of a vehicle that drives and turns, whose odometry says `scale` times the true way."""
    scene = Scene(count=500, seed=1)
    views = []
    for n in range(6):
        for camera, mount in (("front", mounted()), ("left", mounted(1.0, 0.2))):
            view, _ = scene.view(camera, n, ego(1.5 * n, 0.0, 0.02 * n), mount, noise=0.2)
            pose = view.odom_from_base.copy()
            pose[:3, 3] *= scale
            views.append(dataclasses.replace(view, odom_from_base=pose, way=view.way * scale))
    return views


def report(**changes):
    none = (0,) * len(SCALES)
    plain = Report(60, 1500, 20.0, 2.0, 100, 50, 5000, 1900, 2000, 1900, none, none)
    return dataclasses.replace(plain, **changes)


def scaled_report(scale):
    views = driven(scale)
    across = [(a, b) for a in range(12) for b in range(a + 1, 12) if views[a].camera != views[b].camera]
    votes, scores = scale_votes(views, across, 1.0)
    assert abs(SCALES[scores.argmax()] * scale - 1) < 0.015  # one step of the scales
    return report(scales=tuple(votes.tolist()), scores=tuple(scores.tolist()))


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.1, 2.0])
def test_matches_between_cameras_tell_the_scale_of_the_odometry(scale):
    found = scaled_report(scale)
    if scale == 1.0:
        check_poses("drive", [found], MotionDepth())
        assert not remarks([found])
        return
    with pytest.raises(StructureError, match="scale is wrong: .* times as far as /tf says") as raised:
        check_poses("drive", [found], MotionDepth())
    told = float(re.search(r"moves (\S+) times", str(raised.value))[1])
    assert abs(told * scale - 1) < 0.02
    # What the text says accepts the scale, and labels are then written with a warning.
    accepted = float(re.search(r"--max-scale-error (\S+) takes", str(raised.value))[1])
    check_poses("drive", [found], MotionDepth(max_scale_error=accepted))
    assert any("scale may be wrong" in text for text in remarks([found]))


def test_a_scale_that_is_a_little_wrong_is_accepted_with_a_warning():
    found = scaled_report(1.065)
    check_poses("drive", [found], MotionDepth())
    (text,) = remarks([found])
    assert "scale may be wrong" in text and re.search("moves 0.9[345] times as far", text)


def test_the_scale_is_not_judged_from_few_matches():
    found = scaled_report(1.1)
    few = [tuple(value // 200 for value in found.scales), tuple(value / 200 for value in found.scores)]
    found = dataclasses.replace(found, scales=few[0], scores=few[1])
    check_poses("drive", [found], MotionDepth())
    (text,) = remarks([found])
    assert "scale could not be checked" in text


def test_poses_that_turn_otherwise_than_the_images_are_named():
    views = driven(1.0)
    pairs = matching_pairs(views, MotionDepth())
    tested, fit = pose_votes(views, pairs)
    assert tested > 300 and fit > 0.95 * tested
    # Six images 1.5 m apart: those that are more than 6 m apart are not judged.
    assert pose_votes(views, [(0, 10)]) == (0, 0) and pose_votes(views, [(0, 6)])[0] > 0
    check_poses("drive", [report(tested=tested, fit=fit)], MotionDepth())
    wrong = [
        dataclasses.replace(view, odom_from_base=ego(view.odom_from_base[0, 3], 0.0, -0.1 * number))
        for number, view in enumerate(views)
    ]
    tested, fit = pose_votes(wrong, pairs)
    with pytest.raises(StructureError, match="drive: the poses do not fit the images"):
        check_poses("drive", [report(tested=tested, fit=fit)], MotionDepth())


def test_why_nothing_was_found_is_said():
    nothing = report(labels=0, tested=0, fit=0)
    for changes, kind, text in (
        (dict(same=0, across=0, way=0.0), NoParallax, "no parallax: the vehicle moves 0.00 m.* no two cameras see"),
        (dict(same=0, way=0.0), NoParallax, "no parallax: the vehicle moves 0.00 m.* overlapping cameras"),
        (dict(features=12), StructureError, "too few features, 12 in the median"),
        (dict(step=20.0), StructureError, r"images do not overlap enough: .* the vehicle moves 20.0 m"),
        (dict(matches=7), StructureError, "not one pixel could be labelled, from 7 matches.*look at the odometry"),
        (dict(images=0, unread=2, reason="broken"), StructureError, "2 cannot be read: broken"),
    ):
        with pytest.raises(kind, match=text):
            check_found("drive", [dataclasses.replace(nothing, **changes)], MotionDepth())
    check_found("drive", [nothing, report()], MotionDepth())


def test_labels_that_are_few_or_of_a_standing_vehicle_are_remarked_upon():
    unchecked = "scale could not be checked"
    few, scale = remarks([report(labels=1100, features=150)])  # fewer than 20 for each of 60 images
    assert "only 1100 pixels could be labelled in 60 images: the images have too few features, 150" in few
    assert unchecked in scale
    apart, _ = remarks([report(labels=2000, step=9.0)])
    assert "images do not overlap enough" in apart and "moves 9.0 m" in apart
    standing, _ = remarks([report(labels=2000), report(labels=2000, way=0.02, same=0)])
    assert "stands still in 1 of 2 parts" in standing
    (all_standing,) = remarks([report(labels=2000, way=0.02, same=0)])  # such a vehicle's scale is no question
    assert "the vehicle stands still, where only cameras that overlap give depth" in all_standing
    (only,) = remarks([report(labels=2000)])
    assert unchecked in only


# ---------------------------------------------------------------------------------------------------------- store


def test_results_of_windows_are_kept_as_they_were_until_settings_change(tmp_path):
    labels = {
        ("front", 5): ImageLabels(np.array([[3, 4], [5, 6]], np.int32), np.array([7.5, 8.25], np.float32)),
        ("left", 6): ImageLabels(np.zeros((0, 2), np.int32), np.zeros(0, np.float32)),
    }
    store = WindowStore(tmp_path / "windows", {"a": 1})
    assert not store.discarded and not store.has(3)
    store.save(3, labels, report(scales=tuple(range(len(SCALES)))))
    again = WindowStore(tmp_path / "windows", {"a": 1})
    assert again.has(3) and not again.has(2) and not again.discarded
    found, told = again.load(3)
    assert told == report(scales=tuple(range(len(SCALES))))
    assert set(found) == set(labels)
    for key in labels:
        np.testing.assert_array_equal(found[key].pixels, labels[key].pixels)
        np.testing.assert_array_equal(found[key].depth, labels[key].depth)
    other = WindowStore(tmp_path / "windows", {"a": 2})
    assert other.discarded and not other.has(3)
