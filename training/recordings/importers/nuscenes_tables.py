"""Reads the tables of nuScenes: scenes and their sensor readings, files of labels, poses as matrices."""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renderocc_model.geometry.transforms import transform_from

from .devkit import DevkitTables, records
from .importing import DatasetError

__all__ = [
    "CATEGORIES",
    "LATEST_US",
    "Reading",
    "Scene",
    "lidarseg_files",
    "only_version",
    "pose_matrix",
    "scene_names",
]

LATEST_US = 2**31 * 1_000_000  # ROS's stamps have 32 bits of seconds
# Names of lidarseg's ids. A category table with other ids is refused.
CATEGORIES = (
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
)


class Reading(NamedTuple):
    """One row of sample_data."""

    stamp_ns: int
    token: str
    sample: str
    pose: str
    calibration: str
    key: bool
    width: int
    height: int
    file: str


@dataclass
class Scene:
    """One scene's name and sensor readings."""

    name: str
    readings: dict[str, list[Reading]] = field(default_factory=lambda: defaultdict(list))  # by channel


def only_version(root: Path) -> str:
    found = sorted(path.parent.name for path in root.glob("*/sample_data.json"))
    if len(found) != 1:
        told = (
            f"has {', '.join(found)}; choose one with --version"
            if found
            else "has no v1.0-*/sample_data.json; name the folder that contains the tables' folder and samples/"
        )
        raise DatasetError(f"{root} {told}")
    return found[0]


def scene_names(tables: DevkitTables, wanted: list[str] | None) -> dict[str, str]:
    """The wanted scenes, as {token: name}."""
    names = dict(tables.rows("scene", "token", "name"))
    for name in names.values():  # recordings get these names, in the folder that was asked for and nowhere else
        if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
            raise DatasetError(f"{tables.path('scene')}: scene {name!r:.60} cannot be the name of a recording")
    for name in wanted or ():
        if name not in names.values():
            near = difflib.get_close_matches(name, names.values(), 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {len(names)} scenes"
            raise DatasetError(f"{tables.path('scene')}: there is no scene '{name}'; {hint}")
    return {token: name for token, name in names.items() if wanted is None or name in wanted}


def lidarseg_files(tables: DevkitTables) -> dict[str, str] | None:
    """Label files, as {sample_data token: file}; None when lidarseg is not unpacked."""
    if not tables.has("lidarseg"):
        return None
    path = tables.path("category")
    for name, index in ((r["name"], r["index"]) for r in records(path) if "name" in r and "index" in r):
        if type(index) is not int or not 0 <= index < len(CATEGORIES) or CATEGORIES[index] != name:
            raise DatasetError(
                f"{path}: {name!r:.60} has index {index!r:.60}, which is not lidarseg's; "
                f"unpack nuScenes-lidarseg-all-v1.0"
            )
    return dict(tables.rows("lidarseg", "sample_data_token", "filename"))


def pose_matrix(translation: list[float], rotation: list[float]) -> np.ndarray:
    """parent_from_child (4, 4) of a devkit record. The devkit's quaternions begin with w."""
    try:
        x, y, z = (float(value) for value in translation)
        qw, qx, qy, qz = (float(value) for value in rotation)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"pose is {translation!r:.60}, {rotation!r:.60}; expected 3 and 4 numbers") from None
    return transform_from(np.array([x, y, z]), np.array([qx, qy, qz, qw]))
