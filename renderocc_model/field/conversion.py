"""Converts class ids from one table to another: from any built-in table to ground and obstacle."""

from __future__ import annotations

import numpy as np

from .classes import GROUND_OBSTACLE, TABLES, UNLABELLED, ClassTable

__all__ = ["GROUND_CLASSES", "converted_ids"]

# The classes of each table that are ground; everything else that is not free is an obstacle.
GROUND_CLASSES = {
    "occ3d_nuscenes": ("driveable_surface", "other_flat", "sidewalk", "terrain"),
    "semantic_kitti": ("road", "parking", "sidewalk", "other-ground", "terrain"),
    "ground_obstacle": ("ground",),
}


def converted_ids(source: ClassTable, target: ClassTable) -> np.ndarray:
    """The id in `target` of each id of `source`, for `ids[volume]`.

    >>> from renderocc_model.field.classes import OCC3D_NUSCENES
    >>> converted_ids(OCC3D_NUSCENES, GROUND_OBSTACLE)[[4, 11, 17, 255]]  # car, driveable_surface, free, unlabelled
    array([  1,   0,   2, 255], dtype=uint8)

    Args:
        source: the table that the ids belong to.
        target: the same table, or that of ground and obstacle.
    Returns:
        (256,) uint8. Ids that `source` does not have, and 255, become 255 (unlabelled).
    Raises:
        ValueError: there is no conversion between these tables.
    """
    if source == target:
        ids = np.full(256, UNLABELLED, np.uint8)
        ids[: len(source)] = np.arange(len(source))
        return ids
    name = next((name for name, table in TABLES.items() if table == source), None)
    if target != GROUND_OBSTACLE or name is None:
        known = ", ".join(TABLES)
        raise ValueError(
            f"classes: ids of {', '.join(source.names[:4])}, ... cannot be converted to {', '.join(target.names[:4])}, "
            f"...; only those of {known} can, to ground_obstacle"
        )
    ids = np.full(256, UNLABELLED, np.uint8)
    for index, each in enumerate(source.names):
        ids[index] = target.id_of("ground" if each in GROUND_CLASSES[name] else "obstacle")
    ids[source.free] = target.free
    return ids
