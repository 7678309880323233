"""A rosbag2 folder that appears under its name only when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["new_bag"]


@contextmanager
def new_bag(folder: str | Path) -> Iterator[Path]:
    """Give the name to write to, a hidden one beside it; it is renamed at the end, or removed after an exception.

    The storage file is named after the folder, inside metadata.yaml too.

    Raises:
        ValueError: the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; name a folder that does not, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        metadata = partial / "metadata.yaml"
        for file in list(partial.iterdir()):
            if file.suffix in (".mcap", ".db3"):
                name = f"{folder.name}{file.suffix}"
                metadata.write_text(metadata.read_text().replace(file.name, name))
                file.rename(partial / name)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
