"""Reads volumes of class ids in Occ3D's layout, and finds their grids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from renderocc_model.base.arrays import read_npz
from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, SEMANTIC_KITTI, ClassTable
from renderocc_model.field.truth import TRUTH_NOTE, noted_truth_classes
from renderocc_model.geometry.grid import OCC3D_GRID, SEMANTIC_KITTI_GRID, VoxelGrid

__all__ = ["flat_ground", "matched_files", "noted_table", "read_origins", "read_volume", "saved_grid", "volume_grid"]

_NAMED = 5  # files that an error names
_ROADS = ("driveable_surface", "road", "ground")
_ORIGINS = "a JSON object, path without suffix -> [[x, y, z], ...]"


def matched_files(predictions: Path, truth: Path) -> list[str]:
    """Relative paths of the .npz files in both folders, sorted.

    Raises:
        ValueError: a folder does not exist or is empty, or a file has no counterpart in the other folder.
    """
    found = []
    for name, folder in (("predictions", predictions), ("truth", truth)):
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder; name the folder of the {name}")
        found.append({path.relative_to(folder).as_posix() for path in folder.rglob("*.npz")})
        if not found[-1]:
            raise ValueError(f"{folder}: has no .npz files; name the folder of the {name}")
    if found[0] != found[1]:
        lacking = [_lacking(predictions, truth, found[1] - found[0]), _lacking(truth, predictions, found[0] - found[1])]
        raise ValueError(f"{'; '.join(filter(None, lacking))}; files are matched by their path in the folder")
    return sorted(found[0])


def noted_table(truth: Path, names: Sequence[str], wanted: ClassTable | None = None) -> ClassTable | None:
    """The class table that the folders of the truth's files name in truth.json, else `wanted`.

    Args:
        truth: the folder of the truth.
        names: relative paths of its files.
        wanted: the table that the user named; None for none.
    Raises:
        ValueError: two of these tables differ. The text names both.
    """
    said = {} if wanted is None else {"--truth-classes": wanted}
    for folder in sorted({(truth / name).parent for name in names}):
        noted = noted_truth_classes(folder)
        if noted is not None:
            said[str(folder / TRUTH_NOTE)] = noted
    first = next(iter(said), "")
    other = next((place for place, table in said.items() if table != said[first]), None)
    if other is not None:
        kinds = [f"{place} says {', '.join(said[place].names[:4])}, ..." for place in (first, other)]
        remedy = "leave out --truth-classes" if wanted else "compare folders of one class table"
        raise ValueError(f"class tables of the truth: {' and '.join(kinds)}; {remedy}")
    return said.get(first)


def _lacking(folder: Path, other: Path, names: set[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{folder}: lacks {len(names)} of the files in {other} ({shown})"


def read_volume(path: Path, arrays: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file. All must be (X, Y, Z) integers or bools of one shape.

    Raises:
        ValueError: the file cannot be read, or an array is missing or wrong. The text names the file.
    """
    try:
        found = read_npz(path, arrays)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); expected an .npz file in Occ3D's layout") from None
    for name, volume in found.items():
        if volume.ndim != 3 or volume.dtype.kind not in "iub" or not volume.size:
            raise ValueError(f"{path}: {name} is {volume.dtype} of shape {volume.shape}; expected (X, Y, Z) integers")
        if volume.shape != found[arrays[0]].shape:
            shape = found[arrays[0]].shape
            raise ValueError(f"{path}: {name} has shape {volume.shape}, {arrays[0]} {shape}; expected the same")
    return found


def saved_grid(path: Path) -> VoxelGrid | None:
    """The grid in a file that the node saved (`Occupancy.save_npz`); None if the file has no grid.

    Raises:
        ValueError: the file cannot be read, or its grid is wrong.
    """
    file = read_npz(path, (), ("grid", "frame"))
    if "grid" not in file:
        return None
    bounds, frame = file["grid"], str(file.get("frame", "base_link"))
    if bounds.shape != (7,) or bounds.dtype.kind not in "fiu":
        raise ValueError(
            f"its grid is {bounds.dtype} of shape {bounds.shape}; expected 7 numbers: both corners and the voxel size"
        )
    x0, y0, z0, x1, y1, z1, voxel_size = map(float, bounds)
    return VoxelGrid((x0, y0, z0), (x1, y1, z1), voxel_size, frame)


def read_origins(path: Path) -> dict[str, np.ndarray]:
    """Read origins of rays from JSON: relative path of a file without suffix -> list of [x, y, z] in metres.

    Raises:
        ValueError: the file cannot be read, or has another content.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); expected {_ORIGINS}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: is a {type(content).__name__}; expected {_ORIGINS}")
    origins = {}
    for name, value in content.items():
        try:
            origins[name] = np.array(value, np.float64)
        except (TypeError, ValueError, OverflowError):
            origins[name] = np.empty(0)
        if origins[name].ndim != 2 or origins[name].shape[1] != 3 or not np.isfinite(origins[name]).all():
            raise ValueError(f"{path}: origins of '{name}' are {value!r:.80}; expected a list of [x, y, z] in metres")
    return origins


def volume_grid(shape: tuple[int, int, int], classes: ClassTable) -> VoxelGrid:
    """Find a volume's grid from its shape.

    It is the grid of Occ3D or SemanticKITTI. Smaller volumes of 16 layers are the middle of Occ3D's grid.

    Raises:
        ValueError: the shape is none of these.
    """
    anywhere = classes.names == GROUND_OBSTACLE.names
    if shape == SEMANTIC_KITTI_GRID.shape and (anywhere or classes.names == SEMANTIC_KITTI.names):
        return SEMANTIC_KITTI_GRID
    own = OCC3D_GRID
    rest = np.subtract(own.shape, shape)
    known = anywhere or classes.names == OCC3D_NUSCENES.names
    if known and (rest >= 0).all() and rest[2] == 0 and (rest % 2 == 0).all():
        inset = rest[:2] // 2 * own.voxel_size
        lower = tuple(np.round(np.add(own.lower, (*inset, 0)), 6))
        upper = tuple(np.round(np.subtract(own.upper, (*inset, 0)), 6))
        return VoxelGrid(lower, upper, own.voxel_size)
    raise ValueError(f"a volume of shape {shape} is not of a known grid; say which with --grid X0 Y0 Z0 X1 Y1 Z1 VOXEL")


def flat_ground(grid: VoxelGrid, classes: ClassTable, height: float = 0.0) -> np.ndarray:
    """A volume (X, Y, Z) uint8 with road in the layer of voxels at `height`, metres in the grid's frame, else free.

    Raises:
        ValueError: the height is outside the grid, or the classes have no road.
    """
    name = next((name for name in _ROADS if name in classes.names), None)
    if name is None:
        raise ValueError(f"none of the classes is {' or '.join(_ROADS)}; leave this baseline out")
    if not grid.lower[2] <= height < grid.upper[2]:
        raise ValueError(f"ground at {height} m is not in the grid, {grid.lower[2]} to {grid.upper[2]} m")
    # Half a thousandth of a voxel is added, so that a height on a face belongs to the voxel above in spite of rounding.
    layer = int((height - grid.lower[2]) / grid.voxel_size + 5e-4)
    volume = np.full(grid.shape, classes.free, np.uint8)
    volume[:, :, min(layer, grid.shape[2] - 1)] = classes.id_of(name)
    return volume
