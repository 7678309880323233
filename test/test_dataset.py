"""Training samples: rays that hit what was labelled, weights, other frames, all from (seed, epoch, index)."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bag
import torch
from scipy import stats
from small_models import small_config
from tiny_bag import FRAME_NS, HEIGHT, LATER_NS, RIG, START_NS, WIDTH, Plan, write_bag

from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import invert, transform_points
from renderocc_model.images.preprocessing import Preprocessor
from renderocc_model.rosio.vehicle import Vehicle
from training.data.augment import AugmentConfig
from training.data.batch import make_batch
from training.data.dataset import RayDataset, SampleConfig
from training.data.epochs import EpochSampler, split_recordings
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import TablesError
from training.data.sampling import balance_weights
from training.train.run_data import Data

CAR, ROAD = 4, 11
SIZE = {"height": 32, "width": 64}
FRAMES = 7


def car_ahead(frame: int, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """Road over the whole image; a car in front of it in frame 5 alone, in the front camera's upper left corner."""
    semantic, depth = np.full((HEIGHT, WIDTH), ROAD, np.uint8), np.full((HEIGHT, WIDTH), 20.0)
    if frame == 5 and camera == "front":
        semantic[:8, :8], depth[:8, :8] = CAR, 9.0
    return semantic, depth


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    for name, labels in (("cars", car_ahead), ("sparse", None)):
        bag = write_bag(folder / name, Plan(frames=FRAMES, labels=labels))
        (bag / "occupancy").mkdir()
        volume = np.arange(4 * 4 * 2, dtype=np.uint8).reshape(4, 4, 2) % 17
        for frame in range(FRAMES):
            path = bag / "occupancy" / f"{START_NS + frame * FRAME_NS}.npz"
            np.savez(path, semantics=volume, mask_camera=np.ones_like(volume), mask_lidar=np.ones_like(volume))
        prepare_recording(bag, None, folder / "tables", PrepareConfig())
    return folder / "tables"


def hits(rays) -> np.ndarray:
    return (rays.origins + rays.directions * rays.distances[:, None]).numpy()


def same(one, other) -> bool:
    """Whether two samples hold the same bits."""
    return (
        one.recording == other.recording
        and one.frame == other.frame
        and all(torch.equal(a, b) for a, b in zip(one.rays._columns(), other.rays._columns()) if a is not None)
        and np.array_equal(one.current.views, other.current.views)
        and np.array_equal(one.current.intrinsics, other.current.intrinsics)
        and np.array_equal(one.current.base_from_camera, other.current.base_from_camera)
        and np.array_equal(one.ray_cameras, other.ray_cameras)
    )


def test_views_are_those_that_the_node_makes(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE), ["sparse"])
    current = dataset.sample(0, 2).current
    preprocessor = Preprocessor(RIG, **SIZE)
    assert dataset.camera_names == ("front", "wide") and current.present.all()
    for camera, name in enumerate(dataset.camera_names):
        np.testing.assert_array_equal(current.intrinsics[camera], preprocessor.view(name).K)
        wanted = preprocessor.from_rgb(name, tiny_bag.picture(2, name)).astype(int)
        assert np.abs(current.views[camera] - wanted).mean() < 4  # JPEG


def test_rays_end_where_the_labels_depth_says(tables):
    """Each ray's end, projected by the camera model from where that camera stood, is its labelled pixel and depth."""
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=500), ["sparse"])
    index = 3
    sample = dataset.sample(0, index)
    assert len(sample.rays) == 500 and {-3, 0, 3} <= set(sample.rays.frame_offsets.tolist())
    ends, now = hits(sample.rays), tiny_bag.odom_from_base(START_NS + index * FRAME_NS)
    for offset in range(-3, 4):
        for camera, later in (("front", 0), ("wide", LATER_NS)):
            frame = index + offset
            at = tiny_bag.odom_from_base(START_NS + frame * FRAME_NS + later)
            of_camera = sample.ray_cameras == ("front", "wide").index(camera)
            chosen = (sample.rays.frame_offsets == offset).numpy() & of_camera
            points = transform_points(invert(at @ RIG[camera].base_from_camera) @ now, ends[chosen].astype(float))
            pixels, inside = RIG[camera].model.project(points)
            columns, rows = np.rint(pixels).astype(int).T
            semantic, depth = tiny_bag.sparse_labels(frame, camera)
            assert inside.all() and np.abs(pixels - np.rint(pixels)).max() < 0.01
            np.testing.assert_array_equal(semantic[rows, columns], sample.rays.classes[chosen])
            # Millimetres in the label, micrometres of float32 and of poses between samples.
            np.testing.assert_allclose(points[:, 2], depth[rows, columns], atol=2e-3)


