"""Writes accumulated volumes in Occ3D's layout, each file whole; what is there already is not made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from renderocc_model.base.files import replacing
from renderocc_model.field.classes import ClassTable
from renderocc_model.field.truth import TRUTH_NOTE
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.geometry.transforms import invert
from training.recordings.frames import Recording
from training.recordings.sources import RecordingError

from .camera_mask import pixel_rays, seen_voxels
from .movers import moved_to
from .sweeps import Sweeps
from .volume import accumulate

__all__ = ["TruthWriter"]


class TruthWriter:
    """Makes and writes the truth of moments.

    Args:
        recording: an open recording.
        sweeps: its sweeps.
        classes: the table of their classes.
        out: folder of the files.
        grid: the volumes' grid.
    """

    def __init__(
        self, recording: Recording, sweeps: Sweeps, classes: ClassTable, out: Path, grid: VoxelGrid = OCC3D_GRID
    ) -> None:
        self.recording, self.sweeps, self.classes, self.out, self.grid = recording, sweeps, classes, out, grid
        self._rays = {camera: pixel_rays(model, grid) for camera, model in recording.models.items()}

    def begin(self, settings: str) -> None:
        """Make the folder, or find it as an interrupted run with the same settings has left it.

        Args:
            settings: text that tells what the files are made of.
        Raises:
            ValueError: the folder holds other truth.
        """
        note = self.out / TRUTH_NOTE
        there = note.read_text(encoding="utf-8") if note.is_file() else None
        if there is None and any(self.out.glob("*.npz")):
            raise ValueError(f"{self.out}: holds truth that this command did not make; name another folder with --out")
        if there not in (None, settings):
            raise ValueError(
                f"{self.out}: was made with other settings ({note}); remove it, or name another with --out"
            )
        self.out.mkdir(parents=True, exist_ok=True)
        if there is None:
            with replacing(note) as temporary:
                temporary.write_text(settings, encoding="utf-8")

    def write(self, stamp_ns: int) -> bool:
        """Write the truth of a moment; False if it is there already.

        Raises:
            RecordingError: there is no ego pose or no sweep at the moment.
        """
        file = self.out / f"{stamp_ns}.npz"
        if file.is_file():
            return False
        base_from_odom = invert(self.recording.odom_from_base(stamp_ns))
        own = self.sweeps.own(stamp_ns)
        if not own:
            raise RecordingError(f"{self.recording.path}: no sweep at {self.recording.time_text(stamp_ns)} can be read")
        if self.classes.dynamic:
            others = self.sweeps.beside(stamp_ns)
            own = [
                moved_to(stamp_ns, sweep, [one for one in others if one.source == sweep.source], self.classes.dynamic)
                for sweep in own
            ]
        made = accumulate(self.grid, self.classes, base_from_odom, own, self.sweeps.around(stamp_ns))
        seen = np.zeros(self.grid.shape, bool)
        for frame in self.recording.frames_at([stamp_ns]):
            for camera, image_ns in frame.images.items():
                try:
                    pose = self.recording.base_from_camera(camera, image_ns, stamp_ns)
                except RecordingError:
                    continue  # an image without a pose, or across a jump, shows nothing of this moment
                seen |= seen_voxels(made.semantics != self.classes.free, self.grid, pose, self._rays[camera])
        masks = {"mask_lidar": made.observed, "mask_camera": seen & made.observed}
        with replacing(file) as temporary, temporary.open("wb") as written:
            np.savez_compressed(
                written, semantics=made.semantics, **{name: mask.astype(np.uint8) for name, mask in masks.items()}
            )
        return True
