"""Arguments of a command from a configuration class, so that a setting is described once."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from renderocc_model.base.config import Setting, from_mapping, nested, settings_of

__all__ = ["add_arguments", "from_arguments"]

T = TypeVar("T")

_METAVARS = {int: "N", float: "X", str: "NAME"}


def add_arguments(
    parser: argparse._ActionsContainer, cls: type, also: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    """Add one option for each setting of a configuration class: `max_gap` becomes `--max-gap`, in nested classes too.

    A setting that is true or false becomes a switch: `--name` where it is false by default, else `--no-name`. A tuple
    takes one word or more. Options that are not given have no value, so that `from_arguments` can take it elsewhere.

    Args:
        parser: gets the options, with the settings' help texts.
        cls: decorated with `configuration`.
        also: {setting: other names of its option}.
    """
    for setting in settings_of(cls):
        flags, text = (f"--{_own_name(setting).replace('_', '-')}", *also.get(setting.name, ())), _help(setting)
        if setting.type is bool:
            name = f"--no-{flags[0][2:]}" if setting.default else flags[0]
            parser.add_argument(
                name, dest=_own_name(setting), action="store_const", const=not setting.default, default=None, help=text
            )
            continue
        several = typing.get_origin(setting.type) is tuple
        kind = typing.get_args(setting.type)[0] if several else setting.type
        metavar = _METAVARS[kind]
        if setting.choices is not None:
            metavar = f"{{{','.join(str(choice) for choice in setting.choices if choice != '')}}}"
        parser.add_argument(
            *flags,
            type=kind,
            choices=setting.choices,
            metavar=metavar,
            help=text,
            nargs="+" if several else None,
        )


def from_arguments(arguments: argparse.Namespace, cls: type[T], base: T | None = None) -> T:
    """The configuration that parsed arguments describe.

    Args:
        arguments: of a parser with the options of `add_arguments`.
        cls: the configuration class.
        base: the values of options that were not given; the class's defaults where it is None.
    Raises:
        ValueError: a value is out of range, or the values do not fit together.
    """
    given = {setting.name: getattr(arguments, _own_name(setting), None) for setting in settings_of(cls)}
    chosen = nested({name: value for name, value in given.items() if value is not None})
    return from_mapping(cls, chosen, where="options", base=base)


def _own_name(setting: Setting) -> str:
    return setting.name.rpartition(".")[2]


def _help(setting: Setting) -> str:
    default = "" if setting.default in ("", ()) or setting.default is False else f" (default {setting.default})"
    return f"{setting.help}{default}".replace("%", "%%")
