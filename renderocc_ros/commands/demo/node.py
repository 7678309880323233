"""What the demo runs and hears: the node in a process of its own, and a subscriber to all that it publishes."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from renderocc_ros.ros_arguments import start_ros

__all__ = ["Child", "NodeFailed", "Subscriber", "stamp_ns"]


ENDING = 60.0  # seconds: a node that is loading PyTorch on a busy computer hears a signal only afterwards


class NodeFailed(RuntimeError):
    """The node did not come up or ended; the text ends with what it printed last."""


class Child:
    """A module of this package in its own process; its output goes to a file and, when it fails, to the screen."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        if self.running:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(ENDING)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def check(self) -> None:
        if self.process.poll() not in (None, 0):
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
            raise NodeFailed(f"{self.name} ended with status {self.process.returncode}:\n{tail}")


class Subscriber:
    """Subscriptions to everything the node publishes, spun by a thread of their own.

    Args:
        cameras: whose rendered views are asked for.
        record: called with each message as it comes: topic, type, time of the recording in nanoseconds, bytes, whether
            it is latched.
        start_ns: the time of what comes before the recording is played.
        rate: its playing speed.
    Attributes:
        messages: topic, without the node's name -> the messages that came.
        volumes: stamp in nanoseconds -> the .npz file that ~/save wrote of that frame.
    """

    def __init__(
        self,
        cameras: tuple[str, ...],
        record: Callable[[str, str, int, bytes, bool], None] = lambda *message: None,
        start_ns: int = 0,
        rate: float = 1.0,
    ) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import OccupancyGrid
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import CameraInfo, Image, PointCloud2
        from std_msgs.msg import String
        from std_srvs.srv import Trigger
        from visualization_msgs.msg import MarkerArray

        self.context = Context()
        start_ros([], context=self.context)
        self.node = rclpy.create_node("renderocc_demo", context=self.context, start_parameter_services=False)
        self.messages: dict[str, list] = {}
        self.volumes: dict[int, Path] = {}
        self._record, self._rate = record, rate
        self._clock = (start_ns, math.inf)  # a time of the recording, and the steady time at which it was
        self._subscribe("points", PointCloud2)
        self._subscribe("markers", MarkerArray)
        self._subscribe("grid", OccupancyGrid, latched=True)
        self._subscribe("classes", String, latched=True)
        self._subscribe("map/points", PointCloud2)
        self._subscribe("map/grid", OccupancyGrid, latched=True)
        for camera in cameras:
            self._subscribe(f"rendered/{camera}/semantic", Image)
            self._subscribe(f"rendered/{camera}/depth", Image)
            self._subscribe(f"rendered/{camera}/camera_info", CameraInfo)
        self._subscribe("/diagnostics", DiagnosticArray)
        self.node.create_subscription(Clock, "/clock", self._on_clock, qos_profile_sensor_data)
        self._save = self.node.create_client(Trigger, "/renderocc/save")
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _subscribe(self, topic: str, message_type: type, latched: bool = False) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rclpy.serialization import deserialize_message

        name = topic if topic.startswith("/") else f"/renderocc/{topic}"
        kind = f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"
        messages = self.messages[topic] = []

        def receive(data: bytes) -> None:
            messages.append(deserialize_message(data, message_type))
            self._record(name, kind, self.recording_time_ns(), data, latched)

        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL) if latched else QoSProfile(depth=10)
        self.node.create_subscription(message_type, name, receive, qos, raw=True)

    def _on_clock(self, message) -> None:
        self._clock = (message.clock.sec * 1_000_000_000 + message.clock.nanosec, time.monotonic())

    def recording_time_ns(self) -> int:
        """Now, as a time of the recording that is played."""
        clock_ns, at = self._clock
        return clock_ns + round(max(0.0, time.monotonic() - at) * self._rate * 1e9)

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def wait_for_node(self, child: Child, timeout: float) -> None:
        """Until the node offers its services, which it does when it is configured."""
        end = time.monotonic() + timeout
        while not self._save.wait_for_service(0.5):
            child.check()
            if time.monotonic() > end:
                raise NodeFailed(f"the node was not configured within {timeout:.0f} s; see {child.log}")

    @property
    def frames(self) -> int:
        """How many frames the node has published."""
        return len(self.messages["points"])

    def save_newest(self) -> None:
        """Have the node save its volume, unless that of the last message is saved already."""
        if self.frames and stamp_ns(self.messages["points"][-1]) not in self.volumes:
            path = self.save()
            self.volumes[int(path.stem)] = path

    def save(self, timeout: float = 30.0) -> Path:
        """Call ~/save; the .npz file that the node wrote."""
        from std_srvs.srv import Trigger

        future = self._save.call_async(Trigger.Request())
        end = time.monotonic() + timeout
        while not future.done() and time.monotonic() < end:
            time.sleep(0.01)
        if not future.done() or not future.result().success:
            raise NodeFailed(f"~/save failed: {future.result().message if future.done() else 'no answer'}")
        # Two paths with a space between; folders may have spaces in their names too.
        return Path(future.result().message.partition(".npz ")[0] + ".npz")

    def close(self) -> None:
        """Leave the graph; what has come stays readable."""
        self.executor.shutdown()
        self.thread.join(10.0)
        self.node.destroy_node()
        self.context.try_shutdown()


def stamp_ns(message) -> int:
    """Of a message with a header, nanoseconds."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
