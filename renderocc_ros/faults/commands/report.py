"""The campaign's table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from renderocc_model.files import replacing

from .injections import FAULTS

__all__ = ["table", "update_document"]

_FIRST, _LAST = "<!-- commands: written by renderocc command-faults -->", "<!-- /commands -->"
_COLUMNS = ("refused", "stopped", "unharmed", "took it as data")


def table(results: Sequence[dict]) -> str:
    """Markdown: of each fault, runs, commands, how they were met, the longest it took, and what was wrong."""
    heading = ["fault", "runs", "commands", *_COLUMNS, "median and worst time to the end [s]", "wrong"]
    rows = [heading, ["---"] * len(heading)]
    for fault in FAULTS:
        those = [result for result in results if result["fault"] == fault]
        if not those:
            continue
        seconds = [result["seconds"] for result in those]
        wrong = sum(bool(result["wrong"]) for result in those)
        rows.append([
            fault, str(len(those)), str(len({result["command"] for result in those})),
            *(str(sum(result["met"] == word for result in those)) for word in _COLUMNS),
            f"{np.median(seconds):.1f}, {max(seconds):.1f}", str(wrong),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def update_document(path: Path, results: Sequence[dict], seed: int) -> None:
    """Put the table between its marks, or at the end of a document without them.

    Raises:
        ValueError: only one of the marks is there, or not in this order.
    """
    failures = [
        f"- run {result['run']}, {result['command']}, {result['fault']} ({result['damaged'] or result['detail']}): "
        f"{'; '.join(result['wrong'])}"
        for result in results
        if result["wrong"]
    ]
    body = "\n\n".join(
        [
            _FIRST,
            f"{len(results)} faults in {len({result['command'] for result in results})} commands, each run in a "
            f"process of its own; seed {seed}.",
            table(results),
            "\n".join(["Open:", "", *failures]) if failures else "None is open.",
            _LAST,
        ]
    )
    text = path.read_text(encoding="utf-8") if path.exists() else "# Reliability\n"
    if _FIRST in text or _LAST in text:
        found = re.compile(re.escape(_FIRST) + ".*?" + re.escape(_LAST), re.DOTALL)
        if text.count(_FIRST) != 1 or text.count(_LAST) != 1 or not found.search(text):
            raise ValueError(f"{path}: expected '{_FIRST}' and '{_LAST}' once each, in this order; mend it")
        text = found.sub(lambda match: body, text)
    else:
        text = f"{text.rstrip()}\n\n{body}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
