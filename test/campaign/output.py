"""What a campaign writes in the end: tables, figures, its section of a document, and what made them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from renderocc_model.base.document import write_section
from renderocc_model.base.files import replacing

__all__ = ["Image", "machine", "made_by", "markdown_table", "noted_command", "write_results"]

_ROOT = Path(__file__).resolve().parents[2]


def made_by(command: str) -> str:
    """The command that made figures, and of which commit; without one outside of a repository."""
    try:
        words = ["git", "-C", str(_ROOT), "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        commit = ""
    return f"`{command}`" + (f", commit {commit}" if commit else "")


def noted_command(out: Path, command: str = "") -> str:
    """What made the results in a folder: noted when it begins (with the command), read when it is summed up."""
    note = out / "made_by.txt"
    if command and not note.exists():
        note.write_text(made_by(command) + "\n")
    return note.read_text().strip() if note.exists() else ""


def machine() -> str:
    """Processor and cores, one line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else "a CPU"
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))


class Image(NamedTuple):
    """An image file for a document."""

    file: str
    caption: str
    content: bytes


def write_results(
    out: Path, name: str, figures: dict, text: str, document: Path | None, images: Sequence[Image] = ()
) -> None:
    """Print the text; write the figures, as <name>.json, and images into a folder and, if asked for, into a document.

    Args:
        out: folder of the campaign.
        name: of the document's section.
        figures: for JSON.
        text: Markdown.
        document: whose section is written anew; its figures and images go into a folder of its name beside it.
    """
    files = {f"{name}.json": (json.dumps(figures, indent=1) + "\n").encode()}
    files |= {image.file: image.content for image in images}
    print(text)
    folders = [out]
    if document is not None:
        folders.append(document.with_suffix(""))
        folders[1].mkdir(parents=True, exist_ok=True)
        linked = "".join(f"\n\n![{image.caption}]({folders[1].name}/{image.file})" for image in images)
        write_section(document, name, text + linked, f"### {name.capitalize()}")
        print(f"wrote {document.resolve()}")
    for folder in folders:
        for file, content in files.items():
            with replacing(folder / file) as partial:
                partial.write_bytes(content)
    print(f"wrote {out}")
