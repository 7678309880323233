"""What an ordinary subscriber sees of the node: its outputs, its diagnostics, its answers to service calls."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from system import LATCHED, Listener, stamp_ns

from campaign.map_judge import MapJudge
from campaign.player import ScenePlayer
from campaign.seen import perhaps_seen, voxels_perhaps_seen

__all__ = ["Observer", "Output", "Status", "queues"]

BAND = (0.3, 2.0)  # the node's default grid_min_height, grid_max_height, metres
MATCHED = 100_000_000  # the node's default max_camera_time_diff, nanoseconds
UNKNOWN = 255  # in the volumes of ~/save
KEPT = 4000


@dataclass(frozen=True)
class Output:
    """A message that came: steady seconds, topic, stamp.

    cells, free: of ~/grid and ~/map/grid, all and those called free that no camera can have seen.
    moving, kept: of ~/map/points, voxels of what moves that were judged, and those of them that no camera can have seen
        within the time after which they decay.
    """

    at: float
    topic: str
    stamp: int
    cells: int = 0
    free: int = 0
    moving: int = 0
    kept: int = 0


@dataclass(frozen=True)
class Status:
    """One line of /diagnostics: its level (0 ok, 1 warning, 2 error), text and values."""

    level: int
    text: str
    values: dict[str, str]


def queues(lines: dict[str, Status]) -> tuple[int, int]:
    """Images that wait in the node, and images it has dropped: received = matched + dropped + waiting."""
    waiting = dropped = 0
    for name, status in lines.items():
        if name.startswith("camera ") and "received" in status.values:
            gone = sum(int(value) for key, value in status.values.items() if key.startswith("dropped"))
            waiting += int(status.values["received"]) - int(status.values["matched"]) - gone
            dropped += gone
    return waiting, dropped


class Observer:
    """Subscriptions to the outputs, the map and /diagnostics, and clients of the services, spun by a thread of its own.

    Args:
        player: what was sent, to judge the outputs by; None: they are not judged.
        domain: ROS domain.
    Attributes:
        outputs: the last outputs, oldest first.
        reports: the last diagnostics of the node, (steady seconds, {line: status}), oldest first.
        judge_free: whether cells and voxels are compared with what the cameras can have seen.
        map: judges the map; None without a player.
    """

    def __init__(self, player: ScenePlayer | None, domain: int) -> None:
        self.player = player
        self.outputs: deque[Output] = deque(maxlen=KEPT)
        self.reports: deque[tuple[float, dict[str, Status]]] = deque(maxlen=KEPT)
        self.judge_free = player is not None
        self.map = MapJudge(player, self._possibly_used) if player is not None else None
        self._seen: dict[tuple, np.ndarray] = {}
        self._ros = Listener(domain, "fault_observer")
        self._ros.listen(PointCloud2, "/renderocc/points", 10, self._on_points)
        self._ros.listen(OccupancyGrid, "/renderocc/grid", LATCHED, self._on_grid)
        self._ros.listen(OccupancyGrid, "/renderocc/map/grid", LATCHED, self._on_map)
        if player is not None:  # without one nothing is judged, and the node need not build it
            self._ros.listen(PointCloud2, "/renderocc/map/points", 10, self._on_map_points)
            self._ros.listen(String, "/renderocc/classes", LATCHED, self._on_classes)
        self._ros.listen(DiagnosticArray, "/diagnostics", 50, self._on_diagnostics)

    def close(self) -> None:
        self._ros.close()

    @property
    def sees_node(self) -> bool:
        """Whether the node is on the graph."""
        return ("renderocc", "/") in self._ros.node.get_node_names_and_namespaces()

    # ---- what comes

    def _on_points(self, message) -> None:
        self.outputs.append(Output(time.monotonic(), "points", stamp_ns(message)))

    def _on_grid(self, message) -> None:
        stamp = stamp_ns(message)
        free = self.unseen_free(message, stamp) if self.judge_free else 0
        if self.map is not None:
            self.map.set_reach(message.info)
        self.outputs.append(Output(time.monotonic(), "grid", stamp, len(message.data), free))

    def _on_map(self, message) -> None:
        free = self.map.unseen_free(message) if self.judge_free else 0
        self.outputs.append(Output(time.monotonic(), "map", stamp_ns(message), len(message.data), free))

    def _on_map_points(self, message) -> None:
        moving, kept = self.map.undecayed(message) if self.judge_free else (0, 0)
        self.outputs.append(Output(time.monotonic(), "map points", stamp_ns(message), moving=moving, kept=kept))

    def _on_classes(self, message) -> None:
        self.map.set_classes(json.loads(message.data)["classes"])

    def _on_diagnostics(self, message) -> None:
        lines = {
            status.name.partition(": ")[2]: Status(
                ord(status.level) if isinstance(status.level, (bytes, str)) else int(status.level),
                status.message,
                {value.key: value.value for value in status.values},
            )
            for status in message.status
            if status.hardware_id == "renderocc"
        }
        if lines:
            self.reports.append((time.monotonic(), lines))

    # ---- judgements

    def unseen_free(self, message, stamp: int) -> int:
        """How many cells of ~/grid are free though no camera with a usable image of that moment can have seen them."""
        cells = np.asarray(message.data, np.int8).reshape(message.info.height, message.info.width)
        free = cells == 0
        for camera in self._cameras_at(stamp):
            if not free.any():
                break
            for calibration, (info, mount) in self._possibly_used(camera).items():
                key = (calibration, message.info.width, message.info.height, message.info.resolution)
                if key not in self._seen:
                    if len(self._seen) > 500:
                        self._seen.clear()
                    self._seen[key] = perhaps_seen(info, *mount, message.info, *BAND)
                free = free & ~self._seen[key]
        return int(free.sum())

    def unseen_voxels(self, path: Path) -> int:
        """How many voxels of a volume that ~/save wrote are free or occupied though no camera can have seen them: those
        with a usable image of its moment, which is the file's name.

        Raises:
            OSError, ValueError, KeyError: the file is no such volume.
        """
        with np.load(path) as volume:
            known, grid = volume["semantics"] != UNKNOWN, volume["grid"]
        for camera in self._cameras_at(int(path.stem)):
            for info, mount in self._possibly_used(camera).values():
                if known.any():
                    known &= ~voxels_perhaps_seen(info, *mount, grid[:3], grid[6], known.shape)
        return int(known.sum())

    def _cameras_at(self, stamp: int) -> list[str]:
        """Cameras of which a usable image of about this stamp was sent."""
        return [
            camera
            for camera, sent in self.player.sent.items()
            if any(image.usable and abs(image.stamp - stamp) <= MATCHED for image in list(sent))
        ]

    def _possibly_used(self, camera: str) -> dict[tuple, tuple]:
        """{key: (camera_info, (translation, quaternion))}: all calibrations sent lately, with all mounts, each once."""
        player = self.player
        infos = [player.scene.infos[camera], *(info for _, info in list(player.infos_sent[camera]))]
        mounts = [player.scene.mounts[camera]]
        for _, sent in list(player.mounts_sent[camera]):
            t, q = sent.translation, sent.rotation
            mounts.append(((t.x, t.y, t.z), (q.x, q.y, q.z, q.w)))
        found = {}
        for info in infos:
            if not (np.isfinite(info.k).all() and info.k[0] > 0 and info.k[4] > 0 and info.width and info.height):
                continue
            for mount in mounts:
                if np.isfinite([*mount[0], *mount[1]]).all() and np.any(mount[1]):
                    found[(tuple(info.k), info.width, info.height, info.distortion_model, *mount)] = info, mount
        return found

    def status(self, line: str) -> Status | None:
        """The newest status of this line."""
        return self.reports[-1][1].get(line) if self.reports else None

    def named(self, line: str, pattern: str, since: float, level: int = 1) -> float | None:
        """When, after `since`, a line of the diagnostics first matched a pattern at such a level; None: it did not."""
        for at, lines in list(self.reports):
            status = lines.get(line)
            if at >= since and status is not None and status.level >= level and re.search(pattern, status.text):
                return at
        return None

    # ---- services

    def ask(self, service_type, name: str, request, timeout: float, alive: Callable[[], bool]):
        """The answer of a service; None if none came in time, or when `alive()` was no longer true."""
        return self._ros.ask(service_type, name, request, timeout, alive)

    def forget_clients(self) -> None:
        """Destroy the clients of services whose process has ended."""
        self._ros.forget_clients()
