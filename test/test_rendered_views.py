"""Rendered views of a field made by hand: a wall at a known distance."""

import numpy as np
import pytest
import torch

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI, UNLABELLED, ClassTable
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.undistortion import View
from renderocc_model.inference.rendered_views import rendered_view
from renderocc_ros.output.messages import rendered_camera_info

torch.set_num_threads(2)

GRID = VoxelGrid((0.0, -4.0, -1.0), (12.0, 4.0, 3.0), 0.5)  # 24 x 16 x 8 voxels
# 40 x 24 pixels: the direction of pixel (u, v) is ((u - 19.5) / 20, (v - 11.5) / 20, 1) in the optical frame.
VIEW = View(40, 24, np.array([[20.0, 0.0, 19.5], [0.0, 20.0, 11.5], [0.0, 0.0, 1.0]]))
# At (1, 0, 1), looking along x: the optical frame's x is the vehicle's -y, its y is -z, its z is x.
AHEAD = np.array([[0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])


def volume(density: torch.Tensor, channels: torch.Tensor, classes: ClassTable = OCC3D_NUSCENES) -> Occupancy:
    """A volume whose field has this density, and logit 5 in this channel of each voxel."""
    logits = 5.0 * torch.nn.functional.one_hot(channels, len(classes.occupied_ids)).float()
    semantics = np.full(GRID.shape, UNLABELLED, np.uint8)  # rendering looks at the field alone
    nothing = np.zeros(GRID.shape, np.float32)
    return Occupancy(GRID, classes, semantics, nothing, nothing > 0, SemanticDensityField(GRID, density, logits))


def wall(classes: ClassTable = OCC3D_NUSCENES, left: int = 4, right: int = 7) -> Occupancy:
    """A wall from x = 6 to 7 m, up to z = 1 m, of one channel to the left of y = 0 and of another to the right."""
    density, channels = torch.zeros(GRID.shape), torch.zeros(GRID.shape, dtype=torch.int64)
    density[12:14, :, :4] = 50.0  # of 5 cm of it 8 % of the light remain
    channels[:, 8:], channels[:, :8] = left, right
    return volume(density, channels, classes)


# The wall's face is 5 m ahead. There, pixel (u, v) is at y = -5 (u - 19.5) / 20 and z = 1 - 5 (v - 11.5) / 20. Rows 12
# to 19 hit it; those from 20 on leave through the floor at z = -1 before that, and row 9 is at z = 1.6, above it.
# Columns 4 to 35 are within y = -4 ... 4. Columns 3 and 36 graze the last quarter of a metre before the face, in which
# the density rises between two voxel centres.
HIT = np.s_[12:20, 4:36]
# Density ramps up from a quarter of a metre before the face, and a step stands for as much before its sample.
RAMP = 0.4


def test_depth_is_along_the_optical_axis_and_right_to_a_voxel():
    _, depth = rendered_view(wall(), VIEW, AHEAD, stride=1)
    assert depth.dtype == np.float32 and depth.shape == (24, 40)
    assert np.abs(depth[HIT] - 5.0).max() <= RAMP
    # As a distance it would be 5 * sqrt(1 + 0.775^2 + 0.375^2) = 6.6 m in the corner.
    assert depth[19, 4] == pytest.approx(5.0, abs=RAMP)


def test_colours_are_those_of_the_classes():
    colours, _ = rendered_view(wall(left=4, right=7), VIEW, AHEAD, stride=1)
    assert colours.dtype == np.uint8 and colours.shape == (24, 40, 3)
    assert (colours[12:20, 4:20] == OCC3D_NUSCENES.colours[4]).all()  # car; columns up to 19.5 look to the left
    assert (colours[12:20, 20:36] == OCC3D_NUSCENES.colours[7]).all()  # pedestrian


def test_where_the_ray_passes_there_is_no_colour_and_no_depth():
    colours, depth = rendered_view(wall(), VIEW, AHEAD, stride=1)
    for above_or_below in (np.s_[:10], np.s_[20:]):
        assert not colours[above_or_below].any() and np.isnan(depth[above_or_below]).all()
    for beside in (np.s_[:, :3], np.s_[:, 37:]):
        assert not colours[beside].any() and np.isnan(depth[beside]).all()


def test_an_empty_field_is_black_and_nan_everywhere():
    colours, depth = rendered_view(volume(torch.zeros(GRID.shape), torch.zeros(GRID.shape).long()), VIEW, AHEAD, 1)
    assert not colours.any() and np.isnan(depth).all()


@pytest.mark.parametrize(("density", "ends"), [(0.05, False), (0.08, True)])
def test_a_ray_ends_somewhere_when_more_than_half_of_its_light_does(density, ends):
    """Fog over the 11 m ahead: 1 - exp(-0.05 * 11) = 42 % of the light ends in it, or 1 - exp(-0.08 * 11) = 59 %."""
    fog = volume(torch.full(GRID.shape, density), torch.full(GRID.shape, 4))
    colours, depth = rendered_view(fog, VIEW, AHEAD, stride=1)
    middle = np.s_[11, 19]
    assert np.isfinite(depth[middle]) == ends
    assert colours[middle].tolist() == (list(OCC3D_NUSCENES.colours[4]) if ends else [0, 0, 0])


def test_depth_is_where_half_of_the_light_has_been_stopped():
    """Fog of 0.08 1/m over 11 m stops half of the light after ln 2 / 0.08 = 8.66 m; its mean way is 7.3 m. That is
    along the ray, of which the depth is 1 / |d|."""
    fog = volume(torch.full(GRID.shape, 0.08), torch.full(GRID.shape, 4))
    _, depth = rendered_view(fog, VIEW, AHEAD, stride=1)
    ray = np.array([(19 - 19.5) / 20, (11 - 11.5) / 20, 1.0])
    assert depth[11, 19] == pytest.approx(np.log(2) / 0.08 / np.linalg.norm(ray), abs=1e-3)


def test_the_channels_leave_out_the_free_class_wherever_it_is():
    """SemanticKITTI's free class has id 0: channel 0 is a car, id 1, and channel 8 is the road, id 9."""
    colours, _ = rendered_view(wall(SEMANTIC_KITTI, left=0, right=8), VIEW, AHEAD, stride=1)
    assert colours[15, 10].tolist() == [100, 150, 245] and colours[15, 30].tolist() == [255, 0, 255]


@pytest.mark.parametrize(("stride", "first", "shape"), [(2, 0, (12, 20)), (3, 1, (8, 13)), (4, 1, (6, 10))])
def test_a_stride_takes_the_middle_one_of_so_many_pixels(stride, first, shape):
    colours, depth = rendered_view(wall(), VIEW, AHEAD, stride=1)
    fewer_colours, fewer_depth = rendered_view(wall(), VIEW, AHEAD, stride)
    assert fewer_depth.shape == shape and fewer_colours.shape == (*shape, 3)
    chosen = np.s_[first::stride, first::stride]
    np.testing.assert_array_equal(fewer_colours, colours[chosen])
    np.testing.assert_allclose(fewer_depth, depth[chosen], atol=1e-5)


def test_a_turned_camera_sees_the_wall_from_where_it_stands():
    """At (3, 0, 0), turned by 30 degrees to the left: the wall's face is the plane x = 6, 3 m along the vehicle's x.

    Straight ahead it is 3 / cos(30) = 3.464 m away. A pixel u looks 30 - atan((u - 19.5) / 20) degrees to the left of
    x; its point on the face is 3 m along x, and 3 (cos 30 + tan(angle) sin 30) along the optical axis.
    """
    half, root = 0.5, np.sqrt(0.75)
    turned = np.array([[half, 0, root, 3.0], [-root, 0, half, 0.0], [0, -1.0, 0, 0.0], [0, 0, 0, 1.0]])
    _, depth = rendered_view(wall(), VIEW, turned, stride=1)
    for column in (15, 20, 25, 30, 35):
        angle = np.radians(30) - np.arctan((column - 19.5) / 20)
        expected = 3 * (root + np.tan(angle) * half)
        # A metre along x is 1 / cos(angle) along the ray, so cos 30 + tan(angle) sin 30 in depth.
        assert depth[12, column] == pytest.approx(expected, abs=RAMP * (root + np.tan(angle) * half))


def test_a_field_in_half_precision_gives_the_same_picture():
    single = wall()
    half = Occupancy(
        GRID, single.classes, single.semantics, single.confidence, single.visible, single.field.to(dtype=torch.float16)
    )
    colours, depth = rendered_view(single, VIEW, AHEAD, stride=2)
    half_colours, half_depth = rendered_view(half, VIEW, AHEAD, stride=2)
    np.testing.assert_array_equal(half_colours, colours)
    np.testing.assert_allclose(half_depth, depth, atol=0.01)


# ---- their calibration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_points_made_of_depth_and_camera_info_lie_on_the_walls_face(stride):
    """As depth_image_proc makes them: X = (u - cx) Z / fx, Y = (v - cy) Z / fy of the pixel (u, v)."""
    _, depth = rendered_view(wall(), VIEW, AHEAD, stride)
    info = rendered_camera_info(VIEW, stride, 1_700_000_000_000_000_001, "front_optical")
    assert (info.height, info.width) == depth.shape
    rows, columns = np.nonzero(np.isfinite(depth))
    z = depth[rows, columns].astype(np.float64)
    points = np.stack([(columns - info.p[2]) * z / info.p[0], (rows - info.p[6]) * z / info.p[5], z, np.ones(len(z))])
    x, y, height = (AHEAD @ points)[:3]
    # The face: x = 6 from y = -4 to 4, z from the floor to 1.
    assert np.abs(x - 6.0).max() <= RAMP
    assert np.abs(y).max() <= 4.0 + 0.25 and height.max() <= 1.0 + 0.25 and height.min() >= -1.0
    # By hand, from the picture above: pixel (u, v) of the view looks along (u - 19.5, v - 11.5, 20) at any depth.
    u, v = (stride - 1) // 2 + stride * columns, (stride - 1) // 2 + stride * rows
    assert np.allclose(y / (x - 1.0), -(u - 19.5) / 20, atol=1e-6)
    assert np.allclose((height - 1.0) / (x - 1.0), -(v - 11.5) / 20, atol=1e-6)


def test_the_calibration_is_a_pinhole_with_the_stamp_and_frame_of_the_images():
    info = rendered_camera_info(VIEW, 4, 1_700_000_000_000_000_001, "front_optical")
    assert (info.header.stamp.sec, info.header.stamp.nanosec, info.header.frame_id) == (
        1_700_000_000,
        1,
        "front_optical",
    )
    # Every fourth pixel from 1 on: u = 1 + 4 u', so fx = 20 / 4 and cx = (19.5 - 1) / 4.
    assert list(info.k) == [5.0, 0.0, 4.625, 0.0, 5.0, 2.625, 0.0, 0.0, 1.0]
    assert list(info.p) == [5.0, 0.0, 4.625, 0.0, 0.0, 5.0, 2.625, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert (info.distortion_model, list(info.d), list(info.r)) == ("plumb_bob", [0.0] * 5, list(np.eye(3).reshape(-1)))
