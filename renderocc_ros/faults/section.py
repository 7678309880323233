"""Sections of a document that a command writes, between marks of their own."""

from __future__ import annotations

import re
from pathlib import Path

from renderocc_model.files import replacing

__all__ = ["update_section"]


def update_section(document: Path, name: str, command: str, text: str, title: str = "") -> None:
    """Replace what stands between a section's marks; where there are none, heading and marks are appended.

    Args:
        name: of the section, in its marks.
        command: that writes it.
        text: Markdown.
        title: heading for a section that is new.
    Raises:
        ValueError: only one of the marks is there, or not in this order.
    """
    first, last = f"<!-- {name}: written by `{command}` -->", f"<!-- /{name} -->"
    body = f"{first}\n\n{text}\n\n{last}"
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
