"""Pictures of volumes: every colour where the geometry says it must be."""

from __future__ import annotations

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES, TABLES, UNLABELLED
from renderocc_model.field.drawing import (
    FREE_COLOUR,
    MARKER_COLOUR,
    SKY_COLOUR,
    UNKNOWN_COLOUR,
    VirtualCamera,
    bird_eye_view,
    default_camera,
    perspective_view,
)
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import OCC3D_GRID, SEMANTIC_KITTI_GRID, VoxelGrid

GRID = VoxelGrid((2.0, -4.0, -1.0), (10.0, 4.0, 3.0), 0.5)  # 16 x 16 x 8, all of it in front of the frame's origin
FREE, CAR, ROAD, TREE = OCC3D_NUSCENES.free, 4, 11, 16
COLOUR = {name: np.array(OCC3D_NUSCENES.colours[name], float) for name in (CAR, ROAD, TREE)}


def volume(semantics: np.ndarray, grid: VoxelGrid = GRID) -> Occupancy:
    return Occupancy(grid, OCC3D_NUSCENES, semantics, np.ones(grid.shape, np.float32), semantics != UNLABELLED)


def filled(value: int, grid: VoxelGrid = GRID) -> np.ndarray:
    return np.full(grid.shape, value, np.uint8)


def is_hue(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Whether pixels are a shade of a colour, seen through a little haze: the same direction in RGB to 8 degrees."""
    pixels = pixels.astype(float)
    cosine = pixels @ colour / np.maximum(np.linalg.norm(pixels, axis=-1) * np.linalg.norm(colour), 1e-9)
    return cosine > np.cos(np.radians(8))


# --- from above ------------------------------------------------------------------------------------------------------


def test_forward_is_up_and_left_is_left():
    semantics = filled(FREE)
    semantics[15, 15, 0] = CAR  # farthest ahead, farthest left
    semantics[0, 0, 0] = TREE  # nearest, farthest right
    picture = bird_eye_view(volume(semantics), pixels_per_voxel=3)
    assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8
    assert is_hue(picture[:3, :3], COLOUR[CAR]).all() and is_hue(picture[45:, 45:], COLOUR[TREE]).all()
    assert is_hue(picture, COLOUR[CAR]).sum() == 9


def test_topmost_occupied_voxel_gives_the_colour_and_height_the_shade():
    semantics = filled(FREE)
    semantics[:, :, 0] = ROAD
    semantics[4, 5, 3], semantics[4, 5, 7] = CAR, TREE  # a tree over a car over the road
    picture = bird_eye_view(volume(semantics), pixels_per_voxel=1).astype(float)
    # Brightness 0.7 + 0.3 (z + 1) / 8: 1 at the top, 0.7375 at the bottom. Row 15 - 4, column 15 - 5.
    assert picture[11, 10].tolist() == COLOUR[TREE].tolist()
    assert picture[0, 0] == pytest.approx(COLOUR[ROAD] * 0.7375, abs=0.51)


def test_columns_that_nobody_saw_are_grey_and_seen_empty_ones_light():
    semantics = filled(UNLABELLED)
    semantics[3, 2, 6] = FREE
    picture = bird_eye_view(volume(semantics), pixels_per_voxel=1)
    assert picture[12, 13].tolist() == list(FREE_COLOUR)
    assert (picture == UNKNOWN_COLOUR).all(-1).sum() == 16 * 16 - 1


def test_arrow_marks_the_frames_origin_and_points_forward():
    around = VoxelGrid((-6.0, -4.0, -1.0), (10.0, 4.0, 3.0), 0.5)
    picture = bird_eye_view(volume(filled(FREE, around), around), pixels_per_voxel=10)
    rows, columns = np.nonzero((picture == MARKER_COLOUR).all(-1))
    # 20 pixels a metre: the origin is 10 m from the top, 4 m from the left. From 1.6 m before it to 1.2 m behind it.
    assert abs(rows.min() - (10 - 1.6) * 20) <= 3 and abs(rows.max() - (10 + 1.2) * 20) <= 3
    assert abs(columns.mean() - 80) <= 1
    nothing = bird_eye_view(volume(filled(FREE)), pixels_per_voxel=10)  # a grid without the origin
    assert not (nothing == MARKER_COLOUR).all(-1).any()


# --- obliquely -------------------------------------------------------------------------------------------------------

# From behind, 2 m above the grid's floor, looking ahead and level. Vertical field of view 90 degrees: the focal length
# is half the height, 100 px.
LEVEL = VirtualCamera((-2.0, 0.0, 1.0), (10.0, 0.0, 1.0), np.pi / 2)


def test_cube_is_where_the_projection_puts_it():
    semantics = filled(FREE)
    semantics[8:10, 10:12, 4:6] = CAR  # x 6 to 7, y 1 to 2, z 1 to 2: its near face is 8 m from the eye
    picture = perspective_view(volume(semantics), 400, 200, LEVEL)
    rows, columns = np.nonzero(is_hue(picture, COLOUR[CAR]) & (picture.max(-1) > 60))
    # Columns 200 - 100 y / 8 for y from 2 (left) to 1, and the right side back to 9 m; rows 100 - 100 (z - 1) / 8.
    assert columns.min() == pytest.approx(200 - 25, abs=1.5) and columns.max() == pytest.approx(200 - 100 / 9, abs=1.5)
    assert rows.min() == pytest.approx(100 - 12.5, abs=1.5) and rows.max() == pytest.approx(100, abs=1.5)


def test_near_cubes_hide_far_ones():
    semantics = filled(FREE)
    semantics[14, :, :] = TREE  # a wall right across
    semantics[4, 6:10, 2:6] = CAR  # before its middle
    picture = perspective_view(volume(semantics), 400, 200, LEVEL)
    # The near side is brightness 0.72 (light comes from the front left), less a little haze.
    assert is_hue(picture[95:105, 195:205], COLOUR[CAR]).all()
    swapped = filled(FREE)
    swapped[4, :, :], swapped[14, 6:10, 2:6] = TREE, CAR
    hidden = perspective_view(volume(swapped), 400, 200, LEVEL)
    assert not (is_hue(hidden, COLOUR[CAR]) & (hidden.max(-1) > 60)).any()


def test_top_is_brighter_than_sides_and_corners_are_darker():
    above = VirtualCamera((-2.0, -2.0, 9.0), (6.0, 0.0, 0.0), 0.8)
    semantics = filled(FREE)
    semantics[4:12, 4:12, 0:3] = CAR
    flat = perspective_view(volume(semantics), 400, 300, above).astype(float)
    brightest = flat[is_hue(flat, COLOUR[CAR])].max()
    levels = flat[is_hue(flat, COLOUR[CAR])][:, 2] / 245
    assert brightest > 200 and (levels < 0.75).any() and (levels > 0.85).any()
    semantics[8, 4:12, 3:6] = CAR  # a wall on it shades the voxels at its foot
    walled = perspective_view(volume(semantics), 400, 300, above).astype(float)
    assert (walled - flat).min() < -10


def lab(colours) -> np.ndarray:
    """CIE L*a*b* (N, 3) of sRGB colours 0..255, by the formulas of IEC 61966-2-1 and CIE 15 (white point D65)."""
    share = np.asarray(colours, float).reshape(-1, 3) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    part = xyz / (0.9505, 1.0, 1.089)
    root = np.where(part > (6 / 29) ** 3, np.cbrt(part), part / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_floor_is_told_from_every_class(name):
    """10 is a difference in L*a*b* that one sees at a glance; seen and free was once 6 from manmade."""
    table = TABLES[name]
    classes = np.array([table.colours[index] for index in table.occupied_ids], float)
    shades = lab(np.concatenate([classes * shade for shade in (0.7, 0.8, 0.9, 1.0)]))  # as `bird_eye_view` darkens
    for floor in (FREE_COLOUR, UNKNOWN_COLOUR):
        for tile in (1.0, 0.95):
            assert np.linalg.norm(lab(np.array(floor) * tile) - shades, axis=1).min() > 15
    (between,) = np.linalg.norm(lab(FREE_COLOUR) - lab(UNKNOWN_COLOUR), axis=1)
    assert between > 50 and np.linalg.norm(lab(UNKNOWN_COLOUR) - lab(SKY_COLOUR)) > 15


def test_floor_shows_where_nobody_looked():
    semantics = filled(UNLABELLED)
    semantics[:, 8:] = FREE  # the left half is seen
    picture = perspective_view(volume(semantics), 400, 200, VirtualCamera((-4.0, 0.0, 6.0), (6.0, 0.0, -1.0), 0.9))
    floor = ~(picture == SKY_COLOUR).all(-1)
    seen = np.abs(picture.astype(int) - FREE_COLOUR).max(-1) <= 12
    unseen = np.abs(picture.astype(int) - UNKNOWN_COLOUR).max(-1) <= 12
    assert seen[:, :198][floor[:, :198]].mean() > 0.97 and unseen[:, 202:][floor[:, 202:]].mean() > 0.97


@pytest.mark.parametrize("grid", [OCC3D_GRID, SEMANTIC_KITTI_GRID, GRID], ids=["occ3d", "kitti", "small"])
def test_default_camera_has_the_whole_floor_in_the_picture(grid):
    picture = perspective_view(volume(filled(FREE, grid), grid))
    assert picture.shape == (720, 1280, 3)
    floor = ~(picture == SKY_COLOUR).all(-1)
    assert floor.mean() > (0.12 if grid is GRID else 0.25)  # the small grid is a box half as high as it is long
    assert not (floor[0].any() or floor[-1].any() or floor[:, 0].any() or floor[:, -1].any())


def test_volume_with_nothing_in_it_and_a_camera_within_it_are_no_trouble():
    assert perspective_view(volume(filled(UNLABELLED)), 64, 48).shape == (48, 64, 3)
    inside = VirtualCamera((6.0, 0.1, 1.0), (9.0, 0.0, 1.0))
    semantics = filled(FREE)
    semantics[:, :, 0] = ROAD
    assert is_hue(perspective_view(volume(semantics), 64, 48, inside)[-1], COLOUR[ROAD]).all()
    assert perspective_view(volume(filled(TREE)), 64, 48, inside).shape == (48, 64, 3)


def test_camera_straight_above_its_target_is_refused():
    with pytest.raises(ValueError, match="straight above"):
        VirtualCamera((0.0, 0.0, 5.0), (0.0, 0.0, 0.0)).camera_from_grid()
    assert default_camera(volume(filled(FREE))).eye[0] < GRID.lower[0]
