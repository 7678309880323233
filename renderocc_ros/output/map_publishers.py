"""The topics of the map: ~/map/points, ~/map/markers, ~/map/grid and ~/map/grid_updates.

Nothing is made without a subscriber. nav2's static layer takes a whole grid from ~/map/grid, which is latched, and then
rectangles of cells from ~/map/grid_updates; it may read a grid later than the updates that follow it. So every update
has all cells that have changed since the last whole grid, and a whole grid is sent again when the map has scrolled,
when somebody new listens, and after `map.grid_period`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from renderocc_model.rosio import cdr
from renderocc_ros.frame.vehicle_map import MapSnapshot, VehicleMap
from renderocc_ros.output import messages as outputs
from renderocc_ros.parameters import NodeConfig

try:
    from map_msgs.msg import OccupancyGridUpdate
except ImportError:  # not in every ROS install; whole grids are then sent instead
    OccupancyGridUpdate = None

__all__ = ["GridChanges", "MapPublishers"]

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
UPDATES = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class GridChanges:
    """Decides between a whole grid and an update."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The next grid is a whole one."""
        self._cells: np.ndarray | None = None
        self._place: tuple = ()
        self._box: tuple[int, int, int, int] | None = None  # cells that have changed: x, y, and those behind the last
        self._listeners = 0
        self._sent = 0.0

    def next(
        self, cells: np.ndarray, place: tuple, listeners: int, now: float, period: float
    ) -> tuple[int, int, np.ndarray] | None:
        """What to send of new cells.

        Args:
            cells: (X, Y) int8.
            place: where they are: anything that differs when the grid has moved.
            listeners: number of subscriptions.
            now: steady seconds.
            period: seconds after which a whole grid is due again.
        Returns:
            None for the whole grid; or x, y and values of the smallest rectangle with all cells that have changed since
            the last whole grid, which may be empty.
        """
        known = self._cells is not None and self._place == place and self._cells.shape == cells.shape
        if not known or listeners > self._listeners or now - self._sent >= period:
            self._cells, self._place, self._sent = cells.copy(), place, now
            self._listeners, self._box = listeners, None
            return None
        self._listeners = listeners
        x, y = np.nonzero(cells != self._cells)
        if len(x):
            box = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
            old = self._box or box
            self._box = (*map(min, old[:2], box[:2]), *map(max, old[2:], box[2:]))
        if self._box is None:
            return 0, 0, cells[:0, :0]
        left, low, right, high = self._box
        return left, low, cells[left:right, low:high]


class MapPublishers:
    """Lifecycle publishers of the map.

    Args:
        node: their owner; inactive nodes publish nothing.
        config: the node's parameters.
    Attributes:
        config: replace it when a parameter changes.
    """

    def __init__(self, node: LifecycleNode, config: NodeConfig, now: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._node, self._now = node, now
        self._changes = GridChanges()
        self._last: dict[str, float] = {}
        self._publishers: dict = {}
        overriding = QoSOverridingOptions.with_default_policies()
        wanted = [
            ("points", PointCloud2, RELIABLE),
            ("markers", MarkerArray, RELIABLE),
            ("grid", OccupancyGrid, LATCHED),
        ]
        if OccupancyGridUpdate is not None:
            wanted.append(("grid_updates", OccupancyGridUpdate, UPDATES))
        try:
            for name, message_type, qos in wanted:
                self._publishers[name] = node.create_lifecycle_publisher(
                    message_type, f"~/map/{name}", qos, qos_overriding_options=overriding
                )
        except BaseException:
            self.destroy()
            raise

    def publish(self, vehicle_map: VehicleMap) -> None:
        """Publish what somebody subscribes to and what is due."""
        listeners = {name: publisher.get_subscription_count() for name, publisher in self._publishers.items()}
        due = {name for name, count in listeners.items() if count and self._due(name)}
        if "grid_updates" in due:
            due.add("grid")  # an update means nothing without its grid, which is latched
        if not due or (snapshot := vehicle_map.snapshot()) is None:
            return
        for name in due:
            self._last[name] = self._now()
        if due & {"points", "markers"}:
            self._publish_voxels(snapshot, due)
        if "grid" in due:
            self._publish_grid(snapshot, sum(listeners[name] for name in listeners if name.startswith("grid")))

    def destroy(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def _due(self, name: str) -> bool:
        rate = self.config.map.rate
        return not rate or self._now() - self._last.get(name, -np.inf) >= 1 / rate

    def _publish_voxels(self, snapshot: MapSnapshot, due: set[str]) -> None:
        volume, frame = snapshot.volume, snapshot.volume.grid.frame
        surface = outputs.surface_voxels(volume).nearest(self.config.map.max_voxels, snapshot.position)
        if "points" in due:
            message = outputs.points_message(surface, volume.classes, snapshot.stamp_ns, frame)
            self._publishers["points"].publish(message)
        if "markers" in due:
            size = volume.grid.voxel_size
            message = outputs.markers_message(surface, volume.classes, size, snapshot.stamp_ns, frame, "map")
            self._publishers["markers"].publish(message)

    def _publish_grid(self, snapshot: MapSnapshot, listeners: int) -> None:
        """The height band is that of ~/grid, above the vehicle."""
        config, volume, height = self.config, snapshot.volume, float(snapshot.position[2])
        cells = outputs.height_band_cells(
            volume, config.grid_min_height + height, config.grid_max_height + height, config.grid_ignored_classes
        )
        place = (snapshot.generation, volume.grid.lower)
        change = self._changes.next(cells, place, listeners, self._now(), config.map.grid_period)
        frame = volume.grid.frame
        if change is None or "grid_updates" not in self._publishers:
            lowest = config.grid_min_height + height
            self._publishers["grid"].publish(outputs.grid_message(cells, volume, lowest, snapshot.stamp_ns, frame))
            return
        x, y, values = change
        if values.size and self._publishers["grid_updates"].get_subscription_count():
            message = cdr.write_occupancy_grid_update(snapshot.stamp_ns, frame, values, x, y)
            self._publishers["grid_updates"].publish(message)
