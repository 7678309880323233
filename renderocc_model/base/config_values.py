"""Checks the values of configurations and converts plain data into them. Errors name the place and the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # of Python 3.11; here for type checkers and editors alone
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorator: decorator


__all__ = ["build", "convert", "fields_of", "unknown_name"]


def fields_of(cls: type) -> list[tuple[dataclasses.Field, Any]]:
    """The fields that can be given, each with its type."""
    hints = typing.get_type_hints(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def build(cls: type, mapping: Any, where: str, path: str, base: Any) -> Any:
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"{where}: {_quoted(path)} is {_shown(mapping)}; expected `name: value` lines for {cls.__name__}"
        )
    fields = fields_of(cls)
    known = [field.name for field, _ in fields]
    for key in mapping:
        if key not in known:
            raise ValueError(f"{where}: {unknown_name(key, known, path)}")
    values = {}
    for field, kind in fields:
        name = f"{path}.{field.name}" if path else field.name
        if base is not None:
            default = getattr(base, field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        else:
            default = dataclasses.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in mapping:
            values[field.name] = convert(mapping[field.name], kind, field, where, name, default)
        elif default is dataclasses.MISSING:
            raise ValueError(f"{where}: '{name}' is missing; give a {_type_name(kind)}")
        else:
            values[field.name] = default
    try:
        return cls(**values)
    except ValueError as error:
        named = not path or str(error).startswith(f"{path.split('.')[-1]}:")  # the class may name itself
        raise ValueError(f"{where}: {error}" if named else f"{where}: {path}: {error}") from None


def convert(
    value: Any, kind: Any, field: dataclasses.Field, where: str, name: str, default: Any = dataclasses.MISSING
) -> Any:
    """The value as `kind`, checked; `default` holds the values that a nested mapping leaves out."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        members = [member for member in arguments if member is not type(None)]
        if len(members) != 1:
            raise TypeError(f"{where}: '{name}' is declared {kind}; a setting has one type, which may be optional")
        return convert(value, members[0], field, where, name, default)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        return build(kind, value, where, name, default if isinstance(default, kind) else None)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: '{name}' is {_shown(value)}; expected a list, {_expected(kind, field)}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise ValueError(f"{where}: '{name}' has {len(value)} entries; expected {_expected(kind, field)}")
        return tuple(
            convert(entry, entry_kind, field, where, f"{name}[{index}]")
            for index, (entry, entry_kind) in enumerate(zip(value, kinds))
        )
    return _scalar(value, kind, field, where, name)


def _scalar(value: Any, kind: Any, field: dataclasses.Field, where: str, name: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float:
        fits = number and math.isfinite(value)
    elif kind is int:
        fits = number and isinstance(value, int)
    elif kind in (bool, str):
        fits = isinstance(value, kind)
    else:
        raise TypeError(
            f"{where}: '{name}' is declared {kind}; settings are bool, int, float, str, tuples and classes of them"
        )
    low, high, choices = (field.metadata.get(key) for key in ("min", "max", "choices"))
    if fits and number:
        fits = (low is None or value >= low) and (high is None or value <= high)
    if fits and choices is not None:
        fits = value in choices
    if not fits:
        words = [choice for choice in choices or () if isinstance(choice, str)]
        near = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}: '{name}' is {_shown(value)}; expected {_expected(kind, field)}{hint}")
    return kind(value)


def unknown_name(key: Any, known: list[str], path: str) -> str:
    near = difflib.get_close_matches(str(key), known, 1, cutoff=0.5)
    given = f"{path}.{key}" if path else f"{key}"
    near = [f"{path}.{name}" if path else name for name in near]
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"'{given}' is not a setting; {hint}the settings here are {', '.join(known)}"


def _expected(kind: Any, field: dataclasses.Field) -> str:
    low, high, choices = (field.metadata.get(key) for key in ("min", "max", "choices"))
    text = _type_name(kind)
    if choices is not None:
        text = "one of " + ", ".join(repr(choice) for choice in choices)
    elif low is not None and high is not None:
        text += f" from {low:g} to {high:g}"
    elif low is not None:
        text += f", at least {low:g}"
    elif high is not None:
        text += f", at most {high:g}"
    help = field.metadata.get("help")
    return f"{text} ({help})" if help else text


def _type_name(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        entry = names.get(arguments[0], getattr(arguments[0], "__name__", str(arguments[0])))
        return f"a list, each entry {entry}" if arguments[-1] is Ellipsis else f"{len(arguments)} entries, each {entry}"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _quoted(path: str) -> str:
    return f"'{path}'" if path else "the content"


def _shown(value: Any) -> str:
    return f"{reprlib.repr(value)} ({type(value).__name__})"
