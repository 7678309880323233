"""The 3D truth beside a recording, as voxels to be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.field.truth import check_ids, truth_files
from renderocc_model.geometry.grid import VoxelGrid
from training.evaluate.volumes import read_volume, volume_grid
from training.recordings.notes import truth_class_table

from .contents import Voxels, surface_of

__all__ = ["Truth"]


class Truth:
    """Volumes in occupancy/<stamp>.npz beside the messages of a recording.

    Args:
        bag: the recording.
        classes: of all voxels that are shown.
        grid: of the volumes; None to find it from their shape.
    Attributes:
        stamps: moments that have truth, ascending, nanoseconds.
        note: why none is shown though there are files; empty otherwise.
    """

    def __init__(self, bag: Path, classes: ClassTable, grid: VoxelGrid | None = None) -> None:
        self._files, self._classes, self._grid, self.note = truth_files(bag), classes, grid, ""
        if self._files and (own := truth_class_table(bag)).names != classes.names:
            self.note = (
                f"{bag}: the 3D truth is not shown: its classes are {', '.join(own.names[:4])}, ..., and those of the "
                f"volumes {', '.join(classes.names[:4])}, ..."
            )
            self._files = {}
        self.stamps = list(self._files)

    def at(self, stamp_ns: int) -> Voxels | None:
        """The truth of a moment; None if there is none.

        Raises:
            ValueError: its file cannot be used; the text names it.
        """
        file = self._files.get(stamp_ns)
        if file is None:
            return None
        semantics = read_volume(file, ("semantics",))["semantics"].astype(np.uint8)
        try:
            check_ids(semantics, self._classes)
            grid = self._grid or volume_grid(semantics.shape, self._classes)
            known = semantics != UNLABELLED
            return surface_of(Occupancy(grid, self._classes, semantics, known.astype(np.float32), known))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
