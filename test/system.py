"""What whole-system tests share: the real node in its own process, a listener with typed messages, a publishing rig."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from renderocc_model.field.classes import OCC3D_NUSCENES

ROOT = Path(__file__).resolve().parents[1]
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_RUN = zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())).encode())
_domains = itertools.count(_RUN % 100 * _WORKERS + _WORKER, _WORKERS)

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)


def new_domain() -> int:
    """A ROS domain of its own, so that tests and other ROS programs on this machine do not hear each other."""
    return next(_domains) % 100 + 1


def wait_until(condition, timeout: float, what: str) -> None:
    """Poll until `condition()` is true; fail with `what` when it is not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.02)


class Program:
    """A program of this package in its own process, its output collected line by line; `environment` is added."""

    def __init__(self, command: list, domain: int, environment: dict | None = None) -> None:
        environment = dict(
            os.environ,
            ROS_DOMAIN_ID=str(domain),
            PYTHONUNBUFFERED="1",
            RCUTILS_COLORIZED_OUTPUT="0",
            PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            **(environment or {}),
        )
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in list(self.lines))

    def expect(self, pattern: str, timeout: float = 20.0) -> str:
        """Wait for a line of output that matches; fails with what was printed when none comes or the program ends."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            if not self.alive and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(
            f"no line like {pattern!r}; the program {'runs' if self.alive else 'ended'} and printed:\n"
            + "\n".join(self.lines[-40:])
        )

    def stop(self, timeout: float = 15.0) -> int:
        """SIGINT, then the exit status; a program that does not end is killed and fails the test."""
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(
                f"did not end within {timeout:g} s of SIGINT:\n" + "\n".join(self.lines[-40:])
            ) from None


def untrained_network(folder: Path) -> Path:
    """A checkpoint of an untrained `tiny`, whose output has something of everything, whatever the package holds."""
    from renderocc_model.network.checkpoint import save_checkpoint
    from renderocc_model.network.presets import preset
    from renderocc_model.network.untrained import untrained_checkpoint

    made = untrained_checkpoint(preset("tiny"), OCC3D_NUSCENES)
    path = folder / "untrained.safetensors"
    save_checkpoint(path, made.network, OCC3D_NUSCENES, made.threshold, None, made.provenance)
    return path


def node_command(parameters: dict, *arguments: str) -> list:
    """Command of the node with parameters given as ROS arguments."""
    command = ["-m", "renderocc_ros.node", "--ros-args", *arguments]
    for name, value in parameters.items():
        if isinstance(value, (list, tuple)):
            value = "[" + ", ".join(value) + "]"
        command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return command


class Listener:
    """An ordinary ROS program in this process: typed subscriptions, publishers, service calls, spun by a thread."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("listener", context=self.context, start_parameter_services=False)
        self.messages: dict[str, list] = defaultdict(list)
        self._clients: dict = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def listen(self, message_type, topic: str, qos: QoSProfile | int = 50) -> list:
        """Subscribe; the returned list grows as messages arrive."""
        messages = self.messages[topic]
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def call(self, service_type, name: str, request=None, timeout: float = 60.0):
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        client = self._clients[name]
        assert client.wait_for_service(timeout), f"service {name} is not there"
        future = client.call_async(request or service_type.Request())
        wait_until(future.done, timeout, f"answer of {name}")
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self.context.try_shutdown()


def stamp_message(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def transform_message(
    parent: str, child: str, stamp_ns: int, translation=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0)
) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp, message.header.frame_id, message.child_frame_id = stamp_message(stamp_ns), parent, child
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, translation)
    q.x, q.y, q.z, q.w = map(float, quaternion)
    return message


class PublishingRig:
    """Cameras that look forward, left and backward from base_link, published with ordinary messages.

    Frames are <camera>_optical. `frame(stamp_ns)` publishes one image of each camera; every part can be left out or
    bent.
    """

    MOUNTS = {  # optical frame in base_link: x right, y down, z forward
        "front": ((1.5, 0.0, 1.6), (-0.5, 0.5, -0.5, 0.5)),
        "left": ((1.0, 0.5, 1.6), (-0.7071067811865476, 0.0, 0.0, 0.7071067811865476)),
        "back": ((-0.5, 0.0, 1.6), (-0.5, -0.5, 0.5, 0.5)),
    }

    def __init__(
        self, listener: Listener, cameras=("front", "left", "back"), width: int = 320, height: int = 200
    ) -> None:
        self.cameras, self.width, self.height = tuple(cameras), width, height
        node = listener.node
        self.raw = {c: node.create_publisher(Image, f"/{c}/image_raw", 5) for c in cameras}
        self.compressed = {c: node.create_publisher(CompressedImage, f"/{c}/image_raw/compressed", 5) for c in cameras}
        self.info = {c: node.create_publisher(CameraInfo, f"/{c}/camera_info", 5) for c in cameras}
        self.tf = node.create_publisher(TFMessage, "/tf", 100)
        self.tf_static = node.create_publisher(TFMessage, "/tf_static", LATCHED)
        generator = np.random.default_rng(7)
        self.pixels = {c: generator.integers(0, 255, (height, width, 3), np.uint8) for c in cameras}

    def send_mounts(self, stamp_ns: int = 1, leave_out: tuple = ()) -> None:
        mounts = [
            transform_message("base_link", f"{c}_optical", stamp_ns, *self.MOUNTS[c])
            for c in self.cameras
            if c not in leave_out
        ]
        self.tf_static.publish(TFMessage(transforms=mounts))

    def send_odom(self, stamp_ns: int, x: float = 0.0) -> None:
        self.tf.publish(TFMessage(transforms=[transform_message("odom", "base_link", stamp_ns, (x, 0.0, 0.0))]))

    def info_message(self, camera: str, stamp_ns: int) -> CameraInfo:
        message = CameraInfo(width=self.width, height=self.height, distortion_model="plumb_bob")
        message.header.stamp, message.header.frame_id = stamp_message(stamp_ns), f"{camera}_optical"
        message.d = [0.0] * 5
        focal = 0.6 * self.width
        message.k = [focal, 0.0, self.width / 2 - 0.5, 0.0, focal, self.height / 2 - 0.5, 0.0, 0.0, 1.0]
        message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        message.p = [focal, 0.0, self.width / 2 - 0.5, 0.0, 0.0, focal, self.height / 2 - 0.5, 0.0, 0.0, 0.0, 1.0, 0.0]
        return message

    def image_message(self, camera: str, stamp_ns: int, encoding: str = "rgb8") -> Image:
        message = Image(width=self.width, height=self.height, encoding=encoding, step=self.width * 3)
        message.header.stamp, message.header.frame_id = stamp_message(stamp_ns), f"{camera}_optical"
        message.data = self.pixels[camera].tobytes()
        return message

    def send_infos(self, stamp_ns: int, leave_out: tuple = ()) -> None:
        for camera in self.cameras:
            if camera not in leave_out:
                self.info[camera].publish(self.info_message(camera, stamp_ns))

    def frame(self, stamp_ns: int, leave_out: tuple = ()) -> None:
        """Ego pose, calibrations and one raw image of each camera, 1 ms apart in the order of the cameras."""
        self.send_odom(stamp_ns - 50_000_000)
        self.send_odom(stamp_ns + 50_000_000)
        self.send_infos(stamp_ns, leave_out)
        for index, camera in enumerate(self.cameras):
            if camera not in leave_out:
                self.raw[camera].publish(self.image_message(camera, stamp_ns + index * 1_000_000))
