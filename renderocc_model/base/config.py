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
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from renderocc_model.base.plain_yaml import parse_yaml, read_yaml

from .config_values import build, convert, fields_of, unknown_name

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
        for field, kind in fields_of(type(self)):
            object.__setattr__(self, field.name, convert(getattr(self, field.name), kind, field, where, field.name))
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
    for field, kind in fields_of(type(instance)):
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
    return build(cls, mapping, where, "", base)


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


def _assign(config: Any, plain: dict, keys: list[str], text: str, where: str) -> None:
    """Set one dotted name of `plain`, the plain data of `config`, from the text of a value."""
    for depth, key in enumerate(keys):
        fields = {field.name: kind for field, kind in fields_of(type(config))}
        if key not in fields:
            raise ValueError(f"{where}: {unknown_name(key, list(fields), '.'.join(keys[:depth]))}")
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
