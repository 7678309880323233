"""Where figures come from: the command that made them, and of which commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["made_by", "origin"]

_ROOT = Path(__file__).resolve().parents[2]


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
