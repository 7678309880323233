"""RayIoU: the directions, the origins, hand-worked rays, and the figure itself against a plain search."""

import math

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from training.data.traversal import cell_indices, padded, traverse
from training.evaluate.rayiou import RayIoU, cast_frame, first_hits, lidar_directions, select_origins

FREE, CAR, ROAD, MANMADE = 17, 4, 11, 15
# 12 x 10 x 8 voxels: small enough for a search in plain Python.
SMALL = VoxelGrid((-2.4, -2.0, -1.0), (2.4, 2.0, 2.2), 0.4)


def scored(prediction, truth, grid, origins):
    rays = RayIoU(OCC3D_NUSCENES)
    rays.add_volumes(prediction, truth, grid, np.array(origins, float))
    return rays


def test_there_are_39_pitches_of_360_directions():
    """The first pitch is -45 degrees, the tenth -atan(1/10); then steps of atan(1/9) - atan(1/10) to 0.21 and above."""
    directions = lidar_directions()
    assert directions.shape == (14_040, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    pitches = np.arcsin(directions[::360, 2])
    np.testing.assert_allclose(pitches[:10], [-math.atan(1 / (k + 1)) for k in range(10)])
    np.testing.assert_allclose(np.diff(pitches[9:]), math.atan(1 / 9) - math.atan(1 / 10))
    assert pitches[-2] < 0.21 <= pitches[-1]
    np.testing.assert_allclose(directions[90], [0, math.sqrt(0.5), -math.sqrt(0.5)], atol=1e-12)


def test_origins_within_39_metres_are_kept_and_of_many_eight():
    line = np.stack([np.arange(-45.0, 46), np.zeros(91), np.full(91, 1.84)], axis=1)
    kept = select_origins(line, OCC3D_GRID)
    # -38..38 are 77 places; linspace(0, 76, 8) = 0, 10.86, 21.71, 32.57, 43.43, 54.29, 65.14, 76.
    np.testing.assert_array_equal(kept[:, 0], [-38, -27, -16, -5, 5, 16, 27, 38])
    assert len(select_origins([(0, 39.0, 1), (0, -39.0, 1), (39.0, 0, 1)], OCC3D_GRID)) == 0
    np.testing.assert_array_equal(select_origins([(1, 2, 3), (38.9, 0, 0)], OCC3D_GRID), [(1, 2, 3), (38.9, 0, 0)])
    with pytest.raises(ValueError, match="origins have shape"):
        select_origins([1.0, 2.0, 3.0], OCC3D_GRID)


def test_distance_is_the_way_until_the_first_voxel_is_left():
    """A wall of the voxels 8 along x, from 0.8 to 1.2 m; from x = 0.1, straight ahead, it is left after 1.1 m."""
    wall = np.zeros(SMALL.shape, bool)
    wall[8] = True
    nothing = np.zeros(SMALL.shape, bool)
    origin, ahead = np.array([[0.1, 0.1, 0.1]]), np.array([[1.0, 0, 0]])
    cells, distances = first_hits((wall, nothing), SMALL, origin, ahead)
    # y: (0.1 + 2) / 0.4 = 5.25, z: (0.1 + 1) / 0.4 = 2.75.
    assert cells[0, 0] == (8 * 10 + 5) * 8 + 2 and cells[1, 0] == -1
    np.testing.assert_allclose(distances[:, 0], [1.1, 2.3])  # no hit: the grid's own end
    oblique = np.array([[0.8, 0.6, 0.0]])
    # The wall is entered after 0.7 / 0.8 = 0.875 m at y = 0.625, voxel 6 (0.4 to 0.8), left at y = 0.8 after 1.1667 m.
    cells, distances = first_hits((wall,), SMALL, origin, oblique)
    assert cells[0, 0] == (8 * 10 + 6) * 8 + 2
    np.testing.assert_allclose(distances[0, 0], 0.7 / 0.6)


def test_a_ray_that_begins_in_an_occupied_voxel_hits_it():
    full = np.ones(SMALL.shape, bool)
    cells, distances = first_hits((full,), SMALL, np.array([[0.1, 0.1, 0.1]]), np.array([[0, 0, 1.0]]))
    assert cells[0, 0] == (6 * 10 + 5) * 8 + 2
    np.testing.assert_allclose(distances, 0.1)  # from z = 0.1 to 0.2


def test_a_road_predicted_right_scores_one_and_one_that_is_missing_none():
    road = np.full(OCC3D_GRID.shape, FREE, np.uint8)
    road[:, :, 2] = ROAD
    same = scored(road, road, OCC3D_GRID, [(0, 0, 1.84)])
    assert same.rayiou() == 1 and same.at_thresholds() == [1, 1, 1]
    # Rays that meet the layer from above, at z = 0.2 m, within 40 m of (0, 0): 1.64 m above it.
    directions = lidar_directions()
    with np.errstate(divide="ignore"):
        reach = np.where(directions[:, 2] < 0, 1.64 / -directions[:, 2], np.inf)
    assert same.rays == (np.abs(directions[:, :2]).max(axis=1) * reach < 40).sum()
    empty = scored(np.full_like(road, FREE), road, OCC3D_GRID, [(0, 0, 1.84)])
    assert empty.rayiou() == 0 and empty.prediction[FREE] == empty.rays == same.rays


def test_rays_on_which_the_truth_is_free_do_not_count():
    truth = np.full(SMALL.shape, FREE, np.uint8)
    clutter = np.full(SMALL.shape, CAR, np.uint8)
    clutter[6, 5, 2] = FREE
    rays = scored(clutter, truth, SMALL, [(0.1, 0.1, 0.1)])
    assert rays.rays == 0 and math.isnan(rays.rayiou())


def test_counts_by_hand():
    """Three rays of cars, one of a building, by (class, distance) of the truth and of the prediction.

    car 10.0 and car 10.9: within 1 m.   car 10.0 and car 13.0: within 4 m only, its difference being 3.
    car 5.0 and manmade 5.0: never.      manmade 7.0 and manmade 9.0: the difference is 2, which is not less than 2.
    At 1 m: car 1 / (3 + 2 - 1) = 1/4, manmade 0 / (1 + 2 - 0) = 0. At 2 m the same. At 4 m: car 2 / (3 + 2 - 2) = 2/3,
    manmade 1 / (1 + 2 - 1) = 1/2. Means 1/8, 1/8, 7/12; over all 5/18.
    """
    rays = RayIoU(OCC3D_NUSCENES)
    truth, prediction = np.array([CAR, CAR, CAR, MANMADE]), np.array([CAR, CAR, MANMADE, MANMADE])
    rays.add(prediction, truth, np.array([[10.0, 10.0, 5.0, 7.0], [10.9, 13.0, 5.0, 9.0]]))
    np.testing.assert_allclose(rays.at_thresholds(), [1 / 8, 1 / 8, 7 / 12])
    assert rays.rayiou() == pytest.approx(5 / 18)


def test_an_unknown_prediction_is_free_and_an_unknown_truth_ends_a_ray_that_does_not_count():
    truth = np.full(SMALL.shape, FREE, np.uint8)
    truth[10] = MANMADE
    unknown = truth.copy()
    unknown[8] = 255
    whole = scored(truth, truth, SMALL, [(0.1, 0.1, 0.1)])
    assert scored(unknown, truth, SMALL, [(0.1, 0.1, 0.1)]).rayiou() == whole.rayiou() == 1
    assert scored(truth, unknown, SMALL, [(0.1, 0.1, 0.1)]).rays == 0


def test_a_volume_of_another_grid_is_refused():
    volume = np.full((4, 4, 4), FREE, np.uint8)
    with pytest.raises(ValueError, match=r"prediction has shape \(4, 4, 4\), its grid \(12, 10, 8\)"):
        scored(volume, volume, SMALL, [(0, 0, 0)])
    wrong = np.full(SMALL.shape, 40, np.uint8)
    with pytest.raises(ValueError, match="class id 40; expected 0 to 17"):
        scored(wrong, wrong, SMALL, [(0, 0, 0)])


def test_several_predictions_are_cast_at_once():
    rng = np.random.default_rng(5)
    truth, *predictions = (
        np.where(rng.random(SMALL.shape) < 0.05, rng.integers(0, 17, SMALL.shape), FREE) for _ in range(4)
    )
    origins = np.array([[0.1, 0.1, 0.1], [-0.7, 0.3, 0.5]])
    together = [RayIoU(OCC3D_NUSCENES) for _ in predictions]
    cast_frame(together, predictions, truth, SMALL, origins)
    for rays, prediction in zip(together, predictions):
        alone = scored(prediction, truth, SMALL, origins)
        np.testing.assert_array_equal(rays.hits, alone.hits)
        np.testing.assert_array_equal(rays.prediction, alone.prediction)
        assert rays.rays == alone.rays and rays.origins == alone.origins == 2


@pytest.mark.parametrize("seed", range(3))
def test_compiled_rays_are_bit_for_bit_those_that_step_together(seed):
    """From inside, from faces and corners, from outside, along axes and diagonals, and past the grid."""
    rng = np.random.default_rng(seed)
    volumes = tuple(rng.random(SMALL.shape) < share for share in (0.02, 0.1))
    origins = rng.uniform(-3.5, 3.5, (3000, 3))
    origins[::3] = np.round(origins[::3] / 0.4) * 0.4
    directions = rng.normal(size=(3000, 3))
    directions[::2] = np.round(directions[::2])
    directions[~directions.any(axis=1)] = 1
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cells, distances = first_hits(volumes, SMALL, origins, directions)
    for volume, found, distance in zip(volumes, cells, distances):
        wide, first, left = padded(volume), np.full(3000, -1), np.zeros(3000)

        def visit(rays, places, enter, leave, wide=wide, first=first, left=left):
            met = wide[places]
            first[rays[met]], left[rays[met]] = cell_indices(places[met], SMALL.shape), leave[met]
            return met

        exits = traverse(SMALL, origins, directions, visit)
        np.testing.assert_array_equal(found, first)
        np.testing.assert_array_equal(distance, np.where(first >= 0, left, exits))
    assert (cells >= 0).any() and (distances == 0).any()


# --- a plain search, from the definition: nothing of the package is used ---


def plain_directions():
    pitches = []
    for k in range(10):
        pitches.append(-(math.pi / 2 - math.atan(k + 1)))
    while pitches[-1] < 0.21:
        pitches.append(2 * pitches[-1] - pitches[-2])
    for pitch in pitches:
        for degree in range(360):
            azimuth = math.radians(degree)
            yield math.cos(pitch) * math.cos(azimuth), math.cos(pitch) * math.sin(azimuth), math.sin(pitch)


def plain_hit(volume, origin, direction):
    """(class, distance) of the first voxel on a ray that is not free: all crossings sorted, a voxel between two."""
    times = [0.0]
    for axis, (low, size) in enumerate(zip((-2.4, -2.0, -1.0), (12, 10, 8))):
        for plane in range(size + 1):
            if abs(direction[axis]) > 1e-300:
                time = (low + 0.4 * plane - origin[axis]) / direction[axis]
                if time > 0:
                    times.append(time)
    times.sort()
    end = 0.0
    for first, last in zip(times, times[1:]):
        if last - first < 1e-12:
            continue
        middle = [o + d * (first + last) / 2 for o, d in zip(origin, direction)]
        x, y, z = (math.floor((m - low) / 0.4) for m, low in zip(middle, (-2.4, -2.0, -1.0)))
        if not (0 <= x < 12 and 0 <= y < 10 and 0 <= z < 8):
            break
        end = last
        if volume[x][y][z] != 17:
            return volume[x][y][z], last
    return 17, end


def plain_rayiou(frames):
    """[RayIoU at 1, 2, 4 m], RayIoU, rays; frames are (prediction, truth, origins)."""
    pairs = []
    for prediction, truth, origins in frames:
        for origin in origins:
            for direction in plain_directions():
                wanted = plain_hit(truth, origin, direction)
                if wanted[0] != 17:
                    pairs.append((wanted, plain_hit(prediction, origin, direction)))
    table = []
    for limit in (1, 2, 4):
        row = []
        for name in range(17):
            hit = sum(w[0] == name == p[0] and abs(w[1] - p[1]) < limit for w, p in pairs)
            union = sum(w[0] == name for w, _ in pairs) + sum(p[0] == name for _, p in pairs) - hit
            if union:
                row.append(hit / union)
        table.append(row)
    every = [value for row in table for value in row]
    return [sum(row) / len(row) for row in table], sum(every) / len(every), len(pairs)


def test_rayiou_is_that_of_a_plain_search():
    """Two frames of scattered voxels, the second from two origins from which no ray meets an edge."""
    rng = np.random.default_rng(3)
    frames, rays = [], RayIoU(OCC3D_NUSCENES)
    for origins in ([(0.1317, 0.0723, 0.3141)], [(-1.0519, 0.5537, 0.9071), (0.7127, -0.9343, 1.7719)]):
        truth = np.where(rng.random(SMALL.shape) < 0.06, rng.integers(0, 4, SMALL.shape), FREE).astype(np.uint8)
        prediction = np.roll(truth, 1, axis=0)  # most things a voxel off
        prediction[rng.random(SMALL.shape) < 0.03] = 2
        frames.append((prediction.tolist(), truth.tolist(), origins))
        rays.add_volumes(prediction, truth, SMALL, np.array(origins))
    at_thresholds, mean, count = plain_rayiou(frames)
    assert rays.rays == count and rays.origins == 3
    np.testing.assert_allclose(rays.at_thresholds(), at_thresholds, rtol=0, atol=1e-9)
    assert rays.rayiou() == pytest.approx(mean, abs=1e-9)
    assert 0 < at_thresholds[0] < at_thresholds[2] < 1
