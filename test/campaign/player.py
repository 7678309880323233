"""The cameras of a campaign: a scene played at a steady rate, with camera_info, /tf, /tf_static and, if wanted, /clock.

Every message passes through the faults that are on; what they return goes out instead.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import math
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from system import SECOND, CameraPublishers, Listener, Scene, stamp_message, stamp_ns, transform_message
from system.cameras import Pose
from tf2_msgs.msg import TFMessage

__all__ = ["CLOCK_START", "Message", "ScenePlayer", "SentImage"]

CLOCK_START = 100_000 * SECOND  # where simulated time begins
CLOCK_PERIOD = 0.02
CAMERA_SPACING = 0.007  # seconds between the cameras' stamps, so that a stamp belongs to one camera
BEHIND = 0.03  # seconds an image's stamp lies before the moment it goes out
REMEMBERED = 12.0  # seconds for which the node may still use a calibration or mount that was sent


@dataclass(frozen=True)
class Message:
    """One message on its way out.

    kind: image, camera_info, tf, tf_static or clock. ros: the typed message. data: bytes to send in its place.
    delay: seconds. usable: whether the node can use the image; only the observer reads this.
    """

    kind: str
    camera: str
    ros: object
    data: bytes | None = None
    delay: float = 0.0
    usable: bool = True

    def copy(self, **changes) -> Message:
        """A copy with a typed message of its own, which may be changed."""
        return replace(self, ros=copy.deepcopy(self.ros), **changes)

    def restamped(self, stamp: int) -> Message:
        """A copy with another header stamp, nanoseconds."""
        new = self.copy()
        new.ros.header.stamp = stamp_message(stamp)
        return new

    @property
    def stamp(self) -> int:
        return stamp_ns(self.ros)

    @property
    def compressed(self) -> bool:
        return isinstance(self.ros, CompressedImage)

    @property
    def publisher_kind(self) -> str:
        """As `CameraPublishers` calls it: images are raw or compressed."""
        if self.kind != "image":
            return self.kind
        return "compressed" if self.compressed else "raw"


@dataclass(frozen=True)
class SentImage:
    """An image that went out: steady seconds, stamp, whether the node can use it."""

    at: float
    stamp: int
    usable: bool


class ScenePlayer:
    """Publishes a scene until it is closed, from a thread of its own.

    Args:
        scene: what to show, back and forth.
        domain: the ROS domain.
        simulated: publish /clock and stamp with it, instead of the computer's clock.
        rate: frames per second.
    Attributes:
        changes: the faults that are on, each a function of a message to the messages that go out in its place.
        sent: {camera: the last images that went out}.
        poses_sent: the vehicle's poses that went out lately, (steady seconds, Transform), oldest first.
        lateness: the longest that a message went out after its time since `reset_lateness`, seconds.
    """

    def __init__(self, scene: Scene, domain: int, simulated: bool, rate: float = 5.0) -> None:
        self.scene, self.simulated, self.rate = scene, simulated, rate
        self.changes: list[Callable[[Message], Iterable[Message]]] = []
        self.sent: dict[str, deque[SentImage]] = {camera: deque(maxlen=400) for camera in scene.cameras}
        self.infos_sent: dict[str, list[tuple[float, object]]] = defaultdict(list)
        self.mounts_sent: dict[str, list[tuple[float, object]]] = defaultdict(list)
        self.poses_sent: list[tuple[float, object]] = []
        self.lateness = 0.0
        self.speed = 1.0  # of the simulated clock
        self.lock = threading.RLock()
        self._sim_ns, self._sim_at = CLOCK_START, time.monotonic()
        self._ros = Listener(domain, "scene_player")
        self._cameras = CameraPublishers(self._ros.node, scene)
        self._queue: list = []
        self._order = itertools.count()
        self._stop = threading.Event()
        self.send_mounts()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._ros.close()

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

    # ---- messages

    def unplug(self, kind: str, camera: str) -> None:
        """Destroy a camera's publisher of raw, compressed or camera_info; its next message makes it anew."""
        self._cameras.unplug(kind, camera)

    def send_mounts(self, leave_out: Iterable[str] = ()) -> None:
        """On /tf_static, those of all cameras but some; past the faults."""
        self.send(Message("tf_static", "", self._cameras.mounts_message(leave_out=leave_out)))

    def send(self, message: Message) -> None:
        """Publish at once, past the faults."""
        with self.lock:
            self._remember(message)
            data = message.data if message.data is not None else serialize_message(message.ros)
            self._cameras.publish(message.publisher_kind, message.camera, data)

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
                if transform.child_frame_id == "base_link":
                    remember(self.poses_sent, now, transform.transform, str)
                for camera, frame in self.scene.frame_ids.items():
                    if transform.child_frame_id == frame:
                        remember(self.mounts_sent[camera], now, transform.transform, str)

    # ---- the thread

    def _run(self) -> None:
        next_frame = next_clock = time.monotonic()
        frames = itertools.count()
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

    def _place(self, periods: float) -> float:
        """Where in the scene the vehicle is after so many frames' periods, counted in the scene's frames.

        Back and forth as a pendulum, at most a frame a period: a vehicle that turned round at once would jump.
        """
        last = len(self.scene.frames) - 1
        return last / 2 * (1 - math.cos(2 * periods / last)) if last else 0.0

    def _pose(self, place: float) -> Pose:
        """The vehicle's pose between two frames of the scene."""
        first = min(int(place), max(0, len(self.scene.frames) - 2))
        (t0, q0), (t1, q1) = (one.pose for one in (self.scene.frames * 2)[first : first + 2])
        share = place - first
        sign = 1 if sum(a * b for a, b in zip(q0, q1)) >= 0 else -1
        rotation = [(1 - share) * a + sign * share * b for a, b in zip(q0, q1)]
        length = math.sqrt(sum(part * part for part in rotation))
        return (
            tuple((1 - share) * a + share * b for a, b in zip(t0, t1)),
            tuple(part / length for part in rotation),
        )

    def _through(self, message: Message, now: float) -> None:
        """Pass a message through the faults that are on, and queue what they give."""
        messages = [message]
        for change in list(self.changes):
            messages = [new for old in messages for new in change(old)]
        for new in messages:
            heapq.heappush(self._queue, (now + new.delay, next(self._order), new))

    def _clock_message(self) -> Message:
        return Message("clock", "", Clock(clock=stamp_message(max(0, self.now_ns()))))

    def _frame(self, number: int, now: float) -> None:
        """Send one frame: ego poses around it, then a calibration and an image of each camera."""
        start, frame = self.now_ns(), self.scene.frames[round(self._place(number))]
        for ahead in (0.05, 0.15):
            there = self._pose(self._place(number + ahead * self.rate))
            pose = transform_message("odom", "base_link", start + round(ahead * SECOND), *there)
            self._through(Message("tf", "", TFMessage(transforms=[pose])), now)
        for index, camera in enumerate(frame.images):
            stamp = start + round((index * CAMERA_SPACING - BEHIND) * SECOND)
            delay = index * CAMERA_SPACING / (self.speed if self.simulated and self.speed else 1.0)
            info, image = self._cameras.info_message(camera, stamp), self._cameras.image_message(camera, stamp, frame)
            self._through(Message("camera_info", camera, info, delay=delay), now)
            self._through(Message("image", camera, image, delay=delay), now)


def remember(known: list[tuple[float, object]], now: float, item, key: Callable) -> None:
    """Add an item to those sent lately; of equal ones only the last stays."""
    known[:] = [(at, old) for at, old in known if now - at < REMEMBERED and key(old) != key(item)] + [(now, item)]
