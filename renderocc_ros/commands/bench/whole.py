"""The whole node, in a process of its own, on six cameras that this process publishes: frames a second and latency.

First it sends frames one at a time, each after the output of the one before: this gives the latency without waiting.
Then it sends more than the node can process, CAMERA_RATE sets of images a second: this gives the frame rate.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from renderocc_ros.commands.bench.node import CAMERAS, YAWS
from renderocc_ros.commands.demo.node import Child, NodeFailed

__all__ = ["KINDS", "lines_of", "run"]

CAMERA_RATE = 30.0  # Hz
FLOOD = 6.0  # seconds at CAMERA_RATE
PAUSE = 0.05  # seconds between two single frames: the node also works after it has published
FEWEST_IMAGES = 5  # of the first camera, and one more for each next camera: a set repeats after 2,520 frames
STAMP = slice(4, 12)  # bytes of a message that hold its stamp, after four bytes of encapsulation
START_UP, ONE_FRAME = 180.0, 20.0  # longest waits, seconds
STAGES = ("placement", "decode", "network", "publish", "total")


@dataclass(frozen=True)
class Kind:
    """Size and format of the cameras' images."""

    width: int
    height: int
    jpeg: bool

    @property
    def name(self) -> str:
        return f"{self.width}x{self.height} {'JPEG' if self.jpeg else 'rgb8'}"


KINDS = (Kind(1600, 900, True), Kind(704, 256, True), Kind(1600, 900, False))


