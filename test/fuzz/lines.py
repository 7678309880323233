"""Which lines of the parsers a set of inputs reaches, by Python's own tracing."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from pathlib import Path

from .target import Target, examine

__all__ = ["reached_lines"]

_ROOT = Path(__file__).resolve().parents[2]


def reached_lines(target: Target, inputs: Iterable[bytes]) -> dict[str, tuple[int, int]]:
    """{module: (lines of its functions that ran, lines that its functions have)}."""
    paths = {str(_ROOT / name): name for name in target.modules}
    seen: dict[str, set[int]] = {path: set() for path in paths}

    def in_function(frame: types.FrameType, event: str, _: object):
        if event == "line":
            seen[frame.f_code.co_filename].add(frame.f_lineno)
        return in_function

    def on_call(frame: types.FrameType, event: str, _: object):
        return in_function if frame.f_code.co_filename in seen else None

    sys.settrace(on_call)
    try:
        for data in inputs:
            examine(target, data)
    finally:
        sys.settrace(None)
    counts = {}
    for path, name in paths.items():
        lines = set().union(*map(_lines, _functions(compile(Path(path).read_text(encoding="utf-8"), path, "exec"))))
        counts[name] = len(seen[path] & lines), len(lines)
    return counts


def _functions(code: types.CodeType) -> Iterable[types.CodeType]:
    """The code of every function of a module; not that of modules and class bodies, which run on import."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_flags & 0x2:  # CO_NEWLOCALS: a function
                yield constant
            yield from _functions(constant)


def _lines(code: types.CodeType) -> set[int]:
    return {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
