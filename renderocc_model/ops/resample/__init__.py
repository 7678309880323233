"""Camera bytes to the network's views."""

from __future__ import annotations

__all__ = ["compiled_loops"]


def compiled_loops():
    """The module `cpu_loops`, which loads Numba; ModuleNotFoundError says what to install."""
    try:
        from . import cpu_loops
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        raise ModuleNotFoundError(
            "camera images on the CPU need Numba: python3 -m pip install numba", name=error.name
        ) from None
    return cpu_loops
