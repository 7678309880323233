"""Takes in messages as bytes: keeps calibrations and TF, refuses what is wrong, and joins images to complete sets.

Nothing here decodes a pixel: a callback costs tens of microseconds, whatever the image's size.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from renderocc_model.images.reduction import MAX_PIXELS
from renderocc_model.rosio import cdr
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_model.rosio.transform_topics import set_odometry
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.calibrations import Calibration, Calibrations, check_frame_id
from renderocc_ros.input.mailbox import Mailbox
from renderocc_ros.input.matcher import AnchorMatcher, CameraStatistics, MatchedSet, TimeJump
from renderocc_ros.input.video_stream import VideoPicture, VideoStream
from renderocc_ros.parameters import NodeConfig

__all__ = ["CameraImage", "Intake", "ReadySet", "report_too_few"]

MOST_BYTES = 64 << 20  # of an image message, while the size of its camera is not known
MOST_BYTES_OF_PIXEL = 8  # the widest encoding is 16 bits of four channels
CLOCK_BACK_NS = 500_000_000  # a clock that goes back by more than this has jumped
LEFTOVERS = 5.0  # seconds after a jump of the clock in which images from before it may still come
TF_AHEAD_NS = 1_000_000_000  # after a jump back to T, transforms up to this much later than T may be new ones


@dataclass(frozen=True)
class CameraImage:
    """An image message as it came. `arrival` is steady seconds; `video` the picture, if it is a packet of a video."""

    buffer: bytes
    compressed: bool
    frame_id: str
    arrival: float
    video: VideoPicture | None = None


class ReadySet(NamedTuple):
    """A complete set on its way to the worker. generation: the intake's, when the set was completed."""

    generation: int
    matched: MatchedSet