def test_a_moving_car_of_another_frame_gives_no_ray(tables):
    """The car stands in frame 5 only. Frames 3 (offset +2) and 6 (offset -1) get no ray of it; frame 5 does."""
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=20_000), ["cars"])
    for index, expected in ((3, 0), (6, 0), (5, 64)):
        rays = dataset.sample(0, index).rays
        assert int((rays.classes == CAR).sum()) == expected
        assert (rays.frame_offsets != 0).any()
    asked = RayDataset(tables, SampleConfig(**SIZE, rays=20_000, dynamic_weight=0.3), ["cars"])
    rays = asked.sample(0, 3).rays
    cars = rays.classes == CAR
    assert cars.sum() > 0 and (rays.frame_offsets[cars] == 2).all()


def test_rays_are_drawn_in_proportion_to_their_weights(tables):
    """Chi-square over the four kinds of rays: two classes, of this frame and of others; few of many."""
    counts = np.zeros(18)
    counts[[CAR, ROAD]] = 1, 500  # W_b(car) = exp(0.005 * 499) = 12.1
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=20, dynamic_weight=0.1), ["sparse"], class_counts=counts)
    drawn = np.zeros(4)
    for epoch in range(400):
        rays = dataset.sample(epoch, 3).rays
        kind = 2 * (rays.frame_offsets != 0).long() + (rays.classes == ROAD)
        drawn += np.bincount(kind, minlength=4)
    labels = [[tiny_bag.sparse_labels(frame, camera)[0] for camera in ("front", "wide")] for frame in range(FRAMES)]
    there = np.array([[(np.array(frame) == name).sum() for name in (CAR, ROAD)] for frame in labels])
    rare = math.exp(0.005 * 499)
    weights = np.array([rare, 1.0, 0.1 * rare, 0.3]) * np.concatenate([there[3], there.sum(0) - there[3]])
    assert stats.chisquare(drawn, weights / weights.sum() * drawn.sum()).pvalue > 0.001
    np.testing.assert_allclose(balance_weights(counts)[[CAR, ROAD]], [rare, 1])


def test_a_share_of_the_rays_is_drawn_without_the_balance_of_classes(tables):
    """Cars weigh a thousand times as much as the road: all that there are come first, but not before the share that
    is drawn without that weight, in which they are what they are among the labels."""
    counts = np.zeros(18)
    counts[[CAR, ROAD]] = 1, 10_000
    there = np.array([(tiny_bag.sparse_labels(3, camera)[0] == CAR).sum() for camera in ("front", "wide")]).sum()
    labels = sum((tiny_bag.sparse_labels(3, camera)[0] < 255).sum() for camera in ("front", "wide"))
    roads = {}
    for share in (1.0, 0.5, 0.0):
        config = SampleConfig(**SIZE, rays=int(there), auxiliary_offsets=(), balanced_share=share)
        rays = RayDataset(tables, config, ["sparse"], class_counts=counts).sample(0, 3).rays
        assert len(rays) == there and len(np.unique(hits(rays), axis=0)) == there
        roads[share] = (rays.classes == ROAD).sum().item() / there
    expected = 1 - there / labels
    assert roads[1.0] < 0.1 and roads[0.5] == pytest.approx(0.5 * expected, abs=0.08)
    assert roads[0.0] == pytest.approx(expected, abs=0.1)


def test_no_ray_comes_twice(tables):
    rays = RayDataset(tables, SampleConfig(**SIZE, rays=3000), ["sparse"]).sample(0, 3).rays
    rows = torch.cat([rays.origins, rays.directions, rays.distances[:, None]], 1).numpy()
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_samples_follow_from_seed_epoch_and_index(tables):
    augment = AugmentConfig(zoom_in=1.3, image_flip=0.5, rotation=0.3, mirror_y=0.5)
    config = SampleConfig(**SIZE, rays=200, augment=augment)
    dataset, again = RayDataset(tables, config, seed=3), RayDataset(tables, config, seed=3)
    for index in (0, 5, 13):
        first = dataset.sample(2, index)
        assert same(first, again.sample(2, index)) and same(first, pickle.loads(pickle.dumps(dataset)).sample(2, index))
        assert not same(first, dataset.sample(3, index))
        assert not same(first, RayDataset(tables, config, seed=4).sample(2, index))