def street_like(width: int, height: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8 noise with detail at every scale: its JPEG is as large as that of a photograph."""
    generator = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 110.0, np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256, 512):
        noise = generator.normal(0, 80 / cells**0.65, (max(2, cells * height // width), cells, 3)).astype(np.float32)
        pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(pixels, 0, 255).astype(np.uint8)


class SixCameras:
    """Six cameras around a standing vehicle, with images that change: no two frames of a measurement are alike.

    Each camera repeats its images, and has one more of them than the camera before. On a road no frame repeats, so
    a program that keeps results for repeated frames must not be faster here.
    """

    def __init__(self, node, kind: Kind) -> None:
        from geometry_msgs.msg import TransformStamped
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rclpy.serialization import serialize_message
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image
        from tf2_msgs.msg import TFMessage

        from renderocc_model.geometry.mounts import BODY_FROM_OPTICAL
        from renderocc_model.geometry.transforms import quaternion_from_matrix

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        image_type, topic = (CompressedImage, "image_raw/compressed") if kind.jpeg else (Image, "image_raw")
        focal, mounts = 0.7 * kind.width, []
        self._parts: list[tuple] = []  # publisher, and messages to send in turn, as bytes with room for a stamp
        images = []
        for index, (camera, yaw) in enumerate(zip(CAMERAS, YAWS)):
            info = CameraInfo(height=kind.height, width=kind.width, distortion_model="plumb_bob")
            info.d, info.header.frame_id = [-0.1, 0.02, 0.0, 0.0, 0.0], f"{camera}_optical"
            info.k = [focal, 0.0, kind.width / 2, 0.0, focal, kind.height / 2, 0.0, 0.0, 1.0]
            street, messages = street_like(kind.width, kind.height, index), []
            for number in range(FEWEST_IMAGES + index):
                pixels = np.roll(street, number * kind.width // 10, axis=1)
                image = _image_message(image_type, pixels, kind.jpeg)
                image.header.frame_id = info.header.frame_id
                messages.append(bytearray(serialize_message(image)))
            images.append((node.create_publisher(image_type, f"/{camera}/{topic}", 5), messages))
            publisher = node.create_publisher(CameraInfo, f"/{camera}/camera_info", 5)
            self._parts.append((publisher, [bytearray(serialize_message(info))]))
            mount = TransformStamped(child_frame_id=f"{camera}_optical")
            turned = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
            q = quaternion_from_matrix(turned @ BODY_FROM_OPTICAL[:3, :3])
            mount.transform.rotation.x, mount.transform.rotation.y = float(q[0]), float(q[1])
            mount.transform.rotation.z, mount.transform.rotation.w = float(q[2]), float(q[3])
            mount.header.frame_id, mount.transform.translation.z = "base_link", 1.6
            mounts.append(mount)
        self.image_bytes = len(images[0][1][0])
        self._parts += images
        self._sent = 0
        self._tf_static = node.create_publisher(TFMessage, "/tf_static", latched)
        self._tf_static.publish(TFMessage(transforms=mounts))
        self._tf = node.create_publisher(TFMessage, "/tf", 100)
        self._pose = TransformStamped(child_frame_id="base_link")
        self._pose.header.frame_id = "odom"
        self._pose_message = TFMessage(transforms=[self._pose])

    def send(self) -> tuple[bytes, float]:
        """Publish a set with the current stamp. Returns the stamp's bytes, and the steady time after the last image."""
        stamp = divmod(time.time_ns(), 1_000_000_000)
        self._pose.header.stamp.sec, self._pose.header.stamp.nanosec = stamp
        self._tf.publish(self._pose_message)
        stamp = np.array(stamp, "<u4").tobytes()
        self._sent += 1
        for publisher, messages in self._parts:
            message = messages[self._sent % len(messages)]
            message[STAMP] = stamp
            handed_over = time.monotonic()
            publisher.publish(bytes(message))
        return stamp, handed_over


def _image_message(image_type: type, pixels: np.ndarray, jpeg: bool):
    if not jpeg:
        message = image_type(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8")
        message.step = pixels.strides[0]
        message.data.frombytes(pixels.tobytes())
        return message
    message = image_type(format="jpeg")
    message.data.frombytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return message


class OutputListener:
    """Receives the node's clouds and diagnostics in a thread."""

    def __init__(self, node, context) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import PointCloud2

        self.heard: dict[bytes, float] = {}  # stamp -> steady time
        self.latency: dict[str, str] = {}
        self._clouds = threading.Condition()
        node.create_subscription(PointCloud2, "/renderocc/points", self._on_cloud, 10, raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _on_cloud(self, message: bytes) -> None:
        with self._clouds:
            self.heard[bytes(message[STAMP])] = time.monotonic()
            self._clouds.notify_all()

    def _on_diagnostics(self, message) -> None:
        for status in message.status:
            if status.name.endswith("latency"):
                self.latency = {value.key: value.value for value in status.values}

    def wait_for(self, stamp: bytes, seconds: float) -> bool:
        """Whether the cloud of this stamp came within this time."""
        with self._clouds:
            return self._clouds.wait_for(lambda: stamp in self.heard, seconds)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()


def measure(kind: Kind, frames: int, domain: int, parameters: dict[str, str] | None = None) -> dict:
    """Start a node, play cameras to it, stop it.

    Returns:
        frames_per_second; latency: {"median", "p99"} seconds from handing the last image to the middleware until the
        cloud came; stages: {stage: median seconds} by the node's own clock, "total" from the last image's arrival
        to publication; image_bytes.
    Raises:
        NodeFailed: it did not come up, ended, or published nothing.
    """
    import rclpy
    from rclpy.context import Context

    environment = dict(os.environ, ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    command = ["-m", "renderocc_ros.main", "--ros-args", "-p", f"cameras:=[{', '.join(CAMERAS)}]"]
    for name, value in (parameters or {}).items():
        command += ["-p", f"{name}:={value}"]
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("renderocc_bench", context=context, start_parameter_services=False)
    outputs, cameras = OutputListener(node, context), SixCameras(node, kind)
    with tempfile.TemporaryDirectory() as folder:
        child = Child("the node", command, environment, Path(folder) / "node.log")
        try:
            _first_frame(child, cameras, outputs)
            durations = [_one_frame(child, cameras, outputs) for _ in range(frames)]
            stages = _stages(child, outputs)
            rate = _flood(cameras, outputs)
        finally:
            child.stop()
            outputs.close()
            node.destroy_node()
            context.try_shutdown()
    return {
        "frames_per_second": rate,
        "latency": {"median": float(np.median(durations)), "p99": float(np.percentile(durations, 99))},
        "stages": stages,
        "image_bytes": cameras.image_bytes,
    }


def _first_frame(child: Child, cameras: SixCameras, outputs: OutputListener) -> None:
    end = time.monotonic() + START_UP
    while not outputs.heard:
        child.check()
        if time.monotonic() > end:
            raise NodeFailed(f"the node published nothing within {START_UP:.0f} s:\n{child.log.read_text()[-2000:]}")
        outputs.wait_for(cameras.send()[0], 0.5)
    for _ in range(3):  # after the frames that are still being processed
        _one_frame(child, cameras, outputs)


def _one_frame(child: Child, cameras: SixCameras, outputs: OutputListener) -> float:
    """Seconds from publishing the last image until the cloud came."""
    time.sleep(PAUSE)
    stamp, sent = cameras.send()
    if not outputs.wait_for(stamp, ONE_FRAME):
        child.check()
        raise NodeFailed(f"a frame did not come out within {ONE_FRAME:.0f} s:\n{child.log.read_text()[-2000:]}")
    return outputs.heard[stamp] - sent


def _stages(child: Child, outputs: OutputListener) -> dict[str, float]:
    """Medians in the next diagnostics of the node."""
    outputs.latency = {}
    end = time.monotonic() + 10
    while not outputs.latency:
        child.check()
        if time.monotonic() > end:
            raise NodeFailed("the node sends no diagnostics")
        time.sleep(0.05)
    found = {stage: re.match(r"([\d.]+) ms", outputs.latency.get(stage, "")) for stage in STAGES}
    return {stage: float(match[1]) * 1e-3 for stage, match in found.items() if match}


def _flood(cameras: SixCameras, outputs: OutputListener) -> float:
    """Frames a second that come out while more go in."""
    start = time.monotonic()
    sent = 0
    while time.monotonic() - start < FLOOD:
        cameras.send()
        sent += 1
        time.sleep(max(0.0, start + sent / CAMERA_RATE - time.monotonic()))
    begin = start + 1.0  # by then all queues are full
    heard = [moment for moment in sorted(outputs.heard.values()) if moment >= begin]
    return (len(heard) - 1) / (heard[-1] - heard[0]) if len(heard) > 1 else len(heard) / (FLOOD - 1.0)


def run(frames: int) -> dict:
    """{name of a kind: what `measure` returned}, on a ROS domain of this process alone."""
    domain = 1 + os.getpid() % 100
    return {kind.name: measure(kind, frames, domain) for kind in KINDS}


def lines_of(results: dict, frames: int) -> list[str]:
    """The figures as a Markdown table."""
    lines = [
        f"the whole node with the network `tiny`: six cameras played by another process; median of {frames}, one frame "
        f"at a time; frames/s where {CAMERA_RATE:.0f} sets of images a second come in",
        "",
        f"| images | frames/s | last image sent to cloud heard | p99 | in the node | {' | '.join(STAGES[:-1])} |",
        "|---|---|---|---|---|" + "---|" * (len(STAGES) - 1),
    ]
    for name, figures in results.items():
        latency, stages = figures["latency"], figures["stages"]
        times = [latency["median"], latency["p99"], stages["total"], *(stages[stage] for stage in STAGES[:-1])]
        cells = " | ".join(f"{seconds * 1e3:.1f} ms" for seconds in times)
        size = f"{figures['image_bytes'] / 1024:,.0f} KiB"
        lines.append(f"| {name}, {size} | {figures['frames_per_second']:.1f} | {cells} |")
    return lines
