"""Writes a rosbag2 under a hidden name, and renames it when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["new_bag"]


@contextmanager
def new_bag(folder: str | Path) -> Iterator[Path]:
    """Give a hidden folder to write to. It is renamed at the end, and removed after an exception.

    Remains of a process that was killed are removed first. At the end the storage file is named after the folder, in
    metadata.yaml too.

    Raises:
        ValueError: the folder exists, or another process is writing it.
        OSError: the disk is full or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; name another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    with _only_writer(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            yield partial
            metadata = partial / "metadata.yaml"
            for file in list(partial.iterdir()):
                if file.suffix in (".mcap", ".db3"):
                    name = f"{folder.name}{file.suffix}"
                    metadata.write_text(metadata.read_text().replace(file.name, name))
                    file.rename(partial / name)
            _flush_to_disk(partial)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold a lock for a folder's name. The system releases it when the process ends in any way."""
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder}: another process is writing it; wait, or name another folder") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _flush_to_disk(folder: Path) -> None:
    """Write all files to the disk, so that a power cut after the rename cannot leave them empty."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
