"""Where returns fall in the feature maps of their cameras, and into which depth bin."""

from __future__ import annotations

import numpy as np
import torch
from small_models import camera_ring, small_config

from renderocc_model.geometry.rays import Rays
from renderocc_model.network.lift import depth_bin_edges
from training.supervision.depth_targets import depth_bin_targets, z_depth_cosine

torch.set_num_threads(2)

CONFIG = small_config()  # views of 96 x 64, feature maps of 12 x 8, 7 bins from 1 to 12 m
VIEWS, POSES = camera_ring(CONFIG, 3)
INTRINSICS = np.stack([view.K for view in VIEWS])
EDGES = depth_bin_edges(CONFIG.lift.depth)
STRIDE = CONFIG.backbone.stride


def rays_through(pixels, cameras, depths, poses=POSES, offsets=None) -> Rays:
    """Rays of cameras through pixels (column, row), returning from z-depths."""
    pixels, cameras, depths = np.array(pixels, float), np.array(cameras), np.array(depths, float)
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    ways = np.einsum("rij,rj->ri", np.linalg.inv(INTRINSICS)[cameras], homogeneous) * depths[:, None]
    ways = np.einsum("rij,rj->ri", poses[cameras, :3, :3], ways)
    distances = np.linalg.norm(ways, axis=1)
    offsets = np.zeros(len(cameras), int) if offsets is None else offsets
    return Rays(
        torch.from_numpy(poses[cameras, :3, 3].astype(np.float32)),
        torch.from_numpy((ways / distances[:, None]).astype(np.float32)),
        torch.from_numpy(distances.astype(np.float32)),
        frame_offsets=torch.tensor(offsets),
    )


def bins_of(rays: Rays, cameras, poses=POSES, present=(True, True, True)) -> torch.Tensor:
    """(N, h, w) the bin of each feature pixel, -1 without a label."""
    targets = targets_of(rays, cameras, poses, present)
    labelled = targets.sum(dim=1)
    assert ((targets == 0) | (targets == 1)).all() and ((labelled == 0) | (labelled == 1)).all()
    return torch.where(labelled > 0, targets.argmax(dim=1), -1)


def targets_of(rays: Rays, cameras, poses=POSES, present=(True, True, True), kind="nearest") -> torch.Tensor:
    return depth_bin_targets(
        rays,
        torch.tensor(cameras),
        torch.from_numpy(poses),
        torch.from_numpy(INTRINSICS),
        torch.tensor(present),
        CONFIG.feature_shape,
        STRIDE,
        torch.from_numpy(EDGES).float(),
        kind,
    )


def test_a_return_labels_the_feature_pixel_that_covers_its_pixel():
    # Feature pixel (row 2, column 5) covers image rows 16 to 23 and columns 40 to 47; the bins are 11/7 m long.
    for pixel in ([39.6, 15.6], [47.4, 23.4], [43, 20]):
        bins = bins_of(rays_through([pixel], [1], [5.0]), [1])
        assert bins[1, 2, 5] == 2  # (5 - 1) / (11 / 7) = 2.5
        assert (bins >= 0).sum() == 1
    assert bins_of(rays_through([[47.6, 20]], [1], [5.0]), [1])[1, 2, 6] == 2


def test_the_nearest_return_of_a_feature_pixel_decides():
    rays = rays_through([[40, 16], [47, 23], [44, 20]], [0, 0, 0], [9.0, 2.0, 6.0])
    assert bins_of(rays, [0, 0, 0])[0, 2, 5] == 0


def test_a_nearest_return_in_no_bin_leaves_the_feature_pixel_out():
    near, far = rays_through([[44, 20]] * 2, [0, 0], [0.5, 5.0]), rays_through([[44, 20]], [0], [12.5])
    assert bins_of(near, [0, 0]).eq(-1).all() and bins_of(far, [0]).eq(-1).all()


def test_depth_is_along_the_optical_axis_even_in_the_corners():
    # 70 degrees wide: a corner's distance is 1.32 times its depth, which is another bin.
    bins = bins_of(rays_through([[0, 0]], [2], [5.4]), [2])
    assert bins[2, 0, 0] == 2  # 4.4 / (11 / 7) = 2.8; the distance's would be 3.9


