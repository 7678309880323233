"""Maps the ids or colours of other labels to the ids of a class table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from renderocc_model.base.config import load_yaml
from renderocc_model.field.classes import (
    GROUND_OBSTACLE,
    OCC3D_NUSCENES,
    SEMANTIC_KITTI,
    UNLABELLED,
    ClassTable,
    by_name,
)
from renderocc_model.field.conversion import converted_ids
from training.recordings.raw_classes import LIDARSEG, NO_SURFACE, SEMANTIC_KITTI_RAW, class_or_none, lookup_table

__all__ = ["BUILT_IN", "LABEL_SETS", "ClassMapping", "LabelError", "NeedsOption", "load_mapping", "mapping_names"]

_KEYS = ("classes", "ids", "colours", "others", "ground_obstacle")
# Label sets that public segmentation networks have; each is a mapping file in label_sets/.
LABEL_SETS = tuple(sorted(path.stem for path in (Path(__file__).parent / "label_sets").glob("*.yaml")))
_LARGEST_ID = 65535


class LabelError(ValueError):
    """Labels cannot be made. The text names the file or topic, the time and what to do."""


class NeedsOption(LabelError):
    """Labels can be made with an option, which the text names."""


@dataclass(frozen=True)
class ClassMapping:
    """A mapping from a source's labels to classes.

    Attributes:
        classes: the table of the resulting ids.
        ids: {source id: class id, 255 (unlabelled) or `NO_SURFACE`}.
        colours: {(red, green, blue): the same}, for label images in colour.
        others: result for every other id or colour. If it is None, they are an error, so that no label is lost
            without notice.
        source: file or name of the mapping, for error texts.
        names: {source id: its name in the source}, where the mapping has them.
    """

    classes: ClassTable
    ids: dict[int, int] = field(default_factory=dict)
    colours: dict[tuple[int, int, int], int] = field(default_factory=dict)
    others: int | None = None
    source: str = ""
    names: dict[int, str] = field(default_factory=dict)

    @classmethod
    def identity(cls, classes: ClassTable) -> ClassMapping:
        """The mapping of labels that are ids of the table already, with 255 unlabelled and 254 no surface."""
        ids = (*range(len(classes)), NO_SURFACE, UNLABELLED)
        return cls(classes, {index: index for index in ids}, source="the class table")

    def of_ids(self, values: np.ndarray) -> np.ndarray:
        """Class ids (same shape, uint8) of source ids, which may be of any number type.

        Raises:
            LabelError: the mapping does not list an id, or a value is not a whole number.
        """
        values = np.asarray(values)
        if values.dtype.kind not in "ui":
            if not np.isfinite(values).all() or (values != np.floor(values)).any():
                raise LabelError("labels are not whole numbers; name the field of class ids with --label-field")
        if values.size and not (values.min() >= 0 and values.max() <= _LARGEST_ID):
            raise LabelError(f"ids reach from {values.min()} to {values.max()}; expected 0 to {_LARGEST_ID}")
        table = lookup_table(self.ids)
        if self.others is not None:
            table[table < 0] = self.others
        mapped = table[values.astype(np.int64)]
        unknown = mapped < 0
        if unknown.any():
            found, counts = np.unique(values[unknown].astype(np.int64), return_counts=True)
            shown = ", ".join(f"{value} ({count}x)" for value, count in list(zip(found, counts))[:8])
            raise LabelError(f"ids {shown} are not in {self.source}; {self._remedy()}")
        return mapped.astype(np.uint8)

    def of_colours(self, image: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of a colour image (H, W, 3) uint8 RGB.

        Raises:
            LabelError: the mapping does not list a colour.
        """
        if not self.colours:
            raise LabelError(f"{self.source} lists no colours, but the label image is in colour; list them there")
        codes = (image[..., 0].astype(np.int32) << 16) | (image[..., 1].astype(np.int32) << 8) | image[..., 2]
        known = np.array(sorted((r << 16) | (g << 8) | b for r, g, b in self.colours), np.int32)
        values = np.array([self.colours[code >> 16, code >> 8 & 255, code & 255] for code in known.tolist()], np.uint8)
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        listed = known[place] == codes
        if not listed.all() and self.others is None:
            found, counts = np.unique(codes[~listed], return_counts=True)
            shown = ", ".join(f"#{code:06x} ({count}x)" for code, count in list(zip(found, counts))[:8])
            raise LabelError(f"colours {shown} are not in {self.source}; {self._remedy()}")
        return np.where(listed, values[place], np.uint8(self.others or 0)).astype(np.uint8)

    def _remedy(self) -> str:
        return "list them in a mapping file (--mapping), or set 'others: unlabelled' there"


BUILT_IN: dict[str, ClassMapping] = {
    "lidarseg": ClassMapping(OCC3D_NUSCENES, LIDARSEG, source="the ids of nuScenes-lidarseg"),
    "semantic_kitti": ClassMapping(SEMANTIC_KITTI, SEMANTIC_KITTI_RAW, source="the ids of semantic-kitti.yaml"),
    "occ3d_nuscenes": replace(ClassMapping.identity(OCC3D_NUSCENES), source="the ids of Occ3D-nuScenes"),
}


def mapping_names() -> tuple[str, ...]:
    """The names that `load_mapping` knows."""
    return (*BUILT_IN, *LABEL_SETS)


