"""Random subsets of equal chance, at a cost that follows from their own size."""

from __future__ import annotations

import numpy as np

__all__ = ["choose"]


def choose(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """`count` different numbers below `size`, every set equally likely; (count,) int64, in no particular order."""
    if count > size:
        raise ValueError(f"{count} of {size} items cannot be chosen without repetition")
    if count * 4 >= size:
        return rng.permutation(size)[:count]
    # Draw with repetition until there are enough different ones, and drop the excess at random: no item is special in
    # any of it, so every set is as likely, and nothing is done per item that is not drawn.
    found = np.empty(0, np.int64)
    while len(found) < count:
        drawn = rng.integers(size, size=round((count - len(found)) * (1 + 0.6 * count / size)) + 8)
        found = np.sort(np.concatenate([found, drawn]))
        found = found[np.concatenate([[True], found[1:] != found[:-1]])]
    excess = choose(rng, len(found), len(found) - count)
    return np.delete(found, excess)
