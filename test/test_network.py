"""The whole network, every preset in small: shapes, gradients, cameras, frames, precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import camera_ring, small_config

from renderocc_model.network.lift import Frustums, LiftGeometry
from renderocc_model.network.network import build_network
from renderocc_model.network.presets import PRESETS

NAMES = ["tiny", "base", "paper"]


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)


STEREO = ("fusion.enabled=true", "fusion.stereo.channels=8")


def geometry_parts(geometry):
    return geometry.voxel_index, geometry.cameras, geometry.base_from_pixel


def make(name, *overrides, cameras=3, seed=0):
    """A small network in evaluation mode with random normalisation, its geometry, and images."""
    torch.manual_seed(seed)
    config = small_config(name, *overrides)
    network = build_network(config)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)  # timm starts the last ones of residual blocks at zero
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    if network.fusion is not None:
        network.fusion.change.reset_parameters()  # begins without effect
    if network.stereo is not None:
        network.stereo.logits.reset_parameters()
    views, poses = camera_ring(config, cameras)
    geometry = Frustums(config, views).place(poses)
    return network.eval(), geometry, torch.randn(1, cameras, 3, config.images.height, config.images.width)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_in_small_predicts_every_voxel(name):
    network, geometry, images = make(name)
    with torch.inference_mode():
        output = network(images, geometry)
    assert output.density.shape == (1, 16, 16, 4) and output.semantics.shape == (1, 16, 16, 4, 17)
    assert output.depth_distribution.shape[:2] == (3, 7)
    assert (output.density >= 0).all() and torch.isfinite(output.semantics).all()
    torch.testing.assert_close(output.depth_distribution.sum(1), torch.ones_like(output.depth_distribution[:, 0]))
    assert (output.kept is None) == (name != "paper")


@pytest.mark.parametrize(
    "words",
    [
        *((name,) for name in NAMES),
        ("tiny", *STEREO),
        ("tiny", *STEREO, "lift.subpixels=2"),
        ("tiny", "heads.density_layers=3"),
    ],
)
def test_every_weight_gets_a_gradient(words):
    network, geometry, images = make(*words)
    network.train()
    previous = network(images, geometry).kept
    if previous is not None:
        motion = torch.eye(4, dtype=torch.float64)
        motion[0, 3] = -0.5
        previous = previous.moved(motion)
    output = network(images.flip(1), geometry, previous)
    (output.density.square().mean() + output.semantics.square().mean()).backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def full_size(name):
    """A preset as it is, with one camera."""
    torch.manual_seed(0)
    config = PRESETS[name]
    views, poses = camera_ring(config, 1)
    images = torch.randn(1, 1, 3, config.images.height, config.images.width)
    return build_network(config), images, Frustums(config, views).place(poses)


def test_the_tiny_preset_runs_forward_and_backward_at_full_size():
    network, images, geometry = full_size("tiny")
    output = network(images, geometry)
    assert output.density.shape == (1, 100, 100, 16)
    (output.density.mean() + output.semantics.square().mean()).backward()
    assert network.backbone.net.conv_stem.weight.grad.any()


@pytest.mark.slow
def test_the_base_preset_runs_at_full_size():
    network, images, geometry = full_size("base")
    with torch.inference_mode():
        assert network.eval()(images, geometry).semantics.shape == (1, 200, 200, 16, 17)


def test_the_paper_preset_fits_together_at_full_size():
    with torch.device("meta"):  # shapes without memory
        network = build_network(PRESETS["paper"])
    assert 85e6 < sum(weight.numel() for weight in network.parameters()) < 110e6


@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_a_batch_gives_what_its_frames_give(name):
    network, geometry, images = make(name)
    other_images = torch.randn_like(images)
    views, poses = camera_ring(network.config, 3)
    poses[:, 0, 3] += 0.7
    other_geometry = Frustums(network.config, views).place(poses)
    with torch.inference_mode():
        batch = network(torch.cat([images, other_images]), LiftGeometry.batch([geometry, other_geometry]))
        for number, single in enumerate([network(images, geometry), network(other_images, other_geometry)]):
            torch.testing.assert_close(batch.density[number], single.density[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(batch.semantics[number], single.semantics[0], atol=1e-5, rtol=1e-4)


def test_the_picture_of_an_absent_camera_does_not_matter():
    network, _, images = make("tiny")
    views, poses = camera_ring(network.config, 3)
    geometry = Frustums(network.config, views).place(poses, np.array([True, False, True]))
    changed = images.clone()
    changed[:, 1] = 5.0
    with torch.inference_mode():
        before, after = network(images, geometry), network(changed, geometry)
        complete = network(images, Frustums(network.config, views).place(poses))
    torch.testing.assert_close(after.density, before.density, atol=1e-6, rtol=0)
    assert not torch.allclose(complete.density, before.density, atol=1e-6, rtol=0)


def test_without_any_camera_the_answer_is_that_of_an_empty_volume():
    network, _, images = make("tiny")
    views, poses = camera_ring(network.config, 3)
    geometry = Frustums(network.config, views).place(poses, np.zeros(3, dtype=bool))
    with torch.inference_mode():
        absent = network(images, geometry).density
        none = network(images[:, :0], Frustums(network.config, []).place(np.empty((0, 4, 4)))).density
    torch.testing.assert_close(none, absent)


def test_the_volume_teaches_depth_unless_it_is_told_not_to():
    network, geometry, images = make("tiny")
    gradients = []
    for depth_from_volume in (True, False):
        network.zero_grad()
        output = network(images, geometry, depth_from_volume=depth_from_volume)
        (output.density.sum() + output.semantics.square().sum()).backward()
        gradients.append(network.lift.predict.weight.grad.clone())
    bins = network.config.lift.depth.count
    assert gradients[0][:bins].abs().max() > 0 and not gradients[1][:bins].any()
    torch.testing.assert_close(gradients[1][bins:], gradients[0][bins:])  # context learns as before
    network.zero_grad()
    network(images, geometry, depth_from_volume=False).depth_distribution.square().sum().backward()
    assert network.lift.predict.weight.grad[:bins].abs().max() > 0


def test_the_order_of_the_cameras_does_not_matter():
    network, geometry, images = make("tiny")
    order = [2, 0, 1]
    shuffled = LiftGeometry(*(part[:, order] for part in geometry_parts(geometry)))
    with torch.inference_mode():
        torch.testing.assert_close(network(images[:, order], shuffled).density, network(images, geometry).density)


@pytest.mark.parametrize("overrides", [("tiny", "fusion.enabled=true"), ("tiny", *STEREO), ("paper",)])
def test_the_previous_frame_is_used_and_a_reset_forgets_it(overrides):
    network, geometry, images = make(*overrides)
    with torch.inference_mode():
        first = network(images, geometry)
        kept = first.kept.moved(torch.eye(4, dtype=torch.float64))
        second = network(images, geometry, kept)
        again = network(images, geometry, None)
    assert not torch.allclose(second.density, first.density)
    assert torch.equal(again.density, first.density)
    # Depths change only where images are compared.
    assert torch.equal(second.depth_distribution, first.depth_distribution) == (network.stereo is None)
    # What is kept is the frame's own, so that the memory is one frame long whatever came before; with stereo the frame
    # before has a part in its volume.
    kept = "volume" if network.stereo is None else "keys"
    assert torch.equal(getattr(second.kept, kept), getattr(first.kept, kept))


@pytest.mark.parametrize("overrides", [("tiny", "fusion.enabled=true"), ("tiny", *STEREO), ("paper",)])
def test_a_recurrent_model_keeps_the_joined_volume_and_remembers_all_frames_before(overrides):
    network, geometry, images = make(*overrides, "fusion.frames=2")
    still = torch.eye(4, dtype=torch.float64)
    with torch.inference_mode():
        first = network(images, geometry).kept
        second = network(images, geometry, first.moved(still)).kept
        other = network(images.flip(-1), geometry).kept
        after_other = network(images, geometry, other.moved(still)).kept
        third, third_after_other = (
            network(images, geometry, kept.moved(still)).density for kept in (second, after_other)
        )
    assert not torch.allclose(second.volume, first.volume)
    assert not torch.equal(third, third_after_other)  # what was two frames ago is known


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_autocast_changes_the_answer_little_and_its_type_not(name, dtype):
    network, geometry, images = make(name)
    with torch.inference_mode():
        exact = network(images, geometry, None)
        with torch.autocast("cpu", dtype=dtype):
            kept = network(images, geometry).kept
            rough = network(images, geometry, kept)
        exact = network(images, geometry, exact.kept)
    assert rough.density.dtype == rough.semantics.dtype == torch.float32
    assert (rough.semantics - exact.semantics).abs().mean() < 0.1 * exact.semantics.abs().mean()


@pytest.mark.parametrize("overrides", [("fusion.enabled=true",), STEREO, (*STEREO, "lift.subpixels=2")])
def test_a_half_precision_network_runs_on_half_precision_images(overrides):
    network, geometry, images = make("tiny", *overrides)
    with torch.inference_mode():
        output = network.to(torch.bfloat16)(images.bfloat16(), geometry)
        output = network(images.bfloat16(), geometry, output.kept)
    assert torch.isfinite(output.density).all() and output.density.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_agrees_with_the_cpu(name):
    network, geometry, images = make(name)
    with torch.inference_mode():
        expected = network(images, geometry)
        network.cuda()
        found = network(images.cuda(), geometry.to("cuda"))
    torch.testing.assert_close(found.density.cpu(), expected.density, atol=2e-2, rtol=2e-2)


def test_the_same_seed_builds_the_same_network():
    first, second = make("tiny", seed=3)[0].state_dict(), make("tiny", seed=3)[0].state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_arguments_that_do_not_fit_are_refused():
    network, geometry, images = make("tiny")
    with pytest.raises(ValueError, match=r"expected \(frames, cameras, 3, 64, 96\)"):
        network(images[..., :-1], geometry)
    with pytest.raises(ValueError, match="voxel_index is .* same cameras"):
        network(images[:, :2], geometry)
    with pytest.raises(ValueError, match="geometry.cameras is"):
        network(images, LiftGeometry(geometry.voxel_index, geometry.cameras[..., :2], geometry.base_from_pixel))
    temporal = make("tiny", "fusion.enabled=true")[0]
    with pytest.raises(ValueError, match="previous frame is a batch of 1, images of 2; forget"):
        kept = temporal(images, geometry).kept
        temporal(images.repeat(2, 1, 1, 1, 1), LiftGeometry.batch([geometry, geometry]), kept)
    with pytest.raises(ValueError, match="has no keys"):
        make("tiny", *STEREO)[0](images, geometry, kept)
    with pytest.raises(ValueError, match="fusion.enabled is false"):
        network(images, geometry, temporal(images, geometry).kept)
