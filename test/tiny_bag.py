"""Small recordings written by hand: two cameras, one distorted and one fisheye, on a vehicle that drives and turns."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.geometry.transforms import transform_from
from renderocc_model.images.decoding import decode_compressed
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from training.recordings.recorder import Recorder
from training.simulate.write import encode

START_NS = 1_700_000_000_000_000_000
FRAME_NS = 500_000_000
WIDTH, HEIGHT = 64, 48
LATER_NS = 30_000_000  # the second camera fires later


def forward_mount(x: float, y: float, z: float) -> np.ndarray:
    """A camera that looks along base x: optical x is -base y, optical y is -base z."""
    mount = np.eye(4)
    mount[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    mount[:3, 3] = x, y, z
    return mount


K = np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]])
RIG = Rig(
    (
        Camera("front", CameraModel(WIDTH, HEIGHT, K, "plumb_bob", (-0.2, 0.05, 0, 0, 0)), forward_mount(1, 0, 1.5)),
        Camera("wide", CameraModel(WIDTH, HEIGHT, K, "equidistant", (0.02, 0, 0, 0)), forward_mount(0, 0.5, 1.4)),
    )
)


def odom_from_base(stamp_ns: int) -> np.ndarray:
    """Ego pose: 2 m/s along x while turning 0.1 rad/s."""
    t = (stamp_ns - START_NS) / 1e9
    return transform_from((2 * t, 0.1 * t, 0), (0, 0, np.sin(0.05 * t), np.cos(0.05 * t)))


@dataclass
class Plan:
    """The contents of a tiny bag. `labels(frame, camera)` gives (semantic, depth), or None for no labels."""

    frames: int = 4
    labels: callable = None
    images: callable = None
    poses: list = field(default_factory=list)
    truth: bool = False


def sparse_labels(frame: int, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """About a fifth of the pixels, classes 4 (car) and 11 (driveable surface), depths of 3 to 30 m."""
    rng = np.random.default_rng([frame, len(camera)])
    known = rng.random((HEIGHT, WIDTH)) < 0.2
    semantic = np.where(known, rng.choice([4, 11], (HEIGHT, WIDTH), p=[0.1, 0.9]), 255).astype(np.uint8)
    return semantic, np.where(known, rng.uniform(3, 30, (HEIGHT, WIDTH)), 0)


def picture(frame: int, camera: str) -> np.ndarray:
    rng = np.random.default_rng([7, frame, len(camera)])
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))


def write_bag(folder: Path, plan: Plan = Plan()) -> Path:
    """Write the recording. By default poses have 50 Hz, from 0.1 s before the first frame to 0.1 s after the last."""
    labels, images = plan.labels or sparse_labels, plan.images or picture
    last = (plan.frames - 1) * FRAME_NS + 100_000_000
    poses = plan.poses or list(range(START_NS - 100_000_000, START_NS + last + 1, 20_000_000))
    events = [(stamp, 0, None) for stamp in poses]
    for frame in range(plan.frames):
        stamp = START_NS + frame * FRAME_NS
        events += [(stamp, 1, (frame, "front")), (stamp + LATER_NS, 1, (frame, "wide"))]
    with Recorder(folder, RIG, "mcap", None, True) as recording:
        recording.write_static(START_NS - 100_000_000)
        for stamp, _, image in sorted(events, key=lambda event: event[:2]):
            if image is None:
                recording.write_pose(stamp, odom_from_base(stamp))
            else:
                label = labels(*image)
                files = encode(images(*image), *(label if label is not None else (None, None)))
                recording.write_camera(stamp, RIG[image[1]], files)
    return folder


def with_raw_images(bag: Path, folder: Path, camera: str) -> Path:
    """A copy of a recording in which one camera's images are raw."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with Bag(bag) as source, Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {}
        for topic, stamp, data in source.messages():
            kind = source.topics[topic].type
            if topic == f"/{camera}/image_raw/compressed":
                message = cdr.read_compressed_image(data)
                picture = decode_compressed(message.data)
                topic, kind = f"/{camera}/image_raw", "sensor_msgs/msg/Image"
                data = cdr.write_image(message.stamp_ns, message.frame_id, picture, "rgb8")
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(topics[topic], stamp, data)
    return folder
