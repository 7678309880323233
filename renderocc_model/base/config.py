"""Configuration as frozen dataclasses: names, types, defaults, ranges and help in one place.

A configuration class is written once,

    @configuration
    class Lamp:
        brightness: float = setting(0.5, "share of full power", minimum=0.0, maximum=1.0)
        colour: str = setting("white", "colour of the light", choices=("white", "red"))

and is then built from code, from YAML (`load_config`), or from `a.b=value` words of a command line
(`apply_overrides`). Each of these ways checks types, ranges and names, and says what is wrong and where.
`settings_of` lists the leaves of a class, for ROS parameters and help texts.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from renderocc_model.base.plain_yaml import parse_yaml, read_yaml

if TYPE_CHECKING:  # of Python 3.11; here for type checkers and editors alone
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorator: decorator


__all__ = [
    "Setting",
    "apply_overrides",
    "configuration",
    "from_mapping",
    "load_config",
    "load_yaml",
    "nested",
    "setting",
    "settings_of",
    "to_mapping",
]

T = TypeVar("T")


# ---------------------------------------------------------------------------------------------------------------------
# Declaring


def setting(
    default: Any,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """A field of a configuration class.

    Args:
        default: the value where none is given; a nested configuration is given as an instance.
        help: what it means and its unit, one sentence.
        minimum, maximum: inclusive bounds of a number, or of each number of a tuple.
        choices: the values allowed, of the field or of each entry of a tuple.
    """
    metadata = {"help": help, "min": minimum, "max": maximum, "choices": None if choices is None else tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True)  # without field_specifiers: every `setting(...)` is a default
def configuration(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that checks every field when it is made, then calls its own `check()`.

    `check(self)`, where a class has one, holds the conditions that tie fields together and raises ValueError.
    """

    def __post_init__(self) -> None:
        where = type(self).__name__
        for field, kind in _fields(type(self)):
            object.__setattr__(self, field.name, _convert(getattr(self, field.name), kind, field, where, field.name))
        if hasattr(self, "check"):
            self.check()

    if "__post_init__" in vars(cls):
        raise TypeError(f"{cls.__name__}: write the conditions in check(); __post_init__ is made by @configuration")
    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


@dataclass(frozen=True)
class Setting:
    """One leaf of a configuration class: dotted name, type, default, and what `setting` was told."""

    name: str
    type: Any
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple | None = None


def settings_of(config: Any, prefix: str = "") -> Iterator[Setting]:
    """The leaves of a configuration class or instance, in order; the instance's values are the defaults."""
    instance = config() if isinstance(config, type) else config
    for field, kind in _fields(type(instance)):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{prefix}{field.name}.")
        else:
            meta = field.metadata
            yield Setting(
                f"{prefix}{field.name}",
                kind,
                value,
                meta.get("help", ""),
                meta.get("min"),
                meta.get("max"),
                meta.get("choices"),
            )


# ---------------------------------------------------------------------------------------------------------------------
# Plain data <-> configuration


def from_mapping(cls: type[T], mapping: Mapping, where: str = "configuration", base: T | None = None) -> T:
    """Build a configuration class, or any dataclass with type hints, from nested plain data.

        >>> from renderocc_model.network.config import DepthConfig
        >>> from_mapping(DepthConfig, {"maximum": 40.0, "count": 80})
        DepthConfig(minimum=1.0, maximum=40.0, count=80, spacing='linear')

    Args:
        cls: the class.
        mapping: names to values; lists stand for tuples, mappings for nested classes.
        where: the file or source, for the error messages.
        base: the values of what the mapping leaves out; the class's defaults where it is None.
    Raises:
        ValueError: an unknown name (the nearest known one is given), a missing one that has no default, a value of
            the wrong type or out of range, or one that the class itself refuses.
    """
    return _build(cls, mapping, where, "", base)


def nested(values: Mapping[str, Any]) -> dict:
    """{'a.b': value} as {'a': {'b': value}}, which `from_mapping` takes."""
    content: dict = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return content


