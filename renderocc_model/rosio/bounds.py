"""Bounds for the storage files of recordings: a damaged or hostile file does not get the memory that it asks for.

rosbags reads records as long as they say they are and unpacks chunks to whatever size comes out, and SQLite runs what
a database defines: a view in place of a table can go on for ever. All recordings are opened through here. The bounds
hold for these readers alone; other users of rosbags in the process keep its own functions.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import sqlite3
import sys
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Protocol

from lz4.frame import LZ4FrameDecompressor
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2.metadata import ReaderMetadata, parse_qos

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "MAX_UNPACKED_BYTES",
    "MeasuredPath",
    "StorageReader",
    "bounded_qos",
    "open_bounded",
    "unpack_file",
    "unpacked_message",
]

MAX_UNPACKED_BYTES = 1 << 29  # of one message or one chunk of messages; recorders write chunks of about a megabyte
MAX_QOS_TEXT = 1 << 16  # of one topic; a publisher takes two hundred characters
_LARGE_READ = 1 << 16
_SPARE_DISK = 1 << 28  # what unpacking leaves free
_BLOCK = 1 << 20


class MeasuredPath(type(Path())):  # type: ignore[misc]  # Path itself has no flavour before Python 3.12
    """A path whose files, when read, take memory for what is there, not for what a damaged length asks for."""

    __slots__ = ()

    def open(self, mode: str = "r", *arguments, **named):
        return _MeasuredFile(self) if mode == "rb" else super().open(mode, *arguments, **named)


class _MeasuredFile(io.BufferedReader):
    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LARGE_READ:
            size = max(0, min(size, self._size - self.tell()))
        return super().read(size)


def unpacked_message(data: bytes) -> bytes:
    """The content of a zstd-compressed message.

    Raises:
        ValueError: it is cut off, or more than MAX_UNPACKED_BYTES.
    """
    return _bounded(zstd.ZstdDecompressor, data, MAX_UNPACKED_BYTES)


def _bounded(make, data: bytes, most: int) -> bytes:
    """What is packed in one or more frames, no more than is allowed."""
    parts, left = [], most
    while data:
        unpacker = make()
        part = unpacker.decompress(data, left + 1)
        left -= len(part)
        if left < 0:
            raise ValueError(f"unpacks to more than {most} bytes")
        if not unpacker.eof:
            raise ValueError("the compressed data is cut off")
        parts.append(part)
        data = unpacker.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _chunk_reader(make):
    """For rosbags: unpack a chunk to the size that its record says, which is itself bounded."""

    def decompress(data: bytes, size: int) -> bytes:
        return _bounded(make, data, min(size, MAX_UNPACKED_BYTES))

    return decompress


def bounded_qos(profiles: list | str) -> list[Qos]:
    """rosbags' `parse_qos`, of a text that does not take minutes to read.

    Raises:
        ValueError: it is longer than recorders write it.
    """
    if isinstance(profiles, str) and len(profiles) > MAX_QOS_TEXT:
        raise ValueError(f"the QoS of a topic is {len(profiles)} characters; expected at most {MAX_QOS_TEXT}")
    return parse_qos(profiles)


DECOMPRESSORS = {
    "": lambda data, size: data,
    "lz4": _chunk_reader(LZ4FrameDecompressor),
    "zstd": _chunk_reader(zstd.ZstdDecompressor),
}


class StorageReader(Protocol):
    """What is used of rosbags' readers of single files."""

    connections: list[Connection]
    metadata: ReaderMetadata

    def open(self) -> None: ...

    def close(self) -> None: ...

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]: ...


def _bounded_copy(name: str, **ours: Any) -> ModuleType:
    """A second copy of a module of rosbags in which these functions are ours; the module itself stays as it is.

    rosbags has no parameter for them: its readers take them from their module.
    """
    spec = importlib.util.find_spec(f"rosbags.rosbag2.{name}")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = sorted(set(ours) - set(vars(module)))
    if missing:
        raise ImportError(
            f"rosbags.rosbag2.{name} has no {', '.join(missing)} that could be bounded; install a version of rosbags "
            f"that requirements.txt allows"
        )
    vars(module).update(ours)
    return module


_READERS: dict[str, Callable[[Path], StorageReader]] = {
    ".mcap": _bounded_copy("storage_mcap", parse_qos=bounded_qos, DECOMPRESSORS=DECOMPRESSORS).McapReader,
    ".db3": _bounded_copy("storage_sqlite3", parse_qos=bounded_qos).Sqlite3Reader,
}


def open_bounded(file: Path) -> StorageReader:
    """Open one .mcap or .db3 file; the caller closes it.

    Raises:
        ValueError: it is a database that computes what it holds.
        Exception: whatever rosbags, SQLite and the decompressors raise on damaged bytes.
    """
    if file.suffix == ".db3":
        refuse_programs(file)
    reader = _READERS[file.suffix](MeasuredPath(file))
    reader.open()
    return reader


def unpack_file(packed: BinaryIO, target: Path) -> None:
    """Write a zstd-compressed file's content, as long as the disk has room for more than that.

    Raises:
        ValueError: the disk is nearly full; what was written is left to the caller's temporary folder.
    """
    with zstd.open(packed, "rb") as content, target.open("wb") as unpacked:
        while block := content.read(_BLOCK):
            free = shutil.disk_usage(target.parent).free
            if free < _SPARE_DISK:
                raise ValueError(f"unpacking it fills the disk of {target.parent} ({free >> 20} MB are left)")
            unpacked.write(block)


def refuse_programs(file: Path) -> None:
    """Refuse a database that computes what it holds: no recorder writes views, triggers, virtual or generated columns.

    Raises:
        ValueError: names what it has.
        sqlite3.Error: it is no database, or damaged.
    """
    place = f"file:{urllib.parse.quote(str(file))}?immutable=1"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as database:
        for kind, name, text in database.execute("SELECT type, name, sql FROM sqlite_master"):
            words = str(text or "").upper().split()
            if kind not in ("table", "index") or words[1:2] == ["VIRTUAL"]:
                raise ValueError(f"has a {kind} {name!r:.60} that is more than a table, which no recorder writes")
            if kind == "table":
                columns = database.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", (name,))
                computed = [column for column, hidden in columns if hidden]
                if computed:
                    raise ValueError(f"computes {name!r:.60}.{computed[0]!r:.60}, which no recorder's files do")
