"""The voxel grid: sides, centres and which voxel owns which point."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderocc_model.geometry.grid import OCC3D_GRID, SEMANTIC_KITTI_GRID, VoxelGrid


def test_the_two_data_sets_have_their_published_shapes():
    assert OCC3D_GRID.shape == (200, 200, 16)
    assert OCC3D_GRID.size == 640_000
    assert SEMANTIC_KITTI_GRID.shape == (256, 256, 32)


def test_centres_lie_half_a_voxel_inside_the_corners():
    centres = OCC3D_GRID.centres()
    assert centres.shape == (200, 200, 16, 3) and centres.dtype == np.float32
    assert centres[0, 0, 0] == pytest.approx((-39.8, -39.8, -0.8), abs=1e-5)
    assert centres[-1, -1, -1] == pytest.approx((39.8, 39.8, 5.2), abs=1e-5)
    # One step along y, the second index, changes y alone, by a voxel.
    assert centres[3, 8, 2] - centres[3, 7, 2] == pytest.approx((0, 0.4, 0), abs=1e-5)


def test_every_centre_is_in_its_own_voxel():
    grid = VoxelGrid((-1.0, 2.0, 0.5), (1.0, 5.0, 1.7), 0.2)  # 10 x 15 x 6
    indices, inside = grid.index_of(grid.centres().reshape(-1, 3))
    assert inside.all()
    assert np.array_equal(indices, np.stack(np.unravel_index(np.arange(900), (10, 15, 6)), axis=-1))


def test_a_voxel_owns_its_lower_faces_and_the_upper_corner_is_outside():
    grid = VoxelGrid((0, 0, 0), (4, 4, 4), 1)
    points = np.array([[0, 0, 0], [1, 2, 3], [3.999, 0, 0], [4, 0, 0], [0, -1e-9, 0]])
    indices, inside = grid.index_of(points)
    assert inside.tolist() == [True, True, True, False, False]
    assert indices.tolist() == [[0, 0, 0], [1, 2, 3], [3, 0, 0], [-1, -1, -1], [-1, -1, -1]]


def test_points_that_are_not_numbers_are_outside():
    indices, inside = OCC3D_GRID.index_of(np.array([[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf], [1e300, 0, 0]]))
    assert not inside.any() and (indices == -1).all()


def test_no_points_have_no_voxels():
    indices, inside = OCC3D_GRID.index_of(np.empty((0, 3)))
    assert indices.shape == (0, 3) and inside.shape == (0,)


@given(st.tuples(*[st.floats(-60, 60)] * 3))
def test_a_point_is_within_half_a_voxel_of_the_centre_of_its_voxel(point):
    indices, inside = OCC3D_GRID.index_of(np.array([point]))
    expected = -40 <= point[0] < 40 and -40 <= point[1] < 40 and -1 <= point[2] < 5.4
    assert inside[0] == expected
    if expected:
        centre = np.array([-40, -40, -1]) + (indices[0] + 0.5) * 0.4
        assert np.abs(centre - point).max() <= 0.2 + 1e-9


def test_a_grid_survives_json():
    again = VoxelGrid.from_dict(json.loads(json.dumps(SEMANTIC_KITTI_GRID.to_dict())))
    assert again == SEMANTIC_KITTI_GRID and hash(again) == hash(SEMANTIC_KITTI_GRID)
    assert again.frame == "velodyne"


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (((0, 0, 0), (1, 1, 1.05), 0.1), "z runs 0.0 to 1.05 m, which is 10.5000 voxels"),
        (((0, 0, 0), (1, -1, 1), 0.1), "upper y -1.0 is not above lower y 0.0"),
        (((0, 0, 0), (1, 1, 1), 0.0), "voxel_size is 0.0"),
        (((0, 0, 0), (1, 1, 1), float("nan")), "voxel_size is nan"),
        (((0, 0, 0), (1, 1, float("inf")), 0.1), "upper is"),
        (((0, 0), (1, 1, 1), 0.1), "lower is (0, 0)"),
        (((0, 0, 0), (1, 1, 1), 1e5), "voxels of 100000.0 m"),
        (((0, 0, 0), (1, 1, 1), 0.1, ""), "frame is ''"),
    ],
)
def test_a_grid_that_cannot_be_says_what_is_wrong(arguments, culprit):
    with pytest.raises(ValueError, match="grid: ") as error:
        VoxelGrid(*arguments)
    assert culprit in str(error.value)


def test_a_rounding_error_of_the_side_is_no_error():
    # 6.4 / 0.4 is 16.000000000000004 in floating point once written as 5.4 - -1.
    assert VoxelGrid((0, 0, -1.0), (0.4 * 3, 0.4, 5.4), 0.4).shape == (3, 1, 16)


def test_an_unknown_entry_of_a_described_grid_is_named():
    with pytest.raises(ValueError, match="unknown keys \\['voxelsize'\\]"):
        VoxelGrid.from_dict({"lower": [0, 0, 0], "upper": [1, 1, 1], "voxelsize": 1})


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(N, 3\)"):
        OCC3D_GRID.index_of(np.zeros(3))
