"""Docstrings as this project writes them, for the site: sections need no empty line before them."""

from __future__ import annotations

import re
from typing import Any

import griffe

_TITLE = re.compile(r"(?<!\n)\n(Args|Attributes|Returns|Yields|Raises|Example|Examples):\n")


class Sections(griffe.Extension):
    """Puts the empty line before the title of a section that the parser of Google's style looks for."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _TITLE.sub(r"\n\n\1:\n", obj.docstring.value)
