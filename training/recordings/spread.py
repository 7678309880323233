"""Chooses a few of many, spread evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["evenly_spread"]

One = TypeVar("One")


def evenly_spread(values: Sequence[One], count: int) -> list[One]:
    """`count` of the values, from the first to the last; all of them for 0, or if there are no more.

    >>> evenly_spread(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    if not count or len(values) <= count:
        return list(values)
    return [values[index] for index in np.linspace(0, len(values) - 1, count).astype(int)]
