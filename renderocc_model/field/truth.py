"""The files of 3D truth beside a recording: which moments they belong to, and what makes one unusable."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from renderocc_model.base.arrays import read_npz

from .classes import UNLABELLED, ClassTable

__all__ = [
    "TRUTH_NOTE",
    "check_ids",
    "check_truth_file",
    "converted_truth",
    "noted_truth_classes",
    "truth_files",
    "truth_folder",
]

TRUTH_NOTE = "truth.json"  # beside the volumes that `renderocc truth` made

_LATEST = np.iinfo(np.int64).max  # nanoseconds that a stamp can hold


def truth_folder(bag: Path) -> Path:
    """occupancy/ beside a recording's messages, the folder of its 3D truth."""
    return (bag if bag.is_dir() else bag.parent) / "occupancy"


def truth_files(bag: Path, folder: Path | None = None) -> dict[int, Path]:
    """{stamp in nanoseconds: path} of the files <stamp>.npz of a recording's 3D truth, in the order of stamps.

    Files whose name is no stamp are left out.

    Args:
        bag: the recording.
        folder: where the files are; None for occupancy/ beside the recording's messages.
    """
    folder = folder or truth_folder(bag)
    named = (path for path in folder.glob("*.npz") if path.stem.isascii() and path.stem.isdecimal())
    files = {int(path.stem): path for path in named if len(path.stem) <= len(str(_LATEST))}
    return {stamp: files[stamp] for stamp in sorted(files) if stamp <= _LATEST and files[stamp].stem == str(stamp)}


def noted_truth_classes(folder: Path) -> ClassTable | None:
    """The class table that a folder of 3D truth names in its truth.json; None without this file.

    Raises:
        ValueError: the file cannot be read.
    """
    note = folder / TRUTH_NOTE
    if not note.is_file():
        return None
    try:
        return ClassTable.from_dict(json.loads(note.read_text(encoding="utf-8"))["classes"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{note}: the class table cannot be read ({error}); remove {folder} and run `renderocc truth` again"
        ) from None


def check_truth_file(file: Path, classes: ClassTable) -> tuple[int, ...]:
    """The shape of a volume in Occ3D's layout.

    Raises:
        ValueError: the file cannot be used; the text says why, without its name.
    """
    try:
        arrays = read_npz(file, (), ("semantics", "mask_camera", "mask_lidar"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot be read ({' '.join(str(error).split())[:120]})") from None
    for key in ("semantics", "mask_camera"):
        if key not in arrays:
            raise ValueError(f"has no '{key}'; it holds {', '.join(arrays) or 'nothing of Occ3D'}")
    semantics = arrays["semantics"]
    if semantics.ndim != 3 or semantics.dtype != np.uint8:
        raise ValueError(f"semantics is {semantics.dtype} {semantics.shape}; expected uint8 (X, Y, Z)")
    for key, array in arrays.items():
        if array.shape != semantics.shape:
            raise ValueError(f"{key} is {array.shape} but semantics is {semantics.shape}")
    check_ids(semantics, classes)
    return semantics.shape


def converted_truth(file: Path, ids: np.ndarray) -> bytes:
    """The bytes of a file of truth with other class ids.

    Args:
        file: one that `check_truth_file` finds sound.
        ids: (256,) uint8, the new id of each id (`conversion.converted_ids`).
    """
    arrays = read_npz(file, (), ("semantics", "mask_camera", "mask_lidar"))
    arrays["semantics"] = ids[arrays["semantics"]]
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)  # type: ignore[arg-type]
    return written.getvalue()


def check_ids(image: np.ndarray, classes: ClassTable) -> None:
    """Raise ValueError, with the first ids, if an array of class ids holds some that the table lacks."""
    outside = np.unique(image[(image >= len(classes)) & (image != UNLABELLED)])
    if outside.size:
        ids = ", ".join(map(str, outside[:8]))
        raise ValueError(f"class ids {ids} are not in the table of {len(classes)} classes (255 is unlabelled)")
