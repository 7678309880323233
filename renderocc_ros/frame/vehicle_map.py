"""The node's map of the last frames: fed by the worker's thread, cleared and saved by the executor's."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from renderocc_model.inference.map_config import FARTHEST
from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.parameters import NodeConfig

if TYPE_CHECKING:  # it loads PyTorch, which takes seconds: the node is on the graph before that
    from renderocc_model.field.occupancy import Occupancy
    from renderocc_model.inference.predictor import Predictor

__all__ = ["MapSnapshot", "VehicleMap"]


@dataclass(frozen=True, eq=False)
class MapSnapshot:
    """A copy of the map after a frame.

    volume: in the odometry frame.
    stamp_ns: of the last frame in it.
    position: (3,) the vehicle's place in the odometry frame, metres.
    generation: how often the map was begun anew.
    """

    volume: Occupancy
    stamp_ns: int
    position: np.ndarray
    generation: int


class VehicleMap:
    """A `RollingMap` that two threads may use, with the node's parameters.

    Frames without ego motion are left out: the map stays as it is, and follows again when there are poses.

    Args:
        config: the node's parameters.
        predictor: makes the frames.
        events: receives the reasons why the map was begun anew.
    Attributes:
        missing: why the last frame is not in the map; empty if it is.
    """

    def __init__(self, config: NodeConfig, predictor: Predictor, events: ThrottledLog) -> None:
        from renderocc_model.inference.rolling_map import RollingMap

        self._map = RollingMap(
            predictor.classes, predictor.grid, config.map, config.frame(config.odom_frame) or "odom", config.motion
        )
        self._enabled = config.map.enabled
        self._events = events
        self._lock = threading.Lock()
        self._last: tuple[int, np.ndarray] | None = None  # stamp and position of the last frame
        self._generation = 0
        self.missing = "" if self._enabled else "parameter 'map.enabled' is false"

    @property
    def frames(self) -> int:
        """Number of frames in the map."""
        return self._map.frames

    @property
    def extent(self) -> str:
        """What the map covers, in words."""
        x, y, z = self._map.shape
        return f"{x} x {y} x {z} voxels of {self._map.voxel_size:g} m"

    def set_config(self, config: NodeConfig) -> None:
        """Follow a change of the parameters."""
        with self._lock:
            self._map.config = config.map

    def warm_up(self) -> None:
        """Compile the loops before the first frame."""
        if not self._enabled:
            return
        from renderocc_model.field.classes import UNLABELLED
        from renderocc_model.field.occupancy import Occupancy
        from renderocc_model.geometry.grid import VoxelGrid

        size = self._map.voxel_size
        grid, shape = VoxelGrid((0.0, 0.0, 0.0), (size, size, size), size), (1, 1, 1)
        nothing = np.full(shape, UNLABELLED, np.uint8), np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        half = np.full((1, 1, 1), 0.5, np.float32)
        with self._lock:
            self._map.add(Occupancy(grid, self._map.classes, *nothing, threshold=half), np.eye(4), 0)
            self._map.volume()
            self._map.clear()

    def add(self, frame: Frame) -> None:
        """Add a frame that has an occupancy."""
        if not self._enabled:
            return
        if frame.odom_from_base is None:
            self.missing = f"the last frame is not in the map: {frame.ego_motion_missing}"
            return
        if np.abs(frame.odom_from_base[:3, 3]).max() > FARTHEST:
            self.missing = f"the last frame is not in the map: its pose is more than {FARTHEST:g} m from the origin"
            return
        with self._lock:
            if frame.jump is not None:
                self._map.clear()
            reason = self._map.add(frame.occupancy, frame.odom_from_base, frame.stamp_ns)
            self._last = frame.stamp_ns, frame.odom_from_base[:3, 3].copy()
            self._generation += bool(reason or frame.jump)
        self.missing = ""
        if reason:
            self._events.report("map", "jump", f"the map begins anew: {reason}", time.monotonic())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._map.clear()
            self._last = None
            self._generation += 1

    def snapshot(self) -> MapSnapshot | None:
        """A copy of the map; None while nothing is in it."""
        with self._lock:
            volume = self._map.volume()
            if volume is None or self._last is None:
                return None
            return MapSnapshot(volume, *self._last, self._generation)
