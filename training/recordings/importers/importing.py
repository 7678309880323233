"""What both importers share: errors, reading files, the note in each recording, and the import of what is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from renderocc_model.geometry.rig import Camera
from renderocc_model.images.decoding import compressed_size
from renderocc_model.images.reduction import ImageError
from training.recordings.new_bag import new_bag
from training.recordings.notes import IMPORT_NOTE

__all__ = ["DatasetError", "import_all", "is_imported", "read_file", "read_picture"]


class DatasetError(ValueError):
    """The dataset cannot be imported. The text names the file or table, the record and what to do."""


def read_file(path: Path, named_by: str) -> bytes:
    """Read a file's bytes.

    Args:
        named_by: the record or file that names this file, for the error text.
    Raises:
        DatasetError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DatasetError(f"{path} {reason}; {named_by} names it; unpack the archive that contains it") from None


def read_picture(path: Path, camera: Camera, named_by: str) -> bytes:
    """Read the bytes of a JPEG or PNG file. Its size must be the camera's, else DatasetError is raised."""
    data = read_file(path, named_by)
    try:
        size = compressed_size(np.frombuffer(data, np.uint8))
    except ImageError as error:
        raise DatasetError(f"{path}: {error}; {named_by} names it; unpack the archive again") from None
    wanted = camera.model.height, camera.model.width
    if size != wanted:
        raise DatasetError(
            f"{path}: the image is {size[1]}x{size[0]}, but {named_by} says {wanted[1]}x{wanted[0]}; "
            f"unpack images and calibration of one release"
        )
    return data


def is_imported(folder: Path, note: dict) -> bool:
    """Whether a recording exists that was made from the same data with the same options.

    Args:
        note: describes data and options, as in the recording's note.
    Raises:
        DatasetError: the folder exists, but was made from other data or with other options.
    """
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / IMPORT_NOTE).read_text())
    except (OSError, ValueError):
        text = f"{folder} exists and was not imported (no readable {IMPORT_NOTE}); name another --out"
        raise DatasetError(text) from None
    different = sorted(key for key in {*note, *found} if note.get(key) != found.get(key))
    if different:
        told = "; ".join(
            f"{key} was {found.get(key)!r}, is {note.get(key)!r}" for key in different if key not in ("grid", "classes")
        )
        raise DatasetError(f"{folder} was imported differently ({told or different}); remove it or name another --out")
    return True


@contextmanager
def recording_folder(folder: Path, note: dict) -> Iterator[Path]:
    """Give a hidden folder for a recording. At the end its note is written and the folder is renamed."""
    with new_bag(folder) as partial:
        yield partial
        (partial / IMPORT_NOTE).write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")


def import_all(
    out: Path, names: list[str], note_of: Callable[[str], dict], write: Callable[[str, Path, Callable], int], tell=print
) -> int:
    """Import the recordings that are not complete yet, one after the other. A progress bar counts frames.

    Args:
        names: names of the recordings, and of their folders.
        note_of: gives a recording's note: its data and options.
        write: writes a recording, called with (name, folder, on_frame), and returns the number of messages.
        tell: called with each line of progress.
    Returns:
        the number of recordings that were written.
    """
    from tqdm import tqdm

    left = [name for name in names if not is_imported(out / name, note_of(name))]
    if len(left) < len(names):
        tell(f"{len(names) - len(left)} of {len(names)} recordings are complete already")
    with tqdm(unit="frame", disable=not sys.stderr.isatty()) as bar:
        for number, name in enumerate(left, 1):
            bar.set_description(f"{name} ({number} of {len(left)})")
            with recording_folder(out / name, note_of(name)) as folder:
                count = write(name, folder, lambda: bar.update())
            tell(f"{out / name}: {count} messages")
    return len(left)
