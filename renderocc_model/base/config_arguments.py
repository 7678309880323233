"""Arguments of a command from a configuration class, so that a setting is described once."""

from __future__ import annotations

import argparse
import typing
from typing import TypeVar

from renderocc_model.base.config import Setting, from_mapping, settings_of

__all__ = ["add_arguments", "from_arguments"]

T = TypeVar("T")

_METAVARS = {int: "N", float: "X", str: "NAME"}


def add_arguments(parser: argparse._ActionsContainer, cls: type) -> None:
    """Add one option for each setting of a configuration class: `max_gap` becomes `--max-gap`, in nested classes too.

    A setting that is true or false becomes a switch; its default must be false. A tuple takes one word or more.

    Args:
        parser: gets the options, with the settings' help texts and defaults.
        cls: decorated with `configuration`.
    """
    for setting in settings_of(cls):
        flag, text = f"--{_own_name(setting).replace('_', '-')}", _help(setting)
        if setting.type is bool:
            assert setting.default is False, f"{flag}: a switch can only turn a setting on"
            parser.add_argument(flag, action="store_true", help=text)
            continue
        several = typing.get_origin(setting.type) is tuple
        kind = typing.get_args(setting.type)[0] if several else setting.type
        metavar = _METAVARS[kind]
        if setting.choices is not None:
            metavar = f"{{{','.join(str(choice) for choice in setting.choices if choice != '')}}}"
        parser.add_argument(
            flag,
            type=kind,
            default=setting.default,
            choices=setting.choices,
            metavar=metavar,
            help=text,
            nargs="+" if several else None,
        )


def from_arguments(arguments: argparse.Namespace, cls: type[T]) -> T:
    """The configuration that parsed arguments describe.

    Raises:
        ValueError: a value is out of range, or the values do not fit together.
    """
    given: dict = {}
    for setting in settings_of(cls):
        *parents, name = setting.name.split(".")
        value, place = getattr(arguments, name), given
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return from_mapping(cls, given, where="options")


def _own_name(setting: Setting) -> str:
    return setting.name.rpartition(".")[2]


def _help(setting: Setting) -> str:
    default = "" if setting.default in ("", ()) or setting.default is False else f" (default {setting.default})"
    return f"{setting.help}{default}".replace("%", "%%")
