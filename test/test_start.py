"""How the node starts: arguments that ROS cannot read, cameras that are only listened to, what it says meanwhile."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from system import Listener, Program, new_domain, node_command, noise_cameras, stamp_message, wait_until

pytestmark = pytest.mark.system

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["-p", "camera_info_topic:={camera}/info"],
            "'{' is a mapping in YAML: write -p 'camera_info_topic:=<camera>/info', "
            "or with quotes inside -p 'camera_info_topic:=\"{camera}/info\"'",
        ),
        (["--log-level", "verbose"], "Couldn't parse log level: '--log-level verbose'"),
        (["--params-file", "/nowhere.yaml"], "Couldn't parse params file: '--params-file /nowhere.yaml'"),
        (["-r", "__ns:=/a-b"], "Couldn't parse remap rule: '-r __ns:=/a-b'"),
        (["--nonsense"], "unknown arguments after --ros-args: ['--nonsense']"),
    ],
)
@pytest.mark.parametrize("program", ["node", "replay"])
def test_arguments_that_ros_cannot_read_are_one_line_and_status_2(arguments, line, program, tmp_path):
    command = [sys.executable, "-m", "renderocc_ros.start"]
    if program == "replay":
        if arguments != ["--log-level", "verbose"]:
            pytest.skip("once is enough: both programs start ROS by the same function")
        command = [sys.executable, "-m", "renderocc_model.cli", "replay", str(recording(tmp_path))]
    done = subprocess.run([*command, "--ros-args", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2
    ours = [text for text in done.stderr.splitlines() if "[rcl]" not in text]  # ROS has a line of its own
    assert len(ours) == 1 and line in ours[0] and ".c:" not in ours[0], done.stderr


def recording(folder: Path) -> Path:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/word", "std_msgs/msg/String", typestore=store)
        message = store.types["std_msgs/msg/String"](data="one")
        writer.write(topic, 1, store.serialize_cdr(message, "std_msgs/msg/String"))
    return folder / "bag"


@pytest.fixture
def listener():
    domain = new_domain()
    made = Listener(domain)
    made.domain = domain
    yield made
    made.close()


def test_topics_that_are_only_listened_to_are_no_cameras(listener):
    """As those of an RViz display, or of `ros2 topic echo`; the second ghost has a calibration but no images."""
    for ghost in ("ghost", "half"):
        listener.listen(Image, f"/{ghost}/image_raw")
        listener.listen(CompressedImage, f"/{ghost}/image_raw/compressed")
        listener.listen(CameraInfo, f"/{ghost}/camera_info")
    listener.node.create_publisher(CameraInfo, "/half/camera_info", 1)
    node = Program(node_command({"preset": "tiny"}), listener.domain)
    try:
        node.expect("waiting for cameras")
        wait_until(lambda: listener.node.count_publishers("/diagnostics"), 20, "the node on the graph")
        assert not node.count("configure|active")
        noise_cameras(listener, ("front",))
        node.expect(r"active: 1 cameras \(front\)", 90)
    finally:
        status = node.stop()
    assert status == 0


def test_braces_and_angles_stand_for_the_camera_alike_and_each_slow_step_is_said_before_it(listener):
    parameters = {"image_topic": "/<camera>/image_raw", "camera_info_topic": "<camera>/camera_info"}
    node = Program(node_command(parameters), listener.domain)
    try:
        node.expect("waiting for cameras: looking for <camera>/camera_info with /<camera>/image_raw")
        noise_cameras(listener, ("front", "left"))
        node.expect(r"active: 2 cameras \(front, left\)", 90)
        text = "\n".join(node.lines)
        steps = ["waiting for cameras", "loading PyTorch", "loading the network .*tiny", "network: .*tiny"]
        steps += ["making the network ready on the CPU", "running on the CPU"]
        places = [re.search(step, text).start() for step in steps]
        assert places == sorted(places)
    finally:
        assert node.stop() == 0


def test_one_frame_alone_is_published_though_its_calibrations_and_mounts_come_after_it(listener):
    """As in the first pass of `ros2 bag play` over a recording of one moment."""
    cameras = ("front", "left")
    node = Program(node_command({"cameras": cameras, "startup_grace": 30.0}), listener.domain)
    points = listener.listen(PointCloud2, "/renderocc/points")
    rig = noise_cameras(listener, cameras)
    try:
        node.expect("active: 2 cameras", 90)
        kinds = [("tf", ""), ("tf_static", ""), *((kind, name) for kind in ("raw", "camera_info") for name in cameras)]
        wait_until(lambda: all(rig.subscribers(*kind) for kind in kinds), 20, "subscriptions")
        wait_until(lambda: listener.node.count_publishers("/renderocc/points"), 20, "discovery")
        time.sleep(1.0)  # both sides of every match
        stamp = time.time_ns()
        for camera in cameras:
            rig.send_image(camera, stamp)
        time.sleep(0.7)
        rig.send_infos(stamp)
        rig.send_mounts()
        wait_until(lambda: points, 40, "its points")
        assert points[0].header.stamp == stamp_message(stamp)
        assert not node.count("cannot be placed|no usable camera_info")
    finally:
        assert node.stop() == 0
