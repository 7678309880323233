"""Draws random subsets."""

from __future__ import annotations

import numpy as np

__all__ = ["choose"]


def choose(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Draw `count` different numbers below `size`. Every subset has the same probability.

    Args:
        rng: source of random numbers.
        size, count: count is at most size.
    Returns:
        (count,) int64, in no particular order.
    """
    if count > size:
        raise ValueError(f"{count} of {size} items cannot be chosen without repetition")
    if count * 4 >= size:
        return rng.permutation(size)[:count]
    # Draw with repetition until there are enough different numbers, then remove the excess at random. All numbers are
    # treated alike, so all subsets are equally likely. The cost depends on `count`, not on `size`.
    found = np.empty(0, np.int64)
    while len(found) < count:
        drawn = rng.integers(size, size=round((count - len(found)) * (1 + 0.6 * count / size)) + 8)
        found = np.sort(np.concatenate([found, drawn]))
        found = found[np.concatenate([[True], found[1:] != found[:-1]])]
    excess = choose(rng, len(found), len(found) - count)
    return np.delete(found, excess)
