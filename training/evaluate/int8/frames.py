"""Frames of a recording as a network gets them in the node, with their 3D truth where there is some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from renderocc_model.field.classes import ClassTable
from renderocc_model.field.truth import truth_files
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import invert, transform_points
from renderocc_model.geometry.undistortion import UndistortTable
from renderocc_model.images.preprocessing import view_from_compressed, view_from_raw
from renderocc_model.inference.predictor import Predictor
from renderocc_model.rosio import cdr
from training.recordings.camera_tables import CameraTables
from training.recordings.frames import FrameIndex, Recording
from training.recordings.notes import truth_class_table
from training.recordings.sources import Message, RecordingError
from training.supervision.voxel_truth import crop_slices

from ..frame_truth import FrameTruth
from ..rayiou import DEFAULT_ORIGIN, select_origins
from ..volumes import read_volume, volume_grid

__all__ = ["FrameReader", "FrameWithTruth", "PredictorInputs"]


class PredictorInputs(NamedTuple):
    """The arguments of `Predictor.predict`, and those of the earlier frame that the network joins, if it does."""

    views: np.ndarray
    tables: list[UndistortTable]
    base_from_camera: np.ndarray
    odom_from_base: np.ndarray | None
    seconds: float
    earlier: PredictorInputs | None = None

    def semantics(self, predictor: Predictor) -> np.ndarray:
        """The volume (X, Y, Z) of this frame after the earlier one."""
        predictor.reset()
        if self.earlier is not None:
            predictor.predict(*self.earlier[:5])
        return predictor.predict(*self[:5]).semantics


class FrameWithTruth(NamedTuple):
    """A frame to compare: what the network gets, and its truth and the origins of RayIoU's rays, or None for both."""

    inputs: PredictorInputs
    truth: FrameTruth | None
    origins: np.ndarray | None


class FrameReader:
    """Reads frames of an open recording with the node's code: decoded and undistorted into the network's views.

    Args:
        view_size: (height, width) of the network's views.
        grid, classes: of the network's volumes, for the truth.
        interval: seconds to the earlier frame that the network joins; 0: it does not join any.
    Attributes:
        left_out: texts of frames that could not be read.
        note: why the recording's 3D truth is not used; empty if it is used, or if there is none.
    """

    def __init__(
        self,
        recording: Recording,
        view_size: tuple[int, int],
        grid: VoxelGrid,
        classes: ClassTable,
        interval: float = 0.0,
    ) -> None:
        self._recording, self._interval_ns = recording, round(interval * 1e9)
        self._grid, self._classes = grid, classes
        self._tables = CameraTables(recording, lambda model: view_size)
        self._truth = truth_files(recording.path)
        self.left_out: list[str] = []
        self.note = ""
        if self._truth and (own := truth_class_table(recording.path)).names != classes.names:
            self.note = (
                f"{recording.path}: its 3D truth has the classes {', '.join(own.names[:4])}, ..., the network "
                f"{', '.join(classes.names[:4])}, ...; it is not used"
            )
            self._truth = {}

    @property
    def has_truth(self) -> bool:
        return bool(self._truth)

    def inputs(self, frames: Sequence[FrameIndex]) -> Iterator[PredictorInputs]:
        """What the network gets for each frame; frames that cannot be read are left out."""
        return (found.inputs for found in self._read(frames, with_truth=False))

    def with_truth(self, frames: Sequence[FrameIndex]) -> Iterator[FrameWithTruth]:
        """The same with the truth of each frame."""
        return self._read(frames, with_truth=True)

    def _read(self, frames: Sequence[FrameIndex], with_truth: bool) -> Iterator[FrameWithTruth]:
        for frame in frames:
            try:
                inputs, before = self._inputs(frame), self._before(frame)
                if before is not None:
                    inputs = inputs._replace(earlier=self._inputs(before))
                truth = self._truth_of(frame) if with_truth else None
                origins = None if truth is None else self._origins(frame)
            except ValueError as error:  # RecordingError among them
                self.left_out.append(str(error))
                continue
            yield FrameWithTruth(inputs, truth, origins)

    def _inputs(self, frame: FrameIndex) -> PredictorInputs:
        if not frame.images:
            raise RecordingError(
                f"{self._recording.path}: no image at {self._recording.time_text(frame.stamp_ns)}; leave this part out"
            )
        messages = self._recording.gather(("image", camera, stamp) for camera, stamp in frame.images.items())
        tables = [self._tables[camera] for camera in frame.images]
        views = [
            _view(table, messages["image", camera, stamp])
            for table, (camera, stamp) in zip(tables, frame.images.items())
        ]
        poses = [
            self._recording.base_from_camera(camera, stamp, frame.stamp_ns) for camera, stamp in frame.images.items()
        ]
        odom_from_base = self._recording.odom_from_base(frame.stamp_ns) if self._recording.odom_frame else None
        return PredictorInputs(np.stack(views), tables, np.stack(poses), odom_from_base, frame.stamp_ns * 1e-9)

    def _before(self, frame: FrameIndex) -> FrameIndex | None:
        """The frame that is nearest to an interval before, if the network joins one and there is one."""
        recording = self._recording
        if not self._interval_ns or not recording.odom_frame or not frame.images:
            return None
        camera, stamp_ns = next(iter(frame.images.items()))
        wanted = frame.stamp_ns - self._interval_ns
        earlier = [one for one in recording.stamps[camera] if one < min(stamp_ns, frame.stamp_ns)]
        nearest = min(earlier, key=lambda one: abs(one - wanted), default=None)
        if nearest is None or not recording.related(nearest, frame.stamp_ns):
            return None
        return recording.frames_at([nearest])[0]

    def _truth_of(self, frame: FrameIndex) -> FrameTruth | None:
        file = self._truth.get(frame.stamp_ns)
        if file is None:
            return None
        arrays = read_volume(file, ("semantics", "mask_camera"))
        try:
            slices = crop_slices(volume_grid(arrays["semantics"].shape, self._classes), self._grid)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        semantics = np.ascontiguousarray(arrays["semantics"][slices]).astype(np.uint8)
        return FrameTruth(semantics, arrays["mask_camera"][slices] != 0)

    def _origins(self, frame: FrameIndex) -> np.ndarray:
        """Of RayIoU's rays: where a LiDAR was at the moments of all truth that the ego pose relates to this frame."""
        lidar = np.array([DEFAULT_ORIGIN])
        if not self._recording.odom_frame:
            return lidar
        base_from_odom = invert(self._recording.odom_from_base(frame.stamp_ns))
        places = [
            transform_points(base_from_odom @ self._recording.odom_from_base(stamp), lidar)[0]
            for stamp in self._truth
            if self._recording.related(stamp, frame.stamp_ns)
        ]
        return select_origins(np.array(places), self._grid)


def _view(table: UndistortTable, message: Message) -> np.ndarray:
    if isinstance(message, cdr.CompressedImageMessage):
        return view_from_compressed(table, message.data)
    return view_from_raw(table, *message.pixel_arguments)
