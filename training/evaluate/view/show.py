"""Goes through a recording frame by frame and hands a Rerun recording what each frame shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.images.preprocessing import view_from_rgb
from training.recordings.camera_image import camera_image
from training.recordings.camera_tables import CameraTables
from training.recordings.frames import FrameIndex, Recording
from training.recordings.sources import RecordingError

from .contents import CameraImage, FrameContents, RenderedView, Voxels
from .truth import Truth

__all__ = ["NoOutputs", "Outputs", "Problems", "Writer", "show"]

MAX_WIDTH = 640  # pixels of the images that are shown


class Outputs(Protocol):
    """Where volumes come from: `PredictedOutputs`, `PublishedOutputs` or `NoOutputs`."""

    classes: ClassTable
    notes: list[str]

    def of_frame(
        self,
        frame: FrameIndex,
        images: Mapping[str, np.ndarray],
        poses: Mapping[str, np.ndarray],
        odom_from_base: np.ndarray,
    ) -> tuple[Voxels | None, Voxels | None, dict[str, RenderedView]]:
        """The frame's voxels, the map's, and rendered views, as `PredictedOutputs.of_frame` says."""


class Writer(Protocol):
    """What takes the frames: `SceneWriter`."""

    def write(self, frame: FrameContents) -> None: ...

    def write_trajectory(self, pieces: Sequence[np.ndarray]) -> None: ...


@dataclass
class NoOutputs:
    """A recording without volumes: cameras, truth and the vehicle's way are shown.

    Attributes:
        classes: class table of the truth.
    """

    classes: ClassTable
    notes: list[str] = field(default_factory=list)

    def of_frame(self, *_: object) -> tuple[None, None, dict[str, RenderedView]]:
        """Nothing."""
        return None, None, {}


@dataclass
class Problems:
    """What could not be shown: the first text of each kind, and how often."""

    first: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: object) -> None:
        self.first.setdefault(kind, str(text))
        self.counts[kind] += 1

    def texts(self) -> list[str]:
        """One line for each kind."""
        return [f"{kind}, {self.counts[kind]} times; the first: {text}" for kind, text in self.first.items()]


def show(
    recording: Recording,
    frames: Sequence[FrameIndex],
    outputs: Outputs,
    truth: Truth,
    writer: Writer,
    progress: Callable[[], object] = lambda: None,
) -> Problems:
    """Write frames and the vehicle's way.

    Frames without an ego pose, images that cannot be decoded and volumes that cannot be read are left out.

    Args:
        recording: an open recording.
        frames: which frames, in the order of time.
        outputs, truth: what belongs to them.
        writer: takes them.
        progress: called after each frame.
    Returns:
        what was left out.
    """
    problems, viewer = Problems(), ImageReader(recording)
    pieces: list[list[np.ndarray]] = []
    last: int | None = None
    for frame in frames:
        progress()
        try:
            odom_from_base = recording.odom_from_base(frame.stamp_ns)
        except RecordingError as error:
            problems.add("frames without ego pose", error)
            continue
        if last is None or not recording.related(last, frame.stamp_ns):
            pieces.append([])
        pieces[-1].append(odom_from_base[:3, 3])
        last = frame.stamp_ns
        writer.write(_contents(frame, viewer, outputs, truth, odom_from_base, problems))
    writer.write_trajectory([np.array(piece, np.float32) for piece in pieces])
    return problems


def _contents(
    frame: FrameIndex,
    viewer: ImageReader,
    outputs: Outputs,
    truth: Truth,
    odom_from_base: np.ndarray,
    problems: Problems,
) -> FrameContents:
    images, poses = viewer.read(frame, problems)
    shown = {camera: viewer.shown(camera, image, poses[camera]) for camera, image in images.items()}
    voxels = remembered = true_voxels = None
    rendered: dict[str, RenderedView] = {}
    try:
        voxels, remembered, rendered = outputs.of_frame(frame, images, poses, odom_from_base)
    except ValueError as error:
        problems.add("frames whose volume cannot be shown", error)
    try:
        true_voxels = truth.at(frame.stamp_ns)
    except ValueError as error:
        problems.add("frames whose 3D truth cannot be shown", error)
    return FrameContents(frame.stamp_ns, odom_from_base, shown, rendered, voxels, remembered, true_voxels)


def _shown_size(model: CameraModel) -> tuple[int, int]:
    width = min(model.width, MAX_WIDTH)
    return max(1, round(model.height * width / model.width)), width


class ImageReader:
    """Reads the images of frames.

    Args:
        recording: an open recording.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._tables = CameraTables(recording, _shown_size)

    def read(self, frame: FrameIndex, problems: Problems) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """{camera: (H, W, 3) uint8 RGB image} and {camera: (4, 4) base_from_camera}, of cameras that have both."""
        images, poses = {}, {}
        for camera, stamp_ns in frame.images.items():
            if camera not in self._recording.models:
                continue
            try:
                pose = self._recording.base_from_camera(camera, stamp_ns, frame.stamp_ns)
                message = self._recording.image_message(camera, stamp_ns)
                images[camera] = camera_image(message, self._recording.models[camera])
            except ValueError as error:
                problems.add(f"images of camera '{camera}' that cannot be shown", error)
                continue
            poses[camera] = pose
        return images, poses

    def shown(self, camera: str, image: np.ndarray, base_from_camera: np.ndarray) -> CameraImage:
        """An image without distortion, at most MAX_WIDTH pixels wide."""
        table = self._tables[camera]
        return CameraImage(table.view, base_from_camera, view_from_rgb(table, image))
