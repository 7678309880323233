"""The settings with which Numba compiles all loops of this package.

Numba keeps compiled loops on disk. It compiles a loop again when the loop's own file has changed, and looks at no other
file: after a change of the settings here, touch the files of the loops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numba

__all__ = ["compiler"]


def compiler(fastmath: Collection[str] = (), nogil: bool = True) -> Callable:
    """A decorator: compile at the first call, keep it on disk where that is possible, divide by zero as NumPy does.

    Args:
        fastmath: LLVM's flags that allow less exact floating-point arithmetic; none of them is IEEE arithmetic.
        nogil: release the interpreter's lock, for loops that run in several threads.
    """
    options = {"nogil": nogil, "error_model": "numpy", "fastmath": set(fastmath)}

    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder, nor NUMBA_CACHE_DIR, nor the home can be written
            return numba.njit(**options)(function)

    return compiled