def to_mapping(config: Any) -> Any:
    """Nested plain data (dicts, lists, numbers, strings) of a configuration; `from_mapping` reads it back."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_mapping(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, (tuple, list)):
        return [to_mapping(entry) for entry in config]
    return config


def apply_overrides(config: T, overrides: Sequence[str], where: str = "override") -> T:
    """The configuration with `a.b=value` words applied; it is checked once, after the last of them.

        >>> from renderocc_model.network.config import DepthConfig
        >>> apply_overrides(DepthConfig(), ["spacing=log", "count=32"])
        DepthConfig(minimum=1.0, maximum=28.0, count=32, spacing='log')

    Values are YAML: `true`, `0.5`, `[1, 2]`, `null`; a value for a text field is taken as it is.

    Raises:
        ValueError: a word without '=', an unknown name, or a value that does not fit.
    """
    plain = to_mapping(config)
    for word in overrides:
        name, equals, text = word.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{where} {word!r}: expected name=value, for example backbone.name=resnet18")
        _assign(config, plain, name.strip().split("."), text.strip(), f"{where} {word!r}")
    return from_mapping(type(config), plain, where)


def load_config(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """A configuration class from a YAML file, then `a.b=value` words. ValueError names the file and the entry."""
    return apply_overrides(from_mapping(cls, load_yaml(path), str(path)), overrides)


def load_yaml(path: str | Path) -> dict:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Only plain data is built, a key that is given twice is refused, and `1e-4` is a number.

    Raises:
        ValueError: unreadable, larger than a configuration file may be, not YAML, or not a mapping at the top.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected `name: value` lines")
    return content


# ---------------------------------------------------------------------------------------------------------------------
# Checks and conversions


def _fields(cls: type) -> list[tuple[dataclasses.Field, Any]]:
    """The fields that can be given, each with its type."""
    hints = typing.get_type_hints(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def _build(cls: type, mapping: Any, where: str, path: str, base: Any) -> Any:
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"{where}: {_quoted(path)} is {_shown(mapping)}; expected `name: value` lines for {cls.__name__}"
        )
    fields = _fields(cls)
    known = [field.name for field, _ in fields]
    for key in mapping:
        if key not in known:
            raise ValueError(f"{where}: {_unknown(key, known, path)}")
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
            values[field.name] = _convert(mapping[field.name], kind, field, where, name, default)
        elif default is dataclasses.MISSING:
            raise ValueError(f"{where}: '{name}' is missing; give a {_type_name(kind)}")
        else:
            values[field.name] = default
    try:
        return cls(**values)
    except ValueError as error:
        named = not path or str(error).startswith(f"{path.split('.')[-1]}:")  # the class may name itself
        raise ValueError(f"{where}: {error}" if named else f"{where}: {path}: {error}") from None


def _convert(
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
        return _convert(value, members[0], field, where, name, default)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        return _build(kind, value, where, name, default if isinstance(default, kind) else None)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: '{name}' is {_shown(value)}; expected a list, {_expected(kind, field)}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise ValueError(f"{where}: '{name}' has {len(value)} entries; expected {_expected(kind, field)}")
        return tuple(
            _convert(entry, entry_kind, field, where, f"{name}[{index}]")
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


def _assign(config: Any, plain: dict, keys: list[str], text: str, where: str) -> None:
    """Set one dotted name of `plain`, the plain data of `config`, from the text of a value."""
    for depth, key in enumerate(keys):
        fields = {field.name: kind for field, kind in _fields(type(config))}
        if key not in fields:
            raise ValueError(f"{where}: {_unknown(key, list(fields), '.'.join(keys[:depth]))}")
        if depth + 1 < len(keys):
            config, plain = getattr(config, key), plain[key]
            if not dataclasses.is_dataclass(config):
                raise ValueError(
                    f"{where}: '{'.'.join(keys[: depth + 1])}' is a single value; it has no '{keys[depth + 1]}'"
                )
    kind = fields[keys[-1]]
    value = parse_yaml(text, where)
    takes_text = kind is str or (str in typing.get_args(kind) and value is not None)
    plain[keys[-1]] = (
        text if takes_text and typing.get_origin(kind) is not tuple and not isinstance(value, str) else value
    )


def _unknown(key: Any, known: list[str], path: str) -> str:
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
