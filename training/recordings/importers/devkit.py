"""Reads the nuScenes devkit's JSON tables without the devkit, one record at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from .importing import DatasetError

__all__ = ["DevkitTables", "field", "records"]

_CHUNK = 1 << 20
_TEXTS = ("name", "channel", "modality", "filename")


def records(path: Path) -> Iterator[dict]:
    """Yield the objects of a JSON array of any length. Only about a megabyte of its text is in memory at a time.

    Raises:
        DatasetError: the file is missing, is not a JSON array of objects, or is cut off.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path}: this table is missing; unpack the metadata archive of this version into {path.parent.parent}"
        )
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:

        def read(count: int) -> str:
            try:
                return file.read(count)
            except UnicodeDecodeError as error:
                raise DatasetError(f"{path}: the file is damaged ({error}); unpack it again") from None

        text = read(_CHUNK).lstrip()
        if not text.startswith("["):
            raise DatasetError(
                f"{path}: not a JSON array; a devkit table is a list of records; unpack the archive again"
            )
        text = text[1:]
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                record, used = decoder.raw_decode(text)
            except RecursionError:
                raise DatasetError(f"{path}: a record is nested too deeply ({text[:60]!r}); unpack it again") from None
            except json.JSONDecodeError as error:
                more = read(max(_CHUNK, len(text)))
                if not more:
                    raise DatasetError(
                        f"{path}: the file is cut off or damaged ({error.msg} in {text[:60]!r}); unpack it again"
                    ) from None
                text += more
                continue
            if not isinstance(record, dict):
                raise DatasetError(f"{path}: contains {record!r:.60}; expected a record; unpack the archive again")
            yield record
            text = text[used:]


def field(record: dict, name: str, path: Path):
    """One entry of a record.

    Raises:
        DatasetError: the entry is missing. The text names the table and the record's token.
    """
    if name not in record:
        raise DatasetError(
            f"{path}: record {record.get('token', '?')} has no '{name}'; this is not a table of the nuScenes devkit"
        )
    return record[name]


class DevkitTables:
    """The tables of one version of a dataset.

    Args:
        root: folder that contains `samples/` and the version's folder.
        version: "v1.0-mini", "v1.0-trainval", ...
    """

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version
        self.folder = root / version

    def path(self, table: str) -> Path:
        return self.folder / f"{table}.json"

    def has(self, table: str) -> bool:
        return self.path(table).is_file()

    def rows(self, table: str, *names: str) -> Iterator[tuple]:
        """Yield the named entries of every record. Tokens and names are checked to be text."""
        path = self.path(table)
        for record in records(path):
            values = tuple(field(record, name, path) for name in names)
            for name, value in zip(names, values):
                if (name in _TEXTS or name.endswith("token")) and not isinstance(value, str):
                    raise DatasetError(
                        f"{path}: record {record.get('token', '?')!r:.40} has {value!r:.40} as '{name}'; expected text"
                    )
            yield values

    def chosen(self, table: str, tokens: Collection[str], *names: str) -> dict[str, tuple]:
        """The named entries of the records with these tokens, as {token: entries}.

        Raises:
            DatasetError: a token has no record.
        """
        found = {token: tuple(rest) for token, *rest in self.rows(table, "token", *names) if token in tokens}
        missing = set(tokens) - set(found)
        if missing:
            raise DatasetError(
                f"{self.path(table)}: there is no record {min(missing)}, which another table names ({len(missing)} are "
                f"missing); the tables are of different versions; unpack all from one archive"
            )
        return found
