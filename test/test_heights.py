"""Logits of heights read along rays: what they are, and that all implementations agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renderocc_model.ops.heights import choose, height_logits

BACKENDS = ("reference", "cpu")
LOWEST, HIGHEST = -1.0, 3.0


def rays(seed: int, images=3, heights=5, height=4, width=6, depths=7) -> tuple[torch.Tensor, ...]:
    """Logits, start, slope and depths: rays that leave the heights at both ends, and level ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, heights, height, width, generator=generator)
    slope = torch.randn(images, height, width, generator=generator)
    slope[0, 0] = 0
    return logits, torch.rand(images, generator=generator) * 2, slope, torch.linspace(0.5, 6, depths)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", [{}, {"heights": 2}, {"width": 1, "height": 1}, {"depths": 1}, {"images": 1}])
def test_a_depth_has_the_logit_of_its_rays_height(backend, sizes):
    logits, start, slope, depths = rays(1, **sizes)
    found = height_logits(logits, start, slope, depths, LOWEST, HIGHEST, backend)
    steps = np.linspace(LOWEST, HIGHEST, logits.shape[1])
    assert found.shape == (len(logits), len(depths), *slope.shape[1:]) and found.dtype == torch.float32
    for image, number, row, column in np.ndindex(*found.shape):
        height = float(start[image] + slope[image, row, column] * depths[number])
        expected = np.interp(height, steps, logits[image, :, row, column].numpy())  # constant beyond the ends
        assert found[image, number, row, column].item() == pytest.approx(expected, abs=1e-5)


def test_the_gradients_of_the_loops_are_those_of_the_reference():
    logits, start, slope, depths = rays(2, width=9)
    upstream = torch.randn(3, 7, 4, 9)
    gradients = []
    for backend in BACKENDS:
        leaf = logits.clone().requires_grad_()
        height_logits(leaf, start, slope, depths, LOWEST, HIGHEST, backend).backward(upstream)
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_the_reference_is_differentiable():
    logits, *others = (part.double() for part in rays(3, images=2, height=2, width=2))
    assert choose(logits, "auto") == "reference"
    torch.autograd.gradcheck(lambda x: height_logits(x, *others, LOWEST, HIGHEST), logits.requires_grad_())


def test_layouts_half_precision_and_threads_change_nothing(monkeypatch):
    from renderocc_model.ops.heights import cpu_kernel

    logits, *others = rays(4, height=8, width=12)
    expected = height_logits(logits, *others, LOWEST, HIGHEST, "cpu")
    last = logits.contiguous(memory_format=torch.channels_last)
    assert torch.equal(height_logits(last, *others, LOWEST, HIGHEST, "cpu"), expected)
    half = height_logits(logits.bfloat16(), *others, LOWEST, HIGHEST, "cpu")
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)
    monkeypatch.setattr(cpu_kernel, "NUMBERS_WORTH_A_THREAD", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(height_logits(logits, *others, LOWEST, HIGHEST, "cpu"), expected)
    finally:
        torch.set_num_threads(before)


def test_what_does_not_fit_together_is_refused():
    logits, start, slope, depths = rays(5)
    for wrong in ((logits[:, :1], start, slope), (logits, start[:2], slope), (logits, start, slope[:, :2])):
        with pytest.raises(ValueError, match=r"height logits: logits are .*; expected .M, K, H, W. with K >= 2"):
            height_logits(*wrong, depths, LOWEST, HIGHEST)
    with pytest.raises(ValueError, match="has no loops for this operator; use backend='reference'"):
        height_logits(logits, start, slope, depths, LOWEST, HIGHEST, "triton")
    with pytest.raises(ValueError, match="works in float32, and the logits are float64"):
        height_logits(logits.double(), start, slope, depths, LOWEST, HIGHEST, "cpu")
