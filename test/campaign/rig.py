"""The scripted sensor rig: cameras, camera_info, /tf, /tf_static and, if wanted, /clock at a steady rate.

Every message passes through the faults that are on; what they return goes out instead.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from campaign.scene import Scene

__all__ = ["Message", "Rig", "SentImage", "stamp_message", "stamp_ns"]

SECOND = 1_000_000_000
CLOCK_START = 100_000 * SECOND  # where simulated time begins
CLOCK_PERIOD = 0.02
CAMERA_SPACING = 0.007  # seconds between the cameras' stamps, so that each stamp tells its camera
BEHIND = 0.03  # seconds an image's stamp lies before the moment it goes out
REMEMBERED = 12.0  # seconds for which calibrations and mounts that were sent count as perhaps believed


@dataclass(frozen=True)
class Message:
    """One message on its way out.

    kind: image, camera_info, tf, tf_static or clock. ros: the typed message. data: bytes to send in its place.
    delay: seconds. usable: whether a picture can be made of it; only the observer reads this.
    """

    kind: str
    camera: str
    ros: object
    data: bytes | None = None
    delay: float = 0.0
    usable: bool = True

    def copy(self, **changes) -> Message:
        """With a typed message of its own, to be changed at will."""
        return replace(self, ros=copy.deepcopy(self.ros), **changes)

    def restamped(self, stamp: int) -> Message:
        """With another header stamp, nanoseconds."""
        new = self.copy()
        new.ros.header.stamp = stamp_message(stamp)
        return new

    @property
    def stamp(self) -> int:
        return stamp_ns(self.ros)

    @property
    def compressed(self) -> bool:
        return self.kind == "image" and not hasattr(self.ros, "encoding")


@dataclass(frozen=True)
class SentImage:
    """An image that went out: steady seconds, stamp, whether it was fit to be used."""

    at: float
    stamp: int
    usable: bool


def stamp_message(stamp: int):
    from builtin_interfaces.msg import Time

    return Time(sec=stamp // SECOND, nanosec=stamp % SECOND)


def stamp_ns(message) -> int:
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


class Rig:
    """Publishes a scene until it is closed, from a thread of its own.

    Args:
        scene: what to show, back and forth.
        domain: the ROS domain.
        simulated: publish /clock and stamp with it, instead of the computer's clock.
        rate: frames per second.
    Attributes:
        changes: the faults that are on, each a function of a message to the messages that go out in its place.
        sent: {camera: the last images that went out}.
        lateness: the longest that a message went out after its time since `reset_lateness`, seconds.
    """

    def __init__(self, scene: Scene, domain: int, simulated: bool, rate: float = 5.0) -> None:
        import rclpy
        from rclpy.context import Context

        self.scene, self.simulated, self.rate = scene, simulated, rate
        self.changes: list[Callable[[Message], Iterable[Message]]] = []
        self.sent: dict[str, deque[SentImage]] = {camera: deque(maxlen=400) for camera in scene.cameras}
        self.infos_sent: dict[str, list[tuple[float, object]]] = defaultdict(list)
        self.mounts_sent: dict[str, list[tuple[float, object]]] = defaultdict(list)
        self.lateness = 0.0
        self.speed = 1.0  # of the simulated clock
        self.lock = threading.RLock()
        self._sim_ns, self._sim_at = CLOCK_START, time.monotonic()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("faulty_rig", context=self._context, start_parameter_services=False)
        self._publishers: dict[tuple[str, str, bool], object] = {}
        self._queue: list = []
        self._order = itertools.count()
        self._stop = threading.Event()
        for camera in scene.cameras:
            self.publisher("camera_info", camera)
            self.publisher("image", camera, not hasattr(scene.frames[0].images[camera], "encoding"))
        self.send_mounts()
        self._thread = threading.Thread(target=self._run, name="rig", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        import rclpy

        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    # ---- time

    def now_ns(self) -> int:
        """The time that images are stamped with."""
        if not self.simulated:
            return time.time_ns()
        with self.lock:
            return self._sim_ns + round((time.monotonic() - self._sim_at) * self.speed * SECOND)

    def set_clock(self, stamp: int | None = None, speed: float | None = None) -> None:
        """Move the simulated clock, or change its speed."""
        with self.lock:
            self._sim_ns, self._sim_at = self.now_ns() if stamp is None else stamp, time.monotonic()
            self.speed = self.speed if speed is None else speed

    def reset_lateness(self) -> None:
        self.lateness = 0.0

    # ---- publishers

    def publisher(self, kind: str, camera: str = "", compressed: bool = False):
        """The publisher of a kind of message, made when first asked for."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image
        from tf2_msgs.msg import TFMessage

        with self.lock:
            key = (kind, camera, compressed)
            if key not in self._publishers:
                message, topic = {
                    "image": (CompressedImage, f"/{camera}/image_raw/compressed")
                    if compressed
                    else (Image, f"/{camera}/image_raw"),
                    "camera_info": (CameraInfo, f"/{camera}/camera_info"),
                    "tf": (TFMessage, "/tf"),
                    "tf_static": (TFMessage, "/tf_static"),
                    "clock": (Clock, "/clock"),
                }[kind]
                latched = kind == "tf_static"
                durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
                depth = 1 if latched else 100 if kind == "tf" else 5
                qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
                self._publishers[key] = self.node.create_publisher(message, topic, qos)
            return self._publishers[key]

    def unplug(self, kind: str, camera: str, compressed: bool = False) -> None:
        """Destroy a publisher; the next message of its kind makes it anew."""
        with self.lock:
            publisher = self._publishers.pop((kind, camera, compressed), None)
            if publisher is not None:
                self.node.destroy_publisher(publisher)

    # ---- messages

    def mounts_message(self, leave_out: Iterable[str] = ()):
        from tf2_msgs.msg import TFMessage

        scene = self.scene
        return TFMessage(
            transforms=[
                transform_message("base_link", scene.frame_ids[camera], 1, *scene.mounts[camera])
                for camera in scene.cameras
                if camera not in leave_out
            ]
        )

    def send_mounts(self, leave_out: Iterable[str] = ()) -> None:
        self.send(Message("tf_static", "", self.mounts_message(leave_out)))

    def send(self, message: Message) -> None:
        """Publish at once, past the faults."""
        from rclpy.serialization import serialize_message

        with self.lock:
            self._remember(message)
            data = message.data if message.data is not None else serialize_message(message.ros)
            self.publisher(message.kind, message.camera, message.compressed).publish(data)

    def _remember(self, message: Message) -> None:
        now = time.monotonic()
        if message.kind == "image":
            stamp, usable = message.stamp, message.usable and message.data is None
            if message.data is not None and len(message.data) >= 12:  # CDR header, int32 seconds, uint32 nanoseconds
                seconds, nanoseconds = struct.unpack_from("<iI", message.data, 4)
                stamp = seconds * SECOND + nanoseconds
            self.sent[message.camera].append(SentImage(now, stamp, usable))
        elif message.kind == "camera_info" and message.data is None:
            remember(self.infos_sent[message.camera], now, message.ros, lambda info: (tuple(info.k), info.width))
        elif message.kind in ("tf", "tf_static") and message.data is None:
            for transform in message.ros.transforms:
                for camera, frame in self.scene.frame_ids.items():
                    if transform.child_frame_id == frame:
                        remember(self.mounts_sent[camera], now, transform.transform, str)

    def _run(self) -> None:
        next_frame = next_clock = time.monotonic()
        frames = itertools.cycle([*self.scene.frames, *self.scene.frames[-2:0:-1]])
        while not self._stop.is_set():
            now = time.monotonic()
            if self.simulated and now >= next_clock:
                self._through(self._clock_message(), now)
                next_clock = max(next_clock + CLOCK_PERIOD, now)
            if now >= next_frame:
                self.lateness = max(self.lateness, now - next_frame)
                self._frame(next(frames), now)
                period = 1 / (self.rate * (self.speed if self.simulated else 1.0))
                next_frame = next_frame + period if now - next_frame < 1.0 else now + period
            while self._queue and self._queue[0][0] <= now:
                due, _, message = heapq.heappop(self._queue)
                self.lateness = max(self.lateness, now - due)
                self.send(message)
            due = min([next_frame, *(item[0] for item in self._queue[:1])] + [next_clock] * self.simulated)
            self._stop.wait(max(0.0005, min(0.05, due - time.monotonic())))

    def _through(self, message: Message, now: float) -> None:
        """Through the faults that are on, then into the queue."""
        messages = [message]
        for change in list(self.changes):
            messages = [new for old in messages for new in change(old)]
        for new in messages:
            heapq.heappush(self._queue, (now + new.delay, next(self._order), new))

    def _clock_message(self) -> Message:
        from rosgraph_msgs.msg import Clock

        return Message("clock", "", Clock(clock=stamp_message(max(0, self.now_ns()))))

    def _frame(self, frame, now: float) -> None:
        """One frame: the ego pose before, at and after it, and of each camera calibration and image."""
        from tf2_msgs.msg import TFMessage

        start = self.now_ns()
        for ahead in (0.05, 0.15):
            pose = transform_message("odom", "base_link", start + round(ahead * SECOND), *frame.pose)
            self._through(Message("tf", "", TFMessage(transforms=[pose])), now)
        for index, (camera, image) in enumerate(frame.images.items()):
            stamp = stamp_message(start + round((index * CAMERA_SPACING - BEHIND) * SECOND))
            info = copy.copy(self.scene.infos[camera])
            image = copy.copy(image)
            for ros in (info, image):
                ros.header = copy.deepcopy(ros.header)
                ros.header.stamp = stamp
            delay = index * CAMERA_SPACING / (self.speed if self.simulated and self.speed else 1.0)
            self._through(Message("camera_info", camera, info, delay=delay), now)
            self._through(Message("image", camera, image, delay=delay), now)


def remember(known: list[tuple[float, object]], now: float, item, key: Callable) -> None:
    """Keep what was sent of late, each thing once with the time of its last sending."""
    known[:] = [(at, old) for at, old in known if now - at < REMEMBERED and key(old) != key(item)] + [(now, item)]


def transform_message(parent: str, child: str, stamp: int, translation, quaternion):
    from geometry_msgs.msg import TransformStamped

    message = TransformStamped(child_frame_id=child)
    message.header.stamp, message.header.frame_id = stamp_message(stamp), parent
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, translation)
    q.x, q.y, q.z, q.w = map(float, quaternion)
    return message