def test_workers_give_the_same_samples(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=50))
    sampler = EpochSampler(len(dataset), epoch=1)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=2)
    for sample, key in zip(loader, sampler):
        assert same(sample, dataset[key])


def test_previous_frames_and_truth_come_along(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE, previous=2, truth=True), ["sparse"])
    sample = dataset.sample(0, 3)
    assert [views.stamp_ns for views in sample.previous] == [START_NS + 2 * FRAME_NS, START_NS + FRAME_NS]
    before = tiny_bag.odom_from_base(START_NS + 2 * FRAME_NS)
    np.testing.assert_allclose(sample.previous[0].odom_from_base, before, atol=1e-6)
    assert dataset.sample(0, 0).previous == () and sample.truth["semantics"].shape == (4, 4, 2)
    assert RayDataset(tables, SampleConfig(**SIZE)).sample(0, 3).truth is None


@pytest.mark.parametrize(
    ("intervals", "frame", "expected"), [(2.0, 4, [2, 0]), (1.4, 4, [3, 1]), (3.0, 2, [0]), (0.2, 3, [2, 1])]
)
def test_earlier_frames_are_those_nearest_to_one_and_two_intervals_ago(tables, intervals, frame, expected):
    config = SampleConfig(**SIZE, rays=9, previous=2, previous_interval=intervals * FRAME_NS * 1e-9)
    sample = RayDataset(tables, config, ["sparse"]).sample(0, frame)
    assert [round((views.stamp_ns - START_NS) / FRAME_NS) for views in sample.previous] == expected


def test_earlier_frames_are_left_out_as_often_as_asked_for(tables):
    config = SampleConfig(**SIZE, rays=9, previous=1, augment=AugmentConfig(no_previous=0.25))
    dataset = RayDataset(tables, config, ["sparse"])
    without = [not dataset.sample(epoch, 3).previous for epoch in range(400)]
    assert 0.17 < np.mean(without) < 0.33


def test_the_number_of_earlier_frames_is_drawn_few_more_often_than_many(tables):
    config = SampleConfig(**SIZE, rays=9, previous=3, previous_interval=FRAME_NS * 1e-9)
    dataset = RayDataset(tables, replace(config, augment=AugmentConfig(fewer_previous=True)), ["sparse"])
    all_three = RayDataset(tables, config, ["sparse"]).sample(0, 4).previous
    samples = [dataset.sample(epoch, 4).previous for epoch in range(300)]
    shares = np.bincount([len(previous) for previous in samples], minlength=4) / 300
    np.testing.assert_allclose(shares, [0, 0.5, 0.29, 0.21], atol=0.08)  # logarithms of (k + 1) / k, of 4
    for previous in samples[:10]:  # the nearest ones
        assert [one.stamp_ns for one in previous] == [one.stamp_ns for one in all_three[: len(previous)]]


def test_a_vehicle_may_stand_as_often_as_asked_for(tables):
    augment = AugmentConfig(standing=0.25, brightness=0.5)
    config = SampleConfig(**SIZE, rays=9, previous=2, previous_interval=FRAME_NS * 1e-9, augment=augment)
    dataset = RayDataset(tables, config, ["sparse"])
    samples = [dataset.sample(epoch, 4) for epoch in range(400)]
    standing = [sample for sample in samples if sample.previous[0].stamp_ns == sample.current.stamp_ns]
    assert 0.17 < len(standing) / 400 < 0.33
    for views in standing[0].previous:
        assert np.array_equal(views.views, standing[0].current.views)
        assert np.array_equal(views.odom_from_base, standing[0].current.odom_from_base)


