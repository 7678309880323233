"""Class tables: what the ids in a semantic volume or label image mean, and how they are painted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

__all__ = ["GROUND_OBSTACLE", "OCC3D_NUSCENES", "SEMANTIC_KITTI", "TABLES", "UNLABELLED", "ClassTable", "by_name"]

UNLABELLED = 255  # the id that means "no label" (labels) or "unknown" (predictions) in every table
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class ClassTable:
    """Names, colours and roles of the class ids 0..len-1.

    Args:
        names: one name per id, all different.
        colours: (red, green, blue), 0..255, one per id.
        dynamic: ids of the classes that move by themselves; kept sorted.
        free: id of the class that means "nothing here".
        may_move: ids of classes, none of them dynamic, that have both what moves and what stands, such as `obstacle`;
            kept sorted. Tables that differ in this alone are equal, because their ids mean the same.
    Raises:
        ValueError: lengths differ, a name repeats, a colour or an id is out of range.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    dynamic: tuple[int, ...]
    free: int
    may_move: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        names = tuple(str(name) for name in self.names)
        colours = tuple(tuple(int(value) for value in colour) for colour in self.colours)
        dynamic, may_move = (tuple(sorted({int(index) for index in ids})) for ids in (self.dynamic, self.may_move))
        free = int(self.free)
        count = len(names)
        if not 2 <= count <= UNLABELLED:
            raise ValueError(f"classes: {count} names; expected 2 to {UNLABELLED}, as {UNLABELLED} means unlabelled")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or not all(names):
            raise ValueError(f"classes: names repeat or are empty: {repeated or names}; give each class its own name")
        if len(colours) != count:
            raise ValueError(f"classes: {count} names but {len(colours)} colours; give one colour per class")
        for name, colour in zip(names, colours):
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise ValueError(f"classes: colour of '{name}' is {colour}; expected (red, green, blue) in 0..255")
        if not 0 <= free < count:
            raise ValueError(f"classes: free is {free}; expected an id in 0..{count - 1}")
        if any(not 0 <= index < count or index == free for index in dynamic):
            raise ValueError(f"classes: dynamic is {dynamic}; expected ids in 0..{count - 1} other than free ({free})")
        if any(not 0 <= index < count or index == free or index in dynamic for index in may_move):
            raise ValueError(
                f"classes: may_move is {may_move}; expected ids in 0..{count - 1} other than free ({free}) and those "
                f"of dynamic ({dynamic})"
            )
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "colours", colours)
        object.__setattr__(self, "dynamic", dynamic)
        object.__setattr__(self, "free", free)
        object.__setattr__(self, "may_move", may_move)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def occupied_ids(self) -> tuple[int, ...]:
        """Ids other than free, ascending; the order of the network's logit channels."""
        return tuple(index for index in range(len(self)) if index != self.free)

    def id_of(self, name: str) -> int:
        """Id of the class with this name; ValueError lists the names there are.

        >>> OCC3D_NUSCENES.id_of("car")
        4
        """
        if name not in self.names:
            raise ValueError(f"classes: there is no class '{name}'; the table has {', '.join(self.names)}")
        return self.names.index(name)

    def palette(self) -> np.ndarray:
        """Colour of every possible id, (256, 3) uint8 RGB; grey for unlabelled and undefined ids."""
        palette = np.full((256, 3), _GREY, dtype=np.uint8)
        palette[: len(self)] = self.colours
        return palette

    def to_dict(self) -> dict:
        """Plain lists and numbers, as YAML and JSON take them; `from_dict` reads it back."""
        described = {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "dynamic": list(self.dynamic),
            "free": self.free,
        }
        return {**described, "may_move": list(self.may_move)} if self.may_move else described

    @classmethod
    def from_dict(cls, mapping: Mapping) -> ClassTable:
        """The table that `to_dict` described; `may_move` may be missing.

        Raises:
            ValueError: entries are missing, unknown or cannot be read.
        """
        expected = {"names", "colours", "dynamic", "free"}
        if not isinstance(mapping, Mapping):
            raise ValueError(f"classes: is a {type(mapping).__name__}; expected names, colours, dynamic, free")
        if set(mapping) - {"may_move"} != expected:
            raise ValueError(
                f"classes: missing keys {sorted(expected - set(mapping))}, unknown keys "
                f"{sorted(map(str, set(mapping) - expected - {'may_move'}))}; expected names, colours, dynamic, free"
            )
        try:
            return cls(
                tuple(mapping["names"]),
                tuple(mapping["colours"]),
                tuple(mapping["dynamic"]),
                mapping["free"],
                tuple(mapping.get("may_move", ())),
            )
        except (TypeError, OverflowError) as error:  # the latter: an infinity as an id
            raise ValueError(f"classes: {error}; expected lists of names, of colours and of dynamic ids") from None


