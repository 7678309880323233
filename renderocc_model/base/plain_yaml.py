"""YAML as data: no tags that make objects, each key once, and no more of it in memory than its text promises."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MAX_YAML_BYTES", "parse_yaml", "read_yaml"]

MAX_YAML_BYTES = 1 << 20  # a configuration is a page or two; more is a wrong file
# Aliases share what they stand for, but whoever walks or prints it meets every copy: a page of them can be 10^9 values.
MAX_VALUES = 500_000
_BLOCK = 1 << 16
MOST_DIGITS = 400  # a float64 written out has 309 before its point


def read_yaml(path: str | Path, most_bytes: int = MAX_YAML_BYTES) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: too large, or not readable YAML; names the file.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        blocks = iter(lambda: file.read(_BLOCK), b"")  # `read(n)` takes n bytes at once
        data = b"".join(islice(blocks, most_bytes // _BLOCK + 1))
    if len(data) > most_bytes:
        raise ValueError(f"{path}: is larger than {most_bytes} bytes, which no such file is; check the path")
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes | str, where: str) -> Any:
    """The content of YAML text.

    Raises:
        ValueError: it is not readable YAML, nests too deeply or is too large with its aliases; begins with `where`.
    """
    try:
        return yaml.load(data, _Loader)  # noqa: S506, a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: is not readable YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{where}: is nested too deeply for a configuration") from None
    except (ValueError, AttributeError, IndexError, KeyError, TypeError, OverflowError) as error:
        # Bytes that are no UTF-8, a date of no calendar, a number of thousands of digits; and what PyYAML's
        # constructors raise where a tag is written before something else: `!!timestamp x`, `!!int ""`.
        raise ValueError(f"{where}: is not readable YAML: {type(error).__name__}: {error}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, strict about repeated keys and aliases, with exponents that need no decimal point."""

    def __init__(self, stream) -> None:
        super().__init__(stream)
        self._values: dict[int, int] = {}  # of each finished node, by id: how many values it is with its aliases

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias:
            if id(node) not in self._values:
                raise yaml.composer.ComposerError(None, None, "an alias stands for what it is in", node.start_mark)
            return node
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        self._values[id(node)] = 1 + sum(self._values[id(part)] for part in parts)
        if self._values[id(node)] > MAX_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"with its aliases it is more than {MAX_VALUES} values", node.start_mark
            )
        return node

    def construct_number(self, node: yaml.Node) -> int | float:
        if len(node.value) > MOST_DIGITS:  # 1:1:1:... takes the square of its length, and Python prints no such number
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of more than {MOST_DIGITS} digits", node.start_mark
            )
        whole = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice; keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),  # each digit matches in one way: linear in the length
    list("-+0123456789."),
)
