"""What the importers share: errors, the note in each recording, mounts, and resuming by whole recordings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderocc_model.geometry.rig import Camera
from renderocc_model.images.decoding import ImageError, compressed_size
from training.recordings.new_bag import new_bag
from training.recordings.notes import IMPORT_NOTE

__all__ = ["Cloud", "DatasetError", "Mount", "import_all", "is_imported", "read_file", "read_picture"]


class DatasetError(ValueError):
    """A dataset that cannot be imported: names the file or table, the record, and what to do."""


@dataclass(frozen=True)
class Mount:
    """Where the LiDAR sits, base_from_lidar (4, 4), and the name of its frame."""

    frame_id: str
    base_from_lidar: np.ndarray


@dataclass(frozen=True)
class Cloud:
    """Points (N, 3) float32 in the LiDAR's frame, intensity (N,), class ids (N,) uint8 or None without labels."""

    points: np.ndarray
    intensity: np.ndarray
    label: np.ndarray | None


def read_file(path: Path, named_by: str) -> bytes:
    """A file's bytes; DatasetError says which record names a file that is not there."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DatasetError(f"{path} {reason}; {named_by} names it; unpack the archive that holds it") from None


def read_picture(path: Path, camera: Camera, named_by: str) -> bytes:
    """The bytes of a JPEG or PNG file, whose size must be its camera's."""
    data = read_file(path, named_by)
    try:
        size = compressed_size(np.frombuffer(data, np.uint8))
    except ImageError as error:
        raise DatasetError(f"{path}: {error}; {named_by} names it; unpack the archive again") from None
    wanted = camera.model.height, camera.model.width
    if size != wanted:
        raise DatasetError(
            f"{path}: the picture is {size[1]}x{size[0]}, {named_by} says {wanted[1]}x{wanted[0]}; "
            f"unpack pictures and calibration of one release"
        )
    return data


def is_imported(folder: Path, note: dict) -> bool:
    """Whether a recording is there already, made from the same thing in the same way.

    Raises:
        DatasetError: there is a folder, but made from something else.
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
    """A folder for one recording with its note, that appears when the recording is complete."""
    with new_bag(folder) as partial:
        yield partial
        (partial / IMPORT_NOTE).write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")


def import_all(
    out: Path, names: list[str], note_of: Callable[[str], dict], write: Callable[[str, Path, Callable], int], tell=print
) -> int:
    """Import recordings one after the other, leaving out those that are complete; a progress bar counts frames.

    Args:
        names: of the recordings, which their folders are called.
        note_of: what a recording is made from and how.
        write: writes (name, folder, on_frame) and returns the number of messages.
    Returns:
        the number of recordings written now.
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