def converted(mapping: ClassMapping, classes: ClassTable) -> ClassMapping:
    """The same mapping onto another class table.

    Raises:
        LabelError: there is no conversion from its table to this one.
    """
    try:
        new = {UNLABELLED: UNLABELLED, NO_SURFACE: NO_SURFACE}
        new |= dict(enumerate(converted_ids(mapping.classes, classes)[: len(mapping.classes)].tolist()))
    except ValueError as error:
        raise LabelError(f"mapping '{mapping.source}': {error}; write a mapping file") from None
    return replace(
        mapping,
        classes=classes,
        ids={source: new[target] for source, target in mapping.ids.items()},
        colours={source: new[target] for source, target in mapping.colours.items()},
        others=None if mapping.others is None else new[mapping.others],
    )


def load_mapping(name: str | Path, classes: ClassTable | None = None) -> ClassMapping:
    """The built-in mapping with this name (see `mapping_names`), or a mapping from a YAML file:

        classes: occ3d_nuscenes            # the class table
        ids: {1: car, 7 road: driveable_surface}  # an id may have a name
        colours: {"128,64,128": sidewalk, "#4682b4": no surface}
        others: unlabelled                 # for all other ids and colours; without this line they are an error
        ground_obstacle: {9 lake: obstacle}  # for --classes ground_obstacle, where the class above is not enough

    Unlabelled pixels keep their depth. Pixels of no surface (sky, noise, the vehicle itself) lose it.

    Args:
        name: name of a built-in mapping, or path of a YAML file.
        classes: class table to map to. A mapping to another table is converted if the wanted one is ground and
            obstacle. A file without `classes` is read with this table.
    Raises:
        LabelError: an entry is wrong. The text names the file and the entry.
    """
    if str(name) in BUILT_IN:
        mapping = BUILT_IN[str(name)]
        if classes is None or classes == mapping.classes:
            return mapping
        if classes != GROUND_OBSTACLE:
            raise LabelError(f"mapping '{name}' is for another class table than --classes; write a mapping file")
        return converted(mapping, classes)
    if str(name) in LABEL_SETS:
        file = Path(__file__).parent / "label_sets" / f"{name}.yaml"
        return replace(mapping_from(load_yaml(file), str(name), classes), source=f"the label set {name}")
    return mapping_from(load_yaml(name), str(name), classes)


def mapping_from(document: dict, where: str, classes: ClassTable | None = None) -> ClassMapping:
    """The mapping that a YAML document describes. Arguments and errors are those of `load_mapping`."""
    unknown = sorted(set(map(str, document)) - set(_KEYS))
    if unknown:
        raise LabelError(f"{where}: unknown entry '{unknown[0]}'; expected {', '.join(_KEYS)}")
    try:
        own = by_name(str(document["classes"])) if "classes" in document else None
        to_ground = classes == GROUND_OBSTACLE and own not in (None, GROUND_OBSTACLE)
        table = own if to_ground and own else classes or own or OCC3D_NUSCENES
        ids, names = _ids(table, document, "ids")
        corrected, _ = _ids(GROUND_OBSTACLE, document, "ground_obstacle")
        colours = {_colour(key): _class(table, value) for key, value in _pairs(document, "colours")}
        others = None if "others" not in document else _class(table, document["others"])
    except ValueError as error:
        raise LabelError(f"{where}: {error}") from None
    if not ids and not colours:
        raise LabelError(f"{where}: neither ids nor colours are listed; write `ids: {{7: car}}`")
    unlisted = sorted(set(corrected) - set(ids))
    if unlisted:
        raise LabelError(
            f"{where}: ground_obstacle lists id {unlisted[0]}, which ids does not list; list it there, too"
        )
    mapping = ClassMapping(table, ids, colours, others, where, names)
    if not to_ground:
        return mapping
    mapping = converted(mapping, GROUND_OBSTACLE)
    return replace(mapping, ids={**mapping.ids, **corrected})


def _ids(table: ClassTable, document: dict, key: str) -> tuple[dict[int, int], dict[int, str]]:
    """The class of each id in an entry of a document, and the names that ids have there."""
    ids: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry, value in _pairs(document, key):
        number, name = _id(entry)
        if number in ids:
            raise ValueError(f"{key}: id {number} is listed twice; list each once")
        ids[number] = _class(table, value)
        if name:
            names[number] = name
    return ids, names


def _pairs(document: dict, key: str):
    entries = document.get(key) or {}
    if not isinstance(entries, dict):
        raise ValueError(f"{key} is a {type(entries).__name__}; expected `source: class name` pairs")
    return entries.items()


def _class(table: ClassTable, name: object) -> int:
    return class_or_none(table, str(name))


def _id(key: object) -> tuple[int, str]:
    """The number and the name of an id: of 7, or of '7 road'."""
    number, _, name = str(key).partition(" ")
    whole = not isinstance(key, (bool, float)) and number.isascii() and number.isdecimal() and len(number) <= 5
    if not whole or int(number) > _LARGEST_ID:
        raise ValueError(f"id {key!r}: expected a whole number from 0 to {_LARGEST_ID}, and perhaps a name after it")
    return int(number), name.strip()


def _colour(key: object) -> tuple[int, int, int]:
    text = str(key).strip()
    try:
        if text.startswith("#") and len(text) == 7:
            parts = tuple(bytes.fromhex(text[1:]))
        else:
            parts = tuple(int(word) for word in text.split(","))
    except ValueError:
        parts = ()
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        raise ValueError(f'colour {key!r}: expected "red,green,blue" of 0 to 255, or "#rrggbb", in quotes')
    return parts
