"""A rosbag2 folder that appears under its name only when it is complete."""

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
    """Give the name to write to, a hidden one beside it; it is renamed at the end, or removed after an exception.

    What a process that was killed has left of the same folder is removed first. The storage file is named after the
    folder, inside metadata.yaml too.

    Raises:
        ValueError: the folder exists, or another process is writing it.
        OSError: the disk.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; name a folder that does not, or remove it")
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
    """Hold the lock on a folder's name; it goes with the process that holds it, however that ends."""
    path = folder.with_name(f".{folder.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder}: another process is writing it; let it finish, or name another") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _flush_to_disk(folder: Path) -> None:
    """So that a power cut after the rename cannot leave an empty file under the name of a whole one."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
