"""The trained networks that come with the package, by the name of their preset."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "checkpoint_file", "packaged_checkpoint"]

FOLDER = Path(__file__).resolve().parents[1] / "weights"


def packaged_checkpoint(preset: str) -> Path | None:
    """The trained network of a preset, such as `tiny`; None where the package has none of that name.

    In a source tree without weights it is None, too.
    """
    if not preset.isidentifier():  # a path is no name of a preset
        return None
    path = FOLDER / f"{preset}.safetensors"
    return path if path.is_file() else None


def checkpoint_file(named: str | Path) -> Path:
    """The checkpoint file for a path, or for the name of a preset whose trained network is in the package.

    An existing file of that name comes first. A name that is neither is returned as a path: opening it fails then, and
    the error names it.
    """
    path = Path(named)
    return path if path.is_file() else packaged_checkpoint(str(named)) or path
