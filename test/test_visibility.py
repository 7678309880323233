"""Visibility against hand-made scenes and light marched to every voxel by independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.undistortion import View
from renderocc_model.ops.visibility import visible_voxels

GRID = VoxelGrid((-8.0, -8.0, -1.0), (8.0, 8.0, 3.0), 0.4)  # 40 x 40 x 10 voxels
VIEW = View(160, 96, np.array([[110.0, 0, 79.5], [0, 110.0, 43.0], [0, 0, 1]]))  # 72 degrees wide


def pose_of(yaw: float, x: float = 0.0, y: float = 0.0, z: float = 0.63, pitch: float = 0.0) -> np.ndarray:
    """base_from_camera of a camera that looks along yaw, tilted down by pitch."""
    forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), -math.sin(pitch)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = x, y, z
    return pose


def field_of(density: torch.Tensor, grid: VoxelGrid = GRID) -> SemanticDensityField:
    return SemanticDensityField(grid, density, torch.zeros(*grid.shape, 0))


def empty() -> torch.Tensor:
    return torch.zeros(GRID.shape)


def town(seed: int) -> torch.Tensor:
    """Ground, boxes and haze."""
    generator = np.random.default_rng(seed)
    density = torch.full(GRID.shape, 0.002)
    density[:, :, :2] = 30.0
    for _ in range(12):
        x, y = generator.integers(0, 36, 2)
        if abs(x - 20) < 6 and abs(y - 20) < 6:
            continue  # not around the cameras
        dx, dy, dz = generator.integers(1, 5, 3)
        density[x : x + dx, y : y + dy, 2 : 2 + 2 * dz] = 30.0
    return density


def centres_in_view(view: View, pose: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(X, Y, Z) bool: the centre projects at least `margin` pixels inside the image (outside, where negative)."""
    camera = (GRID.centres().astype(np.float64) - pose[:3, 3]) @ pose[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = camera @ view.K.T
        pixels = pixels[..., :2] / pixels[..., 2:]
    size = np.array([view.width, view.height])
    return (camera[..., 2] > 0) & ((pixels >= margin - 0.5) & (pixels < size - 0.5 - margin)).all(-1)


def best_transmittance(density: np.ndarray, pose: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Light that gets to the most favourable of 27 points of each voxel, counted up to where its line enters the voxel.

    Steps of a tenth of a voxel, every voxel on its own; the density is that of the voxel a step lies in.
    """
    camera = (pose[:3, 3] - GRID.lower) / GRID.voxel_size
    best, step = np.zeros(len(voxels)), 0.1
    for offset in np.stack(np.meshgrid(*[[0.01, 0.5, 0.99]] * 3), -1).reshape(-1, 3):
        line = voxels + offset - camera
        length = np.linalg.norm(line, axis=1)
        t = (np.arange(int(length.max() / step)) + 0.5) * step
        at = np.floor(camera + line[:, None] / length[:, None, None] * t[:, None]).astype(int)
        inside = ((at >= 0) & (at < GRID.shape)).all(-1) & (t < length[:, None])
        own = (at == voxels[:, None]).all(-1)
        inside &= np.cumsum(own, axis=1) == 0
        x, y, z = np.clip(at, 0, np.array(GRID.shape) - 1).transpose(2, 0, 1)
        depth = (density[x, y, z] * inside).sum(1) * step * GRID.voxel_size
        best = np.maximum(best, np.exp(-depth))
    return best


@pytest.mark.parametrize(("seed", "yaw", "pitch"), [(0, 0.0, 0.0), (1, 2.2, 0.1), (2, -1.3, -0.05)])
def test_agrees_with_light_marched_to_each_voxel(seed, yaw, pitch):
    density, pose = town(seed), pose_of(yaw, x=0.3, y=-0.2, pitch=pitch)
    seen = visible_voxels(field_of(density), [VIEW], pose[None]).numpy()
    voxels = np.argwhere(centres_in_view(VIEW, pose))
    voxels = voxels[np.random.default_rng(seed).permutation(len(voxels))[:500]]
    truth = best_transmittance(density.numpy(), pose, voxels) >= 0.5
    found = seen[tuple(voxels.T)]
    assert 0.1 < truth.mean() < 0.9
    assert (found == truth).mean() >= 0.93
    assert (found & ~truth).mean() <= 0.05  # at edges of obstacles, by one voxel
    dense = density.numpy()[tuple(voxels.T)] > 1
    assert (found == truth)[dense].mean() >= 0.93


def test_no_voxel_outside_every_view_is_visible_and_in_empty_space_every_other_is():
    poses = np.stack([pose_of(0.4, x=1.0), pose_of(2.5, y=-3.0, pitch=0.3), pose_of(-1.9, x=-9.5, y=-9.0, z=2.0)])
    seen = visible_voxels(field_of(empty()), [VIEW] * 3, poses).numpy()
    surely_in = np.any([centres_in_view(VIEW, pose, margin=1e-3) for pose in poses], axis=0)
    perhaps_in = np.any([centres_in_view(VIEW, pose, margin=-1e-3) for pose in poses], axis=0)
    near = [np.linalg.norm(GRID.centres() - pose[:3, 3], axis=-1) < 0.5 for pose in poses]  # around the lens itself
    assert not (seen & ~perhaps_in).any()
    assert (seen | ~surely_in | np.any(near, axis=0)).all()


def test_wall_is_visible_and_what_is_behind_it_is_not():
    density = empty()
    density[30] = 30.0  # x from 4.0 to 4.4, right across the grid
    pose = pose_of(0.0)
    seen, view = visible_voxels(field_of(density), [VIEW], pose[None]).numpy(), centres_in_view(VIEW, pose, 0.01)
    assert seen[21:30][view[21:30]].all()  # the free space in front
    assert seen[30][view[30]].all()  # its surface
    assert not seen[31:].any()


def test_road_far_away_is_visible_at_a_grazing_angle():
    # From 1 m above it, the line to the centre of road 7.6 m ahead runs through 1.5 m of road.
    density = empty()
    density[:, :, 0:2] = 30.0  # its top is at z = -0.2
    seen = visible_voxels(field_of(density), [VIEW], pose_of(0.0, z=0.8)[None]).numpy()
    assert seen[28:, 20, 1].all()  # x from 3.2 to 8 m
    assert not seen[:, :, 0].any()  # the layer below it


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rays_pass_above_a_layer_that_fills_only_the_foot_of_its_voxels(backend):
    # A road at -0.2 to -0.1 m, the lowest quarter of its voxels, and 5 m ahead a step of 0.1 m down.
    layers = torch.zeros(*GRID.shape[:2], GRID.shape[2] * 4)
    layers[:32, :, 8], layers[32:, :, 7] = 30.0, 30.0
    field = SemanticDensityField.of_layers(GRID, layers, torch.zeros(*GRID.shape, 0))
    poses = pose_of(0.0)[None]
    seen, as_voxels = (
        visible_voxels(one, [VIEW], poses, backend=backend).numpy() for one in (field, field_of(field.density))
    )
    assert seen[36:, 20, 1].all() and seen[28:, 20, 2].all()
    assert not as_voxels[36:, 20, 1].any()  # behind the upper half of voxels that are empty there
    assert not seen[:, :, 0].any()


@pytest.mark.parametrize(("minimum", "farthest"), [(0.5, 26), (0.25, 33), (0.1, 39)])
def test_haze_ends_the_view_where_the_transmittance_falls_below_the_minimum(minimum, farthest):
    # Haze of 0.25 / m all around a camera at x = 0, the near side of voxel 20. Half the light is gone after 2.77 m =
    # ln 2 / 0.25, inside voxel 26; three quarters after 5.55 m, inside voxel 33; nine tenths beyond the grid's 8 m.
    density = torch.full(GRID.shape, 0.25)
    seen = visible_voxels(field_of(density), [VIEW], pose_of(0.0)[None], minimum_transmittance=minimum).numpy()
    assert abs(int(np.flatnonzero(seen[:, 20, 4]).max()) - farthest) <= 1


def test_absent_cameras_and_missing_pixels_see_nothing():
    poses = np.stack([pose_of(0.0), pose_of(math.pi)])
    field, ahead = field_of(empty()), centres_in_view(VIEW, pose_of(0.0), -0.01)
    only_front = visible_voxels(field, [VIEW] * 2, poses, present=[True, False]).numpy()
    assert only_front.any() and not (only_front & ~ahead).any()
    assert not visible_voxels(field, [VIEW] * 2, poses, present=[False, False]).any()
    assert not visible_voxels(field, [], np.zeros((0, 4, 4))).any()
    left_half = np.zeros((VIEW.height, VIEW.width), bool)
    left_half[:, :80] = True
    left_half.setflags(write=False)  # as UndistortTable.valid is
    masked = visible_voxels(field, [VIEW] * 2, poses, present=[True, False], valid=[left_half, None]).numpy()
    x, y, z = np.nonzero(masked)
    # Columns left of the middle look to the left, y > 0. The middle column 79.5 looks straight ahead.
    assert len(y) and (GRID.centres()[x, y, z][:, 1] > 0).all()
    assert np.array_equal(masked, only_front & (GRID.centres()[..., 1] > 0))


def test_pose_of_an_absent_camera_does_not_matter():
    poses = np.stack([pose_of(0.0), np.full((4, 4), np.nan)])
    seen = visible_voxels(field_of(empty()), [VIEW] * 2, poses, present=[True, False])
    assert torch.equal(seen, visible_voxels(field_of(empty()), [VIEW], poses[:1]))


def test_views_of_different_sizes_work_together():
    small = View(40, 30, np.array([[25.0, 0, 19.5], [0, 25.0, 14.5], [0, 0, 1]]))
    poses = np.stack([pose_of(0.0), pose_of(math.pi)])
    both = visible_voxels(field_of(town(3)), [VIEW, small], poses)
    alone = [visible_voxels(field_of(town(3)), [view], pose[None]) for view, pose in zip([VIEW, small], poses)]
    assert torch.equal(both, alone[0] | alone[1])


def test_camera_outside_the_grid_looks_into_it_and_away_from_it():
    density = empty()
    density[0] = 30.0  # the wall nearest to a camera at x = -12
    seen = visible_voxels(field_of(density), [VIEW], pose_of(0.0, x=-12.0)[None]).numpy()
    assert seen[0].any() and not seen[1:].any()
    assert not visible_voxels(field_of(empty()), [VIEW], pose_of(math.pi, x=-12.0)[None]).any()


def test_half_precision_densities_are_understood():
    pose = pose_of(0.7)[None]
    assert torch.equal(
        visible_voxels(field_of(town(0)), [VIEW], pose),
        visible_voxels(SemanticDensityField(GRID, town(0).half(), torch.zeros(*GRID.shape, 0).half()), [VIEW], pose),
    )


def test_what_does_not_fit_is_named():
    field, pose = field_of(empty()), pose_of(0.0)[None]
    with pytest.raises(ValueError, match="1 views, 2 poses"):
        visible_voxels(field, [VIEW], np.concatenate([pose, pose]))
    with pytest.raises(ValueError, match="camera 0 is not finite"):
        visible_voxels(field, [VIEW], np.full((1, 4, 4), np.nan))
    with pytest.raises(ValueError, match=r"\(96, 160\)"):
        visible_voxels(field, [VIEW], pose, valid=[np.ones((160, 96), bool)])
    with pytest.raises(ValueError, match="minimum_transmittance is 1"):
        visible_voxels(field, [VIEW], pose, minimum_transmittance=1.0)
