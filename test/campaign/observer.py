"""What an ordinary subscriber sees of the node: its outputs, its diagnostics, its answers to service calls."""

from __future__ import annotations

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
from system import LATCHED, Listener, stamp_ns

from campaign.player import ScenePlayer
from campaign.seen import columns, columns_perhaps_seen, composed, perhaps_seen, voxels_perhaps_seen

__all__ = ["Observer", "Output", "Status", "queues"]

BAND = (0.3, 2.0)  # the node's default grid_min_height, grid_max_height, metres
MATCHED = 100_000_000  # the node's default max_camera_time_diff, nanoseconds
UNKNOWN = 255  # in the volumes of ~/save
KEPT = 4000
UNDER_WAY = 1.2  # seconds for which an image may be on its way through the node
MOST_CELLS = 400  # of a map that are judged: it must not take longer than the next map
STEPS = 2  # parts of the way between two poses from which an image can be
FARTHEST_STEP = 3.0  # metres between two poses in a row; with more between them the odometry has jumped


@dataclass(frozen=True)
class Output:
    """A message that came: steady seconds, topic, stamp.

    cells, free: of ~/grid and ~/map/grid, all and those called free that no camera can have seen.
    """

    at: float
    topic: str
    stamp: int
    cells: int = 0
    free: int = 0


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
    """Subscriptions to ~/points, the grids and /diagnostics, and clients of the node's services, spun by a thread.

    Args:
        player: what was sent, to judge the outputs by; None: they are not judged.
        domain: ROS domain.
    Attributes:
        outputs: the last outputs, oldest first.
        reports: the last diagnostics of the node, (steady seconds, {line: status}), oldest first.
        judge_free: whether cells are compared with what the cameras can have seen.
        map_reset: steady seconds at which ~/map/reset was last called and had answered.
    """

    def __init__(self, player: ScenePlayer | None, domain: int) -> None:
        self.player = player
        self.outputs: deque[Output] = deque(maxlen=KEPT)
        self.reports: deque[tuple[float, dict[str, Status]]] = deque(maxlen=KEPT)
        self.judge_free = player is not None
        self.map_reset = (0.0, 0.0)
        self._seen: dict[tuple, np.ndarray] = {}
        self._ros = Listener(domain, "fault_observer")
        self._ros.listen(PointCloud2, "/renderocc/points", 10, self._on_points)
        self._ros.listen(OccupancyGrid, "/renderocc/grid", LATCHED, self._on_grid)
        self._ros.listen(OccupancyGrid, "/renderocc/map/grid", LATCHED, self._on_map)
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
        self.outputs.append(Output(time.monotonic(), "grid", stamp, len(message.data), free))

    def _on_map(self, message) -> None:
        free = self.unseen_free_of_map(message) if self.judge_free else 0
        self.outputs.append(Output(time.monotonic(), "map", stamp_ns(message), len(message.data), free))

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

    def unseen_free_of_map(self, message) -> int:
        """How many cells of ~/map/grid are free though no camera can have seen them from any pose that was sent.

        Of many free cells, some are judged, spread evenly.

        Only cameras count of which a usable image was sent since the map was last reset, or so shortly before that its
        frame was under way. Maps that may be from before the reset are not judged.
        """
        called, answered = self.map_reset
        sent = {camera: list(images) for camera, images in self.player.sent.items()}
        stamp = stamp_ns(message)
        if not any(image.stamp == stamp and image.at > answered for images in sent.values() for image in images):
            return 0
        info = message.info
        cells = np.asarray(message.data, np.int8).reshape(info.height, info.width)
        rows, across = np.nonzero(cells == 0)
        places = np.column_stack([across, rows])[:: len(rows) // MOST_CELLS + 1] + 0.5
        places = places * info.resolution + (info.origin.position.x, info.origin.position.y)
        low = info.origin.position.z
        points = columns(places, info.resolution, low, low + BAND[1] - BAND[0])
        since = called - UNDER_WAY
        used = [one for one, images in sent.items() if any(image.usable and image.at >= since for image in images)]
        cameras = [found for camera in used for found in self._possibly_used(camera).values()]
        for pose in self._poses(called - UNDER_WAY):
            for calibration, mount in cameras:
                if not len(points):
                    return 0
                points = points[~columns_perhaps_seen(calibration, *composed(pose, mount), points)]
        return len(points)

    def _poses(self, since: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """The vehicle's poses that were sent since then, newest first, and poses on the way between two in a row."""
        poses, before = [], None
        for at, sent in reversed(list(self.player.poses_sent)):
            if at < since:
                break
            t, q = sent.translation, sent.rotation
            pose = np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w])
            if not (np.isfinite(pose[0]).all() and np.isfinite(pose[1]).all() and pose[1].any()):
                continue
            pose = pose[0], pose[1] / np.linalg.norm(pose[1])
            poses.append(pose)
            if before is not None and 0 < np.linalg.norm(pose[0] - before[0]) < FARTHEST_STEP:
                for share in np.arange(1, STEPS) / STEPS:
                    other = before[1] if pose[1] @ before[1] >= 0 else -before[1]
                    poses.append(tuple(share * one + (1 - share) * two for one, two in zip(pose, (before[0], other))))
            before = pose
        return poses

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