def test_turning_the_vehicle_turns_everything_alike(tables):
    """Ray ends, camera centres and ego poses of the turned sample are those of the plain one, moved by one matrix."""
    augment = AugmentConfig(rotation=1.0, mirror_y=1.0)
    turned_config = SampleConfig(**SIZE, rays=10_000, previous=1, truth=True, augment=augment)
    grid = VoxelGrid((-2, -2, 0), (2, 2, 2), 1.0)
    plain = RayDataset(tables, SampleConfig(**SIZE, rays=10_000, previous=1), ["sparse"]).sample(0, 3)
    turned = RayDataset(tables, turned_config, ["sparse"], grid=grid).sample(0, 3)
    change = turned.current.base_from_camera[0] @ np.linalg.inv(plain.current.base_from_camera[0])
    assert np.linalg.det(change[:3, :3]) == pytest.approx(-1) and abs(change[0, 1]) > 1e-3
    np.testing.assert_allclose(turned.current.base_from_camera, change @ plain.current.base_from_camera, atol=1e-9)
    moved = transform_points(change, hits(plain.rays).astype(float))
    assert len(plain.rays) < 10_000  # all rays of positive weight, in the order of the tables: both have the same
    np.testing.assert_allclose(hits(turned.rays), moved, atol=1e-4)
    plain_step, turned_step = (
        invert(sample.current.odom_from_base) @ sample.previous[0].odom_from_base for sample in (plain, turned)
    )
    np.testing.assert_allclose(turned_step, change @ plain_step @ np.linalg.inv(change), atol=1e-9)


@pytest.mark.slow
def test_labels_mark_the_voxels_of_returns_in_the_turned_frame(tables):
    """Of all labels of frame 5 and what stands still in its neighbours, mirrored: each return's voxel is occupied, and
    the car of frame 5 is in it alone."""
    grid = VoxelGrid((-32.0, -32.0, -8.0), (32.0, 32.0, 24.0), 1.0)
    settings = dict(SIZE, rays=10, augment=AugmentConfig(mirror_y=1.0), voxels=True, voxel_rays=1_000_000)
    dataset = RayDataset(tables, SampleConfig(**settings), ["cars"], label_grid=grid)
    marked = dataset.sample(0, 5).label_voxels
    rays = dataset.rays_of(5, offsets=dataset.config.auxiliary_offsets)
    places, inside = grid.index_of(hits(rays).astype(np.float64) * (1, -1, 1))
    occupied = np.zeros(grid.shape, bool)
    occupied[tuple(places[inside].T)] = True
    # A point within rounding of a voxel's face may lie in either.
    assert (marked["occupied"] != occupied).sum() < 0.01 * occupied.sum() and occupied.sum() > 500
    assert not (marked["free"] & marked["occupied"]).any() and marked["free"].sum() > occupied.sum()
    assert (marked["semantics"][marked["occupied"]] == ROAD).mean() > 0.9
    assert (marked["semantics"] == CAR).any()
    assert not (dataset.sample(0, 4).label_voxels["semantics"] == CAR).any()
    again, other = dataset.sample(0, 5).label_voxels, dataset.sample(1, 5).label_voxels
    assert all(np.array_equal(marked[name], again[name]) for name in marked)
    assert np.array_equal(marked["occupied"], other["occupied"])  # all labels, whatever is drawn


def test_fewer_returns_and_rays_mark_fewer_voxels(tables):
    grid = VoxelGrid((-32.0, -32.0, -8.0), (32.0, 32.0, 24.0), 1.0)
    counts = []
    for rays, returns in ((1_000_000, 1_000_000), (300, 1_000_000), (300, 3000)):
        config = SampleConfig(**SIZE, rays=10, voxels=True, voxel_rays=rays, voxel_returns=returns)
        marked = RayDataset(tables, config, ["cars"], label_grid=grid).sample(0, 3).label_voxels
        counts.append((marked["free"].sum(), marked["occupied"].sum()))
    assert counts[0][0] > counts[1][0] and counts[0][1] == counts[1][1] > counts[2][1] > 300
    with pytest.raises(ValueError, match="give the dataset the model's"):
        RayDataset(tables, SampleConfig(**SIZE, voxels=True), ["cars"])


def test_rays_for_the_depth_bins_are_spread_over_the_frames_own_labels(tables):
    augment = AugmentConfig(rotation=0.5, mirror_y=1.0)
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=50, depth_rays=4000, augment=augment), ["cars"])
    sample = dataset.sample(0, 3)
    rays, cameras = sample.depth_rays
    there = len(dataset.rays_of(3))
    assert len(rays) == len(cameras) == min(4000, there) and not rays.frame_offsets.any()
    assert set(cameras.tolist()) == {0, 1}
    # They begin at the cameras, which the augmentation turned with them.
    origins = sample.current.base_from_camera[cameras, :3, 3]
    np.testing.assert_allclose(rays.origins.numpy(), origins, atol=1e-4)
    # As many of each class as its share of the labels, and not of the weights with which other rays are drawn.
    share = np.bincount(rays.classes, minlength=256) / len(rays)
    whole = np.bincount(dataset.rays_of(3).classes, minlength=256) / there
    np.testing.assert_allclose(share, whole, atol=0.01)
    assert RayDataset(tables, SampleConfig(**SIZE, rays=50), ["cars"]).sample(0, 3).depth_rays is None


