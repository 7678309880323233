"""Every loss against numbers worked by hand, an independent brute force, finite differences, and nothing at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from training.supervision.losses import (
    class_weights,
    depth_distribution,
    distortion,
    empty_space,
    occupancy_cross_entropy,
    opacity_entropy,
    semantic_cross_entropy,
    silog,
    total_variation,
    voxel_cross_entropy,
    weighted_mean,
)

torch.set_num_threads(2)


def random(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


def leaf(values: torch.Tensor) -> torch.Tensor:
    return values.clone().requires_grad_()


# ---------------------------------------------------------------------------------------------------------------------
# Means and class weights


def test_a_weighted_mean_ignores_what_has_no_weight():
    values = leaf(torch.tensor([1.0, math.nan, 4.0, math.inf]))
    mean = weighted_mean(values, torch.tensor([1.0, 0.0, 2.0, 0.0]))
    mean.backward()
    assert mean.item() == pytest.approx(3.0)  # (1 * 1 + 2 * 4) / 3
    assert values.grad.tolist() == pytest.approx([1 / 3, 0, 2 / 3, 0])


def test_class_weights_fall_with_the_logarithm_of_the_counts():
    weights = class_weights(np.array([math.e**4, math.e**8, math.e**16]))
    # 1/4, 1/8, 1/16 over their mean 7/48
    assert weights.tolist() == pytest.approx([12 / 7, 6 / 7, 3 / 7])
    assert weights.dtype == torch.float32


def test_classes_with_no_label_or_one_weigh_no_more_than_ten_do():
    weights = class_weights(np.array([0, 1, 10, 10**6]))
    # 1 / log 10 for the first three; 1 / (6 log 10) for the last: shares 6 : 6 : 6 : 1
    assert weights.tolist() == pytest.approx([24 / 19, 24 / 19, 24 / 19, 4 / 19])


def test_class_counts_that_are_not_counts_are_refused():
    with pytest.raises(ValueError, match="not negative"):
        class_weights(np.array([3, -1]))
    with pytest.raises(ValueError, match="not negative"):
        class_weights(np.array([3, math.nan]))


# ---------------------------------------------------------------------------------------------------------------------
# Classes


def test_cross_entropy_is_the_mean_by_class_weights():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    # p = (1/4, 3/4) and (1/2, 1/2): -log 1/4 with weight 2, -log 1/2 with weight 1
    loss = semantic_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([2.0, 1.0]))
    assert loss.item() == pytest.approx((2 * math.log(4) + math.log(2)) / 3)


def test_cross_entropy_agrees_with_scipy_ray_by_ray():
    rng = np.random.default_rng(0)
    logits, channels = rng.normal(size=(50, 5)) * 3, rng.integers(-1, 5, 50)
    balance, weights = rng.uniform(0.1, 2, 5), rng.uniform(0, 1, 50) * (rng.random(50) < 0.7)
    above = below = 0.0
    for row in range(50):
        if channels[row] >= 0:
            share = balance[channels[row]] * weights[row]
            above -= share * log_softmax(logits[row])[channels[row]]
            below += share
    tensors = (torch.from_numpy(array) for array in (logits, channels, balance, weights))
    assert semantic_cross_entropy(*tensors).item() == pytest.approx(above / below, rel=1e-12)


def test_rays_without_a_class_change_nothing():
    logits, channels = random(4, 3), torch.tensor([0, 1, 2, 1])
    alone = semantic_cross_entropy(logits, channels)
    more = torch.cat([logits, torch.full((2, 3), math.nan, dtype=torch.float64)])
    assert semantic_cross_entropy(more, torch.cat([channels, torch.tensor([-1, -1])])).item() == alone.item()


# ---------------------------------------------------------------------------------------------------------------------
# Depth


def test_silog_of_a_wrong_scale_is_what_the_focus_leaves():
    # g = log 2 for every ray: no variance, mean log 2, so sqrt(0.15) log 2 (but for the millimetre: 1e-3 / 10)
    loss = silog(torch.tensor([20.0, 40.0]), torch.tensor([10.0, 20.0]))
    assert loss.item() == pytest.approx(math.sqrt(0.15) * math.log(2), rel=1e-4)


def test_silog_of_errors_that_cancel_is_their_root_mean_square():
    # g = log 2 and -log 2: mean 0
    loss = silog(torch.tensor([20.0, 10.0]), torch.tensor([10.0, 20.0]))
    assert loss.item() == pytest.approx(math.log(2), rel=1e-4)


def test_silog_agrees_with_the_formula_in_numpy():
    rng = np.random.default_rng(1)
    predicted, target = rng.uniform(0.5, 50, 40), rng.uniform(0.5, 50, 40)
    error = np.log(predicted + 1e-3) - np.log(target + 1e-3)
    for focus in (0.0, 0.85, 1.0):
        expected = math.sqrt(np.mean(error**2) - focus * np.mean(error) ** 2)
        loss = silog(torch.from_numpy(predicted), torch.from_numpy(target), variance_focus=focus)
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_silog_weights_count_like_repetition():
    predicted, target = random(3, low=1, high=9), random(3, seed=1, low=1, high=9)
    weighted = silog(predicted, target, torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64))
    repeated = silog(predicted[[0, 0, 2]], target[[0, 0, 2]])
    assert weighted.item() == pytest.approx(repeated.item(), rel=1e-12)


@pytest.mark.parametrize("rays", [0, 1, 5])
def test_silog_is_zero_with_a_gradient_of_zero_where_all_is_right(rays):
    predicted = leaf(torch.linspace(1, 30, rays))
    loss = silog(predicted, predicted.detach().clone())
    loss.backward()
    assert loss.item() == 0 and predicted.grad.eq(0).all()


def test_silog_has_a_gradient_of_bounded_length_near_zero():
    target = torch.linspace(1, 30, 7)
    for error in (1e-2, 1e-4, 1e-6):
        predicted = leaf(target * (1 + error * torch.tensor([1.0, -1, 1, -1, 1, -1, 1])))
        silog(predicted, target).backward()
        assert 0 < (predicted.grad * target).norm() < 1.01 / math.sqrt(7)


def test_silog_ignores_depths_of_rays_without_a_label():
    predicted = leaf(torch.tensor([10.0, 0.0, math.nan, -3.0]))
    loss = silog(predicted, torch.tensor([5.0, 1.0, 1.0, math.nan]), torch.tensor([1.0, 0, 0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(math.sqrt(0.15) * math.log(2), rel=1e-3)
    assert predicted.grad[0] > 0 and predicted.grad[1:].eq(0).all()


def test_a_rendered_depth_of_zero_has_a_finite_loss_and_gradient():
    predicted = leaf(torch.zeros(2))
    loss = silog(predicted, torch.tensor([10.0, 20.0]))
    loss.backward()
    assert loss.isfinite() and predicted.grad.isfinite().all() and (predicted.grad < 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Rays


def brute_distortion(weights, places, length) -> float:
    total = sum(w**2 for w in weights) * length / 3
    for weight, place in zip(weights, places):
        for other_weight, other_place in zip(weights, places):
            total += weight * other_weight * abs(place - other_place)
    return total


def test_distortion_of_two_samples():
    # 2 * 0.5 * 0.25 * 3 m + 1/3 * (0.25 + 0.0625) * 0.2 m
    loss = distortion(torch.tensor([[0.5, 0.25]]), torch.tensor([[1.0, 4.0]]), 0.2)
    assert loss.item() == pytest.approx(0.75 + 0.3125 * 0.2 / 3)


def test_distortion_agrees_with_the_double_sum():
    weights, places = random(6, 9) / 9, random(6, 9, seed=1).cumsum(dim=1)
    expected = [brute_distortion(w.tolist(), t.tolist(), 0.3) for w, t in zip(weights, places)]
    assert distortion(weights, places, 0.3).tolist() == pytest.approx(expected, rel=1e-12)


def test_distortion_of_rays_without_samples_is_zero():
    assert distortion(torch.zeros(3, 0), torch.zeros(3, 0), 0.2).shape == (3,)
    assert distortion(torch.zeros(3, 1), torch.zeros(3, 1), 0.2).tolist() == [0, 0, 0]
    assert distortion(torch.zeros(0, 4), torch.zeros(0, 4), 0.2).shape == (0,)


def test_entropy_is_log_two_at_half_and_none_at_the_ends():
    assert opacity_entropy(torch.tensor([0.5])).item() == pytest.approx(math.log(2))
    assert opacity_entropy(torch.tensor([0.0, 1.0])).item() == pytest.approx(0, abs=2e-5)
    # T = 1/4: -(1/4 log 1/4 + 3/4 log 3/4)
    expected = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert opacity_entropy(torch.tensor([0.75, 0.1]), torch.tensor([1.0, 0.0])).item() == pytest.approx(expected)


def test_empty_space_costs_its_optical_depth():
    opacity = 1 - torch.exp(-torch.tensor([0.5, 1.5], dtype=torch.float64))
    assert empty_space(opacity).item() == pytest.approx(1.0, abs=1e-5)
    blocked = leaf(torch.tensor([1.0000001]))  # as rounding may leave it
    assert empty_space(blocked).item() == pytest.approx(-math.log(1e-6))


def test_a_ray_that_is_almost_blocked_still_pulls_on_its_density():
    density = leaf(torch.tensor([2.0]))
    empty_space(-torch.expm1(-density * 4)).backward()
    assert density.grad.item() == pytest.approx(4, rel=1e-2)  # the slope of sigma * 4 m


# ---------------------------------------------------------------------------------------------------------------------
# Depth bins


def test_depth_distribution_sums_over_bins_and_averages_over_labelled_pixels():
    predicted = torch.full((1, 2, 1, 3), 0.5)
    predicted[0, :, 0, 1] = torch.tensor([0.25, 0.75])
    right = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).view(1, 2, 1, 3)
    # pixel 0: -log 1/2 - log(1 - 1/2); pixel 1: -log 3/4 - log(1 - 1/4); pixel 2 has no label
    expected = (2 * math.log(2) + 2 * math.log(4 / 3)) / 2
    assert depth_distribution(predicted, right).item() == pytest.approx(expected)


def test_depth_distribution_of_a_certain_mistake_is_finite():
    predicted = leaf(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    loss = depth_distribution(predicted, torch.tensor([0.0, 1]).view(1, 2, 1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(200) and predicted.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------------------------------
# Voxels


def test_total_variation_adds_the_mean_step_of_each_axis():
    values = torch.zeros(2, 2, 1)
    values[1, 1, 0] = 1
    # along x: |0 - 0|, |0 - 1|: 1/2; along y the same; along z no neighbours
    assert total_variation(values).item() == pytest.approx(1.0)
    many = random(3, 4, 5)
    expected = sum(np.abs(np.diff(many.numpy(), axis=axis)).mean() for axis in range(3))
    assert total_variation(many).item() == pytest.approx(expected, rel=1e-12)


def test_occupancy_of_a_coin_costs_log_two_either_way():
    coin = torch.full((2,), math.log(2), dtype=torch.float64)  # p = 1 - exp(-log 2) = 1/2
    for occupied in ([True, True], [False, False], [True, False]):
        assert occupancy_cross_entropy(coin, torch.tensor(occupied)).item() == pytest.approx(math.log(2), abs=1e-6)


def test_occupancy_is_finite_at_both_ends_and_steep_where_it_is_wrong():
    optical_depth = leaf(torch.tensor([0.0, 200.0, 200.0, 0.0]))
    loss = occupancy_cross_entropy(optical_depth, torch.tensor([True, False, True, False]))
    loss.backward()
    assert loss.item() == pytest.approx((-math.log(1e-7) + 200) / 4, rel=1e-4)
    assert optical_depth.grad.isfinite().all()
    assert optical_depth.grad[0] < -1e5 and optical_depth.grad[1:].tolist() == pytest.approx([1 / 4, 0, 1 / 4])


def test_3d_truth_counts_where_the_mask_says_and_classes_where_it_is_occupied():
    density = torch.full((2, 1, 2), math.log(2) / 0.5, dtype=torch.float64)  # p = 1/2 with voxels of 0.5 m
    semantics = torch.zeros(2, 1, 2, 4, dtype=torch.float64)
    semantics[0, 0, 0, 3] = math.log(5)
    channels = torch.tensor([[[3, 1]], [[-1, 2]]])
    occupied = torch.tensor([[[True, True]], [[False, True]]])
    counted = torch.tensor([[[True, True]], [[True, False]]])
    occupancy, classes = voxel_cross_entropy(density, semantics, channels, occupied, counted, 0.5)
    assert occupancy.item() == pytest.approx(math.log(2), abs=1e-6)
    # p = 5/8 and 1/4 in the two counted, occupied voxels
    assert classes.item() == pytest.approx((math.log(8 / 5) + math.log(4)) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Gradients; nothing to learn from


def _zero_weights(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.float64)


CASES = {
    "semantics": lambda x, w: semantic_cross_entropy(x.view(-1, 3) * 4, torch.arange(len(x) // 3) % 3, None, w[::3]),
    "silog": lambda x, w: silog(1 + 9 * x, 1 + 9 * x.detach().flip(0), w),
    "distortion": lambda x, w: weighted_mean(
        distortion(x.view(-1, 3), torch.arange(3.0).expand(len(x) // 3, 3) ** 2, 0.5), w[::3]
    ),
    "opacity": opacity_entropy,
    "empty": empty_space,
    "depth_distribution": lambda x, w: depth_distribution(
        x.view(-1, 3, 1, 1), ((w[::3] > 0)[:, None] * torch.tensor([0.25, 0.75, 0])).to(x.dtype).view(-1, 3, 1, 1)
    ),
    "occupancy": lambda x, w: occupancy_cross_entropy(x, torch.arange(len(x)) % 2 == 0, w),
    "voxels": lambda x, w: sum(
        voxel_cross_entropy(
            x[:, None, None],
            torch.stack([x, 1 - x], dim=-1)[:, None, None],
            (torch.arange(len(x)) % 2)[:, None, None],
            (torch.arange(len(x)) % 3 > 0)[:, None, None],
            (w > 0)[:, None, None],
            0.4,
        )
    ),
    "total_variation": lambda x, w: total_variation(x.view(-1, 3, 1)) * w.sum(),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_finite_differences(name):
    values = leaf(random(12, seed=3, low=0.1, high=0.9))
    weights = random(12, seed=4, low=0.5) * (torch.arange(12) % 4 != 3)
    if name == "silog":  # its target must stay where it is while the values move
        target = 1 + 9 * values.detach().flip(0)
        assert torch.autograd.gradcheck(lambda x: silog(1 + 9 * x, target, weights), values)
    else:
        assert torch.autograd.gradcheck(lambda x: CASES[name](x, weights), values)


@pytest.mark.parametrize("count", [0, 12])
@pytest.mark.parametrize("name", CASES)
def test_with_nothing_that_counts_a_loss_is_zero_and_can_be_differentiated(name, count):
    values = leaf(random(count))
    loss = CASES[name](values, _zero_weights(count))
    loss.backward()
    assert loss.item() == 0
    assert values.grad is not None and values.grad.eq(0).all()
