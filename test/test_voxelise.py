"""2D labels as voxels: which are occupied, free and not known, by hand and against a search along each ray."""

import numpy as np
import pytest

from renderocc_model.geometry.grid import VoxelGrid
from training.data.voxelise import VoxelLabels, VoxelMarks

CAR, ROAD, FREE, CLASSES = 4, 11, 17, 18
GRID = VoxelGrid((0.0, -2.0, -2.0), (20.0, 2.0, 2.0), 0.5)  # 40 x 8 x 8


def voxelise(grid, *rays) -> VoxelLabels:
    marks = VoxelMarks(grid, CLASSES)
    marks.add_rays(*rays)
    return marks.labels()


def ahead(*returns, y=0.1):
    """Labels of rays along x from (0.25, y, 0.1), which pass voxels (0..39, 4, 4)."""
    distances, classes = zip(*returns)
    origins = np.tile([[0.25, y, 0.1]], (len(returns), 1))
    return voxelise(GRID, origins, np.tile([[1.0, 0, 0]], (len(returns), 1)), distances, classes)


def test_a_voxel_that_holds_a_return_is_occupied_and_those_before_it_are_free():
    """x = 0.25 + 9.9 = 10.15 lies in voxel 20; voxels 0 to 19 are passed; nothing is known of those behind."""
    labels = ahead((9.9, CAR))
    column = [(int(o), int(f)) for o, f in zip(labels.occupied[:, 4, 4], labels.free[:, 4, 4])]
    assert column == [(0, 1)] * 20 + [(1, 0)] + [(0, 0)] * 19
    assert labels.occupied.sum() == 1 and labels.free.sum() == 20 and labels.known.sum() == 21
    assert (
        labels.semantics[20, 4, 4] == CAR and (np.delete(labels.semantics.ravel(), (20 * 8 + 4) * 8 + 4) == 255).all()
    )


def test_a_return_wins_over_rays_that_pass_its_voxel():
    labels = ahead((9.9, CAR), (12.4, ROAD))  # the second passes voxel 20 and ends in voxel 25
    assert labels.occupied[[20, 25], 4, 4].all() and not labels.free[[20, 25], 4, 4].any()
    assert labels.free[:, 4, 4].sum() == 24


@pytest.mark.parametrize("distance", [19.75, 99.0, np.inf])
def test_a_ray_whose_return_lies_behind_the_grid_passes_all_of_its_way(distance):
    """The grid ends at x = 20, 19.75 m from the ray's origin; what lies on its face lies behind it."""
    labels = ahead((distance, CAR))
    assert labels.free[:, 4, 4].all() and not labels.occupied.any()


def test_rays_without_a_distance_or_from_outside_say_nothing():
    for labels in (ahead((0.0, CAR), (np.nan, CAR), (-3.0, CAR)), ahead((5.0, CAR), y=2.0), ahead((5.0, CAR), y=-2.1)):
        assert not labels.known.any()
    empty = voxelise(GRID, np.empty((0, 3)), np.empty((0, 3)), np.empty(0), np.empty(0, np.int64))
    assert not empty.known.any() and empty.semantics.shape == (40, 8, 8)


def test_a_voxel_has_the_class_of_most_returns_and_of_unknown_ones_none():
    assert ahead((9.9, ROAD), (9.8, ROAD), (9.9, CAR)).semantics[20, 4, 4] == ROAD
    assert ahead((9.9, ROAD), (9.8, CAR)).semantics[20, 4, 4] == CAR  # equally many: the lower id
    assert ahead((9.9, 255), (9.8, 255), (9.9, ROAD)).semantics[20, 4, 4] == ROAD
    unknown = ahead((9.9, 255))
    assert unknown.occupied[20, 4, 4] and unknown.semantics[20, 4, 4] == 255


def test_a_position_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        voxelise(GRID, np.full((1, 3), np.nan), np.array([[1.0, 0, 0]]), [5.0], [CAR])


def test_labels_of_scattered_rays_are_those_of_a_fine_march():
    """Every ray sampled each 0.1 mm: all voxels that a sample before the return lies in are passed."""
    rng = np.random.default_rng(0)
    origins = rng.uniform((8, -1, -1), (12, 1, 1), (40, 3))
    directions = rng.normal(size=(40, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances, classes = rng.uniform(0.3, 4, 40), rng.integers(0, 17, 40)
    occupied, passed = np.zeros(GRID.shape, bool), np.zeros(GRID.shape, bool)
    for origin, direction, distance in zip(origins, directions, distances):
        places = origin + np.arange(0, distance, 1e-4)[:, None] * direction
        cells = np.floor((np.vstack([places, origin + distance * direction]) - GRID.lower) / 0.5).astype(int)
        inside = ((cells >= 0) & (cells < GRID.shape)).all(axis=1)
        passed[tuple(cells[inside].T)] = True
        if inside[-1]:
            occupied[tuple(cells[-1])] = True
    labels = voxelise(GRID, origins, directions, distances, classes)
    np.testing.assert_array_equal(labels.occupied, occupied)
    np.testing.assert_array_equal(labels.free, passed & ~occupied)
    assert labels.free.sum() > 100 and 10 < labels.occupied.sum() <= 40


def test_pixels_of_an_image_mark_the_voxels_that_their_rays_return_from():
    """A turned and mirrored camera; against the same labels as rays. Classes left out, and pixels between strides,
    mark nothing."""
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(6, 7, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, (10, 0.3, -0.2)
    pixels = np.stack([rng.integers(0, 7, 90), rng.integers(0, 6, 90)], axis=1).astype(np.uint16)
    distances = rng.uniform(0.2, 3, 90).astype(np.float32)
    distances[::10] = 0, np.nan, np.inf, 99, 0, 1, 2, 1, 2
    classes = np.sort(rng.integers(0, CLASSES + 1, 90))  # the last are unknown
    starts = np.searchsorted(classes, np.arange(CLASSES + 2))
    for stride, first, out in ((1, 0, ()), (3, 2, ()), (1, 0, (CAR, ROAD, CLASSES))):
        left_out = np.isin(np.arange(CLASSES + 1), out)
        marks = VoxelMarks(GRID, CLASSES)
        marks.add_pixels(directions, pose, starts, pixels, distances, left_out, stride, first)
        found = marks.labels()
        taken = np.concatenate([np.arange(a + first, b, stride) for a, b in zip(starts, starts[1:])])
        taken = taken[~left_out[classes[taken]]]
        along = directions[pixels[taken, 1], pixels[taken, 0]] @ turn.T
        wanted = voxelise(GRID, np.tile(pose[:3, 3], (len(taken), 1)), along, distances[taken], classes[taken])
        np.testing.assert_array_equal(found.occupied, wanted.occupied)
        np.testing.assert_array_equal(found.semantics, wanted.semantics)
        assert not found.free.any() and found.occupied.sum() > 8


def test_more_returns_than_can_be_counted_leave_a_voxel_with_its_class():
    marks = VoxelMarks(GRID, CLASSES)
    origins, directions = np.tile([[0.25, 0.1, 0.1]], (70_000, 1)), np.tile([[1.0, 0, 0]], (70_000, 1))
    marks.add_rays(origins, directions, np.full(70_000, 9.9), np.full(70_000, ROAD))
    marks.add_rays(origins[:9], directions[:9], np.full(9, 9.9), np.full(9, CAR))
    assert marks.labels().semantics[20, 4, 4] == ROAD
