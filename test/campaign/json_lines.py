"""Results of a campaign as they come: one JSON object a line, appended in one write."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

__all__ = ["append", "read_lines"]


def append(path: Path, entry: dict) -> None:
    """Add a line in one write: processes that share the file do not mix theirs."""
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(entry) + "\n").encode())


def read_lines(path: Path) -> list[dict]:
    """The objects of a file, none where there is no file; half a line, of a process that was killed, is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found
