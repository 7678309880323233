"""Finds a recording's sidecar of labels, and reads the notes that say which class table its ids belong to."""

from __future__ import annotations

import json
from pathlib import Path

from renderocc_model.base.config import load_yaml
from renderocc_model.field.classes import OCC3D_NUSCENES, ClassTable, by_name
from renderocc_model.field.truth import TRUTH_NOTE, noted_truth_classes, truth_folder

__all__ = [
    "IMPORT_NOTE",
    "LABELS_NOTE",
    "class_table",
    "find_sidecar",
    "noted_classes",
    "recording_name",
    "sidecar_of",
    "truth_class_table",
    "was_imported",
]

LABELS_NOTE = "labels.yaml"  # in a sidecar, beside its metadata.yaml
IMPORT_NOTE = "import.json"  # in a recording that `renderocc import` made


def recording_name(bag: str | Path) -> str:
    """A recording's name: that of its folder, or that of its file without the ending."""
    bag = Path(bag).resolve()
    return bag.stem if bag.suffix in (".mcap", ".db3") else bag.name


def sidecar_of(bag: str | Path) -> Path:
    """The default path of a recording's label bag: BAG_labels beside it."""
    return Path(bag).resolve().with_name(f"{recording_name(bag)}_labels")


def find_sidecar(bag: str | Path) -> Path | None:
    """`sidecar_of` a recording if it exists, else None."""
    beside = sidecar_of(bag)
    return beside if (beside / "metadata.yaml").is_file() else None


def was_imported(bag: str | Path) -> bool:
    """Whether `renderocc import` made a recording: its dataset, nuScenes or SemanticKITTI, has deskewed clouds."""
    bag = Path(bag)
    return ((bag if bag.is_dir() else bag.parent) / IMPORT_NOTE).is_file()


def noted_classes(bag: str | Path) -> ClassTable | None:
    """The class table in the note of a recording or sidecar; None without a note.

    Raises:
        ValueError: the note cannot be read.
    """
    bag = Path(bag)
    folder = bag if bag.is_dir() else bag.parent
    readers = ((LABELS_NOTE, load_yaml), (IMPORT_NOTE, lambda file: json.loads(file.read_text(encoding="utf-8"))))
    for name, read in readers:
        note = folder / name
        if not note.is_file():
            continue
        try:
            return ClassTable.from_dict(read(note)["classes"])
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            remedy = f"run `renderocc {'label' if name == LABELS_NOTE else 'import'}` again"
            raise ValueError(f"{note}: the class table cannot be read ({error}); {remedy}") from None
    return None


def class_table(wanted: str | None, bag: str | Path, labels: str | Path | None = None) -> ClassTable:
    """The class table of a recording's labels.

    It is the table in the sidecar's note, else in the recording's note, else `wanted`, else that of Occ3D.

    Raises:
        ValueError: a note cannot be read, or its table is not the wanted one.
    """
    for place in (labels, bag):
        noted = None if place is None else noted_classes(place)
        if noted is None:
            continue
        if wanted and by_name(wanted) != noted:
            names = ", ".join(noted.names[:4])
            raise ValueError(f"{place}: its class table is {names}, ..., not {wanted}; leave out --classes")
        return noted
    return by_name(wanted) if wanted else OCC3D_NUSCENES


def truth_class_table(
    bag: Path, folder: Path | None = None, wanted: str = "", otherwise: ClassTable = OCC3D_NUSCENES
) -> ClassTable:
    """The class table of a recording's 3D truth.

    It is the table in the truth's own note, else, of truth beside the recording, the one that `renderocc import`
    noted, else `wanted`, else `otherwise`.

    Args:
        bag: the recording.
        folder: where its truth is; None for occupancy/ beside its messages.
        wanted: name of a built-in table; empty for none.
        otherwise: the table where nothing names one.
    Raises:
        ValueError: a note cannot be read, or its table is not the wanted one.
    """
    place = folder or truth_folder(bag)
    noted, note = noted_truth_classes(place), place / TRUTH_NOTE
    if noted is None and folder is None:
        noted, note = noted_classes(bag), (bag if bag.is_dir() else bag.parent) / IMPORT_NOTE
    if noted is not None and wanted and by_name(wanted) != noted:
        raise ValueError(
            f"{note}: the 3D truth has the classes {', '.join(noted.names[:4])}, ..., and --truth-classes says "
            f"{wanted}; leave out --truth-classes"
        )
    return noted or (by_name(wanted) if wanted else otherwise)
