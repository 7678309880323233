"""Occupancy volumes: each voxel around the vehicle is occupied with a class, free, or unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..base.arrays import read_npz
from ..base.files import replacing
from ..geometry.grid import VoxelGrid
from .classes import UNLABELLED, ClassTable

if TYPE_CHECKING:
    from .field import SemanticDensityField

__all__ = ["Occupancy", "OccupiedVoxels", "PLY_VERTEX"]

# One vertex of `save_ply`, packed.
PLY_VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("label", "u1"),
        ("confidence", "<f4"),
    ]
)

_PLY_NAMES = PLY_VERTEX.names or ()


@dataclass(frozen=True, eq=False)
class OccupiedVoxels:
    """The occupied voxels of a volume, in the order of their places in memory.

    Attributes:
        index: (M,) integers, ascending, (x * Y + y) * Z + z.
        labels: (M,) uint8 class ids.
        confidence: (M,) float32, probability of being occupied.
        surface: (M,) bool, as in `Occupancy.surface`.
    """

    index: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    surface: np.ndarray


class Occupancy:
    """The occupancy of a grid at one moment.

    A predictor fetches from its device only the occupied voxels and which voxels are visible. The arrays of all voxels
    are then made when they are first read. Do not write to them.

    Attributes:
        grid: where the voxels are.
        classes: what the ids in `semantics` mean.
        semantics: (X, Y, Z) uint8. The class id where a voxel is occupied and seen, `classes.free` where it is free and
            seen, 255 where it is unknown: no camera sees it, or it lies behind what they see. What the network supposes
            in unknown voxels is in `confidence` and `field`.
        confidence: (X, Y, Z) float32, probability of being occupied, for seen and unknown voxels alike.
        visible: (X, Y, Z) bool, seen by a camera.
        field: what the network predicted, on its device; None for a volume that comes from elsewhere.
        threshold: (X, Y, 1) float32, the confidence above which voxels count as occupied; None if it is not known.

    Raises:
        ValueError: an array has another shape than the grid, or another type.
    """

    # What makes the arrays of a predicted volume.
    _make_visible: Callable[[], np.ndarray]
    _make_confidence: Callable[[], np.ndarray]
    _make_field: Callable[[], SemanticDensityField | None]

    def __init__(
        self,
        grid: VoxelGrid,
        classes: ClassTable,
        semantics: np.ndarray,
        confidence: np.ndarray,
        visible: np.ndarray,
        field: SemanticDensityField | None = None,
        threshold: np.ndarray | None = None,
    ) -> None:
        for name, array, dtype in (
            ("semantics", semantics, np.uint8),
            ("confidence", confidence, np.float32),
            ("visible", visible, np.bool_),
        ):
            if array.shape != grid.shape or array.dtype != dtype:
                expected = f"{np.dtype(dtype)} of the grid's {grid.shape}"
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; expected {expected}")
        self.grid, self.classes, self.threshold = grid, classes, threshold
        self._voxels: OccupiedVoxels | None = None
        # Where the properties of these names keep what they have made.
        self.__dict__.update(semantics=semantics, confidence=confidence, visible=visible, field=field)

    @classmethod
    def predicted(
        cls,
        grid: VoxelGrid,
        classes: ClassTable,
        voxels: OccupiedVoxels,
        visible: Callable[[], np.ndarray],
        confidence: Callable[[], np.ndarray],
        field: Callable[[], SemanticDensityField | None],
        threshold: np.ndarray | None = None,
    ) -> Occupancy:
        """A volume whose arrays are made when they are asked for.

        Args:
            voxels: those that are occupied and seen.
            visible, confidence, field: make what the attributes of these names hold.
            threshold: as the attribute.
        """
        made = cls.__new__(cls)
        made.grid, made.classes, made._voxels, made.threshold = grid, classes, voxels, threshold
        made._make_visible, made._make_confidence, made._make_field = visible, confidence, field
        return made

    @cached_property
    def visible(self) -> np.ndarray:
        return self._make_visible()

    @cached_property
    def semantics(self) -> np.ndarray:
        semantics = np.where(self.visible, np.uint8(self.classes.free), np.uint8(UNLABELLED))
        assert self._voxels is not None  # of a predicted volume
        semantics.reshape(-1)[self._voxels.index] = self._voxels.labels
        return semantics

    @cached_property
    def confidence(self) -> np.ndarray:
        return self._make_confidence()

    @cached_property
    def field(self) -> SemanticDensityField | None:
        return self._make_field()

    @property
    def occupied(self) -> np.ndarray:
        """(X, Y, Z) bool: seen, and something is there."""
        return (self.semantics != self.classes.free) & (self.semantics != UNLABELLED)

    @property
    def unknown(self) -> np.ndarray:
        """(X, Y, Z) bool: no camera sees the voxel, or something hides it."""
        return self.semantics == UNLABELLED

    def surface(self) -> np.ndarray:
        """(X, Y, Z) bool: occupied voxels of whose 6 neighbours one is not occupied; outside the grid none is."""
        occupied = self.occupied
        inner = occupied.copy()
        for axis in range(3):
            layers, covered = np.moveaxis(occupied, axis, 0), np.moveaxis(inner, axis, 0)
            covered[1:] &= layers[:-1]
            covered[:-1] &= layers[1:]
            covered[0] = covered[-1] = False
        return occupied & ~inner

    def surface_points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of `surface`: centres (N, 3) float32 in the grid's frame, class ids (N,) uint8, confidences (N,) float32."""
        if self._voxels is None:
            x, y, z = np.nonzero(self.surface())
            labels, confidence = self.semantics[x, y, z], self.confidence[x, y, z]
        else:
            shown = self._voxels.surface
            x, y, z = np.unravel_index(self._voxels.index[shown], self.grid.shape)
            labels, confidence = self._voxels.labels[shown], self._voxels.confidence[shown]
        centres = np.stack([x, y, z], axis=1) + 0.5
        centres = (centres * self.grid.voxel_size + np.array(self.grid.lower)).astype(np.float32)
        return centres, labels, confidence

    def save_npz(self, path: str | Path) -> None:
        """Write the volume in Occ3D's layout; an existing file is replaced in one step, or not at all.

        `numpy.load(path)` gives `semantics` as above (uint8, 255 unknown), `confidence`, `visible`, `grid` (float64:
        the lower corner's x, y, z, the upper corner's, the voxel size), `frame` and `class_names`; no pickles.

        Raises:
            OSError: the file cannot be written.
        """
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                semantics=self.semantics,
                confidence=self.confidence,
                visible=self.visible,
                grid=np.array([*self.grid.lower, *self.grid.upper, self.grid.voxel_size]),
                frame=np.array(self.grid.frame),
                class_names=np.array(self.classes.names),
            )

    @classmethod
    def load_npz(cls, path: str | Path, classes: ClassTable) -> Occupancy:
        """Read what `save_npz` wrote.

        Args:
            path: the file.
            classes: the class table of the network that made it; the file holds only the names.
        Raises:
            ValueError: the file is not such a volume, or its class names are not those of `classes`.
        """
        try:
            file = read_npz(path, ("semantics", "confidence", "visible", "grid", "frame", "class_names"))
            if file["grid"].shape != (7,) or file["grid"].dtype.kind != "f" or file["class_names"].ndim != 1:
                raise ValueError("its grid is not 7 numbers, or its class names are no list")
            bounds, frame = file["grid"].tolist(), str(file["frame"])
            names = tuple(str(name) for name in file["class_names"])
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: not a volume written by ~/save or save_npz ({error})") from error
        if names != tuple(classes.names):
            raise ValueError(f"{path}: its classes are {', '.join(names)}; expected {', '.join(classes.names)}")
        try:
            grid = VoxelGrid(tuple(bounds[:3]), tuple(bounds[3:6]), bounds[6], frame)
            return cls(grid, classes, file["semantics"], file["confidence"], file["visible"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save_ply(self, path: str | Path) -> None:
        """Write the surface voxels' centres as a binary PLY point cloud with colours, `label` and `confidence`.

        MeshLab, CloudCompare and Open3D read it. An existing file is replaced in one step, or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        centres, labels, confidence = self.surface_points()
        vertices = np.empty(len(labels), PLY_VERTEX)
        colours = self.classes.palette()[labels]
        columns = (*centres.T, *colours.T, labels, confidence)
        for name, column in zip(_PLY_NAMES, columns):
            vertices[name] = column
        kinds = {"<f4": "float", "|u1": "uchar"}
        header = ["ply", "format binary_little_endian 1.0", f"comment voxel_size {self.grid.voxel_size}"]
        header += [f"comment frame {self.grid.frame}"]
        header += [f"comment class {index} {name}" for index, name in enumerate(self.classes.names)]
        header += [f"element vertex {len(vertices)}"]
        header += [f"property {kinds[PLY_VERTEX[name].str]} {name}" for name in _PLY_NAMES]
        header += ["end_header", ""]

        with replacing(Path(path)) as partial, partial.open("wb") as file:
            file.write("\n".join(header).encode())
            file.write(vertices.tobytes())
