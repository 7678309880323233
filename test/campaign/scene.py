"""What the scripted rig shows: a few frames of cameras, their calibrations and mounts, and a network small enough to
answer in tens of milliseconds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Frame", "Scene", "SceneError", "load_scene", "simulated_recording", "small_network", "surround_recording"]

CAMERAS = ("cam_front", "cam_front_left", "cam_back", "cam_front_right")
WIDTH, HEIGHT, FRAMES, SEED = 320, 180, 8, 11
MOST_CAMERAS, MOST_FRAMES = 6, 12

# `tiny`, a thousandth of its size: 32 x 32 x 5 voxels of 1 m, views of 128 x 64 pixels, 16 depth bins.
SMALL = (
    "grid.lower=[-16, -16, -1]",
    "grid.upper=[16, 16, 4]",
    "grid.voxel_size=1.0",
    "images.height=64",
    "images.width=128",
    "neck.channels=8",
    "lift.context_channels=6",
    "lift.hidden_channels=8",
    "lift.depth.count=16",
    "lift.depth.maximum=24.0",
    "lift.height_slices=5",
    "encoder.channels=[8, 12]",
    "encoder.blocks=[1, 1]",
    "encoder.out_channels=8",
    "heads.voxel_channels=5",
    "heads.hidden_channels=6",
    "backbone.name=test_efficientnet",
)
THINNER = 2.5  # the untrained network's densities times exp(-2.5): most of what is seen is free, as outdoors


class SceneError(ValueError):
    """A recording that the rig cannot show: what is missing and what to do."""


@dataclass(frozen=True)
class Frame:
    """{camera: image message} of one moment and the pose (translation, quaternion) of the base in the odom frame."""

    images: dict[str, object]
    pose: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Scene:
    """Frames to show in a loop, and what does not change: {camera: camera_info message}, {camera: mount}.

    mounts: (translation, quaternion) of the optical frame `frame_ids[camera]` in base_link.
    """

    frames: tuple[Frame, ...]
    infos: dict[str, object]
    mounts: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    frame_ids: dict[str, str]

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.infos)


def small_network(path: Path, words: Sequence[str] = ()) -> Path:
    """A checkpoint of random weights that says something of everything, written once; `words` change its settings."""
    from renderocc_model.field.classes import OCC3D_NUSCENES
    from renderocc_model.network.checkpoint import save_checkpoint
    from renderocc_model.network.presets import preset
    from renderocc_model.network.untrained import untrained_checkpoint

    if not path.exists():
        made = untrained_checkpoint(preset("tiny", [*SMALL, *words]), OCC3D_NUSCENES)
        made.network.heads.density[-1].bias.data.sub_(THINNER)
        threshold = 1 - (1 - made.threshold) ** float(np.exp(-THINNER))
        save_checkpoint(path, made.network, OCC3D_NUSCENES, threshold, None, made.provenance)
    return path


def simulated_recording(folder: Path) -> Path:
    """A street of the simulated town through four small cameras, recorded once into `folder`.

    Raises:
        SceneError: the town could not be made.
    """
    return _recorded_once(folder, _small_rig)


def surround_recording(folder: Path) -> Path:
    """The same street through six cameras of 640 x 240 pixels, recorded once into `folder`.

    Raises:
        SceneError: the town could not be made.
    """
    return _recorded_once(folder, lambda folder: ("--width", "640", "--height", "240"))


def _small_rig(folder: Path) -> tuple[str, ...]:
    """The words of `simulate` for four small cameras, whose rig is written into `folder`."""
    from renderocc_model.geometry.camera_model import CameraModel
    from renderocc_model.geometry.rig import Camera, Rig
    from renderocc_ros.process import config_file

    town = Rig.load(config_file("rigs/town_6cam.yaml"))
    focal = town["cam_front"].model.K[0, 0] * WIDTH / town["cam_front"].model.width
    K = np.array([[focal, 0, WIDTH / 2 - 0.5], [0, focal, HEIGHT / 2 - 0.5], [0, 0, 1]])
    model = CameraModel(WIDTH, HEIGHT, K, "plumb_bob", (0.0,) * 5)
    rig = Rig(tuple(Camera(name, model, town[name].base_from_camera, f"{name}_optical") for name in CAMERAS))
    rig.save(folder / "rig.yaml")
    return "--rig", str(folder / "rig.yaml"), "--jobs", "1"


def _recorded_once(folder: Path, cameras: Callable[[Path], Sequence[str]]) -> Path:
    """The recording in `folder`; where there is none, it is made through the cameras that words for `simulate` name."""
    bag = folder / "town"
    if (bag / "metadata.yaml").exists():
        return bag
    print("recording a street of the simulated town", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "renderocc_model.cli", "simulate", str(bag), "--frames", str(FRAMES), "--rate", "5"]
    command += ["--seed", str(SEED), "--no-lidar", "--no-labels", "--no-truth", *cameras(folder)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        raise SceneError(f"the town could not be simulated: {done.stderr.strip()[-300:]}; give a recording with --bag")
    return bag


def load_scene(bag: Path) -> Scene:
    """The first frames of a recording, as messages; every second camera's images are made raw ones.

    Raises:
        SceneError: a camera without images, camera_info or mount; BagError: it cannot be read.
    """
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from tf2_msgs.msg import TFMessage

    from renderocc_model.rosio.bags import Bag
    from renderocc_ros.parameters import NodeConfig, cameras_on_graph

    config = NodeConfig(image_topic="/{camera}/image_raw", camera_info_topic="/{camera}/camera_info")
    with Bag(bag) as recording:
        topics = [(topic.name, [topic.type]) for topic in recording.topics.values()]
        cameras = cameras_on_graph(topics, config, "/")[:MOST_CAMERAS]
        types = {name: kinds[0] for name, kinds in topics}
        images: dict[str, list] = {camera: [] for camera in cameras}
        infos: dict[str, CameraInfo] = {}
        mounts, poses = {}, []
        wanted = [f"/{camera}/camera_info" for camera in cameras] + ["/tf", "/tf_static"]
        wanted += [f"/{camera}/image_raw{kind}" for camera in cameras for kind in ("", "/compressed")]
        for topic, _, data in recording.messages([name for name in wanted if name in types]):
            if topic in ("/tf", "/tf_static"):
                for t in deserialize_message(data, TFMessage).transforms:
                    move, turn = t.transform.translation, t.transform.rotation
                    pose = ((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
                    if (t.header.frame_id, t.child_frame_id) == ("odom", "base_link"):
                        poses.append((t.header.stamp.sec * 10**9 + t.header.stamp.nanosec, pose))
                    elif t.header.frame_id == "base_link":
                        mounts[t.child_frame_id] = pose
            elif topic.endswith("/camera_info"):
                infos.setdefault(topic.split("/camera_info")[0][1:], deserialize_message(data, CameraInfo))
            else:
                camera, compressed = topic[1:].split("/image_raw")[0], topic.endswith("/compressed")
                if len(images[camera]) < MOST_FRAMES:
                    images[camera].append(deserialize_message(data, CompressedImage if compressed else Image))
    if not cameras:
        raise SceneError(f"{bag}: no camera in it (X/camera_info with X/image_raw or X/image_raw/compressed)")
    frame_ids = {camera: images[camera][0].header.frame_id for camera in cameras if images[camera]}
    lacking = [camera for camera in cameras if camera not in infos or frame_ids.get(camera) not in mounts]
    if lacking:
        raise SceneError(f"{bag}: {', '.join(lacking)} without images, camera_info or base_link -> optical frame")
    order = sorted(cameras, key=lambda camera: CAMERAS.index(camera) if camera in CAMERAS else len(CAMERAS))
    for camera in order[1::2]:
        images[camera] = [as_raw(image) for image in images[camera]]
    frames = []
    for index in range(min(len(images[camera]) for camera in cameras)):
        stamp = images[order[0]][index].header.stamp
        ns = stamp.sec * 10**9 + stamp.nanosec
        pose = min(poses, key=lambda p: abs(p[0] - ns))[1] if poses else ((0.0,) * 3, (0.0, 0.0, 0.0, 1.0))
        frames.append(Frame({camera: images[camera][index] for camera in order}, pose))
    return Scene(
        tuple(frames),
        {camera: infos[camera] for camera in order},
        {camera: mounts[frame_ids[camera]] for camera in order},
        {camera: frame_ids[camera] for camera in order},
    )


def as_raw(image):
    """An Image (rgb8) of a CompressedImage; an Image stays what it is."""
    import cv2
    from sensor_msgs.msg import CompressedImage, Image

    if not isinstance(image, CompressedImage):
        return image
    pixels = cv2.imdecode(np.frombuffer(bytes(image.data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    raw = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="rgb8", step=3 * pixels.shape[1])
    raw.header.frame_id, raw.header.stamp = image.header.frame_id, image.header.stamp
    raw.data.frombytes(np.ascontiguousarray(pixels).tobytes())
    return raw
