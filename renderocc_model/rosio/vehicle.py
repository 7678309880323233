"""One description of a vehicle: its cameras, topics, frames, mounts and clocks. The node and every command read it.

`Vehicle` holds the settings. They are

- parameters of the node: `NodeConfig` in `renderocc_ros.parameters` extends this class;
- options of the commands (`vehicle_options`): `base_frame` is `--base-frame`;
- entries of a parameter file, which the node and the commands take alike (`parameter_file`).

To add a setting, add a line `name: type = setting(default, help, ...)` here; numbers need a minimum and a maximum. It
is then a parameter and an option everywhere; `config/renderocc.yaml` and the README's table are written anew by
`RENDEROCC_UPDATE_README=1 pytest test/test_readme.py test/test_parameters.py`. What the setting does belongs into the
code that all its users share, in this folder.
"""

from __future__ import annotations

import re

from renderocc_model.base.config import configuration, setting
from renderocc_model.rosio.motion import MotionLimits
from renderocc_model.rosio.pixel_format import BIT_DEPTHS, MOSAICS
from renderocc_model.rosio.rectification import RECTIFIED

__all__ = [
    "CAMERA_MARK",
    "CAMERA_MARKS",
    "MOST_CAMERAS",
    "MOST_NAME",
    "Vehicle",
    "absolute",
    "is_camera_name",
    "odometry_frame",
]

MOST_CAMERAS = 64  # a hostile publisher could otherwise make the node subscribe to topics without end
MOST_NAME = 100  # characters of a camera's name; it is part of topic names, which ROS limits to 247
# Placeholders for a camera's name in a template. On its command line, ROS reads a value that begins with `{` as a
# mapping in YAML; `<camera>/image_raw` has no such problem.
CAMERA_MARKS = ("{camera}", "<camera>")
CAMERA_MARK = "{camera}"
# Names that ROS allows in topics. A sender that does not use ROS can announce any name.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_SUBSTITUTION = re.compile(r"\{(node|ns|namespace)\}")  # ROS replaces these itself
_LONGEST_OFFSET = 3600.0  # seconds; clocks that differ by more are not synchronised at all
_ANY_IMAGE = "{camera}/image_raw"


