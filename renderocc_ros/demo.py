"""`renderocc demo`: the real node on a recording, heard by an ordinary subscriber; pictures and figures at the end."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from renderocc_model.messages.bags import Bag, BagError
from renderocc_ros.parameters import NodeConfig, cameras_on_graph
from renderocc_ros.process import prepare_process

EXAMPLE = "example: renderocc demo --bag recording --out demo_output"
TOPICS = ("points", "markers", "grid", "classes")


class NodeFailed(RuntimeError):
    """The node did not come up or ended; the text ends with what it printed last."""


class Child:
    """A subcommand of this package in its own process; its output goes to a file and, when it fails, to the screen."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def check(self) -> None:
        if self.process.poll() not in (None, 0):
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
            raise NodeFailed(f"{self.name} ended with status {self.process.returncode}:\n{tail}")


class Subscriber:
    """Typed subscriptions to everything the node publishes, spun by a thread of their own."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from nav_msgs.msg import OccupancyGrid
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import Image, PointCloud2
        from std_msgs.msg import String
        from visualization_msgs.msg import MarkerArray

        rclpy.init()
        self.node = rclpy.create_node("renderocc_demo")
        self.messages: dict[str, list] = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        wanted = [
            ("points", PointCloud2, 10),
            ("markers", MarkerArray, 10),
            ("grid", OccupancyGrid, latched),
            ("classes", String, latched),
        ]
        wanted += [(f"rendered/{camera}/{kind}", Image, 10) for camera in cameras for kind in ("semantic", "depth")]
        for topic, message_type, qos in wanted:
            self.messages[topic] = []
            self.node.create_subscription(message_type, f"/renderocc/{topic}", self.messages[topic].append, qos)
        self.messages["/diagnostics"] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.messages["/diagnostics"].append, 10)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def wait_for_service(self, name: str, child: Child, timeout: float) -> None:
        """Until the node offers a service, which it does when it is configured."""
        from std_srvs.srv import Trigger

        client = self.node.create_client(Trigger, name)
        end = time.monotonic() + timeout
        while not client.wait_for_service(0.5):
            child.check()
            if time.monotonic() > end:
                raise NodeFailed(f"the node did not offer {name} within {timeout:.0f} s; see {child.log}")

    def save(self, timeout: float = 20.0) -> list[Path]:
        """Call ~/save; the files that the node wrote."""
        from std_srvs.srv import Trigger

        future = self.node.create_client(Trigger, "/renderocc/save").call_async(Trigger.Request())
        end = time.monotonic() + timeout
        while not future.done() and time.monotonic() < end:
            time.sleep(0.05)
        if not future.done() or not future.result().success:
            raise NodeFailed(f"~/save failed: {future.result().message if future.done() else 'no answer'}")
        return [Path(word) for word in future.result().message.split()]

    def close(self) -> None:
        import rclpy

        self.executor.shutdown()
        rclpy.try_shutdown()


def simulated_recording(out: Path) -> Path:
    """A recording of the simulated town, made once and kept in the output folder."""
    bag = out / "town"
    if not (bag / "metadata.yaml").exists():
        print("no recording given: simulating a street with six cameras", flush=True)
        command = [
            sys.executable,
            "-m",
            "renderocc_model.cli",
            "simulate",
            str(bag),
            "--seed",
            "7",
            "--frames",
            "10",
            "--no-lidar",
            "--no-labels",
            "--no-truth",
        ]
        subprocess.run(command, check=True)
    return bag


def report(subscriber: Subscriber, frames: int) -> str:
    """Markdown: how many messages came on each topic, what became of the frames, and the node's own latencies."""
    lines = ["| topic | messages | last one |", "|---|---|---|"]
    rendered = {topic: messages for topic, messages in subscriber.messages.items() if topic.startswith("rendered/")}
    for topic, messages in subscriber.messages.items():
        if topic not in rendered:
            name = topic if topic.startswith("/") else f"~/{topic}"
            lines.append(f"| {name} | {len(messages)} | {describe(messages[-1]) if messages else ''} |")
    counts = sorted({len(messages) for messages in rendered.values()})
    lines.append(f"| ~/rendered/... | {' or '.join(map(str, counts))} each | semantic and depth of each camera |")

    newest = {}
    for array in subscriber.messages["/diagnostics"]:
        for status in array.status:
            newest[status.name.rpartition(": ")[2]] = {value.key: value.value for value in status.values}
    skipped = newest.get("frames", {}).get("skipped, a newer one was there", "0")
    lines += [
        "",
        f"{len(subscriber.messages['points'])} of the recording's {frames} frames became messages; {skipped} skipped "
        "because a newer one was there before the node was free.",
        "",
        "| stage of a frame | p50, p99 |",
        "|---|---|",
    ]
    lines += [f"| {stage} | {value} |" for stage, value in newest.get("latency", {}).items()]
    lines += [
        "",
        "placement: TF; decode: bytes to the network's views; waiting: for the frame before; publish: messages, here "
        "with all rendered views, which are drawn only because this demo listens; total: from the last image to the "
        "last message.",
    ]
    if newest.get("network", {}).get("checkpoint") == "none":
        lines += [
            "",
            "The network is UNTRAINED: that there are voxels shows that everything runs; what they are means nothing.",
        ]
    return "\n".join(lines)


def describe(message) -> str:
    """One message in a few words."""
    kind = type(message).__name__
    if kind == "PointCloud2":
        return f"{message.width} points in {message.header.frame_id}"
    if kind == "MarkerArray":
        return f"{len(message.markers[0].points)} cubes"
    if kind == "OccupancyGrid":
        occupied, free = (sum(cell == value for cell in message.data) for value in (100, 0))
        return f"{message.info.width}x{message.info.height}, {occupied} occupied, {free} free"
    if kind == "Image":
        return f"{message.width}x{message.height} {message.encoding}"
    return ""


