"""The table of commands under faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from campaign.output import made_by, markdown_table
from renderocc_model.base.document import write_section

from .injections import FAULTS

__all__ = ["table", "update_document"]

_COLUMNS = ("refused", "stopped", "not affected", "taken as data", "too late", "crashed")


def table(results: Sequence[dict]) -> str:
    """Markdown: of each fault, runs, commands, how the commands reacted, how long it took, and what was wrong."""
    heading = ["fault", "runs", "commands", *_COLUMNS, "time to the end, median and longest [s]", "wrong"]
    rows = []
    for fault in FAULTS:
        those = [result for result in results if result["fault"] == fault]
        if not those:
            continue
        seconds = [result["seconds"] for result in those]
        wrong = sum(bool(result["wrong"]) for result in those)
        rows.append(
            [
                fault,
                str(len(those)),
                str(len({result["command"] for result in those})),
                *(str(sum(result["met"] == word for result in those)) for word in _COLUMNS),
                f"{np.median(seconds):.1f}, {max(seconds):.1f}",
                str(wrong),
            ]
        )
    return markdown_table(heading, rows)


def update_document(path: Path, results: Sequence[dict], seed: int) -> None:
    """Write the table, and what is open, into the section of the document.

    Raises:
        ValueError: the section's marks are damaged.
    """
    failures = [
        f"- run {result['run']}, {result['command']}, {result['fault']} ({result['damaged'] or result['detail']}): "
        f"{'; '.join(result['wrong'])}"
        for result in results
        if result["wrong"]
    ]
    commands = len({result["command"] for result in results})
    command = f"make command-faults COMMAND_FAULTS='--seed {seed}'"
    parts = [
        f"{len(results)} faults in {commands} commands, each run in a process of its own ({made_by(command)}).",
        table(results),
        "\n".join(["Open:", "", *failures]) if failures else "No failure is open.",
    ]
    write_section(path, "commands", "\n\n".join(parts), "### Commands under faults")
