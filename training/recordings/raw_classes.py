"""Maps the raw ids of two LiDAR label formats to classes.

`LIDARSEG` maps the 32 ids of nuScenes-lidarseg (.bin, uint8) to `OCC3D_NUSCENES`, as the learning map of the nuScenes
devkit does. Ids that the devkit ignores become 'others'. `SEMANTIC_KITTI_RAW` maps the ids of semantic-kitti.yaml
(.label, the lower 16 bits of uint32) to `SEMANTIC_KITTI`, as its own learning map does. A point without a class still
has a distance, unless it is `NO_SURFACE`.
"""

from __future__ import annotations

import numpy as np

from renderocc_model.field.classes import OCC3D_NUSCENES, SEMANTIC_KITTI, UNLABELLED, ClassTable

__all__ = ["LIDARSEG", "NO_SURFACE", "SEMANTIC_KITTI_RAW", "class_or_none", "lookup_table"]

NO_SURFACE = 254  # instead of a class id: noise, sky or the vehicle itself, which have no depth either

_OCC3D = {
    "no surface": (0, 31),  # noise, vehicle.ego
    "others": (1, 5, 7, 8, 10, 11, 13, 19, 20, 29),
    "pedestrian": (2, 3, 4, 6),
    "barrier": (9,),
    "traffic_cone": (12,),
    "bicycle": (14,),
    "bus": (15, 16),
    "car": (17,),
    "construction_vehicle": (18,),
    "motorcycle": (21,),
    "trailer": (22,),
    "truck": (23,),
    "driveable_surface": (24,),
    "other_flat": (25,),
    "sidewalk": (26,),
    "terrain": (27,),
    "manmade": (28,),
    "vegetation": (30,),
}
_KITTI = {
    "no surface": (1,),  # outlier
    "unlabelled": (0, 52, 99),
    "car": (10, 252),
    "bicycle": (11,),
    "motorcycle": (15,),
    "truck": (18, 258),
    "other-vehicle": (13, 16, 20, 256, 257, 259),
    "person": (30, 254),
    "bicyclist": (31, 253),
    "motorcyclist": (32, 255),
    "road": (40, 60),
    "parking": (44,),
    "sidewalk": (48,),
    "other-ground": (49,),
    "building": (50,),
    "fence": (51,),
    "vegetation": (70,),
    "trunk": (71,),
    "terrain": (72,),
    "pole": (80,),
    "traffic-sign": (81,),
}


def _by_id(groups: dict[str, tuple[int, ...]], table: ClassTable) -> dict[int, int]:
    return {raw: class_or_none(table, name) for name, ids in groups.items() for raw in ids}


def class_or_none(table: ClassTable, name: str) -> int:
    """The id of a class name. 'unlabelled' is 255, and 'no surface' is `NO_SURFACE`."""
    return {"unlabelled": UNLABELLED, "no surface": NO_SURFACE}.get(name) or table.id_of(name)


LIDARSEG: dict[int, int] = _by_id(_OCC3D, OCC3D_NUSCENES)
SEMANTIC_KITTI_RAW: dict[int, int] = _by_id(_KITTI, SEMANTIC_KITTI)


def lookup_table(mapping: dict[int, int]) -> np.ndarray:
    """(65536,) int16: the class id of every raw id; -1 for ids that the mapping does not have."""
    table = np.full(1 << 16, -1, np.int16)
    table[list(mapping)] = list(mapping.values())
    return table
