"""Semantic 3D occupancy from cameras: the network, the field it predicts, the renderer, recordings. It needs no ROS.

The public names are listed in `__init__.pyi`, where editors and type checkers see them. Each is imported from its
module when it is first used. So `import renderocc_model` is light and works with nothing else installed, when
`renderocc doctor` says what is missing, and code that needs no network needs no PyTorch.

    >>> from renderocc_model import OCC3D_GRID
    >>> OCC3D_GRID.shape
    (200, 200, 16)
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

_MODULE_OF = {
    name.name: statement.module
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(statement, ast.ImportFrom)
    for name in statement.names
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
