"""Temporal stereo: where pixels were seen before, and what it makes of depths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import camera_ring, small_config

from renderocc_model.geometry.transforms import invert
from renderocc_model.network.config import FusionConfig, StereoConfig
from renderocc_model.network.fusion import KeptFrame, placed
from renderocc_model.network.lift import Frustums, LiftGeometry, depth_bin_centres, depths_of_bins
from renderocc_model.network.network import build_network
from renderocc_model.network.stereo import EarlierImages, TemporalStereo, _mean_around, earlier_images

WORDS = ("fusion.enabled=true", "fusion.stereo.channels=8")


def turned(x: float, y: float, angle: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:2, 3] = x, y
    return pose


def test_a_place_is_looked_for_where_earlier_cameras_showed_it():
    config = small_config("tiny", *WORDS)
    views, poses = camera_ring(config, 4)
    geometry = Frustums(config, views).place(poses)
    base_from_earlier = torch.tensor(turned(-1.5, 0.2, 0.1))
    keys = torch.arange(4.0)[None, :, None, None, None].expand(1, *config.keys_shape(4))
    found = earlier_images(geometry.base_from_pixel, keys, base_from_earlier @ geometry.base_from_pixel, 3)
    assert found.keys.shape == config.earlier_keys_shape(4)
    sources = found.keys[:, :, 0, 0, 0].long()
    # Its own image first, then those of its neighbours, not the opposite one's.
    assert sources[:, 0].tolist() == [0, 1, 2, 3]
    assert [sorted(one) for one in sources[:, 1:].tolist()] == [[1, 3], [0, 2], [1, 3], [0, 2]]
    stride = config.backbone.stride
    for camera, (view, pose) in enumerate(zip(views, poses)):
        # A point of now, in the earlier cameras by the poses alone.
        u, v, depth = 5.0, 3.0, 6.0
        image = np.array([u, v]) * stride + (stride - 1) / 2
        point = pose @ [*(np.linalg.inv(view.K) @ [*image, 1] * depth), 1]
        for number, source in enumerate(sources[camera].tolist()):
            then = invert(poses[source]) @ invert(base_from_earlier.numpy()) @ point
            pixel = found.pixels[camera, number].double().numpy() @ [u * depth, v * depth, depth, 1]
            assert pixel[2] == pytest.approx(then[2], abs=1e-5)
            expected = ((views[source].K @ then[:3])[:2] - then[2] * (stride - 1) / 2) / stride
            assert pixel[:2] == pytest.approx(expected, abs=1e-4)


def test_absent_cameras_and_frames_without_a_predecessor_have_no_earlier_image():
    config = small_config("tiny", *WORDS, "fusion.stereo.views=2")
    views, poses = camera_ring(config, 3)
    frustums = Frustums(config, views)
    now, then = frustums.place(poses), frustums.place(poses, np.array([True, False, True]))
    assert not then.base_from_pixel[0, 1].any()
    kept = KeptFrame.current(torch.ones(1, *config.volume_shape), torch.ones(config.keys_shape(3))).with_cameras(then)
    earlier = placed(kept, config.grid, now, 3)
    assert earlier.pixels.flatten(2).any(2).tolist() == [[True, True, False]] * 3  # those that were there come first
    never = placed(kept.moved(torch.eye(4), torch.tensor([False])), config.grid, now, 2)
    assert not never.pixels.any() and not never.mask.any()
    absent = placed(kept.with_cameras(now), config.grid, then, 2).pixels.flatten(1).any(1)
    assert absent.tolist() == [True, False, True]


def test_earlier_frames_may_have_fewer_or_other_cameras():
    config = small_config("tiny", *WORDS)
    views, poses = camera_ring(config, 4)
    now, then = Frustums(config, views).place(poses), Frustums(config, views[:1]).place(poses[2:3])
    kept = KeptFrame.current(torch.ones(1, *config.volume_shape), torch.ones(config.keys_shape(1))).with_cameras(then)
    earlier = placed(kept, config.grid, now, 3)
    assert earlier.keys.shape == config.earlier_keys_shape(4)
    assert earlier.pixels.flatten(2).any(2).tolist() == [[True, False, False]] * 4


def test_a_batch_is_its_samples_one_by_one():
    config = small_config("tiny", *WORDS)
    torch.manual_seed(1)
    network = build_network(config).eval()
    for part in (network.stereo.logits, network.fusion.change):
        part.reset_parameters()
    views, poses = camera_ring(config, 3)
    frustums = Frustums(config, views)
    geometries = [frustums.place(poses), frustums.place(poses, np.array([True, False, True]))]
    images = torch.randn(2, 3, 3, config.images.height, config.images.width)
    motions = torch.tensor(np.stack([turned(-0.8, 0, 0.05), turned(-0.3, 0.1, 0)]))
    with torch.no_grad():
        both = LiftGeometry.batch(geometries)
        kept = network(images.flip(1), both).kept.moved(motions)
        joined = network(images, both, kept)
        for number, geometry in enumerate(geometries):
            alone = network(images[number, None].flip(1), geometry).kept.moved(motions[number, None])
            expected = network(images[number, None], geometry, alone)
            torch.testing.assert_close(joined.density[number], expected.density[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(joined.depth_distribution, network(images, both).depth_distribution, atol=1e-4)


def test_keys_without_their_cameras_are_refused():
    config = small_config("tiny", *WORDS)
    views, poses = camera_ring(config, 3)
    geometry = Frustums(config, views).place(poses)
    kept = KeptFrame.current(torch.ones(1, *config.volume_shape), torch.ones(config.keys_shape(3)))
    with pytest.raises(ValueError, match="call kept.with_cameras"):
        placed(kept, config.grid, geometry, 2)


def test_it_begins_without_effect():
    config = small_config("tiny", *WORDS)
    torch.manual_seed(0)
    network = build_network(config).eval()
    without = build_network(small_config("tiny", "fusion.enabled=true")).eval()
    without.load_state_dict({name: one for name, one in network.state_dict().items() if not name.startswith("stereo.")})
    views, poses = camera_ring(config, 2)
    geometry = Frustums(config, views).place(poses)
    images = torch.randn(1, 2, 3, config.images.height, config.images.width)
    with torch.no_grad():
        before = network(images, geometry).kept.moved(torch.tensor(turned(-0.5, 0, 0)))
        found = network(images, geometry, before).depth_distribution
        assert torch.equal(found, without(images, geometry).depth_distribution)


def test_it_learns_depth_from_parallax_alone():
    """A camera that moves sideways past a wall of noise: one image says nothing about its distance."""
    torch.manual_seed(0)
    config = small_config("tiny", *WORDS)
    depths = depths_of_bins(config.lift.depth, torch.zeros(1))
    np.testing.assert_allclose(depths, depth_bin_centres(config.lift.depth), rtol=1e-6)
    stereo = TemporalStereo(3, StereoConfig(channels=16, groups=2))
    optimiser = torch.optim.Adam(stereo.parameters(), 1e-2)
    pixels = torch.eye(3, 4)[None, None].clone()
    pixels[..., 0, 3] = 6.0

    def pair(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, int]:
        bin_ = int(torch.randint(len(depths), (1,), generator=generator))
        wall = torch.randn(1, 3, 8, 48, generator=generator)
        shift = 6.0 / float(depths[bin_])  # pixels further right at the earlier time
        places = (torch.arange(24) + 6 - shift + 0.5) / 48 * 2 - 1
        rows = (torch.arange(8) + 0.5) / 8 * 2 - 1
        grid = torch.stack(torch.meshgrid(rows, places, indexing="ij")[::-1], dim=-1)[None]
        earlier = torch.nn.functional.grid_sample(wall, grid, align_corners=False)
        return wall[:, :, :, 6:30], earlier, bin_

    generator = torch.Generator().manual_seed(1)
    for step in range(150):
        now, then, bin_ = pair(generator)
        earlier = EarlierImages(stereo.keys_of(then)[:, None], pixels)
        logits = stereo(stereo.keys_of(now), earlier, depths)
        loss = torch.nn.functional.cross_entropy(logits, torch.full((1, 8, 24), bin_))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    stereo.eval()
    errors = []
    for _ in range(10):
        now, then, bin_ = pair(generator)
        earlier = EarlierImages(stereo.keys_of(then)[:, None], pixels)
        with torch.no_grad():
            found = depths[stereo(stereo.keys_of(now), earlier, depths).argmax(dim=1)]
        errors.append((found / depths[bin_]).log().abs().median())
    assert torch.stack(errors).median() < 0.1
    nothing = stereo(stereo.keys_of(now), None, depths)
    assert torch.isfinite(nothing).all()


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not divide the 6 channels"):
        StereoConfig(channels=6, groups=4)
    with pytest.raises(ValueError, match="set enabled to true"):
        FusionConfig(stereo=StereoConfig(channels=8))


@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (1, 3, 1, 1), (1, 2, 1, 4)])
def test_the_mean_around_a_pixel_is_of_the_pixels_that_there_are(shape):
    values = torch.randn(*shape)
    expected = torch.nn.functional.avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(_mean_around(values), expected)
