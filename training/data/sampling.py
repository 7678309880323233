"""Draws the rays of a sample: weighted sampling without replacement, W = W_b(class) * W_t(frame).

The weights are those of RenderOcc: rare classes are drawn more often, rays of other frames less often, and moving
objects in other frames never. The method is that of Efraimidis and Spirakis (2006): every ray gets a key E / W, with E
exponential of mean 1, and the rays with the smallest keys are taken. This is equal to drawing rays one after the other
with probabilities in proportion to W.

Here rays form groups of equal weight: a class, in the current frame or in other frames. Only the number of rays of each
group is drawn with keys; within a group the choice is uniform. Rays that are not taken cost nothing, so dense labels
cost hardly more than sparse ones. The result is exact, not an approximation.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["balance_weights", "draw_group_counts", "frame_weights"]


def balance_weights(counts: np.ndarray, gain: float = 0.005, cap: float = 1000.0) -> np.ndarray:
    """W_b = exp(gain * (N_max / N_c - 1)), at most `cap` (RenderOcc, weighted ray sampling).

    Args:
        counts: (C,) labelled pixels of each class in the training recordings; a class without any gets the cap.
    Returns:
        (C,) float64; 1 for the most frequent class.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"class counts are {counts!r}; expected a row of numbers that are not negative")
    if cap < 1 or gain < 0:
        raise ValueError(f"gain is {gain} and cap {cap}; expected a gain of at least 0 and a cap of at least 1")
    largest = counts.max(initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.where(counts > 0, gain * (largest / counts - 1), math.inf)
    return np.exp(np.minimum(exponents, math.log(cap)))


def frame_weights(dynamic: np.ndarray, static_weight: float = 0.3, dynamic_weight: float = 0.0) -> np.ndarray:
    """W_t, (2, C): row 0 for rays of the current frame (1), row 1 for rays of other frames.

    Args:
        dynamic: (C,) bool, the classes that move by themselves.
        static_weight, dynamic_weight: weight of a ray of another frame, on a static and on a dynamic class.
    """
    dynamic = np.asarray(dynamic, bool)
    return np.stack([np.ones(len(dynamic)), np.where(dynamic, dynamic_weight, static_weight)])


def draw_group_counts(rng: np.random.Generator, sizes: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """The number of items of each group in a weighted sample without replacement.

    Args:
        sizes: (G,) items in each group.
        weights: (G,) weight of every item in a group; items of weight 0 are never drawn.
        count: items to draw; the sample is smaller if fewer items have a positive weight.
    Returns:
        (G,) int64, at most `sizes`.
    """
    sizes, weights = np.asarray(sizes, np.int64), np.asarray(weights, np.float64)
    if sizes.shape != weights.shape or (sizes < 0).any() or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"sizes {sizes.shape}, weights {weights.shape}; expected as many, none negative or infinite")
    left = np.where(weights > 0, sizes, 0)
    drawn = np.zeros_like(left)
    while (wanted := count - int(drawn.sum())) > 0 and left.any():
        if left.sum() <= wanted:
            return drawn + left
        # Keys are exponential with rate W. The number of keys below a threshold is binomial in each group; given this
        # number, the keys are independent. If there are too few, the other keys are drawn again above the threshold,
        # because an exponential distribution has no memory.
        threshold = _threshold(left, weights, wanted)
        below = rng.binomial(left, -np.expm1(-weights * threshold))
        if below.sum() > wanted:
            below = _smallest(rng, below, weights, threshold, wanted)
        drawn, left = drawn + below, left - below
    return drawn


def _threshold(sizes: np.ndarray, weights: np.ndarray, wanted: int) -> float:
    """A key below which slightly more than `wanted` items are expected. An inexact value only costs speed."""
    goal = min(wanted + 6 * math.sqrt(wanted) + 6, (wanted + float(sizes.sum())) / 2)

    def expected(key: float) -> float:
        return float(-(sizes * np.expm1(-weights * key)).sum())

    low = high = goal / float((sizes * weights).sum())  # expected(key) <= key * sum of weights
    while expected(high) < goal:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < goal else (low, middle)
    return high


def _smallest(
    rng: np.random.Generator, counts: np.ndarray, weights: np.ndarray, threshold: float, wanted: int
) -> np.ndarray:
    """The number of each group's keys among the `wanted` smallest, given `counts` keys below the threshold."""
    groups = np.repeat(np.arange(len(counts)), counts)
    rates = weights[groups]
    keys = -np.log1p(rng.random(len(groups)) * np.expm1(-rates * threshold)) / rates  # exponential, truncated
    first = np.argpartition(keys, wanted - 1)[:wanted]
    return np.bincount(groups[first], minlength=len(counts))
