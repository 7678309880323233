"""What an ordinary subscriber sees of the node: its outputs, its diagnostics, its answers to service calls."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from campaign.rig import Rig, stamp_ns
from campaign.seen import perhaps_seen, voxels_perhaps_seen

__all__ = ["Observer", "Output", "Status", "queues"]

BAND = (0.3, 2.0)  # the node's default grid_min_height, grid_max_height, metres
MATCHED = 100_000_000  # the node's default max_camera_time_diff, nanoseconds
UNKNOWN = 255  # in the volumes of ~/save
KEPT = 4000


@dataclass(frozen=True)
class Output:
    """A message that came: steady seconds, topic, stamp.

    cells, free: of ~/grid, all and those called free that no camera can have seen.
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
    """Subscriptions to ~/points, ~/grid and /diagnostics, and clients of the node's services, spun by a thread.

    Args:
        rig: what was sent, to judge the outputs by.
        domain: ROS domain.
    Attributes:
        outputs: the last outputs, oldest first.
        reports: the last diagnostics of the node, (steady seconds, {line: status}), oldest first.
        judge_free: whether cells are compared with what the cameras can have seen.
    """

    def __init__(self, rig: Rig, domain: int) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import OccupancyGrid
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import PointCloud2

        self.rig = rig
        self.outputs: deque[Output] = deque(maxlen=KEPT)
        self.reports: deque[tuple[float, dict[str, Status]]] = deque(maxlen=KEPT)
        self.judge_free = True
        self._seen: dict[tuple, np.ndarray] = {}
        self._clients: dict = {}
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("fault_observer", context=self._context, start_parameter_services=False)
        latched = QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
        )
        self.node.create_subscription(PointCloud2, "/renderocc/points", self._on_points, 10)
        self.node.create_subscription(OccupancyGrid, "/renderocc/grid", self._on_grid, latched)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="observer", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def close(self) -> None:
        import rclpy

        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    # ---- what comes

    def _on_points(self, message) -> None:
        self.outputs.append(Output(time.monotonic(), "points", stamp_ns(message)))

    def _on_grid(self, message) -> None:
        stamp = stamp_ns(message)
        free = self.unseen_free(message, stamp) if self.judge_free else 0
        self.outputs.append(Output(time.monotonic(), "grid", stamp, len(message.data), free))

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
            for believed, (info, mount) in self._perhaps_believed(camera).items():
                key = (believed, message.info.width, message.info.height, message.info.resolution)
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
            for info, mount in self._perhaps_believed(camera).values():
                if known.any():
                    known &= ~voxels_perhaps_seen(info, *mount, grid[:3], grid[6], known.shape)
        return int(known.sum())

    def _cameras_at(self, stamp: int) -> list[str]:
        """Cameras of which a usable image of about this stamp was sent."""
        return [
            camera
            for camera, sent in self.rig.sent.items()
            if any(image.usable and abs(image.stamp - stamp) <= MATCHED for image in list(sent))
        ]

    def _perhaps_believed(self, camera: str) -> dict[tuple, tuple]:
        """{key: (camera_info, (translation, quaternion))}: all calibrations sent of late with all mounts, each once."""
        rig = self.rig
        infos = [rig.scene.infos[camera], *(info for _, info in list(rig.infos_sent[camera]))]
        mounts = [rig.scene.mounts[camera]]
        for _, sent in list(rig.mounts_sent[camera]):
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

    def call(self, service_type, name: str, request=None, timeout: float = 20.0, alive=lambda: True):
        """The answer of a service of the node; None if none came in time, or while `alive()`."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        client = self._clients[name]
        end = time.monotonic() + timeout
        while not client.wait_for_service(0.2):
            if time.monotonic() > end or not alive():
                return None
        future = client.call_async(request if request is not None else service_type.Request())
        while not future.done():
            if time.monotonic() > end or not alive():
                client.remove_pending_request(future)
                return None
            time.sleep(0.01)
        return future.result()

    def forget_clients(self) -> None:
        """Clients of a process that has ended."""
        for client in self._clients.values():
            self.node.destroy_client(client)
        self._clients = {}