@configuration
class Vehicle:
    """The settings that describe a vehicle.

    Raises:
        ValueError: a value is out of its range, or two values contradict each other; the text names the setting.
    """

    # Cameras
    cameras: tuple[str, ...] = setting(
        (),
        "names of the cameras, in the order of the network's views; "
        "empty: every camera that is on the graph when the node is configured, or in the recording",
    )
    image_topic: str = setting(
        _ANY_IMAGE,
        "template of the raw image topic; {camera} or <camera> stands for the camera's name; "
        "compressed images are expected at TOPIC/compressed",
    )
    camera_info_topic: str = setting("{camera}/camera_info", "template of the calibration topic")
    camera_frame: str = setting(
        "", "template of the optical frame, e.g. {camera}_optical; empty: the frame_id of the images"
    )
    image_transport: str = setting(
        "auto",
        "kind of image messages to use; auto: any, and if several are published, the node takes the raw ones, then the "
        "compressed ones, then H.264 or H.265 video",
        choices=("auto", "raw", "compressed", "video"),
    )
    rectified: str = setting(
        "auto",
        "which images are rectified, so that P and R of camera_info describe them in place of K and D; "
        "auto: those on topics called image_rect...",
        choices=RECTIFIED,
    )
    bit_depth: int = setting(
        0, "bits that 16-bit images use, e.g. 12; 0: as their pixels show, with a warning", minimum=0, maximum=16
    )
    mosaic: str = setting(
        "auto",
        "Bayer pattern of grey PNG or JPEG images; auto: as their format says, and grey images that look like a mosaic "
        "are refused; none: they are grey",
        choices=MOSAICS,
    )

    # Frames
    base_frame: str = setting("base_link", "frame of the grid and of every output: x forward, y left, z up")
    odom_frame: str = setting(
        "odom",
        "fixed frame for ego motion between image stamps; "
        "empty: no ego motion, cameras are placed by their mounts alone",
    )
    frame_prefix: str = setting(
        "", "beginning of all frames' names in TF, e.g. veh1/, which other settings and messages may leave out"
    )
    mounts: tuple[str, ...] = setting(
        (),
        "poses of sensors that are not in TF, each 'camera: x y z roll pitch yaw' of its body in base_frame [m, rad]; "
        "a LiDAR has its topic in place of the camera's name",
    )

    # Ego motion
    tf_topic: str = setting("/tf", "topic of the moving transforms, e.g. /veh1/tf")
    tf_static_topic: str = setting("/tf_static", "topic of the static transforms, e.g. /veh1/tf_static")
    odom_topic: str = setting(
        "", "topic of nav_msgs/Odometry that has the ego motion in place of odom_frame in TF; empty: TF has it"
    )

    # Other sensors
    lidar_topics: tuple[str, ...] = setting(
        (),
        "topics of the LiDARs, whose clouds label images together; empty: the only one in the recording; "
        "the node does not use them",
    )
    clock_offsets: tuple[str, ...] = setting(
        (),
        "seconds to add to the stamps of a sensor whose clock differs by a constant from that of TF, "
        "each 'camera: seconds' or '/lidar/topic: seconds'",
    )

    motion: MotionLimits = MotionLimits()

    def check(self) -> None:
        for name in ("image_topic", "camera_info_topic"):
            if not any(mark in getattr(self, name) for mark in CAMERA_MARKS):
                raise ValueError(
                    f"parameter {name!r} is {getattr(self, name)!r}: "
                    "it must contain {camera}, e.g. '{camera}/image_raw'"
                )
            self._check_topic(name, _filled(getattr(self, name), "x"), "'{camera}/image_raw'")
        for name in ("tf_topic", "tf_static_topic", "odom_topic"):
            if getattr(self, name) or name != "odom_topic":
                self._check_topic(name, getattr(self, name), "'/veh1/tf'")
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
        if self.bit_depth not in BIT_DEPTHS:
            raise ValueError(f"parameter 'bit_depth' is {self.bit_depth}; expected 8 to 16, or 0 to find it out")
        if not self.base_frame:
            raise ValueError("parameter 'base_frame' is empty; name the vehicle's frame, usually 'base_link'")
        self._offsets()

    def _check_topic(self, name: str, topic: str, example: str) -> None:
        if not _NAME.fullmatch(_SUBSTITUTION.sub("x", topic).removeprefix("~").removeprefix("/")):
            raise ValueError(
                f"parameter {name!r} is {getattr(self, name)!r}, which is no topic of ROS: "
                f"use letters, digits and '_' in words divided by '/', e.g. {example}"
            )

    def image_topic_of(self, camera: str) -> str:
        return _filled(self.image_topic, camera)

    def camera_info_topic_of(self, camera: str) -> str:
        return _filled(self.camera_info_topic, camera)

    def camera_frame_of(self, camera: str) -> str:
        """The optical frame that the settings name; empty if the images name it."""
        return _filled(self.camera_frame, camera)

    @property
    def any_image_topic(self) -> bool:
        """Whether no image topic was chosen, so that other usual names may be taken."""
        return _filled(self.image_topic, "x").removeprefix("/") == _filled(_ANY_IMAGE, "x")

    def frame(self, name: str) -> str:
        """The name in TF of a frame that messages or settings name, with `frame_prefix`; empty stays empty."""
        name = name.removeprefix("/")
        return name if not name or name.startswith(self.frame_prefix) else f"{self.frame_prefix}{name}"

    @property
    def base(self) -> str:
        """The name in TF of the vehicle's frame."""
        return self.frame(self.base_frame)

    @property
    def fixed(self) -> str:
        """The fixed frame of ego motion in the transform buffer: `odom_frame`, or that of `odom_topic`; empty without
        ego motion."""
        return odometry_frame(self.odom_topic) if self.odom_frame and self.odom_topic else self.frame(self.odom_frame)

    def optical_frame(self, camera: str, of_image: str, of_info: str = "") -> str:
        """The name in TF of a camera's optical frame.

        Args:
            camera: name.
            of_image: frame_id of its images.
            of_info: frame_id of its CameraInfo, which counts where the images have none.
        """
        return self.frame(self.camera_frame_of(camera) or of_image or of_info)

    def offset_ns(self, sensor: str) -> int:
        """Nanoseconds to add to the stamps of a camera (by its name) or a LiDAR (by its topic)."""
        return self._offsets().get(sensor, 0)

    def _offsets(self) -> dict[str, int]:
        offsets = {}
        for text in self.clock_offsets:
            name, colon, number = text.rpartition(":")
            try:
                seconds = float(number)
            except ValueError:
                seconds = float("nan")
            if not colon or not name.strip() or not abs(seconds) <= _LONGEST_OFFSET:
                raise ValueError(
                    f"parameter 'clock_offsets' has the entry {text!r}; expected 'camera: seconds' or "
                    f"'/lidar/topic: seconds', at most {_LONGEST_OFFSET:g} s"
                )
            offsets[name.strip()] = round(seconds * 1e9)
        return offsets


def odometry_frame(topic: str) -> str:
    """The frame in the transform buffer in which an Odometry topic gives poses. No frame of TF has this name."""
    return f"odometry on {topic}"


def absolute(topic: str, namespace: str = "/") -> str:
    """The full name of a topic; relative ones are in the namespace."""
    return topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}"


def is_camera_name(name: str) -> bool:
    """Whether ROS allows the name in topics."""
    return len(name) <= MOST_NAME and _NAME.fullmatch(name) is not None


def _filled(template: str, camera: str) -> str:
    for mark in CAMERA_MARKS:
        template = template.replace(mark, camera)
    return template
