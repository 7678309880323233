"""The threshold on occupancy: what is counted, by hand and by casting the rays anew for each threshold."""

import numpy as np
import pytest
import torch

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.rays import Rays
from training.evaluate.rayiou import RayIoU, first_hits
from training.evaluate.threshold import ThresholdSearch, threshold_ladder

CAR, ROAD, MANMADE, FREE = 4, 11, 15, 17
GRID = VoxelGrid((0.0, -2.0, -2.0), (20.0, 2.0, 2.0), 0.5)
LADDER = np.array([0.2, 0.4, 0.6, 0.8])


def field_of(probability, channels):
    """A field of these occupancy probabilities and most likely classes."""
    density = -np.log1p(-probability) / GRID.voxel_size
    semantics = np.eye(17)[channels]
    return SemanticDensityField(GRID, torch.from_numpy(density), torch.from_numpy(semantics))


def ahead(distances, classes):
    """Rays along x from (0.25, 0.1, 0.1), which pass the voxels (0..39, 4, 4)."""
    count = len(distances)
    origins, directions = torch.tensor([[0.25, 0.1, 0.1]]), torch.tensor([[1.0, 0, 0]])
    return Rays(origins.repeat(count, 1), directions.repeat(count, 1), torch.tensor(distances), torch.tensor(classes))


def ghost_and_wall():
    """A haze of 0.3 at voxel 10 (x = 5), a car of 0.7 at voxel 20 (x = 10), nothing else."""
    probability, channels = np.full(GRID.shape, 0.01), np.full(GRID.shape, CAR)
    probability[10], probability[20] = 0.3, 0.7
    return field_of(probability, channels)


def test_the_threshold_lies_between_the_haze_and_the_wall():
    """The label: a car in voxel 20, which is left at x = 10.5, after 10.25 m. Above 0.2 the haze is met first, at 5 m;
    above 0.4 and 0.6 the car, exactly; above 0.8 nothing. As voxels: of the 21 that the ray passed, 0..19 are free and
    20 is a car: at 0.2 one is right of two, at 0.4 and 0.6 one of one. 0.4 and 0.6 are equally near to 1/2."""
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    search.add(ghost_and_wall(), ahead([9.9], [CAR]))
    result = search.result()
    np.testing.assert_allclose(result.ray_iou, [0, 1, 1, 0])
    np.testing.assert_allclose(result.voxel_iou, [1 / 2, 1, 1, 0])
    np.testing.assert_allclose(result.occupied_iou, [1 / 2, 1, 1, 0])
    assert result.threshold in (0.4, 0.6)
    assert result.as_dict()["ray_iou"] == result.as_dict()["occupied_iou"] == 1 and len(result.as_dict()["ladder"]) == 4


def test_a_wall_on_a_ray_that_left_the_grid_counts_against_a_threshold():
    """The second ray, a voxel to the left, was seen to leave the grid: the car at 0.7 that it meets there is a second
    prediction. 1 / (1 + 2 - 1)."""
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    rays = ahead([9.9, 30.0], [CAR, MANMADE])
    rays.origins[1, 1] += 0.5
    search.add(ghost_and_wall(), rays)
    np.testing.assert_allclose(search.result().ray_iou, [0, 1 / 2, 1 / 2, 0])


def test_distances_that_differ_by_less_than_a_limit_count_for_it():
    """The label is at x = 13, voxel 26, left at 13.5: 3 m behind the car of voxel 20. Right within 4 m only."""
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    search.add(ghost_and_wall(), ahead([12.9], [CAR]))
    np.testing.assert_allclose(search.result().ray_iou, [0, 1 / 3, 1 / 3, 0])


def test_a_ray_ends_at_the_first_voxel_that_holds_a_return_of_any():
    """The second ray's own return is at x = 15 in voxel 30, but voxel 20 holds the first one's: both end there."""
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    search.add(ghost_and_wall(), ahead([9.9, 14.9], [CAR, CAR]))
    np.testing.assert_allclose(search.result().ray_iou, [0, 1, 1, 0])


