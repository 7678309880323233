"""Reads ROS parameter files of the node `renderocc`, without ROS."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from renderocc_model.base.config import from_mapping, nested, settings_of
from renderocc_model.base.plain_yaml import read_yaml
from renderocc_model.rosio.vehicle import Vehicle

__all__ = ["NODE_NAME", "OtherNodes", "ParameterFileError", "node_parameters", "vehicle_of_file"]

NODE_NAME = "renderocc"
_LIKE = 0.85  # from this likeness of two names, one is the other with a slip of the pen


class ParameterFileError(ValueError):
    """The file is no ROS parameter file, or has nothing for the node. The text names the file and says what to do."""


class OtherNodes(ParameterFileError):
    """The file has parameters, but none for the node."""


def node_parameters(path: str | Path) -> dict[str, Any]:
    """{name: value} that a ROS parameter file has for the node, nested names joined by '.'.

    Raises:
        ParameterFileError: the file cannot be read or has no parameters; OtherNodes: those of other nodes only.
    """
    try:
        document = read_yaml(path)
    except OSError as error:
        raise ParameterFileError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ParameterFileError(str(error)[:300]) from None
    sections = list(_sections(document, ""))
    if not sections:
        raise ParameterFileError(
            f"{path}: there is no 'ros__parameters' in it; begin with '/**/{NODE_NAME}:', then '  ros__parameters:'"
        )
    own = [(name, values) for name, values in sections if name.strip("/").split("/")[-1] in (NODE_NAME, "**", "")]
    if not own:
        others = ", ".join(name for name, _ in sections)
        raise OtherNodes(
            f"{path}: no section is for the node {NODE_NAME!r} (there is {others}); begin it with '/**/{NODE_NAME}:'"
        )
    return {key: value for _, section in own for key, value in _flattened(section)}


def vehicle_of_file(path: str | Path) -> Vehicle:
    """The vehicle that a ROS parameter file describes. Parameters that are the node's alone are left out.

    Raises:
        ValueError: the file cannot be used, a value is wrong, or a name is nearly that of a setting.
    """
    known = {setting.name: setting for setting in settings_of(Vehicle)}
    given = {}
    for name, value in node_parameters(path).items():
        if name in known:
            several = isinstance(known[name].default, tuple) and isinstance(value, list)
            given[name] = [item for item in value if item != ""] if several else value
        elif near := difflib.get_close_matches(name, known, 1, cutoff=_LIKE):
            raise ValueError(f"{path}: unknown parameter {name!r}; did you mean {near[0]!r}?")
    return from_mapping(Vehicle, nested(given), where=str(path))


def _sections(document: object, name: str) -> Iterator[tuple[str, Mapping]]:
    """ROS allows nested node names: /ns: {node: {ros__parameters: ...}} is /ns/node."""
    if not isinstance(document, Mapping):
        return
    for key, value in document.items():
        if key == "ros__parameters" and isinstance(value, Mapping):
            yield name or "/**", value
        else:
            yield from _sections(value, f"{name}/{str(key).strip('/')}")


def _flattened(section: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
