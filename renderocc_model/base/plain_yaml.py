"""YAML as data: no tags that make objects, each key once, and never much more memory than the text takes."""

from __future__ import annotations

import io
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

__all__ = ["MAX_YAML_BYTES", "parse_yaml", "read_yaml", "yaml_text"]

MAX_YAML_BYTES = 1 << 20  # a configuration is a page or two; more is a wrong file
# Aliases share what they stand for, but whoever walks or prints it meets every copy: a page of them can be 10^9 values.
MAX_VALUES = 500_000
MAX_DIGITS = 400  # a float64 written out has 309 before its point
_BLOCK = 1 << 16
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


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
    """The content of YAML 1.1 text, in which numbers with an exponent need no decimal point.

        >>> parse_yaml("rate: 1e-4\\ncameras: [front, left]", "example")
        {'rate': 0.0001, 'cameras': ['front', 'left']}

    Args:
        data: the text; bytes are UTF-8 or UTF-16.
        where: names the text in errors.
    Raises:
        ValueError: it is not readable YAML, gives a key twice, nests too deeply, or is too large with its aliases.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", YAMLWarning)  # of numbers like 1e-4, which YAML 1.1 has not
            return _reader().load(data)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise ValueError(f"{where}: is not readable YAML: a key is given twice, in line {line}; keep one") from None
    except YAMLError as error:
        raise ValueError(f"{where}: is not readable YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{where}: is nested too deeply for a configuration") from None
    except (ValueError, AttributeError, IndexError, KeyError, TypeError, OverflowError, AssertionError) as error:
        # Bytes that are no UTF-8, a date that no calendar has, a number of thousands of digits; and what the
        # constructors raise where a tag does not fit its value: `!!timestamp x`, `!!int ""`.
        raise ValueError(f"{where}: is not readable YAML: {type(error).__name__}: {error}") from None


def yaml_text(content: Any) -> str:
    """Plain data as YAML, keys in their order; `parse_yaml` reads it back.

    >>> print(yaml_text({"rate": 1e-4, "cameras": ["front", "left"]}), end="")
    rate: 0.0001
    cameras:
    - front
    - left
    """
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.representer.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    writer.dump(content, stream)
    return stream.getvalue()


def _reader() -> YAML:
    reader = YAML(typ="safe", pure=True)  # not the compiled loader, whose parts cannot be replaced
    reader.version = (1, 1)  # as ROS reads its parameter files: `on` and `yes` are true
    reader.Composer = _BoundedComposer
    return reader


class _BoundedComposer(Composer):
    """Looks at the graph of nodes, which is as large as the text, before values are made of it."""

    def get_single_node(self) -> Any:
        document = super().get_single_node()
        if document is not None:
            _count_values(document, {})
        return document


def _count_values(node: Node, counts: dict[int, int]) -> int:
    """How many values a node is with its aliases.

    Args:
        counts: of each node that was counted, by id; 0 while it is being counted.
    Raises:
        ComposerError: they are too many, an alias stands for what it is in, or a key or number is none.
    """
    known = counts.get(id(node))
    if known == 0:
        raise ComposerError(None, None, "an alias stands for what it is in", node.start_mark)
    if known is not None:
        return known
    counts[id(node)] = 0
    count = 1
    if isinstance(node, ScalarNode):
        if str(node.tag) in _NUMBERS and len(node.value) > MAX_DIGITS:  # 1:1:1:... takes the square of its length
            raise ComposerError(None, None, f"a number of more than {MAX_DIGITS} digits", node.start_mark)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise ComposerError(None, None, "a key must be a plain word", key.start_mark)
            count += _count_values(key, counts) + _count_values(value, counts)
    else:
        count += sum(_count_values(part, counts) for part in node.value)
    if count > MAX_VALUES:
        raise ComposerError(None, None, f"with its aliases it is more than {MAX_VALUES} values", node.start_mark)
    counts[id(node)] = count
    return count