def test_rays_that_are_not_walked_still_mark_voxels():
    """Two rays, of which the first is walked. The second one's return marks voxel 15, which the field has empty, at the
    car's place of the first: the walked ray ends there, 2.5 m before the car that is met, so it is right within 4 m."""
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    search.add(ghost_and_wall(), ahead([9.9, 7.4], [CAR, CAR]), walked=1)
    np.testing.assert_allclose(search.result().ray_iou, [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(search.result().occupied_iou, [1 / 3, 1 / 2, 1 / 2, 0])


def test_what_is_of_a_wrong_class_is_still_occupied():
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    search.add(ghost_and_wall(), ahead([9.9], [MANMADE]))
    np.testing.assert_allclose(search.result().voxel_iou, [0, 0, 0, 0])
    np.testing.assert_allclose(search.result().occupied_iou, [1 / 2, 1, 1, 0])


def test_without_classes_all_are_alike():
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    search.add(ghost_and_wall(), ahead([9.9, 9.8], [255, 255]))
    np.testing.assert_allclose(search.result().ray_iou, [0, 1, 1, 0])
    np.testing.assert_allclose(search.result().voxel_iou, [1 / 2, 1, 1, 0])


def test_nothing_to_calibrate_on_is_refused():
    search = ThresholdSearch(OCC3D_NUSCENES)
    search.add(ghost_and_wall(), ahead([0.0, 30.0], [CAR, CAR]))
    with pytest.raises(ValueError, match="no labelled ray returns from inside of the grid"):
        search.result()
    for ladder, said in (([0.5, 0.4], "ascending"), ([0.0, 0.5], "between 0 and 1"), ([], "1 to 255")):
        with pytest.raises(ValueError, match=said):
            ThresholdSearch(OCC3D_NUSCENES, np.array(ladder))
    for growths in ((), (2.0,), (1.0, 0.0)):
        with pytest.raises(ValueError, match="expected positive factors, the first one 1"):
            ThresholdSearch(OCC3D_NUSCENES, growths=growths)
    with pytest.raises(ValueError, match="give labelled rays"):
        search.add(ghost_and_wall(), Rays(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]])))


def faint_far_walls():
    """Cars at x = 1.25, 5.25 and 15.25 m (voxels 2, 10, 30) of 0.6, 0.45 and 0.25; before each of them a ghost, one
    voxel of half the optical depth. Rays at three y, so that each meets one pair: (ghost, car)."""
    probability, channels = np.full(GRID.shape, 0.001), np.full(GRID.shape, CAR)
    for y, (voxel, chance) in zip((2, 4, 6), ((3, 0.6), (11, 0.45), (31, 0.25))):
        probability[voxel, y, 4] = chance
        probability[voxel - 2, y, 4] = 1 - (1 - chance) ** 0.5
    return field_of(probability, channels)


def test_a_curve_is_found_where_far_voxels_are_less_likely_than_near_ghosts():
    """Ghosts: 0.37 near, 0.26, 0.13 far; cars 0.6, 0.45, 0.25. A flat threshold takes a near ghost or loses the far
    car; one whose optical depth falls to 0.7 on 10 m lies between ghosts and cars everywhere."""
    rays = [ahead([distance], [CAR]) for distance in (1.4, 5.4, 15.4)]
    for one, y in zip(rays, (2, 4, 6)):
        one.origins[0, 1] = GRID.lower[1] + (y + 0.5) * GRID.voxel_size
    search = ThresholdSearch(OCC3D_NUSCENES)
    search.add(faint_far_walls(), Rays.concatenate(rays))
    found = search.result()
    assert found.voxel_iou.max() < 1 and found.curve_voxel_iou == found.curve_ray_iou == found.curve_occupied_iou == 1
    assert found.best is found.curve and found.curve.flat == found.threshold
    levels = found.curve.of_grid(GRID)[[1, 3, 9, 11, 29, 31], [2, 2, 4, 4, 6, 6], 0]
    chances = 1 - np.exp(-faint_far_walls().density.numpy() * 0.5)[[1, 3, 9, 11, 29, 31], [2, 2, 4, 4, 6, 6], 4]
    assert (chances > levels).tolist() == [False, True] * 3
    plain = found.as_dict()
    assert plain["curve"]["flat"] == found.threshold and plain["curve_ray_iou"] == 1
    # With one number alone to choose from, none of it.
    alone = ThresholdSearch(OCC3D_NUSCENES, growths=(1.0,))
    alone.add(faint_far_walls(), Rays.concatenate(rays))
    assert alone.result().curve is None and alone.result().threshold == found.threshold


def test_a_curve_that_gains_little_is_not_taken(monkeypatch):
    """The three figures of the curve above are 1 each; what it gains over one number decides."""
    rays = [ahead([distance], [CAR]) for distance in (1.4, 5.4, 15.4)]
    for one, y in zip(rays, (2, 4, 6)):
        one.origins[0, 1] = GRID.lower[1] + (y + 0.5) * GRID.voxel_size
    search = ThresholdSearch(OCC3D_NUSCENES)
    search.add(faint_far_walls(), Rays.concatenate(rays))
    found = search.result()
    best = found.thresholds.searchsorted(found.threshold - 1e-12)
    gain = 3 - (found.ray_iou + found.voxel_iou + found.occupied_iou)[best]
    for least, taken in ((gain - 0.001, True), (gain + 0.001, False)):
        monkeypatch.setattr("training.evaluate.threshold.LEAST_GAIN", least)
        assert (search.result().curve is not None) == taken


def test_the_figures_of_a_curve_are_those_of_a_volume_above_it():
    """Fields at random: the curve's figures, against a search in a volume that holds what is above the curve."""
    field, rays, probability = scattered(3)
    search = ThresholdSearch(OCC3D_NUSCENES, growths=(1.0, 4.0))
    for counts in (search._rays[0], search._voxels[0]):
        counts.prediction += 1e6  # one number for all is made out to be bad
    search.add(field, rays)
    found = search.result()
    above = np.where(probability > found.curve.of_grid(GRID).astype(float), 0.9, 0.01)
    volume = ThresholdSearch(OCC3D_NUSCENES, np.array([0.5]), growths=(1.0,))
    volume.add(field_of(above, field.semantics.argmax(-1).numpy()), rays)
    result = volume.result()
    assert found.curve_ray_iou == pytest.approx(result.ray_iou[0], abs=1e-9)
    assert found.curve_voxel_iou == pytest.approx(result.voxel_iou[0], abs=1e-9)


