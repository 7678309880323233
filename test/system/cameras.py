"""Scenes, and the publishers of their cameras and transforms, with ordinary messages."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from .listener import Listener
from .messages import LATCHED, SECOND, stamp_message, transform_message

__all__ = ["MOUNTS", "CameraPublishers", "Frame", "Pose", "Scene", "as_raw", "noise_cameras", "pixels_of"]

Pose = tuple[tuple[float, ...], tuple[float, ...]]  # translation in metres, quaternion (x, y, z, w)

# Cameras that look forward, left and backward: the optical frame (x right, y down, z forward) in base_link.
MOUNTS: dict[str, Pose] = {
    "front": ((1.5, 0.0, 1.6), (-0.5, 0.5, -0.5, 0.5)),
    "left": ((1.0, 0.5, 1.6), (-0.7071067811865476, 0.0, 0.0, 0.7071067811865476)),
    "back": ((-0.5, 0.0, 1.6), (-0.5, -0.5, 0.5, 0.5)),
}
BETWEEN = 1_000_000  # nanoseconds between two cameras' stamps in `CameraPublishers.frame`


@dataclass(frozen=True)
class Frame:
    """{camera: Image or CompressedImage} of one moment, and the pose of base_link in the odom frame."""

    images: dict[str, Image | CompressedImage]
    pose: Pose = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Scene:
    """What cameras show: frames, and what does not change, {camera: camera_info} and {camera: mount}.

    mounts: of the optical frame `frame_ids[camera]` in base_link.
    """

    frames: tuple[Frame, ...]
    infos: dict[str, CameraInfo]
    mounts: dict[str, Pose]
    frame_ids: dict[str, str]

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.infos)


def is_raw(image: Image | CompressedImage) -> bool:
    """Whether an image message is an Image."""
    return isinstance(image, Image)


def pixels_of(image: Image | CompressedImage) -> np.ndarray:
    """(height, width, 3) uint8 RGB of an rgb8 Image or of a CompressedImage."""
    content = np.frombuffer(bytes(image.data), np.uint8)
    if is_raw(image):
        return content.reshape(image.height, image.step)[:, : 3 * image.width].reshape(image.height, image.width, 3)
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def as_raw(image: Image | CompressedImage) -> Image:
    """An Image (rgb8) of a CompressedImage; an Image stays what it is."""
    if is_raw(image):
        return image
    raw = image_of(pixels_of(image), image.header.frame_id)
    raw.header.stamp = image.header.stamp
    return raw


def image_of(pixels: np.ndarray, frame_id: str) -> Image:
    """An rgb8 Image of (height, width, 3) uint8."""
    height, width = pixels.shape[:2]
    image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    image.header.frame_id = frame_id
    image.data.frombytes(np.ascontiguousarray(pixels).tobytes())
    return image


def noise_scene(cameras: Sequence[str], width: int = 320, height: int = 200) -> Scene:
    """One frame of noise from cameras of `MOUNTS`, 80 degrees wide, with frames <camera>_optical."""
    generator = np.random.default_rng(7)
    images, infos, focal = {}, {}, 0.6 * width
    for camera in cameras:
        images[camera] = image_of(generator.integers(0, 255, (height, width, 3), np.uint8), f"{camera}_optical")
        info = infos[camera] = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.header.frame_id = f"{camera}_optical"
        info.k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, width / 2 - 0.5, 0.0, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    mounts = {camera: MOUNTS[camera] for camera in cameras}
    return Scene((Frame(images),), infos, mounts, {camera: f"{camera}_optical" for camera in cameras})


class CameraPublishers:
    """Publishers of a scene's cameras, of /tf, /tf_static and /clock. What goes out, and when, the caller says.

    Each camera has a publisher of its camera_info and, by the scene's first frame, of raw or compressed images; all
    others are made when they are first asked for.

    Args:
        node: the rclpy node that they belong to.
        scene: what the cameras show.
    """

    def __init__(self, node, scene: Scene) -> None:
        self.node, self.scene, self.cameras = node, scene, scene.cameras
        self._publishers: dict[tuple[str, str], object] = {}
        self._lock = threading.RLock()
        for camera, image in scene.frames[0].images.items():
            self.publisher("camera_info", camera)
            self.publisher("raw" if is_raw(image) else "compressed", camera)

    # ---- publishers

    def publisher(self, kind: str, camera: str = "", qos: QoSProfile | None = None):
        """The publisher of a kind of message: raw, compressed, camera_info (of a camera), tf, tf_static or clock.

        Args:
            qos: of a publisher that is made now, in place of the usual one.
        """
        with self._lock:
            if (kind, camera) not in self._publishers:
                message, topic, depth = {
                    "raw": (Image, f"/{camera}/image_raw", 5),
                    "compressed": (CompressedImage, f"/{camera}/image_raw/compressed", 5),
                    "camera_info": (CameraInfo, f"/{camera}/camera_info", 5),
                    "tf": (TFMessage, "/tf", 100),
                    "tf_static": (TFMessage, "/tf_static", 1),
                    "clock": (Clock, "/clock", 5),
                }[kind]
                usual = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
                usual = LATCHED if kind == "tf_static" else usual
                self._publishers[kind, camera] = self.node.create_publisher(message, topic, qos or usual)
            return self._publishers[kind, camera]

    def subscribers(self, kind: str, camera: str = "") -> int:
        """How many subscriptions the publisher of this kind knows."""
        return self.publisher(kind, camera).get_subscription_count()

    def publish(self, kind: str, camera: str, message: object) -> None:
        """Publish a message, or its bytes; nothing is unplugged meanwhile."""
        with self._lock:
            self.publisher(kind, camera).publish(message)

    def unplug(self, kind: str, camera: str) -> None:
        """Destroy a publisher; the next message of its kind makes it anew."""
        with self._lock:
            publisher = self._publishers.pop((kind, camera), None)
            if publisher is not None:
                self.node.destroy_publisher(publisher)

    # ---- messages

    def info_message(self, camera: str, stamp: int) -> CameraInfo:
        """The camera's calibration, at a stamp in nanoseconds; a message of its own, to be changed at will."""
        message = copy.deepcopy(self.scene.infos[camera])
        message.header.stamp = stamp_message(stamp)
        return message

    def image_message(self, camera: str, stamp: int, frame: Frame | None = None) -> Image | CompressedImage:
        """The camera's image of a frame (the first), at a stamp in nanoseconds; its fields can be set at will."""
        message = copy.copy((frame or self.scene.frames[0]).images[camera])
        message.header = copy.deepcopy(message.header)
        message.header.stamp = stamp_message(stamp)
        return message

    def mounts_message(self, stamp: int = 1, leave_out: Iterable[str] = ()) -> TFMessage:
        """The mounts of all cameras but some."""
        ids, mounts = self.scene.frame_ids, self.scene.mounts
        kept = [camera for camera in self.cameras if camera not in leave_out]
        return TFMessage(transforms=[transform_message("base_link", ids[name], stamp, *mounts[name]) for name in kept])

    # ---- sending

    def send_mounts(self, leave_out: Iterable[str] = ()) -> None:
        self.publish("tf_static", "", self.mounts_message(leave_out=leave_out))

    def send_odom(self, stamp: int, x: float = 0.0) -> None:
        """base_link at (x, 0, 0) of odom."""
        self.publish("tf", "", TFMessage(transforms=[transform_message("odom", "base_link", stamp, (x, 0.0, 0.0))]))

    def send_infos(self, stamp: int, leave_out: Iterable[str] = ()) -> None:
        for camera in self.cameras:
            if camera not in leave_out:
                self.publish("camera_info", camera, self.info_message(camera, stamp))

    def send_image(self, camera: str, stamp: int) -> None:
        """The camera's first image, by the transport it has in the scene."""
        message = self.image_message(camera, stamp)
        self.publish("raw" if is_raw(message) else "compressed", camera, message)

    def frame(self, stamp: int, leave_out: Iterable[str] = ()) -> None:
        """Ego pose, calibrations and one image of each camera, 1 ms apart in the order of the cameras."""
        self.send_odom(stamp - SECOND // 20)
        self.send_odom(stamp + SECOND // 20)
        self.send_infos(stamp, leave_out)
        for index, camera in enumerate(self.cameras):
            if camera not in leave_out:
                self.send_image(camera, stamp + index * BETWEEN)


def noise_cameras(listener: Listener, cameras: Sequence[str] = tuple(MOUNTS)) -> CameraPublishers:
    """Publishers of a scene of noise, with both transports of each camera and /tf and /tf_static from the start."""
    made = CameraPublishers(listener.node, noise_scene(cameras))
    for camera in cameras:
        made.publisher("compressed", camera)
    for topic in ("tf", "tf_static"):
        made.publisher(topic)
    return made
