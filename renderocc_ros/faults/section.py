"""Sections of a document that a command writes, between marks of their own, and where their figures come from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from renderocc_model.files import replacing

__all__ = ["made_by", "origin", "update_section"]

_ROOT = Path(__file__).resolve().parents[2]


def update_section(document: Path, name: str, text: str, title: str = "") -> None:
    """Replace what stands between a section's marks; where there are none, heading and marks are appended.

    Args:
        document: Markdown; made where it is missing.
        name: of the section, as in its marks: <!-- name -->, <!-- /name -->.
        text: Markdown.
        title: heading for a section that is new.
    Raises:
        ValueError: only one of the marks is there, or not in this order.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    body = f"{first}\n{text}\n{last}"
    old = document.read_text(encoding="utf-8") if document.exists() else "# Reliability\n"
    if first in old or last in old:
        found = re.compile(re.escape(first) + ".*?" + re.escape(last), re.DOTALL)
        if old.count(first) != 1 or old.count(last) != 1 or not found.search(old):
            raise ValueError(f"{document}: expected '{first}' and '{last}' once each, in this order; mend it")
        new = found.sub(lambda match: body, old)
    else:
        new = f"{old.rstrip()}\n\n## {title or name}\n\n{body}\n"
    document.parent.mkdir(parents=True, exist_ok=True)
    with replacing(document) as partial:
        partial.write_text(new, encoding="utf-8")


def made_by(command: str) -> str:
    """The command that made figures, and of which commit; without one outside of a repository."""
    try:
        words = ["git", "-C", str(_ROOT), "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        commit = ""
    return f"`{command}`" + (f", commit {commit}" if commit else "")


def origin(out: Path, command: str = "") -> str:
    """What made the results in a folder: noted when it begins (with the command), read when it is summed up."""
    note = out / "made_by.txt"
    if command and not note.exists():
        note.write_text(made_by(command) + "\n")
    return note.read_text().strip() if note.exists() else ""