def test_the_ladder_is_of_probabilities():
    ladder = threshold_ladder()
    assert 0.015 < ladder[0] < 0.025 and 0.99 < ladder[-1] < 1 and (np.diff(ladder) > 0).all()


def scattered(seed):
    """A field at random and rays all over it, some of which leave the grid, some of unknown class."""
    rng = np.random.default_rng(seed)
    probability = np.where(rng.random(GRID.shape) < 0.1, rng.random(GRID.shape), 0.01)
    field = field_of(probability, rng.choice([CAR, ROAD], GRID.shape))
    origins = np.tile([[9.9, 0.1, 0.3]], (400, 1))
    directions = rng.normal(size=(400, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    classes = rng.choice([CAR, ROAD, MANMADE, 255], 400, p=[0.5, 0.3, 0.1, 0.1])
    columns = (origins, directions, rng.uniform(0.5, 6, 400))
    return field, Rays(*map(torch.from_numpy, columns), torch.from_numpy(classes)), probability


def test_the_figures_are_those_of_volumes_made_for_each_threshold():
    """Two frames; per threshold the rays are cast into the occupied voxels, and voxels are judged in plain Python."""
    search = ThresholdSearch(OCC3D_NUSCENES, LADDER)
    rays_of_step = [RayIoU(OCC3D_NUSCENES) for _ in LADDER]
    voxels = [[] for _ in LADDER]
    for seed in (1, 2):
        field, rays, probability = scattered(seed)
        search.add(field, rays)
        names = np.array(OCC3D_NUSCENES.occupied_ids)[field.semantics.argmax(-1).numpy()]
        origins, directions = rays.origins.numpy(), rays.directions.numpy()
        distances, labels = rays.distances.numpy(), rays.classes.numpy()
        states = {}
        for ray in range(len(rays)):
            home, way = voxels_on(origins[ray], directions[ray], distances[ray])
            for voxel, _ in way[: len(way) - (home is not None)]:
                states.setdefault(voxel, [])
            if home is not None:
                states.setdefault(home, []).append(labels[ray])
        truth, left = np.zeros(len(rays), int), np.zeros(len(rays))
        for ray in range(len(rays)):
            _, way = voxels_on(origins[ray], directions[ray], np.inf)
            met = next(((voxel, last) for voxel, last in way if states.get(voxel)), None)
            truth[ray], left[ray] = (class_of(states[met[0]]), met[1]) if met else (FREE, 0)
        for step, threshold in enumerate(LADDER):
            cells, met = first_hits((probability > threshold,), GRID, origins, directions)
            found = np.where(cells[0] >= 0, names.ravel()[cells[0]], FREE)
            used = (truth != 255) & (truth != FREE)
            rays_of_step[step].add(found[used], truth[used], np.stack([left[used], met[0][used]]))
            ghosts = found[truth == FREE]
            rays_of_step[step].prediction += np.bincount(ghosts[ghosts != FREE], minlength=18)
            for voxel, inside in states.items():
                wanted = class_of(inside) if inside else FREE
                if wanted != 255:
                    voxels[step].append((wanted, names[voxel] if probability[voxel] > threshold else FREE))
    result = search.result()
    for step in range(len(LADDER)):
        rows = [CAR, ROAD, MANMADE]
        assert result.ray_iou[step] == pytest.approx(rays_of_step[step].iou()[:, rows].mean(), abs=1e-9)
        ratios = []
        for name in rows:
            both = sum(w == name == p for w, p in voxels[step])
            ratios.append(both / sum(name in pair for pair in voxels[step]))
        assert result.voxel_iou[step] == pytest.approx(np.mean(ratios), abs=1e-9)


def class_of(labels):
    """What most of a voxel's returns are, of those that are known."""
    named = [label for label in labels if label != 255]
    return max(sorted(set(named)), key=named.count) if named else 255


def voxels_on(origin, direction, distance):
    """The voxel of a return (None where the grid ends before), and all voxels up to it with where each is left."""
    planes = [
        (low + plane * 0.5 - origin[axis]) / direction[axis]
        for axis, (low, size) in enumerate(zip(GRID.lower, GRID.shape))
        for plane in range(size + 1)
    ]
    times = [0.0, *sorted(time for time in planes if time > 0)]
    way = []
    for first, last in zip(times, times[1:]):
        voxel = tuple(np.floor((origin + direction * (first + last) / 2 - GRID.lower) / 0.5).astype(int).tolist())
        if not all(0 <= v < size for v, size in zip(voxel, GRID.shape)):
            return None, way
        way.append((voxel, last))
        if distance < last:
            return voxel, way
    return None, way