class Intake:
    """Turns the bytes of images, CameraInfo and TF into sets of images, calibrations and transforms.

    The executor's thread calls `add*`, `tick` and `reset`. The worker's thread takes sets out of `mailbox`.

    Args:
        config: the node's parameters.
        cameras: camera names, in the order of the network's views.
        transforms: receives the transforms of /tf and /tf_static.
        log: receives faults; their subjects are "camera 'NAME'", "TF", "frame" and "checkpoint".
        events: receives what has changed and is no fault: calibrations, jumps of time.
        clock_ns: the node's clock, nanoseconds; 0 while a simulated clock has not started.
        now: seconds in which waiting and silence are counted; they pass as fast as the cameras' time.
    Attributes:
        cameras: as given.
        anchor: the camera whose stamps the outputs have.
        mailbox: the newest complete set that no worker has taken.
        generation: how often everything was started afresh.
        skipped: number of sets that a newer one replaced in the mailbox.
    """

    def __init__(
        self,
        config: NodeConfig,
        cameras: tuple[str, ...],
        transforms: TransformBuffer,
        log: ThrottledLog,
        events: ThrottledLog,
        clock_ns: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.cameras = cameras
        self.anchor = config.anchor_camera or cameras[0]
        self.mailbox: Mailbox[ReadySet] = Mailbox()
        self.generation = 0
        self.skipped = 0
        self._transforms = transforms
        self._log = log
        self._events = events
        self._clock_ns = clock_ns
        self._newest_clock = self._clock_before_jump = 0
        self._leftovers_until = -math.inf
        self._now = now
        self._time = self._time_of_next_tick = now()
        self._calibrations = Calibrations(config, log, events)
        self._reported_too_few = 0
        self._streams: dict[str, VideoStream] = {}
        self._lock = threading.Lock()
        self._matcher = AnchorMatcher(
            cameras=cameras,
            anchor=self.anchor,
            max_time_diff=config.max_camera_time_diff,
            max_wait=config.max_wait,
            camera_timeout=config.camera_timeout,
            min_cameras=config.min_cameras,
        )

    # ---- images

    def add(self, camera: str, buffer: bytes, compressed: bool) -> list[MatchedSet]:
        """Take in an image message.

        Stamps that have gone back (a looping bag) start everything afresh: see `start_afresh`.

        Args:
            camera: which camera has sent it.
            buffer: the serialised Image or CompressedImage.
            compressed: whether it is a CompressedImage.
        Returns:
            The sets that are complete now, oldest first; the newest of them is in the mailbox.
        """
        header = self._checked_header(camera, buffer)
        if header is None:
            return []
        stamp_ns, frame_id, arrival = header
        frame_id = self.config.camera_frame_of(camera) or frame_id
        self._match(camera, stamp_ns, CameraImage(buffer, compressed, frame_id, arrival))
        return self._hand_over()

    def add_video(self, camera: str, buffer: bytes, message_type: str) -> list[MatchedSet]:
        """Take in a packet of a video, as `add` does an image; its picture is decoded when a set needs it.

        Args:
            camera, buffer: as for `add`.
            message_type: one of `VIDEO_READERS`.
        """
        header = self._checked_header(camera, buffer)
        if header is None:
            return []
        stamp_ns, frame_id, arrival = header
        frame_id = self.config.camera_frame_of(camera) or frame_id
        stream = self._streams.setdefault(camera, VideoStream())
        try:
            pictures = stream.add(stamp_ns, message_type, buffer, (frame_id, arrival))
        except ValueError as error:
            self._log.report(f"camera '{camera}'", "image", f"image message dropped: {error}", arrival)
            return []
        for picture in pictures:
            frame_id, arrival = picture.given
            self._match(camera, picture.stamp_ns, CameraImage(b"", False, frame_id, arrival, picture))
        return self._hand_over()

    def report_video(self, camera: str, text: str) -> None:
        """Report that a camera's video cannot be subscribed to."""
        self._log.report(f"camera '{camera}'", "video", text, time.monotonic())

    def _match(self, camera: str, stamp_ns: int, image: CameraImage) -> None:
        with self._lock:
            jump = self._matcher.add(camera, stamp_ns, image, self._time)
        if jump is not None:
            self._follow_jump(jump)

    def _checked_header(self, camera: str, buffer: bytes) -> tuple[int, str, float] | None:
        """Stamp in nanoseconds, frame_id and arrival of an image; None, after a report, if it cannot be used."""
        subject, arrival = f"camera '{camera}'", time.monotonic()
        try:
            if len(buffer) > (most := self._most_bytes(camera)):
                raise ValueError(f"it has {len(buffer)} bytes; expected at most {most}, by its camera_info")
            stamp_ns, frame_id = cdr.read_header(buffer)
            check_frame_id(frame_id)
        except ValueError as error:
            self._log.report(subject, "image", f"image message dropped: {error}", arrival)
            return None
        if stamp_ns == 0:
            text = "image dropped: its stamp is zero; the driver must fill header.stamp"
            self._log.report(subject, "stamp", text, arrival)
            return None
        stamp_ns += self.config.offset_ns(camera)
        clock_ns = self._watch_clock(arrival)
        ahead = (stamp_ns - clock_ns) * 1e-9
        if self.config.max_future and clock_ns and ahead > self.config.max_future:
            if arrival < self._leftovers_until and stamp_ns < self._clock_before_jump + self.config.max_future * 1e9:
                text = "an image from before the clock's jump came after it and was dropped"
                self._events.report(subject, "leftover", text, arrival)
                return None
            self._log.report(
                subject,
                "stamp",
                f"image dropped: its stamp is {ahead:.3f} s ahead of the node's clock; synchronise the camera's clock "
                "with this computer's, or set use_sim_time when a bag with /clock is played",
                arrival,
            )
            return None
        return stamp_ns, frame_id, arrival

    def _most_bytes(self, camera: str) -> int:
        """Most bytes that an image of this camera can have: images are kept until their set is complete."""
        calibration = self.calibrations.get(camera)
        if calibration is None:
            return MOST_BYTES
        pixels = calibration.model.width * calibration.model.height
        return min(pixels, MAX_PIXELS) * MOST_BYTES_OF_PIXEL + (1 << 20)  # rows may be padded, JPEG has a header

    def _hand_over(self) -> list[MatchedSet]:
        """Put the sets that are complete, or have waited long enough, into the mailbox."""
        ready = []
        with self._lock:
            while (matched := self._matcher.poll(self._time)) is not None:
                ready.append(matched)
        for matched in ready:
            if self.mailbox.put(ReadySet(self.generation, matched)) is not None:
                self.skipped += 1
        too_few, missing = self.too_few
        if too_few > self._reported_too_few:
            self._reported_too_few = too_few
            report_too_few(self._log, missing)
        return ready

    def tick(self) -> list[MatchedSet]:
        """Let time pass: called every few hundredths of a second by the thread that also hands over the messages.

        Waiting is judged by the time of the tick before. Thus a message that was there in time counts even if its
        callback had to wait for a busy computer: between two ticks every subscription has had its turn.

        Returns:
            As `add`.
        """
        self._time, self._time_of_next_tick = self._time_of_next_tick, self._now()
        self._watch_clock(time.monotonic())
        return self._hand_over()

    # ---- time that goes back

    def start_afresh(self, kind: str, reason: str) -> None:
        """Forget images, sets, and what /tf has said. Calibrations and static mounts stay."""
        self._events.report("starting afresh", kind, reason, time.monotonic())
        self._transforms.clear()
        self.reset()

    def reset(self) -> None:
        """Forget images and sets; later sets are of a new generation."""
        for stream in self._streams.values():
            stream.clear()
        with self._lock:
            self._matcher.reset()
        self._begin_generation()

    def resume(self) -> None:
        """Count silence from now on, because the node has become active."""
        self._time = self._time_of_next_tick = self._now()
        with self._lock:
            self._matcher.resume(self._time)

    def _follow_jump(self, jump: TimeJump) -> None:
        """Forget all that is from before a jump of the image stamps; the matcher has done so already."""
        reason = f"image stamps went back by {(jump.from_ns - jump.to_ns) * 1e-9:.1f} s (a bag loop?)"
        self._events.report("starting afresh", "stamps", reason, time.monotonic())
        self._transforms.clear(newer_than_ns=jump.to_ns + TF_AHEAD_NS)
        self._begin_generation()

    def _begin_generation(self) -> None:
        self.generation += 1
        self.mailbox.clear()

    def _watch_clock(self, now: float) -> int:
        """The node's clock, nanoseconds. Notes when the clock goes back."""
        clock_ns = self._clock_ns()
        if self._newest_clock - clock_ns > CLOCK_BACK_NS:
            self._clock_before_jump, self._leftovers_until = self._newest_clock, now + LEFTOVERS
            self._newest_clock = clock_ns
        self._newest_clock = max(self._newest_clock, clock_ns)
        return clock_ns

    # ---- calibrations and TF

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """{camera: last usable calibration}; never changed in place."""
        return self._calibrations.known

    def add_camera_info(self, camera: str, buffer: bytes) -> bool:
        """Take in a CameraInfo; returns whether it has changed the camera's calibration."""
        return self._calibrations.add(camera, buffer)

    def add_tf(self, buffer: bytes, static: bool) -> None:
        """Take in a message of /tf, or of /tf_static."""
        now = time.monotonic()
        try:
            transforms = cdr.read_tf(buffer)
        except cdr.MessageError as error:
            topic = self.config.tf_static_topic if static else self.config.tf_topic
            self._log.report("TF", "message", f"message on {topic} dropped: {error}", now)
            return
        for t in transforms:
            try:
                self._transforms.set(t.parent, t.child, t.stamp_ns, t.translation, t.quaternion, static)
            except TransformError as error:
                text = f"transform from '{t.child}' to '{t.parent}' ignored: {error}"
                self._log.report("TF", f"{t.parent} {t.child}", text, now)
            conflict = self._transforms.conflict_of(t.child) if static else None
            if conflict is not None and conflict.change:
                self._log.report("TF", f"static {t.child}", str(conflict), now)

    def add_odometry(self, buffer: bytes) -> None:
        """Take in a message of the parameter `odom_topic`."""
        try:
            set_odometry(self._transforms, self.config, self.config.fixed, cdr.read_odometry(buffer))
        except ValueError as error:
            text = f"message on {self.config.odom_topic} dropped: {error}"
            self._log.report("TF", "odometry", text, time.monotonic())

    # ---- for diagnostics

    def statistics(self) -> dict[str, CameraStatistics]:
        """Statistics of each camera."""
        with self._lock:
            return self._matcher.statistics(self._time)

    @property
    def too_few(self) -> tuple[int, dict[str, str]]:
        """Number of sets with fewer images than `min_cameras`, and {camera: reason} of the last set's missing ones."""
        with self._lock:
            return self._matcher.too_few, dict(self._matcher.last_missing)

    @property
    def past_start(self) -> bool:
        """Whether every camera had time to send something: `camera_timeout` since the node became active."""
        with self._lock:
            return self._matcher.past_start(self._time)


def report_too_few(log: ThrottledLog, missing: dict[str, str]) -> None:
    """Report that a set was not published for want of cameras. missing: {camera: reason}."""
    reasons = "; ".join(f"{camera}: {reason}" for camera, reason in missing.items())
    text = f"nothing published, fewer usable cameras than 'min_cameras' ({reasons})"
    log.report("frame", "too few cameras", text, time.monotonic())
