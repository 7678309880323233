"""The loops of `cpu_loops`, loaded when the first picture needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["compiled_loops"]


def compiled_loops() -> ModuleType:
    """The module `cpu_loops`, which loads Numba; ModuleNotFoundError says what to install."""
    try:
        return importlib.import_module(".cpu_loops", __package__)
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        raise ModuleNotFoundError(
            "camera images on the CPU need Numba: python3 -m pip install numba", name=error.name
        ) from None
