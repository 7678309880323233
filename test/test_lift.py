"""Frustum points fall into the cells that arithmetic by hand puts them in; depth sums to one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_models import camera_ring, small_config

from renderocc_model.geometry.undistortion import View
from renderocc_model.network.config import DepthConfig, HeightConfig, LiftConfig
from renderocc_model.network.layers import WITHOUT_EFFECT
from renderocc_model.network.lift import (
    CAMERA_PARAMETERS,
    RAY_FEATURES,
    DepthContextHead,
    Frustums,
    LiftGeometry,
    depth_bin_centres,
    depth_bin_edges,
    ray_features,
    spread_over_subpixels,
    upward_slope,
)
from renderocc_model.network.network import build_network


def forward_camera(x=0.0, y=0.0, z=0.0):
    """A camera that looks along +x of the base frame: optical z is base x, optical x is -y, optical y is -z."""
    pose = np.eye(4)
    pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = [x, y, z]
    return pose


def test_linear_bins_are_equally_long_and_stand_for_their_middles():
    config = DepthConfig(minimum=1.0, maximum=5.0, count=4, spacing="linear")
    assert depth_bin_edges(config).tolist() == [1, 2, 3, 4, 5]
    assert depth_bin_centres(config).tolist() == [1.5, 2.5, 3.5, 4.5]


def test_log_bins_have_equal_ratios_and_stand_for_their_geometric_middles():
    config = DepthConfig(minimum=1.0, maximum=16.0, count=4, spacing="log")
    np.testing.assert_allclose(depth_bin_edges(config), [1, 2, 4, 8, 16])
    np.testing.assert_allclose(depth_bin_centres(config), np.sqrt([2, 8, 32, 128]))


def test_a_pixel_on_the_optical_axis_fills_the_cells_ahead():
    config = small_config("tiny", "lift.depth.minimum=1.0", "lift.depth.maximum=8.0")  # bin middles 1.5, 2.5, ..., 7.5
    # Stride 8: the feature pixel in row 3, column 5 covers rows 24..31 and columns 40..47; its middle is (43.5, 27.5).
    view = View(96, 64, np.array([[50.0, 0, 43.5], [0, 50.0, 27.5], [0, 0, 1]]))
    geometry = Frustums(config, [view]).place(forward_camera(y=2.2, z=1.2)[None])
    # Grid: 16 x 16 cells of 1 m from (-8, -8), two slabs of 2 m from z = -1. The points are (depth, 2.2, 1.2):
    # x cells 9, 10, ..., 15 (1.5 + 8 = 9.5 and so on); y cell floor(10.2) = 10; slab floor((1.2 + 1) / 2) = 1.
    expected = [(x * 16 + 10) * 2 + 1 for x in range(9, 16)]
    assert geometry.voxel_index.shape == (1, 1, 7, 8, 12) and geometry.voxel_index.dtype == torch.int64
    assert geometry.voxel_index[0, 0, :, 3, 5].tolist() == expected


def test_depth_is_along_the_optical_axis_not_along_the_ray():
    config = small_config("tiny", "lift.depth.minimum=1.0", "lift.depth.maximum=8.0")
    view = View(96, 64, np.array([[44.0, 0, 43.5], [0, 44.0, 27.5], [0, 0, 1]]))
    geometry = Frustums(config, [view]).place(forward_camera()[None])
    # Column 0 has its middle at 3.5, 40 pixels left of the centre: at depth 7.5 it is 7.5 * 40 / 44 = 6.82 m to the
    # left (+y), and still 7.5 m ahead: x cell floor(15.5) = 15, y cell floor(14.82) = 14, slab floor((0 + 1) / 2) = 0.
    assert geometry.voxel_index[0, 0, 6, 3, 0].item() == (15 * 16 + 14) * 2


@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_every_index_equals_that_of_a_loop_over_points(name):
    config = small_config(name, "lift.depth.spacing=log")
    views, poses = camera_ring(config, 3)
    poses[1] = poses[1] @ np.array(  # roll and pitch, so that no axis is special
        [[0.96, -0.28, 0, 0.1], [0.28, 0.96, 0, -0.2], [0, 0, 1, 0.3], [0, 0, 0, 1]]
    )
    index = Frustums(config, views).place(poses).voxel_index[0].numpy()
    stride = config.backbone.stride
    cells = config.pooled_shape
    size = [config.grid.voxel_size] * 2 + [config.grid.voxel_size * config.grid.shape[2] / cells[2]]
    agree = 0
    for (camera, d, row, column), found in np.ndenumerate(index):
        depth = depth_bin_centres(config.lift.depth)[d]
        pixel = np.array([column * stride + (stride - 1) / 2, row * stride + (stride - 1) / 2, 1])
        point = poses[camera] @ np.append(depth * np.linalg.inv(views[camera].K) @ pixel, 1)
        place = [(point[axis] - config.grid.lower[axis]) / size[axis] for axis in range(3)]
        inside = all(0 <= p < n for p, n in zip(place, cells))
        x, y, s = (math.floor(p) for p in place)
        expected = (x * cells[1] + y) * cells[2] + s if inside else -1
        near_a_face = any(abs(p - round(p)) < 1e-5 for p in place)  # where single precision may round either way
        assert found == expected or near_a_face
        agree += found == expected
    assert agree > 0.99 * index.size


def test_an_absent_camera_reaches_no_cell_whatever_its_pose():
    config = small_config()
    views, poses = camera_ring(config, 3)
    complete = Frustums(config, views).place(poses)
    poses[1] = np.nan
    geometry = Frustums(config, views).place(poses, np.array([True, False, True]))
    assert (geometry.voxel_index[0, 1] == -1).all()
    assert torch.equal(geometry.voxel_index[0, [0, 2]], complete.voxel_index[0, [0, 2]])
    assert torch.isfinite(geometry.cameras).all()


def test_the_camera_parameters_do_not_change_with_yaw_or_place_but_with_height_pitch_and_roll():
    config = small_config()
    views, poses = camera_ring(config, 4)
    cameras = Frustums(config, views).place(poses).cameras[0]
    # 70 degrees wide: fx / width = 1 / (2 tan 35 deg) = 0.714; pixels are square, so fy / height is 96 / 64 times that.
    # The centre is in the middle: (47.5 + 0.5) / 96 = 1/2. The ring is level and 1.6 m high;
    # the image's y axis is down.
    expected = torch.tensor([0.7141, 1.0711, 0.5, 0.5, 1.6, 0.0, 0.0, -1.0])
    torch.testing.assert_close(cameras, expected.expand(4, CAMERA_PARAMETERS), atol=1e-4, rtol=0)
    tilted = poses[:1] @ np.array([[1, 0, 0, 0], [0, 0.8, -0.6, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1]])
    # Turned about its x axis by 36.9 degrees: optical z is (0, -0.6, 0.8) in the old frame, whose y is down, so up 0.6.
    assert Frustums(config, views[:1]).place(tilted).cameras[0, 0, 5].item() == pytest.approx(0.6, abs=1e-6)


def test_the_same_poses_are_not_computed_twice_and_other_poses_are():
    config = small_config()
    views, poses = camera_ring(config, 2)
    frustums = Frustums(config, views)
    first = frustums.place(poses)
    assert frustums.place(poses.copy()) is first
    moved = poses.copy()
    moved[1, 0, 3] += 1.0
    second = frustums.place(moved)
    assert torch.equal(first.voxel_index[0, 0], second.voxel_index[0, 0])
    assert not torch.equal(first.voxel_index[0, 1], second.voxel_index[0, 1])
    assert frustums.place(moved, np.array([True, False])) is not second
    poses[0] = 0  # a caller may reuse its array
    assert torch.equal(frustums.place(moved).voxel_index, second.voxel_index)


def test_an_array_changed_in_place_is_seen():
    config = small_config()
    views, poses = camera_ring(config, 1)
    frustums = Frustums(config, views)
    first = frustums.place(poses)
    poses[0, 0, 3] += 1.0
    assert not torch.equal(first.voxel_index, frustums.place(poses).voxel_index)


def test_no_cameras_give_an_empty_geometry():
    config = small_config()
    geometry = Frustums(config, []).place(np.empty((0, 4, 4)))
    assert geometry.voxel_index.shape == (1, 0, 7, 8, 12) and geometry.cameras.shape == (1, 0, CAMERA_PARAMETERS)


def test_geometries_of_several_frames_are_joined():
    config = small_config()
    views, poses = camera_ring(config, 2)
    one = Frustums(config, views).place(poses)
    two = Frustums(config, views).place(poses[::-1])
    both = LiftGeometry.batch([one, two]).to("cpu")
    assert both.voxel_index.shape[0] == both.cameras.shape[0] == 2
    assert torch.equal(both.voxel_index[1], two.voxel_index[0])


def test_views_and_poses_that_do_not_fit_are_refused():
    config = small_config()
    views, poses = camera_ring(config, 2)
    with pytest.raises(ValueError, match="view 1 is 50 x 64, the network's images are 96 x 64"):
        Frustums(config, [views[0], View(50, 64, views[0].K)])
    with pytest.raises(ValueError, match="K of view 0"):
        Frustums(config, [View(96, 64, -np.eye(3))])
    frustums = Frustums(config, views)
    with pytest.raises(ValueError, match=r"expected \(2, 4, 4\)"):
        frustums.place(poses[:1])
    poses[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="view 1 is not finite; mark the camera absent"):
        frustums.place(poses)


def test_logits_of_depth_depend_on_the_camera_and_are_single_precision():
    torch.manual_seed(0)
    head = DepthContextHead(10, LiftConfig(context_channels=4, hidden_channels=8, depth=DepthConfig(count=6))).eval()
    features, cameras = torch.randn(3, 10, 5, 7), torch.rand(3, CAMERA_PARAMETERS)
    logits, context = head(features, cameras)
    assert logits.shape == (3, 6, 5, 7) and context.shape == (3, 4, 5, 7)
    assert (head(features, cameras + 0.5)[0].softmax(dim=1) - logits.softmax(dim=1)).abs().max() > 1e-4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(features, cameras)[0].dtype == torch.float32


def tilted_cameras():
    """A configuration, cameras that look down, up and roll, one of them upside down, and their poses."""
    config = small_config("tiny", "lift.heights.count=8", "lift.rays=true", "lift.depth.spacing=log")
    views, poses = camera_ring(config, 4)

    def turned(angle, axes):
        turn = np.eye(4)
        (a, b), cosine, sine = axes, np.cos(angle), np.sin(angle)
        turn[[a, a, b, b], [a, b, a, b]] = cosine, -sine, sine, cosine
        return turn

    poses[0] = poses[0] @ turned(-0.3, (1, 2))
    poses[1] = poses[1] @ turned(0.2, (1, 2)) @ turned(0.4, (0, 1))
    poses[2] = poses[2] @ turned(np.pi, (0, 1))  # mounted upside down
    return config, views, poses, Frustums(config, views).place(poses).cameras[0]


def test_the_upward_slope_is_that_of_the_ray_through_the_middle_of_the_feature_pixel():
    config, views, poses, cameras = tilted_cameras()
    slope = upward_slope(cameras, config.feature_shape)
    stride = config.backbone.stride
    for camera, row, column in [(0, 0, 0), (0, 7, 11), (1, 3, 2), (2, 7, 5), (2, 0, 11), (3, 4, 6)]:
        pixel = np.array([column * stride + (stride - 1) / 2, row * stride + (stride - 1) / 2, 1])
        ray = poses[camera][:3, :3] @ np.linalg.inv(views[camera].K) @ pixel  # for one metre of z-depth
        assert slope[camera, row, column].item() == pytest.approx(ray[2], abs=1e-5)


def test_ray_features_are_bounded_and_name_the_depth_of_level_ground():
    config, _, _, cameras = tilted_cameras()
    features = ray_features(cameras, config.feature_shape)
    assert features.shape == (4, RAY_FEATURES, *config.feature_shape)
    assert torch.isfinite(features).all() and features.abs().max() <= 5
    # Camera 3 is level and 1.6 m high: a ray 3.2 m down for each 8 m of depth meets the ground at 4 m.
    slope = upward_slope(cameras, config.feature_shape)[3]
    row = int(torch.argmin((slope[:, 0] + 0.4).abs()))
    depth = -1.6 / slope[row, 0].item()
    assert features[3, 1, row, 0].item() == pytest.approx(1 / depth, rel=1e-5)
    assert features[3, 2, row, 0].item() == pytest.approx(depth / 30, rel=1e-5)
    assert (features[3, 1][slope > 0] == 0).all() and (features[3, 2][slope > 0] == 1).all()
    assert torch.isfinite(ray_features(cameras * torch.tensor([1, 1, 1, 1, 0, 1, 1, 1]), (2, 3))).all()


def test_a_heights_logit_counts_at_the_depths_at_which_the_ray_has_this_height():
    config, _, poses, cameras = tilted_cameras()
    head = DepthContextHead(8, config.lift)
    lowest, highest, count = config.lift.heights.minimum, config.lift.heights.maximum, config.lift.heights.count
    torch.manual_seed(1)
    logits = torch.randn(4, count, *config.feature_shape)
    found = head._logits_of_heights(logits, cameras)
    slope = upward_slope(cameras, config.feature_shape).double().numpy()
    bins = np.linspace(lowest, highest, count)
    for camera, d, row, column in np.ndindex(*found.shape):
        height = poses[camera][2, 3] + slope[camera, row, column] * depth_bin_centres(config.lift.depth)[d]
        expected = np.interp(height, bins, logits[camera, :, row, column].numpy())  # constant beyond the ends
        assert found[camera, d, row, column].item() == pytest.approx(expected, abs=1e-4)


def test_heights_and_rays_begin_without_effect_and_learn():
    config, _, _, cameras = tilted_cameras()
    torch.manual_seed(2)
    with_both = build_network(config)
    without = build_network(small_config("tiny", "lift.depth.spacing=log"))
    state = with_both.state_dict()
    new = {name for name in state if name not in without.state_dict()}
    assert new == {name for name in state if name.startswith(WITHOUT_EFFECT)} and len(new) == 4
    without.load_state_dict({name: value for name, value in state.items() if name not in new})
    features = torch.randn(4, config.neck.channels, *config.feature_shape)
    for one, other in zip(with_both.lift(features, cameras), without.lift(features, cameras)):
        torch.testing.assert_close(one, other)
    logits, _ = with_both.lift(features, cameras)
    (-logits.log_softmax(dim=1)[:, 2].mean()).backward()
    for part in (with_both.lift.rays, with_both.lift.predict_height):
        assert part.weight.grad.abs().max() > 0


def test_heights_that_are_no_range_are_refused():
    for wrong in ({"count": 1}, {"count": 4, "minimum": 2.0, "maximum": 2.0}):
        with pytest.raises(ValueError, match="give none or at least two, lowest first"):
            HeightConfig(**wrong)


def test_the_places_of_a_feature_pixel_have_rays_of_their_own():
    """With two places along each axis the lifted grid is that of an image network of half the stride."""
    fine = small_config("tiny", "lift.subpixels=2")
    assert (fine.feature_shape, fine.lifted_shape, fine.lifted_stride) == ((8, 12), (16, 24), 4)
    # Stride 4: the place in row 6, column 10 covers rows 24..27 and columns 40..43; its middle is (41.5, 25.5).
    view = View(96, 64, np.array([[50.0, 0, 41.5], [0, 50.0, 25.5], [0, 0, 1]]))
    pose = forward_camera(y=2.2, z=1.2)[None]
    middles = depth_bin_centres(fine.lift.depth)
    expected = [(int(x + 8) * 16 + 10) * 2 + 1 if x < 8 else -1 for x in middles]
    placed = Frustums(fine, [view]).place(pose)
    assert placed.voxel_index[0, 0, :, 6, 10].tolist() == expected and placed.voxel_index.shape == (1, 1, 7, 16, 24)
    # What images are compared with stays as coarse as the feature maps.
    coarse = Frustums(small_config("tiny"), [view]).place(pose)
    assert torch.equal(placed.base_from_pixel, coarse.base_from_pixel)


def test_depth_and_context_of_a_place_are_its_own():
    config = small_config("tiny", "lift.subpixels=2")
    head = DepthContextHead(8, config.lift).eval()
    features, cameras = torch.randn(2, 8, 8, 12), torch.rand(2, 8)
    seen = []
    head.predict.register_forward_hook(lambda _, __, values: seen.append(values))
    logits, context = head(features, cameras)
    assert logits.shape == (2, 7, 16, 24) and context.shape == (2, 6, 16, 24)
    for down, right in np.ndindex(2, 2):
        part = seen[0][:, 2 * down + right :: 4]
        assert torch.equal(logits[:, :, down::2, right::2], part[:, :7])
        assert torch.equal(context[:, :, down::2, right::2], part[:, 7:])


def test_a_finer_head_begins_with_the_depth_of_its_feature_pixels_and_the_same_sum_of_context():
    coarse, fine = (
        DepthContextHead(8, small_config("tiny", f"lift.subpixels={count}").lift).eval() for count in (1, 2)
    )
    fine.load_state_dict(spread_over_subpixels(coarse.state_dict(), fine.config))
    features, cameras = torch.randn(2, 8, 8, 12), torch.rand(2, 8)
    logits, context = coarse(features, cameras)
    finer_logits, finer_context = fine(features, cameras)
    torch.testing.assert_close(finer_logits, logits.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(finer_context, 2) * 4, context)


def test_places_that_do_not_divide_the_stride_are_refused():
    with pytest.raises(ValueError, match="lift.subpixels is 3, which does not divide backbone.stride 8"):
        small_config("tiny", "lift.subpixels=3")
