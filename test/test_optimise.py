"""Learning rates by hand, averages by hand, and which parameters decay."""

import pytest
import torch
from small_models import small_config
from torch import nn

from renderocc_model.network.network import build_network
from training.train.config import OptimiserConfig
from training.train.optimise import (
    AveragedWeights,
    build_optimiser,
    freeze_batch_norm,
    keep_depthwise_single,
    learning_rate_factor,
    set_learning_rate,
    share_batch_norm,
)


def test_the_learning_rate_rises_straight_and_falls_as_half_a_cosine():
    config = OptimiserConfig(warm_up=4, final_factor=0.1)
    factors = [learning_rate_factor(step, 13, config) for step in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    # From step 4 to step 12: the middle is step 8, cos(pi / 2) = 0: 0.1 + 0.9 / 2.
    assert factors[4] == 1.0 and factors[8] == pytest.approx(0.55) and factors[12] == pytest.approx(0.1)
    assert all(one >= other for one, other in zip(factors[4:], factors[5:]))
    assert learning_rate_factor(0, 1, OptimiserConfig(warm_up=0)) == 1.0  # a run of one step


def test_norms_and_biases_do_not_decay_and_the_backbone_has_its_own_rate():
    network = build_network(small_config())
    optimiser = build_optimiser(network, OptimiserConfig(learning_rate=0.1, backbone_factor=0.5, weight_decay=0.01))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    seen = {}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group["weight_decay"], group["factor"]
    assert len(seen) == len(names)
    assert seen["heads.density.1.weight"] == (0.01, 1.0) and seen["heads.density.1.bias"] == (0.0, 1.0)
    assert seen["backbone.net.conv_stem.weight"] == (0.01, 0.5) and seen["backbone.net.bn1.weight"] == (0.0, 0.5)
    assert set_learning_rate(optimiser, 0, 10, OptimiserConfig(learning_rate=0.1, warm_up=2)) == pytest.approx(0.05)
    assert sorted({group["lr"] for group in optimiser.param_groups}) == pytest.approx([0.025, 0.05])


def test_averaged_weights_follow_by_hand():
    layer = nn.BatchNorm1d(1)
    average = AveragedWeights(layer, 0.5)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.running_mean.fill_(10.0)
        layer.num_batches_tracked.fill_(7)
    average.update(layer)  # d = min(0.5, 1 / 10): 0.1 * 1 + 0.9 * 2, 0.9 * 10
    assert average.network.weight.item() == pytest.approx(1.9)
    assert average.network.running_mean.item() == pytest.approx(9.0) and average.network.num_batches_tracked == 7
    average.update(layer)  # d = 2 / 11
    assert average.network.weight.item() == pytest.approx(2 / 11 * 1.9 + 9 / 11 * 2)
    average.updates = 1000  # d = 0.5
    average.update(layer)
    assert average.network.weight.item() == pytest.approx(2 - (2 - (2 / 11 * 1.9 + 9 / 11 * 2)) / 2)
    assert not average.network.weight.requires_grad and not average.network.training


def test_batch_statistics_freeze_where_they_are_told_to():
    network = build_network(small_config())
    for which, backbone, rest in (("learn", True, True), ("backbone_frozen", False, True), ("frozen", False, False)):
        network.train()
        freeze_batch_norm(network, which)
        norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
        assert {m.training for name, m in norms.items() if name.startswith("backbone.")} == {backbone}
        assert {m.training for name, m in norms.items() if not name.startswith("backbone.")} == {rest}


def test_depthwise_convolutions_stay_single_within_autocast():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3))
    images = torch.randn(1, 4, 8, 8)
    plain = network[0](images).detach()
    keep_depthwise_single(network)
    with torch.autocast("cpu", torch.bfloat16):
        depthwise = network[0](images)
        assert network[1](depthwise).dtype == torch.bfloat16
    assert torch.equal(depthwise, plain)


def test_sharing_batch_statistics_changes_neither_weights_nor_what_is_computed():
    """In evaluation mode, where the shared layers run on CPUs too; timm's norms hold an activation that must stay."""
    config = small_config()
    network = build_network(config).eval()
    images = torch.randn(2, 3, config.images.height, config.images.width)
    with torch.no_grad():
        before = network.backbone(images)
        shared = share_batch_norm(network).eval()
        after = shared.backbone(images)
    kinds = {type(m).__name__ for m in shared.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds and all("Sync" in kind for kind in kinds)
    assert list(shared.state_dict()) == list(build_network(config).state_dict())
    for one, other in zip(before, after):
        assert torch.equal(one, other)
