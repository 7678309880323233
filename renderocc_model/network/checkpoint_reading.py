"""Reads the header of a checkpoint's file and checks it: nothing is built, and no code of the file is run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

__all__ = [
    "AGAIN",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "CheckpointError",
    "check_tensors",
    "checked_metadata",
    "read_header",
    "stored_in_half",
]

FORMAT_VERSION = 1
METADATA_KEY = "renderocc"
MAX_HEADER_BYTES = 16 << 20  # a network of ten thousand tensors needs 2 MB
_FLOATS = {"F64", "F32", "F16", "BF16"}


class _Entry(NamedTuple):
    """Of a stored tensor: safetensors' name of its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the text names the file, what is wrong, and what to do."""


AGAIN = "copy or download it again"


def read_header(path: Path) -> tuple[dict[str, _Entry], dict]:
    """Type and shape of each tensor in a file, and the checked metadata.

    safetensors itself refuses headers whose tensors overlap, leave gaps or end outside of the file.
    """
    from safetensors import SafetensorError, safe_open

    _check_start(path)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            table = {name: _Entry(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            metadata = file.metadata()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is truncated, damaged or no safetensors file ({str(error)[:200]}); {AGAIN}"
        ) from None
    return table, checked_metadata(path, metadata)


def stored_in_half(path: Path) -> bool:
    """Whether a checkpoint's file has weights in float16. Errors as of `read_header`."""
    return any(entry.dtype == "F16" for entry in read_header(path)[0].values())


def _check_start(path: Path) -> None:
    """Refuse other formats by name, and headers that are longer than a checkpoint's can be, before they are read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give the path of a .safetensors checkpoint"
        ) from None
    _refuse_other_formats(path, start)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise CheckpointError(
            f"{path}: is {size} bytes long, too short for a safetensors header of {length}; "
            f"it is truncated or no checkpoint: {AGAIN}"
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: has a header of {length} bytes, more than the {MAX_HEADER_BYTES} a checkpoint can need; "
            f"give a checkpoint written by this package"
        )


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise CheckpointError(
            f"{path}: is a PyTorch pickle, which can run code when it is loaded; "
            f"give a .safetensors checkpoint written by this package"
        )
    if start == b"version ":
        raise CheckpointError(f"{path}: is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")


def checked_metadata(path: Path, metadata: object) -> dict:
    text = metadata.get(METADATA_KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(text, str):
        raise CheckpointError(
            f"{path}: is a safetensors file without {METADATA_KEY!r} metadata; give one written by this package"
        )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: its {METADATA_KEY!r} metadata is not a JSON table; {AGAIN}")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has checkpoint format {str(version)[:40]}, this package reads {FORMAT_VERSION}; "
            f"update the package or export the checkpoint anew"
        )
    kinds: dict[str, type | tuple[type, ...]] = {
        "model": dict,
        "classes": dict,
        "threshold": (int, float),
        "rig": (dict, type(None)),
        "provenance": dict,
    }
    for key, kind in kinds.items():
        if key not in content or not isinstance(content[key], kind):
            raise CheckpointError(f"{path}: its metadata lacks a proper {key!r}; export the checkpoint anew")
    return content


def check_tensors(path: Path, table: Mapping[str, _Entry], wanted: Mapping[str, Tensor]) -> None:
    missing = [name for name in wanted if name not in table]
    unexpected = [name for name in table if name not in wanted]
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: is not of the network it describes: {_some('missing', missing)}, "
            f"{_some('unexpected', unexpected)}; export the checkpoint anew from the network that made it"
        )
    for name, tensor in wanted.items():
        entry = table[name]
        if entry.shape != tuple(tensor.shape) or (entry.dtype in _FLOATS) != tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: tensor {name!r} is {entry.dtype} {list(entry.shape)}, its network has {tensor.dtype} "
                f"{list(tensor.shape)}; export the checkpoint anew from the network that made it"
            )


def _some(what: str, names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {what} tensors ({shown}{more})" if names else f"no {what} tensors"
