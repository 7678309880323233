"""What the cameras show: a few frames of a recording, or of a street of the simulated town."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from system import Frame, Scene, as_raw, program_environment, stamp_ns
from system.cameras import Pose
from tf2_msgs.msg import TFMessage

from renderocc_model.rosio.bags import Bag

__all__ = ["SceneError", "load_scene", "simulated_recording", "surround_recording"]

CAMERAS = ("cam_front", "cam_front_left", "cam_back", "cam_front_right")
WIDTH, HEIGHT, FRAMES, SEED = 320, 180, 8, 11
MOST_CAMERAS, MOST_FRAMES = 6, 12


class SceneError(ValueError):
    """A recording that cannot be shown: what is missing and what to do."""


def simulated_recording(folder: Path) -> Path:
    """A street of the simulated town through four small cameras, recorded once into `folder`.

    Raises:
        SceneError: the town could not be made.
    """
    return _recorded_once(folder, _four_small_cameras)


def surround_recording(folder: Path) -> Path:
    """The same street through six cameras of 640 x 240 pixels, recorded once into `folder`.

    Raises:
        SceneError: the town could not be made.
    """
    return _recorded_once(folder, lambda folder: ("--width", "640", "--height", "240"))


def _four_small_cameras(folder: Path) -> tuple[str, ...]:
    """Arguments of `simulate` for four small cameras, whose rig is written into `folder`."""
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
    """The recording in `folder`, made where there is none; `cameras(folder)` gives arguments of `simulate`."""
    bag = folder / "town"
    if (bag / "metadata.yaml").exists():
        return bag
    print("recording a street of the simulated town", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "renderocc_model.cli", "simulate", str(bag), "--frames", str(FRAMES), "--rate", "5"]
    command += ["--seed", str(SEED), "--no-lidar", "--no-labels", "--no-truth", *cameras(folder)]
    done = subprocess.run([sys.executable, *command], env=program_environment(), capture_output=True, text=True)
    if done.returncode:
        raise SceneError(f"the town could not be simulated: {done.stderr.strip()[-300:]}; give a recording with --bag")
    return bag


def load_scene(bag: Path) -> Scene:
    """The first frames of a recording, as messages; every second camera's images are made raw ones.

    Raises:
        SceneError: a camera without images, camera_info or mount; BagError: it cannot be read.
    """
    found = _read(bag)
    cameras = sorted(found.images, key=lambda camera: CAMERAS.index(camera) if camera in CAMERAS else len(CAMERAS))
    if not cameras:
        raise SceneError(f"{bag}: no camera in it (X/camera_info with X/image_raw or X/image_raw/compressed)")
    frame_ids = {camera: found.images[camera][0].header.frame_id for camera in cameras if found.images[camera]}
    lacking = [name for name in cameras if name not in found.infos or frame_ids.get(name) not in found.mounts]
    if lacking:
        raise SceneError(f"{bag}: {', '.join(lacking)} without images, camera_info or base_link -> optical frame")
    for camera in cameras[1::2]:
        found.images[camera] = [as_raw(image) for image in found.images[camera]]
    frames = []
    for index in range(min(map(len, found.images.values()))):
        images = {camera: found.images[camera][index] for camera in cameras}
        frames.append(Frame(images, found.pose_at(stamp_ns(images[cameras[0]]))))
    return Scene(
        tuple(frames),
        {camera: found.infos[camera] for camera in cameras},
        {camera: found.mounts[frame_ids[camera]] for camera in cameras},
        frame_ids,
    )


@dataclass
class _Recorded:
    """What a recording holds of cameras: {camera: its first images}, {camera: camera_info}, {frame: mount}, poses."""

    images: dict[str, list[Image | CompressedImage]]
    infos: dict[str, CameraInfo] = field(default_factory=dict)
    mounts: dict[str, Pose] = field(default_factory=dict)
    poses: list[tuple[int, Pose]] = field(default_factory=list)  # stamp in nanoseconds, base_link in odom

    def add_transforms(self, message: TFMessage) -> None:
        for transform in message.transforms:
            move, turn = transform.transform.translation, transform.transform.rotation
            pose = ((move.x, move.y, move.z), (turn.x, turn.y, turn.z, turn.w))
            if (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link"):
                self.poses.append((stamp_ns(transform), pose))
            elif transform.header.frame_id == "base_link":
                self.mounts[transform.child_frame_id] = pose

    def pose_at(self, stamp: int) -> Pose:
        """The nearest pose; the origin where there is none."""
        if not self.poses:
            return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
        return min(self.poses, key=lambda pose: abs(pose[0] - stamp))[1]


def _read(bag: Path) -> _Recorded:
    from renderocc_ros.input.discovery import cameras_on_graph
    from renderocc_ros.parameters import NodeConfig

    config = NodeConfig(image_topic="/{camera}/image_raw", camera_info_topic="/{camera}/camera_info")
    with Bag(bag) as recording:
        topics = [(topic.name, [topic.type]) for topic in recording.topics.values()]
        found = _Recorded({camera: [] for camera in cameras_on_graph(topics, config, "/")[:MOST_CAMERAS]})
        wanted = {"/tf", "/tf_static"} | {f"/{camera}/camera_info" for camera in found.images}
        wanted |= {f"/{camera}/image_raw{kind}" for camera in found.images for kind in ("", "/compressed")}
        for topic, _, data in recording.messages([name for name, _ in topics if name in wanted]):
            camera = topic[1:].split("/camera_info")[0].split("/image_raw")[0]
            if topic in ("/tf", "/tf_static"):
                found.add_transforms(deserialize_message(data, TFMessage))
            elif topic.endswith("/camera_info"):
                found.infos.setdefault(camera, deserialize_message(data, CameraInfo))
            elif len(found.images[camera]) < MOST_FRAMES:
                kind = CompressedImage if topic.endswith("/compressed") else Image
                found.images[camera].append(deserialize_message(data, kind))
    return found
