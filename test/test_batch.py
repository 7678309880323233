"""Batches: what the network gets is what the samples hold, whatever was mirrored, missing or too early for a past."""

import numpy as np
import pytest
import torch
from small_models import small_config
from tiny_bag import RIG, Plan, write_bag

from renderocc_model.geometry.undistortion import View
from renderocc_model.images.preprocessing import normalise
from renderocc_model.network.lift import Frustums
from renderocc_model.network.network import build_network
from training.data.augment import AugmentConfig
from training.data.batch import BatchMaker, make_batch
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, prepare_recording

CONFIG = small_config()  # views of 64 x 96, 16 x 16 voxels, 7 depth bins, stride 8
SIZE = {"height": CONFIG.images.height, "width": CONFIG.images.width}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    prepare_recording(write_bag(folder / "drive", Plan(frames=4)), None, folder / "tables", PrepareConfig())
    return folder / "tables"


def test_a_batch_holds_its_samples_in_order(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=50, depth_rays=300))
    samples = [dataset.sample(0, 2), dataset.sample(0, 0)]
    batch = make_batch(samples, CONFIG)
    assert len(batch) == 2 and batch.ray_count == sum(len(sample.rays) for sample in samples)
    assert batch.names == ("drive frame 2", "drive frame 0") and batch.indices == (2, 0)
    assert batch.images.shape == (2, len(RIG), 3, 64, 96) and batch.images.dtype == torch.uint8
    for row, sample in enumerate(samples):
        rays, cameras = batch.depth_rays[row]
        assert torch.equal(rays.origins, sample.depth_rays[0].origins) and len(cameras) == 300
        np.testing.assert_array_equal(cameras, sample.depth_rays[1])
        np.testing.assert_array_equal(batch.images[row].movedim(1, -1), sample.current.views)
        assert torch.equal(batch.current.network_input()[row], normalise(torch.from_numpy(sample.current.views)))
        np.testing.assert_array_equal(batch.odom_from_base[row], sample.current.odom_from_base)
        views = [View(96, 64, K) for K in sample.current.intrinsics]
        placed = Frustums(CONFIG, views).place(sample.current.base_from_camera)
        assert torch.equal(batch.geometry.voxel_index[row], placed.voxel_index[0])
        assert torch.equal(batch.geometry.cameras[row], placed.cameras[0])


def test_mirrored_views_put_their_features_where_the_unmirrored_ones_do(tables):
    """A flipped view's pixel column u is column 95 - u of the old one, so its feature columns come in reverse order."""
    plain, flipped = (
        make_batch([RayDataset(tables, SampleConfig(**SIZE, rays=9, augment=augment)).sample(0, 1)], CONFIG)
        for augment in (AugmentConfig(), AugmentConfig(image_flip=1.0))
    )
    assert (torch.linalg.det(flipped.base_from_camera) < 0).all()
    assert torch.equal(flipped.images, plain.images.flip(-1))
    same = flipped.geometry.voxel_index == plain.geometry.voxel_index.flip(-1)
    assert same.double().mean() > 0.995  # a point on a voxel's face may round to either side


def test_an_earlier_frame_that_is_missing_is_padded_and_marked(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=9, previous=2))
    batch = BatchMaker(CONFIG, 2)([dataset.sample(0, index) for index in (0, 1, 3)])
    near, far = batch.previous
    assert near.valid.tolist() == [False, True, True] and far.valid.tolist() == [False, False, True]
    assert (near.geometry.voxel_index[0] == -1).all() and not near.images[0].any() and not near.present[0].any()
    np.testing.assert_array_equal(far.odom_from_base[2], dataset.sample(0, 1).current.odom_from_base)
    assert len(BatchMaker(CONFIG, 1)([dataset.sample(0, 0)]).previous) == 1  # as many at a recording's beginning


def test_an_absent_camera_reaches_no_voxel(tables):
    sample = RayDataset(tables, SampleConfig(**SIZE, rays=9)).sample(0, 1)
    sample.current.present[1] = False
    batch = make_batch([sample], CONFIG)
    assert (batch.geometry.voxel_index[0, 1] == -1).all() and (batch.geometry.voxel_index[0, 0] >= 0).any()
    # Batch statistics see the other camera's picture once more, not a black one.
    assert torch.equal(batch.images[0, 1], batch.images[0, 0]) and batch.images[0, 0].any()


def test_a_batch_runs_through_the_network_and_moves_between_devices(tables):
    dataset = RayDataset(tables, SampleConfig(**SIZE, rays=9, previous=1))
    batch = make_batch([dataset.sample(0, 1)], CONFIG)
    output = build_network(CONFIG)(batch.current.network_input(), batch.geometry)
    assert output.density.shape == (1, 16, 16, 4)
    moved = batch.to("meta")
    found = (moved.images, moved.rays[0].origins, moved.ray_cameras[0], moved.previous[0].valid)
    assert {tensor.device.type for tensor in found} == {"meta"}
    assert moved.names == batch.names


def test_no_samples_and_views_of_another_size_are_refused(tables):
    with pytest.raises(ValueError, match="no sample"):
        make_batch([], CONFIG)
    with pytest.raises(ValueError, match="view 0 is 64 x 32"):
        make_batch([RayDataset(tables, SampleConfig(height=32, width=64)).sample(0, 0)], CONFIG)