def test_other_frames_absent_cameras_and_missing_distances_label_nothing():
    pixels = [[44, 20], [20, 20], [60, 30]]
    rays = rays_through(pixels, [0, 1, 2], [5.0] * 3, offsets=[1, 0, 0])
    distances = rays.distances.clone()
    distances[2] = 0
    rays = Rays(rays.origins, rays.directions, distances, frame_offsets=rays.frame_offsets)
    assert bins_of(rays, [0, 1, 2], present=(True, False, True)).eq(-1).all()
    assert (bins_of(rays, [0, 1, 2]) >= 0).sum() == 1


def test_returns_outside_of_the_picture_label_nothing():
    rays = rays_through([[-0.6, 20], [95.6, 20], [20, -0.6], [20, 63.6]], [0] * 4, [5.0] * 4)
    assert bins_of(rays, [0] * 4).eq(-1).all()
    behind = Rays(rays.origins, -rays.directions, rays.distances, frame_offsets=rays.frame_offsets)
    assert bins_of(behind, [0] * 4).eq(-1).all()


def test_a_mirrored_view_is_labelled_where_it_shows_the_return():
    # The view's columns run the other way and so does its camera's x axis: pixel 43 is pixel 95 - 43 = 52 now.
    rays = rays_through([[43, 20]], [1], [5.0])
    mirrored = POSES * (-1, 1, 1, 1)
    assert np.linalg.det(mirrored[1, :3, :3]) < 0
    bins = bins_of(rays, [1], poses=mirrored)
    assert bins[1, 2, 6] == 2 and (bins >= 0).sum() == 1


def test_a_mirrored_vehicle_is_labelled_as_before():
    rays = rays_through([[43, 20], [10, 50]], [1, 2], [5.0, 3.0])
    mirror = np.diag([1.0, -1, 1, 1])
    flip = torch.tensor([1.0, -1, 1])
    turned = Rays(rays.origins * flip, rays.directions * flip, rays.distances, frame_offsets=rays.frame_offsets)
    assert bins_of(turned, [1, 2], poses=mirror @ POSES).equal(bins_of(rays, [1, 2]))


def test_bins_agree_with_a_loop_over_returns():
    rng = np.random.default_rng(0)
    cameras = rng.integers(0, 3, 400)
    pixels, depths = rng.uniform([-5, -5], [100, 70], (400, 2)), rng.uniform(0.2, 14, 400)
    expected = np.full((3, 8, 12), np.inf)
    for camera, (column, row), depth in zip(cameras, pixels, depths):
        cell = (camera, int(np.floor((row + 0.5) / 8)), int(np.floor((column + 0.5) / 8)))
        if 0 <= cell[1] < 8 and 0 <= cell[2] < 12:
            expected[cell] = min(expected[cell], depth)
    expected = np.floor((expected - 1) * 7 / 11)
    expected[(expected < 0) | (expected > 6)] = -1
    bins = bins_of(rays_through(pixels, cameras, depths), cameras)
    assert (bins.numpy() == expected).all() and (expected >= 0).sum() > 100


def test_shares_are_those_of_a_loop_over_returns():
    rng = np.random.default_rng(1)
    cameras = rng.integers(0, 3, 3000)
    pixels, depths = rng.uniform([-5, -5], [100, 70], (3000, 2)), rng.uniform(0.2, 20, 3000)
    expected = np.zeros((3, 7, 8, 12))
    for camera, (column, row), depth in zip(cameras, pixels, depths):
        i, j = int(np.floor((row + 0.5) / 8)), int(np.floor((column + 0.5) / 8))
        number = min(int(np.floor((depth - 1) * 7 / 11)), 6)  # what lies behind the last bin counts as in it
        if 0 <= i < 8 and 0 <= j < 12 and number >= 0:
            expected[camera, number, i, j] += 1
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1)
    targets = targets_of(rays_through(pixels, cameras, depths), cameras, kind="shares")
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-6)
    assert (expected.max(axis=1) < 1).sum() > 100


def test_no_rays_label_nothing():
    assert bins_of(rays_through(np.empty((0, 2)), np.empty(0, int), []), np.empty(0, int)).eq(-1).all()


def test_the_cosine_turns_distance_into_depth_of_mirrored_cameras_too():
    cameras = [0, 1, 2]
    rays = rays_through([[3, 60], [43, 20], [90, 5]], cameras, [5.0, 7.0, 9.0])
    for poses in (POSES, POSES * (-1, 1, 1, 1)):
        cosine = z_depth_cosine(rays, torch.tensor(cameras), torch.from_numpy(poses))
        torch.testing.assert_close(rays.distances * cosine, torch.tensor([5.0, 7.0, 9.0]))
