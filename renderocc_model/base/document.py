"""Sections of a Markdown document that a command writes between marks. The text around them is left as it is."""

from __future__ import annotations

import re
from pathlib import Path

from .files import replacing

__all__ = ["write_section"]


def write_section(document: Path, name: str, text: str, heading: str = "", note: str = "") -> None:
    """Replace the text between a section's marks. Where there are no marks, append heading, marks and text.

    The marks are <!-- name --> (or <!-- name: note -->) and <!-- /name -->.

    Args:
        document: made where it is missing.
        text: Markdown.
        heading: of a section that is new, with its #.
        note: for people who read the source of the document.
    Raises:
        ValueError: only one of the marks is there, or not in this order.
    """
    first, last = f"<!-- {name}{': ' if note else ''}{note} -->", f"<!-- /{name} -->"
    body = f"{first}\n\n{text.strip()}\n\n{last}"
    old = document.read_text(encoding="utf-8") if document.exists() else ""
    if first in old or last in old:
        found = re.compile(re.escape(first) + ".*?" + re.escape(last), re.DOTALL)
        if old.count(first) != 1 or old.count(last) != 1 or not found.search(old):
            raise ValueError(f"{document}: expected '{first}' and '{last}' once each, in this order; mend it")
        new = found.sub(lambda match: body, old)
    else:
        new = "\n\n".join(part for part in (old.rstrip(), heading, body) if part) + "\n"
    document.parent.mkdir(parents=True, exist_ok=True)
    with replacing(document) as partial:
        partial.write_text(new, encoding="utf-8")
