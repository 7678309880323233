"""Ground and obstacles from the shape of the points."""

import importlib.util

import numpy as np
import pytest

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI
from renderocc_model.field.conversion import converted_ids
from renderocc_model.geometry.transforms import transform_from, transform_points
from training.label.ground.classify import classes_by_plane, cloud_classes
from training.label.ground.level import GroundError, find_level, fit_plane, level_of

GROUND, OBSTACLE, NONE = 0, 1, 255
patchwork = pytest.mark.skipif(
    importlib.util.find_spec("pypatchworkpp") is None, reason="pypatchworkpp is not installed"
)


def street(height=0.0, slope=0.0, seed=0, count=6000):
    """Points of a road at z = slope * x - height, with a wall at y = 8 m and a car, and which of them are ground."""
    generator = np.random.default_rng(seed)
    road = np.column_stack([generator.uniform(-20, 20, count), generator.uniform(-8, 8, count), np.zeros(count)])
    wall = np.column_stack(
        [generator.uniform(-20, 20, count // 3), np.full(count // 3, 8.0), generator.uniform(0.4, 4, count // 3)]
    )
    car = generator.uniform((5, -3, 0.5), (9, -1, 1.5), (count // 10, 3))
    points = np.concatenate([road, wall, car])
    points[:, 2] += slope * points[:, 0] - height + generator.normal(0, 0.01, len(points))
    return points, np.arange(len(points)) < count


@pytest.mark.parametrize("height, slope", [(0.0, 0.0), (1.7, 0.0), (-0.17, 0.1), (0.4, -0.2)])
def test_the_plane_of_the_road_is_found_at_any_height_and_slope_of_the_base(height, slope):
    plane = fit_plane(street(height, slope)[0])
    # z = slope * x - height, so the normal is (-slope, 0, 1) and the offset the height, over the normal's length
    expected = np.array([-slope, 0, 1, height]) / np.hypot(slope, 1)
    assert np.abs(plane - expected).max() < 0.01


def test_the_plane_is_not_that_of_a_larger_surface_above_the_road():
    """A bridge deck above has more points, but the road has nothing below it."""
    road, _ = street(1.5, count=3000)
    deck = np.random.default_rng(1).uniform((-15, -15, 4), (15, 15, 4.01), (6000, 3))
    deck = deck[np.abs(deck[:, 1]) > 6]
    plane = fit_plane(np.concatenate([road, deck]))
    assert abs(plane[3] - 1.5) < 0.02


def test_the_level_frame_has_the_ground_at_height_zero():
    level = find_level([street(0.3, 0.1, seed)[0] for seed in range(3)])
    points, is_ground = street(0.3, 0.1, 9)
    z = transform_points(level.level_from_base, points)[:, 2]
    assert np.abs(z[is_ground]).max() < 0.06 and z[~is_ground].min() > 0.3
    # below base_link's origin the ground is at z = -0.3; its slope is atan(0.1) = 5.71 degrees
    assert abs(level.height - 0.3) < 0.01 and abs(np.degrees(level.tilt) - 5.71) < 0.2 and level.moments == 3
    assert np.allclose(level.level_from_base[:3, :3] @ level.level_from_base[:3, :3].T, np.eye(3))
    assert np.allclose(level.plane, level.level_from_base[2])


def test_the_turn_to_level_is_the_shortest():
    normal = np.array([0.1, -0.2, 1.0])
    level = level_of(np.append(normal / np.linalg.norm(normal), 0.5))
    assert np.allclose(level[:3, :3] @ (normal / np.linalg.norm(normal)), (0, 0, 1))
    # the angle of a rotation R is acos((trace R - 1) / 2); the shortest one is that between the normal and z
    angle = np.arccos((np.trace(level[:3, :3]) - 1) / 2)
    assert np.isclose(angle, np.arctan2(np.hypot(0.1, 0.2), 1.0))


def test_a_base_link_above_the_ground_is_said_and_one_on_it_is_not():
    assert "base_link is 0.17 m below the ground" in find_level([street(-0.17)[0]]).text("base_link")
    assert "'base_link' is not on the ground" in find_level([street(-0.17)[0]]).text("base_link")
    assert "is not on the ground" not in find_level([street(0.02)[0]]).text("base_link")


def test_one_odd_moment_does_not_move_the_ground():
    level = find_level([*(street(0.0, seed=seed)[0] for seed in range(4)), street(-3.0)[0]])
    assert abs(level.height) < 0.02


def test_points_without_ground_are_refused():
    walls = np.random.default_rng(0).uniform((-10, 5, 0), (10, 5.01, 6), (2000, 3))
    with pytest.raises(GroundError, match="no ground in the clouds: among 2000 points of 1 moments.*is z of the base"):
        find_level([walls])
    with pytest.raises(GroundError, match="among 0 points"):
        find_level([np.empty((0, 3))])


@patchwork
@pytest.mark.parametrize("centre", [(0.0, 0.0), (1.0, 0.0)])
def test_patchwork_separates_a_street(centre):
    points, is_ground = street(count=20000)
    classes = cloud_classes(points, np.array(centre))
    near = np.hypot(*(points[:, :2] - centre).T) < 1
    assert (classes[near] == NONE).all()
    assert (classes[is_ground & ~near] == GROUND).mean() > 0.99
    assert (classes[~is_ground] == OBSTACLE).mean() > 0.97


@patchwork
def test_a_cloud_is_classified_alike_whatever_came_before():
    points, _ = street(count=5000)
    first = cloud_classes(points, np.zeros(2))
    for slope in (0.05, -0.05):
        cloud_classes(street(0.2, slope, 3)[0], np.zeros(2))
    assert np.array_equal(cloud_classes(points, np.zeros(2)), first)


@patchwork
def test_patchwork_prints_nothing(capfd):
    cloud_classes(street()[0], np.zeros(2))
    assert capfd.readouterr().out == ""


@patchwork
@pytest.mark.parametrize("count", [0, 1, 7])
def test_clouds_of_hardly_any_points_are_classified(count):
    assert cloud_classes(np.full((count, 3), 5.0), np.zeros(2)).shape == (count,)


def test_a_plane_separates_by_height_and_leaves_what_is_below_or_far_unlabelled():
    plane = np.array([0, 0, 1, 0.5])  # the ground is at z = -0.5
    points = np.array(
        [
            (5, 0, -0.5),  # on it
            (5, 0, -0.31),  # 0.19 m above: within 0.2 m
            (5, 0, -0.29),  # 0.21 m above
            (30, 0, -0.11),  # 0.39 m above, within 0.2 + 0.01 * 20 = 0.4 m
            (30, 0, -0.09),  # 0.41 m above
            (5, 0, -0.75),  # 0.25 m below
            (41, 0, -0.5),  # ground beyond 40 m
            (41, 0, 2.0),
        ]
    )
    expected = [GROUND, GROUND, OBSTACLE, GROUND, OBSTACLE, NONE, NONE, OBSTACLE]
    assert classes_by_plane(points, plane).tolist() == expected


def test_ids_of_other_tables_become_ground_obstacle_and_free():
    ids = converted_ids(OCC3D_NUSCENES, GROUND_OBSTACLE)
    assert [OCC3D_NUSCENES.names[i] for i in np.flatnonzero(ids == GROUND)] == [
        "driveable_surface",
        "other_flat",
        "sidewalk",
        "terrain",
    ]
    assert ids[17] == GROUND_OBSTACLE.free == 2 and (ids[18:] == NONE).all() and (ids[:11] == OBSTACLE).all()
    kitti = converted_ids(SEMANTIC_KITTI, GROUND_OBSTACLE)
    assert kitti[SEMANTIC_KITTI.id_of("road")] == GROUND and kitti[SEMANTIC_KITTI.id_of("trunk")] == OBSTACLE
    assert kitti[0] == GROUND_OBSTACLE.free
    assert converted_ids(GROUND_OBSTACLE, GROUND_OBSTACLE)[:4].tolist() == [0, 1, 2, NONE]


def test_ids_cannot_become_those_of_a_finer_table():
    with pytest.raises(ValueError, match="ids of ground, obstacle, free, ... cannot be converted to others, barrier"):
        converted_ids(GROUND_OBSTACLE, OCC3D_NUSCENES)


def test_moved_points_have_a_moved_plane():
    """The plane of points in another frame is the plane moved there."""
    points, _ = street(1.0)
    moved = transform_from((0.3, -0.2, 0.5), (0, 0, np.sin(0.3), np.cos(0.3)))
    plane, other = fit_plane(points), fit_plane(transform_points(moved, points))
    expected = np.append(moved[:3, :3] @ plane[:3], plane[3] - (moved[:3, :3] @ plane[:3]) @ moved[:3, 3])
    assert np.abs(other - expected).max() < 0.01
