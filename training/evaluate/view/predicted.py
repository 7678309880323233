"""Predicts what the frames of a recording show: volumes, the map that remembers, and views of each camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from renderocc_model.images.preprocessing import view_from_rgb
from renderocc_model.inference.predictor import Predictor
from renderocc_model.inference.rendered_views import ViewRenderer
from renderocc_model.inference.rolling_map import RollingMap
from training.recordings.camera_tables import CameraTables
from training.recordings.frames import FrameIndex, Recording

from .contents import RenderedView, Voxels, surface_of

__all__ = ["PredictedOutputs"]


class PredictedOutputs:
    """Runs a network on frames, one after the other.

    Args:
        recording: an open recording.
        checkpoint: as for `Predictor`.
        device: as for `Predictor`.
        stride: rendered views have one ray for stride x stride pixels of the network's view.
    Attributes:
        classes: the network's class table.
        notes: what should be known about the network and the recording.
    Raises:
        CheckpointError: the checkpoint cannot be used.
    """

    def __init__(self, recording: Recording, checkpoint: str | Path, device: str = "auto", stride: int = 2) -> None:
        self._recording, self._stride = recording, stride
        self._predictor = Predictor(checkpoint, device=device)
        self.classes = self._predictor.classes
        self.notes = self._predictor.compare_rig(recording.models)
        self._map = RollingMap(self.classes, self._predictor.grid, limits=recording.vehicle.motion)
        self._tables = CameraTables(recording, lambda model: self._predictor.view_size)
        self._renderers: dict[str, ViewRenderer] = {}

    def of_frame(
        self,
        frame: FrameIndex,
        images: Mapping[str, np.ndarray],
        poses: Mapping[str, np.ndarray],
        odom_from_base: np.ndarray,
    ) -> tuple[Voxels | None, Voxels | None, dict[str, RenderedView]]:
        """Predict a frame.

        Args:
            frame: its stamp is that of the volume.
            images: {camera: (H, W, 3) uint8 RGB} in the camera's distorted image plane; others are absent.
            poses: {camera: (4, 4) base_from_camera}, see `Recording.base_from_camera`.
            odom_from_base: (4, 4) pose of the vehicle.
        Returns:
            the frame's voxels in base_link; the map's in odom, None without a fixed frame; {camera: rendered view}.
        """
        if not images:
            return None, None, {}
        tables = [self._tables[camera] for camera in images]
        views = np.stack([view_from_rgb(table, image) for table, image in zip(tables, images.values())])
        mounts = np.stack([poses[camera] for camera in images])
        occupancy = self._predictor.predict(views, tables, mounts, odom_from_base, frame.stamp_ns * 1e-9)
        remembered = None
        if self._recording.odom_frame:
            self._map.add(occupancy, odom_from_base, frame.stamp_ns)
            if (volume := self._map.volume()) is not None:
                remembered = surface_of(volume)
        rendered = {}
        for camera in images:
            renderer = self._renderer(camera)
            colours, depth = renderer.render(occupancy, poses[camera])
            rendered[camera] = RenderedView(renderer.view.strided(self._stride), poses[camera], colours, depth)
        return surface_of(occupancy), remembered, rendered

    def _renderer(self, camera: str) -> ViewRenderer:
        if camera not in self._renderers:
            self._renderers[camera] = ViewRenderer(self._tables[camera].view, self._stride)
        return self._renderers[camera]
