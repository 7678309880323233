"""Neck, volume encoder and heads keep sizes, see far enough, and start where they are told to."""

from __future__ import annotations

import pytest
import torch

from renderocc_model.network.config import EncoderConfig, HeadsConfig
from renderocc_model.network.encoder import VolumeEncoder
from renderocc_model.network.heads import VoxelFeatures, VoxelHeads
from renderocc_model.network.neck import FeaturePyramid

CONFIG = EncoderConfig(channels=(4, 6, 8), blocks=(1, 0, 2), out_channels=5)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9), (9, 5, 4), (3, 2, 1)])
def test_the_encoder_keeps_any_size(size):
    encoder = VolumeEncoder(len(size), 3, CONFIG).eval()
    assert encoder(torch.randn(2, 3, *size)).shape == (2, 5, *size)


def test_the_encoder_treats_shifted_volumes_alike():
    torch.manual_seed(0)
    encoder = VolumeEncoder(2, 3, CONFIG).eval()
    volume = torch.zeros(1, 3, 160, 160)
    volume[:, :, 70:74, 70:74] = torch.randn(1, 3, 4, 4)
    # Three scales: a shift of 4 cells is a whole cell at each of them. Far from the borders nothing else can differ.
    out, shifted = encoder(volume), encoder(volume.roll((4, 8), dims=(2, 3)))
    inner = (slice(None), slice(None), slice(50, 110), slice(50, 110))
    torch.testing.assert_close(out.roll((4, 8), dims=(2, 3))[inner], shifted[inner], atol=1e-5, rtol=0)


def test_coarse_maps_inform_the_finest():
    torch.manual_seed(0)
    neck = FeaturePyramid(2, [3, 6], 8).eval()
    fine, coarse = torch.randn(2, 3, 8, 12), torch.randn(2, 6, 4, 6, requires_grad=True)
    joined = neck([fine, coarse])
    assert joined.shape == (2, 8, 8, 12)
    joined.sum().backward()
    assert coarse.grad.abs().sum() > 0


def test_channels_become_heights_in_order():
    features = VoxelFeatures(2, inputs=1, heights=3, channels=2)
    with torch.no_grad():
        features.project.weight.zero_()
        features.project.bias.copy_(torch.tensor([0.0, 1, 10, 11, 20, 21]))  # 10 * height + channel
    voxels = features(torch.zeros(1, 1, 4, 5))
    assert voxels.shape == (1, 4, 5, 3, 2)
    assert voxels[0, 2, 3].tolist() == [[0, 1], [10, 11], [20, 21]]


def test_three_dimensional_features_stay_where_they_are():
    features = VoxelFeatures(3, inputs=2, heights=4, channels=2)
    with torch.no_grad():
        features.project.weight.copy_(torch.eye(2).view(2, 2, 1, 1, 1))
        features.project.bias.zero_()
    volume = torch.randn(1, 2, 3, 5, 4)
    torch.testing.assert_close(features(volume), volume.permute(0, 2, 3, 4, 1))


def test_density_starts_near_the_configured_value_and_is_never_negative():
    torch.manual_seed(0)
    heads = VoxelHeads(HeadsConfig(voxel_channels=8, hidden_channels=16, initial_density=0.05), classes=17)
    density, logits = heads(torch.zeros(2, 3, 4, 5, 8))
    assert density.shape == (2, 3, 4, 5) and logits.shape == (2, 3, 4, 5, 17)
    # The hidden layer's random biases still add a little to the last layer's bias log(exp(0.05) - 1) = -2.97.
    assert 0.02 < density.mean() < 0.12
    with torch.no_grad():
        heads.density[-1].weight.zero_()
    assert heads(torch.randn(7, 8))[0].tolist() == pytest.approx([0.05] * 7, rel=1e-5)
    assert (heads(1e4 * torch.randn(1000, 8))[0] >= 0).all()


def test_heads_answer_in_single_precision_under_autocast():
    heads = VoxelHeads(HeadsConfig(), classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        density, logits = heads(torch.randn(4, 16))
    assert density.dtype == logits.dtype == torch.float32
