"""Numba's compiler, as all loops here are given to it.

Numba looks at the file of a loop alone to tell whether what it has on disk is up to date: who changes here how loops
are compiled touches those files, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numba

__all__ = ["compiler"]


def compiler(fastmath: Collection[str] = (), nogil: bool = True) -> Callable:
    """A decorator: compile at the first call, keep it on disk where that is possible, divide by zero as NumPy does.

    Args:
        fastmath: LLVM's flags of what may be done to floating point; none is IEEE arithmetic.
        nogil: whether the interpreter goes on meanwhile, for loops that run in several threads.
    """
    options = {"nogil": nogil, "error_model": "numpy", "fastmath": set(fastmath)}

    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder, nor NUMBA_CACHE_DIR, nor the home can be written
            return numba.njit(**options)(function)

    return compiled