def run(bag: Path, out: Path, rate: float) -> None:
    """Start everything, wait for the recording's end, write what came."""
    with Bag(bag) as recording:
        topics = [(topic.name, [topic.type]) for topic in recording.topics.values()]
        config = NodeConfig(image_topic="/{camera}/image_raw", camera_info_topic="/{camera}/camera_info")
        cameras = cameras_on_graph(topics, config, "/")
        if not cameras:
            raise BagError(f"{bag}: no camera in it: no X/camera_info with X/image_raw or X/image_raw/compressed")
        image_topics = (f"/{cameras[0]}/image_raw", f"/{cameras[0]}/image_raw/compressed")
        frames = sum(recording.topics[name].count for name in image_topics if name in recording.topics)
    # A domain of its own on this machine only: a demo must not speak to anybody's robot.
    prepare_process()
    os.environ.update(ROS_DOMAIN_ID=str(1 + os.getpid() % 100), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    parameters = {
        "cameras": "[" + ", ".join(cameras) + "]",
        "image_topic": config.image_topic,
        "camera_info_topic": config.camera_info_topic,
        "save_directory": str(out),
        "use_sim_time": "true",
    }
    node_command = ["-m", "renderocc_ros.node", "--ros-args"]
    for name, value in parameters.items():
        node_command += ["-p", f"{name}:={value}"]
    environment = dict(os.environ)
    node = Child("the node", node_command, environment, out / "node.log")
    player = None
    subscriber = Subscriber(cameras)
    try:
        print(f"starting the node on {len(cameras)} cameras: {', '.join(cameras)}", flush=True)
        subscriber.wait_for_service("/renderocc/save", node, timeout=120.0)
        replay = ["-m", "renderocc_model.cli", "replay", str(bag), "--clock", "--rate", str(rate)]
        print("playing the recording", flush=True)
        player = Child("replay", replay, environment, out / "replay.log")
        while player.process.poll() is None:
            node.check()
            time.sleep(0.2)
        player.check()
        time.sleep(2.0)  # the last frame and one more report
        volume = subscriber.save()
        text = report(subscriber, frames)
    finally:
        if player is not None:
            player.stop()
        node.stop()
        subscriber.close()
    (out / "report.md").write_text(text + "\n")
    print("\n" + text + "\n")
    write_pictures(bag, volume[0], cameras, out)
    print(f"pictures, the last volume (.npz, .ply), logs and the table: {out.resolve()}")


def write_pictures(bag: Path, volume: Path, cameras: tuple[str, ...], out: Path) -> None:
    """demo.png: the cameras' images and the occupancy of the last frame; bird_eye.png: the same from above."""
    import numpy as np

    from renderocc_model.classes import OCC3D_NUSCENES
    from renderocc_model.images import decode_compressed, decode_raw
    from renderocc_model.messages import cdr
    from renderocc_model.occupancy import Occupancy
    from renderocc_model.picture import bird_eye_view, perspective_view

    occupancy = Occupancy.load_npz(volume, OCC3D_NUSCENES)
    stamp_ns = int(volume.stem)
    images: dict[str, tuple[int, np.ndarray]] = {}
    names = {f"/{camera}/image_raw{suffix}": camera for camera in cameras for suffix in ("", "/compressed")}
    with Bag(bag) as recording:
        for topic, _, buffer in recording.messages(names):
            camera = names[topic]
            distance = abs(cdr.read_header(buffer)[0] - stamp_ns)
            if camera in images and images[camera][0] <= distance:
                continue
            if topic.endswith("/compressed"):
                picture = decode_compressed(cdr.read_compressed_image(buffer).data)
            else:
                message = cdr.read_image(buffer)
                picture = decode_raw(
                    message.data, message.height, message.width, message.step, message.encoding, message.is_bigendian
                )
            images[camera] = (distance, picture)
    width, columns = 1280 // 3, 3
    height = max(round(width * picture.shape[0] / picture.shape[1]) for _, picture in images.values())
    tiles = [fitted(images[camera][1], width, height, camera) for camera in cameras if camera in images]
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    mosaic = np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])
    scene = perspective_view(occupancy, width=mosaic.shape[1], height=720)
    write_png(out / "demo.png", np.vstack([mosaic, scene]))
    write_png(out / "bird_eye.png", bird_eye_view(occupancy))
    print(f"wrote {out / 'demo.png'} and {out / 'bird_eye.png'}")


def fitted(image, width: int, height: int, name: str):
    """An RGB image scaled into a tile of this size, with its camera's name."""
    import cv2
    import numpy as np

    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(image, (int(image.shape[1] * scale), int(image.shape[0] * scale)), interpolation=cv2.INTER_AREA)
    tile = np.zeros((height, width, 3), np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, name, (left + 8, top + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
    return tile


def write_png(path: Path, rgb) -> None:
    import cv2

    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path} could not be written")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="renderocc demo", description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--bag", type=Path, help="rosbag2 recording (MCAP or SQLite); default: a simulated street")
    parser.add_argument(
        "--out", type=Path, default=Path("demo_output"), help="folder for what is written (default: demo_output)"
    )
    parser.add_argument(
        "--rate", type=float, default=0.5, help="playing speed (default: 0.5, so that two cores keep up)"
    )
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        run(arguments.bag or simulated_recording(arguments.out), arguments.out.resolve(), arguments.rate)
    except (BagError, NodeFailed, OSError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0
