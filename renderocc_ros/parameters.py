"""The node's parameters: one frozen dataclass, from which ROS declarations, checks and the README table come."""

from __future__ import annotations

import os
import re
from pathlib import Path

from renderocc_model.base.config import configuration, setting

# What `ros2 param set` can change while the node runs; the rest is read when the node is configured.
RUNTIME_PARAMETERS = {
    "threshold",
    "max_markers",
    "grid_min_height",
    "grid_max_height",
    "grid_ignored_classes",
    "rendered_stride",
    "save_directory",
}

MOST_CAMERAS = 64  # who publishes camera topics without end must not get a subscription for each
MOST_NAME = 100  # characters of a camera's name, which is part of topics; ROS allows 247 in these
# What stands for a camera's name in a template. On the command line of ROS a value that begins with `{` is read as a
# mapping of YAML; `<camera>/image_raw` is not.
CAMERA_MARKS = ("{camera}", "<camera>")
CAMERA_MARK = "{camera}"
# What ROS allows in topics; below ROS a sender can announce anything.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_SUBSTITUTION = re.compile(r"\{(node|ns|namespace)\}")  # by ROS itself


@configuration
class NodeConfig:
    """Every parameter of the node `renderocc`; `help`, range and choices of each are in its field's metadata.

    Raises:
        ValueError: a value is out of its range, or two values contradict each other; the text names the parameter.
    """

    # Cameras
    cameras: tuple[str, ...] = setting(
        (),
        "camera names, in the order of the network's views; "
        "empty: every camera found on the graph when the node is configured",
    )
    anchor_camera: str = setting("", "the camera whose stamps the outputs carry; empty: the first of `cameras`")
    image_topic: str = setting(
        "{camera}/image_raw",
        "template of the raw image topic, {camera} or <camera> standing for the name; "
        "compressed images are looked for at TOPIC/compressed",
    )
    camera_info_topic: str = setting("{camera}/camera_info", "template of the calibration topic")
    camera_frame: str = setting(
        "", "template of the optical frame, e.g. {camera}_optical; empty: the frame_id of the images"
    )
    image_transport: str = setting(
        "auto", "which image messages to subscribe to", choices=("auto", "raw", "compressed")
    )

    # Frames
    base_frame: str = setting("base_link", "frame of the grid and of every output: x forward, y left, z up")
    odom_frame: str = setting(
        "odom", "fixed frame for ego motion between camera stamps and frames; empty: use the static mounts only"
    )
    mounts: tuple[str, ...] = setting(
        (),
        "mounts of cameras that no TF places, each 'camera: x y z roll pitch yaw' of its body in base_frame [m, rad]",
    )
    tf_timeout: float = setting(
        0.1, "how long a frame waits for the ego pose at its image stamps [s]", minimum=0.0, maximum=5.0
    )
    startup_grace: float = setting(
        2.0,
        "how long the first images wait for the mounts and calibrations of their cameras, which a recording may hold "
        "after them [s]",
        minimum=0.0,
        maximum=60.0,
    )
    tf_history: float = setting(10.0, "how much of /tf is kept [s]", minimum=0.5, maximum=600.0)

    # Matching
    max_camera_time_diff: float = setting(
        0.1, "images further than this from the anchor's stamp are not matched to it [s]", minimum=0.0, maximum=5.0
    )
    max_wait: float = setting(
        0.15, "how long a frame waits for its last cameras after the anchor's image came [s]", minimum=0.0, maximum=5.0
    )
    camera_timeout: float = setting(
        2.0, "a camera silent for this long is reported and not waited for [s]", minimum=0.05, maximum=60.0
    )
    min_cameras: int = setting(1, "with fewer usable cameras nothing is published", minimum=1, maximum=64)
    max_future: float = setting(
        1.0,
        "images stamped further than this ahead of the node's clock are dropped [s]; 0: never",
        minimum=0.0,
        maximum=3600.0,
    )

    # Network
    checkpoint: str = setting(
        "",
        "path of a .safetensors checkpoint, or of what `renderocc export` wrote; "
        "empty: the trained network of `preset` in the package, which has `tiny`",
    )
    preset: str = setting(
        "tiny",
        "the network where no checkpoint is named; if it is not in the package, untrained: its output means nothing",
        choices=("tiny", "base", "paper"),
    )
    device: str = setting("auto", "auto: CUDA where there is any, else the CPU", choices=("auto", "cpu", "cuda"))
    backend: str = setting(
        "auto",
        "what runs the network; auto: torch, and onnxruntime for .onnx files",
        choices=("auto", "torch", "onnxruntime", "tensorrt"),
    )
    precision: str = setting(
        "auto",
        "auto: 16 bits where the device multiplies them fast (CUDA, CPUs with bfloat16), else single precision",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    image_decoding: str = setting(
        "cpu",
        "where images are decoded; cuda: JPEGs by nvJPEG, raw images by one kernel",
        choices=("cpu", "cuda"),
    )
    threshold: float = setting(
        0.0, "occupied above this probability; 0: the threshold stored in the checkpoint", minimum=0.0, maximum=0.999
    )
    cpu_threads: int = setting(0, "threads of the network on the CPU; 0: all cores", minimum=0, maximum=256)

    # Outputs
    max_markers: int = setting(
        50_000, "at most this many cubes in ~/markers; the nearest are kept", minimum=0, maximum=1_000_000
    )
    grid_min_height: float = setting(
        0.3, "lower edge of the height band of ~/grid above base_link [m]", minimum=-100.0, maximum=100.0
    )
    grid_max_height: float = setting(
        2.0, "upper edge of the height band of ~/grid above base_link [m]", minimum=-100.0, maximum=100.0
    )
    grid_ignored_classes: tuple[str, ...] = setting(
        ("driveable_surface", "other_flat", "sidewalk", "terrain"), "classes that are ground, not obstacles, in ~/grid"
    )
    rendered_stride: int = setting(
        4, "one ray of ~/rendered/<camera> for this many pixels of the network's view", minimum=1, maximum=64
    )
    save_directory: str = setting(
        "~/.ros/renderocc", "~/save writes here or, if changed, to folders in it; nowhere else"
    )
    diagnostics_period: float = setting(1.0, "time between two /diagnostics [s]", minimum=0.1, maximum=60.0)
    autostart: bool = setting(True, "configure and activate without being asked")

    def check(self) -> None:
        for name in ("image_topic", "camera_info_topic"):
            if not any(mark in getattr(self, name) for mark in CAMERA_MARKS):
                raise ValueError(
                    f"parameter {name!r} is {getattr(self, name)!r}: "
                    "it must contain {camera}, e.g. '{camera}/image_raw'"
                )
            topic = _SUBSTITUTION.sub("x", _filled(getattr(self, name), "x")).removeprefix("~")
            if not _NAME.fullmatch(topic.removeprefix("/")):
                raise ValueError(
                    f"parameter {name!r} is {getattr(self, name)!r}, which is no topic of ROS: "
                    "use letters, digits and '_' in words divided by '/', e.g. '{camera}/image_raw'"
                )
        for camera in self.cameras:
            if not is_camera_name(camera):
                raise ValueError(
                    f"parameter 'cameras' names {camera!r}, which cannot be part of a topic: use letters, digits and "
                    f"'_' in words divided by '/', none beginning with a digit, at most {MOST_NAME} characters in all, "
                    "e.g. 'front_left'"
                )
        if len(self.cameras) > MOST_CAMERAS:
            raise ValueError(f"parameter 'cameras' has {len(self.cameras)} names; expected at most {MOST_CAMERAS}")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"parameter 'cameras' names a camera twice: {list(self.cameras)}")
        if self.anchor_camera and self.cameras and self.anchor_camera not in self.cameras:
            raise ValueError(
                f"parameter 'anchor_camera' is {self.anchor_camera!r}, "
                f"which is not one of 'cameras' {list(self.cameras)}"
            )
        if self.cameras and self.min_cameras > len(self.cameras):
            raise ValueError(
                f"parameter 'min_cameras' is {self.min_cameras}, but there are only {len(self.cameras)} cameras"
            )
        if self.grid_min_height >= self.grid_max_height:
            raise ValueError(
                f"parameter 'grid_min_height' ({self.grid_min_height}) must be below "
                f"'grid_max_height' ({self.grid_max_height})"
            )
        if not self.base_frame:
            raise ValueError("parameter 'base_frame' is empty; name the vehicle's frame, usually 'base_link'")

    def image_topic_of(self, camera: str) -> str:
        return _filled(self.image_topic, camera)

    def camera_info_topic_of(self, camera: str) -> str:
        return _filled(self.camera_info_topic, camera)

    def camera_frame_of(self, camera: str) -> str:
        """The optical frame; empty where the images name it."""
        return _filled(self.camera_frame, camera)

    def save_path(self) -> Path:
        return Path(os.path.expandvars(self.save_directory)).expanduser().resolve()


def _filled(template: str, camera: str) -> str:
    for mark in CAMERA_MARKS:
        template = template.replace(mark, camera)
    return template


def is_camera_name(name: str) -> bool:
    """Whether ROS allows the name in topics."""
    return len(name) <= MOST_NAME and _NAME.fullmatch(name) is not None
