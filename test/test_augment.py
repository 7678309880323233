"""Augmentations: a known 3D point is where it was, in the picture and in the grid."""

import math

import numpy as np
import pytest

from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import invert, transform_points
from renderocc_model.geometry.undistortion import View
from renderocc_model.network.lift import Frustums
from renderocc_model.network.presets import PRESETS
from training.data.augment import AugmentConfig, bird_eye_change, change_truth, change_volume, draw_image_change

WIDTH, HEIGHT = 96, 64
K = np.array([[70.0, 0, 47.5], [0, 70, 30], [0, 0, 1]])
POINTS = np.array([[0.4, -0.3, 4.0], [-0.9, 0.5, 4.0], [0.05, 0.1, 4.0]])  # optical frame


def project(K: np.ndarray, points: np.ndarray) -> np.ndarray:
    pixels = points @ K.T
    return pixels[:, :2] / pixels[:, 2:]


def spot(pixel: np.ndarray) -> np.ndarray:
    """A black picture with a white spot of known centre, three pixels wide."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    squared = (columns - pixel[0]) ** 2 + (rows - pixel[1]) ** 2
    return np.repeat((255 * np.exp(-squared / 4.5))[..., None], 3, 2).astype(np.uint8)


def centre_of(view: np.ndarray) -> np.ndarray:
    light = view[..., 0].astype(float)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_point_is_seen_where_the_new_intrinsics_say(seed, point, monkeypatch):
    monkeypatch.setattr("training.data.augment.FILL_COLOUR", (0, 0, 0))
    config = AugmentConfig(zoom_out=0.8, zoom_in=1.2, shift=0.05, image_flip=0.5)
    change = draw_image_change(np.random.default_rng(seed), config, HEIGHT, WIDTH)
    in_changed = transform_points(invert(change.pose(np.eye(4))), point[None])
    before, after = project(K, point[None])[0], project(change.intrinsics(K), in_changed)[0]
    np.testing.assert_allclose(centre_of(spot(before)), before, atol=0.05)
    np.testing.assert_allclose(centre_of(change.image(spot(before))), after, atol=0.15)  # bilinear, of 8 bits


def test_a_flip_mirrors_columns_and_the_cameras_x_axis():
    change = draw_image_change(np.random.default_rng(0), AugmentConfig(image_flip=1.0), HEIGHT, WIDTH)
    view = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    np.testing.assert_array_equal(change.image(view), view[:, ::-1])
    np.testing.assert_allclose(change.intrinsics(K), [[70, 0, 95 - 47.5], [0, 70, 30], [0, 0, 1]])
    np.testing.assert_array_equal(change.pose(np.eye(4)), np.diag([-1, 1, 1, 1]))


def test_the_defaults_change_nothing():
    rng = np.random.default_rng(0)
    view = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    change = draw_image_change(rng, AugmentConfig(), HEIGHT, WIDTH)
    assert change.image(view) is view and np.array_equal(change.intrinsics(K), K)
    assert np.array_equal(bird_eye_change(rng, AugmentConfig()), np.eye(4))


def test_brightness_and_contrast_move_colours_only():
    config = AugmentConfig(brightness=0.3, contrast=0.3)
    change = draw_image_change(np.random.default_rng(3), config, HEIGHT, WIDTH)
    assert np.array_equal(change.pixels, np.eye(3))
    view = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    # gain * 100 + offset, as the change says itself; both within what was allowed
    assert change.image(view)[0, 0, 0] == round(100 * change.gain + change.offset) != 100
    assert 0.7 <= change.gain <= 1.3 and abs(change.offset - 127.5 * (1 - change.gain)) <= 127.5 * 0.3


def test_a_turn_about_z_keeps_heights_and_distances():
    config = AugmentConfig(rotation=0.5, mirror_x=0.5, mirror_y=0.5)
    for seed in range(10):
        change = bird_eye_change(np.random.default_rng(seed), config)
        np.testing.assert_allclose(change @ change.T, np.eye(4), atol=1e-12)
        np.testing.assert_array_equal(change[2], [0, 0, 1, 0])


def test_mirroring_exchanges_left_and_right():
    change = bird_eye_change(np.random.default_rng(0), AugmentConfig(mirror_y=1.0))
    np.testing.assert_array_equal(change, np.diag([1, -1, 1, 1]))
    grid = VoxelGrid((0, -2, 0), (3, 2, 2), 1.0)
    volume = np.arange(grid.size).reshape(grid.shape)
    np.testing.assert_array_equal(change_volume(volume, grid, change, -1), volume[:, ::-1])


def test_a_voxel_moves_with_the_point_in_it():
    """A quarter turn to the left takes what is ahead (x) to the left (y); what was outside has no label or mask."""
    quarter = np.eye(4)
    quarter[:2, :2] = [[0, -1], [1, 0]]
    grid = VoxelGrid((-3, -2, 0), (3, 2, 1), 1.0)
    truth = {"semantics": np.full(grid.shape, 17, np.uint8), "mask_camera": np.ones(grid.shape, np.uint8)}
    truth["semantics"][tuple(grid.index_of(np.array([[1.5, 0.5, 0.5]]))[0][0])] = 4
    changed = change_truth(truth, grid, quarter)
    assert changed["semantics"][tuple(grid.index_of(np.array([[-0.5, 1.5, 0.5]]))[0][0])] == 4
    assert (changed["semantics"] == 4).sum() == 1
    # The old grid reaches 2 m to the sides, now ahead and behind: rows beyond 2 m ahead were not in it.
    assert (changed["semantics"][[0, -1]] == 255).all() and not changed["mask_camera"][[0, -1]].any()
    with pytest.raises(ValueError, match="volume has shape"):
        change_volume(np.zeros((2, 2, 2)), grid, quarter, 0)


def test_lifting_takes_mirrored_cameras_as_they_are():
    """Mirrored views and poses lift each feature to the mirrored voxel, so the network needs to know nothing of it."""
    config = PRESETS["tiny"]
    width, height = config.images.width, config.images.height
    view = View(width, height, np.array([[200.0, 0, (width - 1) / 2], [0, 200, 60], [0, 0, 1]]))
    flip = draw_image_change(np.random.default_rng(0), AugmentConfig(image_flip=1.0), height, width)
    mirror = bird_eye_change(np.random.default_rng(0), AugmentConfig(mirror_y=1.0))
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = 1, 0, 1.5
    plain = Frustums(config, [view]).place(pose[None]).voxel_index[0, 0]
    flipped_view = View(width, height, flip.intrinsics(view.K))
    flipped = Frustums(config, [flipped_view]).place(flip.pose(pose)[None]).voxel_index[0, 0]
    assert (flipped.flip(-1) == plain).float().mean() > 0.999
    mirrored = Frustums(config, [view]).place((mirror @ pose)[None]).voxel_index[0, 0]
    # A camera in the middle that looks ahead: mirroring the world is mirroring the columns, but for points on faces.
    x, y, z = config.pooled_shape
    rows = plain // (y * z), plain // z % y, plain % z
    expected = (rows[0] * y + (y - 1 - rows[1])) * z + rows[2]
    both = (plain >= 0) & (mirrored >= 0)
    assert (mirrored[both] == expected[both]).float().mean() > 0.98 and both.float().mean() > 0.3


def test_poses_and_points_move_together():
    """A point seen in a pixel is seen there still: camera from new base of the new point is camera from base of it."""
    change = bird_eye_change(np.random.default_rng(5), AugmentConfig(rotation=math.pi, mirror_x=1.0))
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = 1, 2, 1.5
    points = np.array([[9.0, 1, 0.5], [12, -3, 2]])
    before = transform_points(invert(pose), points)
    after = transform_points(np.linalg.inv(change @ pose), transform_points(change, points))
    np.testing.assert_allclose(after, before, atol=1e-12)