def _table(rows: tuple, dynamic: tuple[str, ...], free: str, may_move: tuple[str, ...] = ()) -> ClassTable:
    names, colours = zip(*rows)
    ids = (tuple(names.index(name) for name in some) for some in (dynamic, may_move))
    return ClassTable(names, colours, next(ids), names.index(free), next(ids))


# Names and order: Occ3D-nuScenes. Colours: the palette customary for nuScenes occupancy. Dynamic: everything that
# drives, rides or walks; a barrier stays where it is.
OCC3D_NUSCENES = _table(
    (
        ("others", (0, 0, 0)),
        ("barrier", (255, 120, 50)),
        ("bicycle", (255, 192, 203)),
        ("bus", (255, 255, 0)),
        ("car", (0, 150, 245)),
        ("construction_vehicle", (0, 255, 255)),
        ("motorcycle", (200, 180, 0)),
        ("pedestrian", (255, 0, 0)),
        ("traffic_cone", (255, 240, 150)),
        ("trailer", (135, 60, 0)),
        ("truck", (160, 32, 240)),
        ("driveable_surface", (255, 0, 255)),
        ("other_flat", (139, 137, 137)),
        ("sidewalk", (75, 0, 75)),
        ("terrain", (150, 240, 80)),
        ("manmade", (230, 230, 250)),
        ("vegetation", (0, 175, 0)),
        ("free", (255, 255, 255)),
    ),
    dynamic=("bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "trailer", "truck"),
    free="free",
)

# Names, order and colours: semantic-kitti.yaml (whose colours are written blue first). In a scan 0 is "unlabeled",
# in a scene-completion volume it is "empty"; a volume is what this table is for.
SEMANTIC_KITTI = _table(
    (
        ("unlabeled", (0, 0, 0)),
        ("car", (100, 150, 245)),
        ("bicycle", (100, 230, 245)),
        ("motorcycle", (30, 60, 150)),
        ("truck", (80, 30, 180)),
        ("other-vehicle", (0, 0, 255)),
        ("person", (255, 30, 30)),
        ("bicyclist", (255, 40, 200)),
        ("motorcyclist", (150, 30, 90)),
        ("road", (255, 0, 255)),
        ("parking", (255, 150, 255)),
        ("sidewalk", (75, 0, 75)),
        ("other-ground", (175, 0, 75)),
        ("building", (255, 200, 0)),
        ("fence", (255, 120, 50)),
        ("vegetation", (0, 175, 0)),
        ("trunk", (135, 60, 0)),
        ("terrain", (150, 240, 80)),
        ("pole", (255, 240, 150)),
        ("traffic-sign", (255, 0, 0)),
    ),
    dynamic=("car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist", "motorcyclist"),
    free="unlabeled",
)

# What a LiDAR, or depth from motion, tells without annotation (`renderocc label --classes-from ground`). Whether an
# obstacle moves is unknown. Most obstacles stand: if the class were dynamic, training would lose the labels of
# neighbouring frames, and a map would forget the walls behind the vehicle.
GROUND_OBSTACLE = _table(
    (
        ("ground", (120, 170, 80)),
        ("obstacle", (255, 120, 50)),
        ("free", (255, 255, 255)),
    ),
    dynamic=(),
    free="free",
    may_move=("obstacle",),
)

TABLES = {
    "occ3d_nuscenes": OCC3D_NUSCENES,
    "semantic_kitti": SEMANTIC_KITTI,
    "ground_obstacle": GROUND_OBSTACLE,
}


def by_name(name: str) -> ClassTable:
    """The built-in table of this name; ValueError lists the names there are."""
    if name not in TABLES:
        raise ValueError(f"classes: there is no class table '{name}'; choose one of {', '.join(TABLES)}")
    return TABLES[name]
