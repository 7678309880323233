"""Batch norms folded into convolutions: the same results, wherever it is allowed, and the network left alone."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from small_models import camera_ring, small_config
from torch import nn

from renderocc_model.inference.folding import fold_batch_norms, folded_for_inference
from renderocc_model.network.fusion import KeptFrame
from renderocc_model.network.lift import Frustums
from renderocc_model.network.network import build_network
from renderocc_model.network.presets import PRESETS

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def with_statistics(module: nn.Module) -> nn.Module:
    """As after training: no norm is the identity."""
    for norm in module.modules():
        if isinstance(norm, NORMS):
            for values, low, high in (
                (norm.running_mean, -1, 1),
                (norm.running_var, 0.3, 3),
                (norm.weight, 0.3, 2),
                (norm.bias, -1, 1),
            ):
                nn.init.uniform_(values, low, high)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, NORMS) for part in module.modules())


def deviation(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


STEREO = ("tiny", "fusion.enabled=true", "fusion.stereo.channels=8", "lift.subpixels=2")


@pytest.mark.parametrize("words", [*((name,) for name in sorted(PRESETS)), STEREO])
def test_every_preset_gives_the_same_without_its_norms(words):
    config = small_config(*words)
    network = with_statistics(build_network(config))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = folded_for_inference(network)
    assert norms(network) > 10 and norms(folded) == 0
    views, poses = camera_ring(config, 3)
    geometry = Frustums(config, views).place(poses)
    images = torch.randn(1, 3, 3, 64, 96)
    previous = None
    if network.fusion is not None:
        keys = None if network.stereo is None else torch.randn(config.keys_shape(3))
        previous = KeptFrame.current(torch.randn(1, *config.volume_shape), keys).with_cameras(geometry)
    with torch.no_grad():
        expected, found = network(images, geometry, previous), folded(images, geometry, previous)
    assert deviation(found.density, expected.density) < 1e-4
    assert deviation(found.semantics, expected.semantics) < 1e-4
    # The one that is trained is the same as before.
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(weight.requires_grad for weight in folded.parameters())


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050", "test_vit", "densenet121"]
)
def test_backbones_of_all_kinds_give_the_same(name):
    net = with_statistics(timm.create_model(name, pretrained=False, num_classes=3))
    size = 160 if name == "test_vit" else 64
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = net(images)
        folded = fold_batch_norms(net, lambda: net(images))
        found = net(images)
    assert deviation(found, expected) < 1e-3
    assert {"tf_efficientnet_lite0": norms(net) == 0, "test_vit": folded == 0}.get(name, folded > 10)


def test_activations_that_belong_to_norms_stay():
    net = with_statistics(timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(0,)))
    images = torch.randn(1, 3, 64, 64)
    fold_batch_norms(net, lambda: net(images))
    stem = net.bn1(torch.tensor([-1.0, 3.0, 9.0]).view(3, 1, 1))
    assert stem.flatten().tolist() == [0.0, 3.0, 6.0]  # ReLU6


def test_folding_is_what_hand_arithmetic_says():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval()
    for values, number in (
        (net[0].weight, 3.0),
        (net[0].bias, 1.0),
        (net[1].running_mean, 5.0),
        (net[1].running_var, 4.0),
        (net[1].weight, 10.0),
        (net[1].bias, 7.0),
    ):
        nn.init.constant_(values, number)
    assert fold_batch_norms(net, lambda: net(torch.zeros(1, 1, 1, 1))) == 1
    # ((3 x + 1) - 5) / 2 * 10 + 7 = 15 x - 13
    assert (net[0].weight.item(), net[0].bias.item()) == (15.0, -13.0)


class _Shared(nn.Module):
    """A convolution whose output is read twice, one that runs twice, and a norm that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice, self.runs_twice, self.third = (nn.Conv2d(2, 2, 1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(3))

    def forward(self, images):
        features = self.read_twice(images)
        features = self.norms[0](features) + features
        features = self.norms[1](self.runs_twice(features)) + self.runs_twice(images)
        return self.norms[2](self.third(features)) + self.norms[2](features)


def test_what_something_else_reads_too_is_left_alone():
    net = with_statistics(_Shared())
    images = torch.randn(1, 2, 3, 3)
    with torch.no_grad():
        expected = net(images)
        assert fold_batch_norms(net, lambda: net(images)) == 0
        assert torch.equal(net(images), expected)


def test_norms_in_training_mode_are_left_alone():
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    assert fold_batch_norms(net, lambda: F.relu(net(torch.randn(2, 2, 3, 3)))) == 0
