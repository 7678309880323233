"""The description in an exported file, read without the runtime that runs the file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from renderocc_model.export.openvino_file import CHECKPOINT
from renderocc_model.network.checkpoint import METADATA_KEY, CheckpointError, Description, described

__all__ = ["ENDINGS", "OPENVINO_ENDING", "is_exported", "read_description"]

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
OPENVINO_ENDING = ".openvino"
_MAX_METADATA_BYTES = 16 << 20
_METADATA_PROPS = 14  # field of ONNX's ModelProto: repeated (1: key, 2: value)
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE = "model", "graph", "node", "attribute", "tensor", "sparse tensor"
# Where in an ONNX model tensors can be: {message: {field: message}}.
_PARTS = {
    _MODEL: {7: _GRAPH, 25: "function"},
    "function": {7: _NODE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
_EXTERNAL_DATA = 13  # field of TensorProto: the file that its values are in
_MOST_NESTED = 12  # depth of graphs within graphs, in messages
_AGAIN = "export the checkpoint again with `renderocc export`"


def is_exported(path: str | Path) -> bool:
    """Whether a file's name says that `renderocc export` wrote it."""
    return Path(path).suffix in (*ENDINGS.values(), OPENVINO_ENDING)


def read_description(path: str | Path) -> Description:
    """Model configuration, classes, threshold, rig and provenance of an exported file; nothing is run.

    Raises:
        CheckpointError: it cannot be read, or was not written by `renderocc export`.
    """
    path = Path(path)
    try:
        readers = {ENDINGS["onnx"]: _onnx_metadata, OPENVINO_ENDING: _openvino_metadata}
        text = readers.get(path.suffix, _archive_metadata)(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); give the path of an exported file"
        ) from None
    except CheckpointError:
        raise
    except Exception:  # on arbitrary bytes zip and zlib raise errors of many types
        raise CheckpointError(f"{path}: is truncated or damaged; copy it again, or {_AGAIN}") from None
    if text is None:
        raise CheckpointError(f"{path}: has no {METADATA_KEY!r} metadata; {_AGAIN}")
    return described(path, {METADATA_KEY: text})


def _archive_metadata(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(f"/{METADATA_KEY}") and entry.file_size <= _MAX_METADATA_BYTES:
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("compressed by a method whose output size cannot be limited")
                if entry.compress_size > path.stat().st_size:  # reading would allocate this much
                    raise ValueError("claims more bytes than the file has")
                with archive.open(entry) as file:  # `archive.read` would decompress everything first
                    return file.read(_MAX_METADATA_BYTES).decode()
    return None


def _openvino_metadata(path: Path) -> str | None:
    """From the header of the checkpoint inside: its length, 8 bytes, then JSON."""
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(CHECKPOINT).compress_type != zipfile.ZIP_STORED:
            raise ValueError("compressed")
        with archive.open(CHECKPOINT) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_MAX_METADATA_BYTES, path.stat().st_size):
                raise ValueError("claims more bytes than a header can have")
            return json.loads(file.read(length))["__metadata__"].get(METADATA_KEY)


def _onnx_metadata(path: Path) -> str | None:
    """Parses the protocol buffer itself: a field is its number and wire type, then its length or value."""
    content = memoryview(path.read_bytes())
    _check_whole(path, content, _MODEL)
    for field, value in _fields(content):
        if field == _METADATA_PROPS:
            entry = dict(_fields(value))
            if bytes(entry[1]) == METADATA_KEY.encode():
                return bytes(entry[2]).decode()
    return None


def _check_whole(path: Path, message: memoryview, kind: str, depth: int = 0) -> None:
    """Refuse a model with tensors in other files: it could name any file on this computer."""
    if depth > _MOST_NESTED:
        raise ValueError("nested too deeply")
    for field, value in _fields(message):
        if kind == _TENSOR and field == _EXTERNAL_DATA:
            raise CheckpointError(f"{path}: has tensors in other files, and is refused; {_AGAIN}")
        inner = _PARTS.get(kind, {}).get(field)
        if inner is not None:
            _check_whole(path, value, inner, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, bytes) of the fields that have a length; ValueError if the message is not a protocol buffer."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        if kind not in (1, 2, 5):
            raise ValueError("not a protocol buffer")
        length, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(message, at)
        if at + length > len(message):
            raise ValueError("truncated")
        if kind == 2:
            yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("truncated")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("not a protocol buffer")