def test_cameras_without_an_image_are_absent(tmp_path):
    bag = write_bag(tmp_path / "bag", Plan(frames=2))
    prepare_recording(bag, None, tmp_path / "t", PrepareConfig(max_time_diff=0.02))  # 'wide' is 30 ms late
    sample = RayDataset(tmp_path / "t", SampleConfig(**SIZE)).sample(0, 0)
    assert sample.current.present.tolist() == [True, False] and not sample.current.views[1].any()
    assert (sample.ray_cameras == 0).all()


def test_going_through_a_recording_keeps_nothing_in_memory(tables):
    """After a sample none of the mapped tables is counted to the process (Linux' smaps: resident size of each map)."""
    dataset = RayDataset(tables, SampleConfig(**SIZE, truth=True), ["sparse"])
    for index in range(len(dataset)):
        dataset.sample(0, index)
    resident, current = {}, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if str(tables / "sparse") in line:
            current = line.split()[-1]
        elif line.startswith("Rss:") and current:
            resident[current], current = int(line.split()[1]), ""
    assert len(resident) >= 10 and set(resident.values()) == {0}, resident


def test_a_frame_without_any_labels_has_no_rays(tmp_path):
    def labels(frame, camera):
        return tiny_bag.sparse_labels(frame, camera) if frame == 0 else None

    prepare_recording(write_bag(tmp_path / "bag", Plan(frames=2, labels=labels)), None, tmp_path / "t", PrepareConfig())
    alone = RayDataset(tmp_path / "t", SampleConfig(**SIZE, auxiliary_offsets=()))
    assert len(alone.sample(0, 1).rays) == 0 < len(alone.sample(0, 0).rays) and len(alone.rays_of(1)) == 0
    around = RayDataset(tmp_path / "t", SampleConfig(**SIZE)).sample(0, 1)
    assert (around.rays.frame_offsets == -1).all() and len(around.rays) > 0
    assert len(RayDataset(tmp_path / "t", SampleConfig(**SIZE, rays=0)).sample(0, 0).rays) == 0


def half_known(frame: int, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel has a depth; those of the left half road, those of the right none."""
    semantic = np.where(np.arange(WIDTH) < WIDTH // 2, ROAD, 255) * np.ones((HEIGHT, 1), int)
    return semantic.astype(np.uint8), np.full((HEIGHT, WIDTH), 10.0)


@pytest.fixture(scope="module")
def half_known_tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    bag = write_bag(folder / "bag", Plan(frames=3, labels=half_known))
    return prepare_recording(bag, None, folder / "t", PrepareConfig()).parent


def test_pixels_without_a_class_are_rays_of_class_255(half_known_tables):
    """All of them are there, at their distance and on their side of the image; W_t is that of a static class."""
    dataset = RayDataset(half_known_tables, SampleConfig(**SIZE, rays=100_000))
    count = 2 * WIDTH * HEIGHT  # labelled pixels of a frame, half of them without a class
    for rays, frames in ((dataset.rays_of(1), 1), (dataset.sample(0, 1).rays, 3)):
        assert (rays.classes == 255).sum() == (rays.classes == ROAD).sum() == frames * count // 2
        assert (rays.distances >= 10).all()
    sample = dataset.sample(0, 1)
    front = (sample.ray_cameras == 0) & (sample.rays.frame_offsets == 0).numpy()
    ends = hits(sample.rays)[front] - sample.current.base_from_camera[0, :3, 3]
    # Base y is left: the left half of the image, columns below 31.5, is where y is positive.
    np.testing.assert_array_equal(sample.rays.classes[front] == ROAD, ends[:, 1] > 0)


def test_pixels_without_a_class_are_drawn_with_weight_one(half_known_tables):
    """Road is the most frequent class, W_b = 1 as well: 1 : 1 in this frame, 0.3 : 0.3 in two others; chi-square."""
    dataset = RayDataset(half_known_tables, SampleConfig(**SIZE, rays=40))
    drawn = np.zeros(4)
    for epoch in range(200):
        rays = dataset.sample(epoch, 1).rays
        kind = 2 * (rays.frame_offsets != 0).long() + (rays.classes == 255)
        drawn += np.bincount(kind, minlength=4)
    expected = np.array([1, 1, 0.6, 0.6]) / 3.2 * drawn.sum()
    assert stats.chisquare(drawn, expected).pvalue > 0.001


def test_evaluation_gets_all_rays_of_its_frame(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE), ["sparse"])
    known = sum((tiny_bag.sparse_labels(2, camera)[0] != 255).sum() for camera in ("front", "wide"))
    assert len(dataset.rays_of(2)) == known and len(dataset.rays_of(2, limit=100)) == 100


def test_an_epoch_has_each_sample_once_in_an_order_of_its_own():
    whole = list(EpochSampler(103, seed=1, epoch=4))
    assert sorted(index for _, index in whole) == list(range(103)) and {epoch for epoch, _ in whole} == {4}
    assert len(EpochSampler(103)) == 103
    assert list(EpochSampler(103, seed=1, epoch=5)) != whole != list(EpochSampler(103, seed=2, epoch=4))


def test_the_order_of_an_epoch_does_not_repeat_the_random_numbers_of_a_sample():
    """NumPy pads seeds with zeros: [seed, epoch] would be the stream of sample 0."""
    order = np.random.default_rng([1, 4]).permutation(103)
    assert [index for _, index in EpochSampler(103, seed=1, epoch=4)] != order.tolist()


def test_splits_are_by_recording_and_stay_when_others_are_added():
    names = [f"drive_{k}" for k in range(20)]
    train, held_out = split_recordings(names, 0.2)
    assert len(held_out) == 4 and sorted(train + held_out) == sorted(names)
    assert split_recordings(list(reversed(names)), 0.2) == (train, held_out)
    assert len(set(split_recordings([*names, "another"], 0.2)[1]) & set(held_out)) >= 3
    assert split_recordings(["only"], 0.2) == (["only"], []) and split_recordings(names, 0)[1] == []


def test_recordings_that_are_not_there_are_named(tables, tmp_path):
    with pytest.raises(TablesError, match=r"recordings \['nowhere'\] are not prepared; there are cars, sparse"):
        RayDataset(tables, recordings=["nowhere"])
    with pytest.raises(TablesError, match="there is no such folder; make it with `renderocc prepare"):
        RayDataset(tmp_path / "empty")


def test_recordings_with_other_cameras_are_mixed_each_with_its_own(tmp_path):
    bag = write_bag(tmp_path / "front_only", Plan(frames=1))
    prepare_recording(bag, None, tmp_path / "tables", PrepareConfig(vehicle=Vehicle(cameras=("front",))))
    prepare_recording(write_bag(tmp_path / "zboth", Plan(frames=1)), None, tmp_path / "tables", PrepareConfig())
    dataset = RayDataset(tmp_path / "tables", SampleConfig(64, 96, rays=200))
    alone, both = dataset.sample(0, 0), dataset.sample(0, 1)
    assert alone.current.views.shape == (1, 64, 96, 3) and both.current.views.shape == (2, 64, 96, 3)
    assert set(both.ray_cameras.tolist()) == {0, 1} and set(alone.ray_cameras.tolist()) == {0}
    assert [rig.names for rig in dataset.rigs()] == [("front",), ("front", "wide")]
    # One batch of both: the lone camera's sample has a second one that is absent and reaches no voxel.
    batch = make_batch([alone, both], small_config())
    assert batch.present.tolist() == [[True, False], [True, True]] and batch.images.shape[:2] == (2, 2)
    assert (batch.geometry.voxel_index[0, 1] == -1).all() and (batch.geometry.voxel_index[1, 1] >= 0).any()


def test_a_network_remembers_all_rigs_that_it_learned_from(tmp_path):
    prepare_recording(
        write_bag(tmp_path / "one", Plan(frames=1)),
        None,
        tmp_path / "tables",
        PrepareConfig(vehicle=Vehicle(cameras=("front",))),
    )
    prepare_recording(write_bag(tmp_path / "two", Plan(frames=1)), None, tmp_path / "tables", PrepareConfig())
    both = Data(RayDataset(tmp_path / "tables"), None).rig_summary()
    assert [rig["count"] for rig in both["rigs"]] == [1, 2]
    alone = Data(RayDataset(tmp_path / "tables", recordings=["two"]), None).rig_summary()
    assert alone == both["rigs"][1]
