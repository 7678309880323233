"""What the node's callbacks do with the bytes they get: keep calibrations, match images, refuse what is wrong.

Nothing here decodes a pixel: a callback costs tens of microseconds, whatever the image's size.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.images.reduction import MAX_PIXELS
from renderocc_model.rosio import cdr
from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.tf_buffer import LONGEST_NAME
from renderocc_ros.health.throttled_log import Complaints
from renderocc_ros.input.matcher import AnchorMatcher, CameraStatistics, MatchedSet, TimeJump
from renderocc_ros.parameters import NodeConfig

MOST_BYTES = 64 << 20  # of an image message of a camera whose size is not known yet
MOST_BYTES_OF_PIXEL = 8  # the widest encoding is 16 bits of four channels
MOST_BYTES_OF_CAMERA_INFO = 64 << 10  # some 400, and 8 for each coefficient of D
CLOCK_BACK_NS = 500_000_000  # by which a clock must go back to have jumped
LEFTOVERS = 5.0  # seconds after a jump of the clock in which images of before it may still come
STAMP_AND_FRAME_ID = 4 + 8  # encapsulation, then sec and nanosec of a Header


@dataclass(frozen=True)
class CameraImage:
    """An image message as it came. `arrival` is steady seconds."""

    buffer: bytes
    compressed: bool
    frame_id: str
    arrival: float


@dataclass(frozen=True)
class Calibration:
    """A camera's intrinsics, from its CameraInfo, and the optical frame that it names."""

    model: CameraModel
    frame_id: str


class Intake:
    """Calibrations and the matcher, fed by callbacks.

    Args:
        config: the node's parameters.
        cameras: names of the cameras, in the order of the network's views.
        complaints: where refusals are reported, one subject per camera.
        clock_ns: the node's clock, nanoseconds; 0 while a simulated clock has not started.
        now: seconds in which waiting and silence are counted, at the pace of the cameras' time.
        news: where what is not wrong is told; default: `complaints`.
    """

    def __init__(
        self,
        config: NodeConfig,
        cameras: tuple[str, ...],
        complaints: Complaints,
        clock_ns: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
        news: Complaints | None = None,
    ) -> None:
        self._config = config
        self._news = news or complaints
        self._newest_clock = self._clock_before_jump = 0
        self._leftovers_until = -math.inf
        self._complaints = complaints
        self._clock_ns = clock_ns
        self._now = now
        self._time = self._time_of_next_tick = now()
        self._lock = threading.Lock()
        self._info_bytes: dict[str, bytes] = {}
        self.calibrations: dict[str, Calibration] = {}
        self.cameras = cameras
        self.anchor = config.anchor_camera or cameras[0]
        self._matcher = AnchorMatcher(
            cameras=cameras,
            anchor=self.anchor,
            max_time_diff=config.max_camera_time_diff,
            max_wait=config.max_wait,
            camera_timeout=config.camera_timeout,
            min_cameras=config.min_cameras,
        )

    def on_camera_info(self, camera: str, buffer: bytes) -> bool:
        """Take a CameraInfo; True if it changed the camera's calibration. An unusable one leaves the last good one."""
        subject = f"camera '{camera}'"
        try:
            if len(buffer) > MOST_BYTES_OF_CAMERA_INFO:
                raise ValueError(
                    f"it has {len(buffer)} bytes; expected at most {MOST_BYTES_OF_CAMERA_INFO}; repair its publisher"
                )
            body = buffer[STAMP_AND_FRAME_ID:]
            if self._info_bytes.get(camera) == body:
                return False
            message = cdr.read_camera_info(buffer)
            _check_length(message.frame_id)
            model = camera_model_from_info(message)
        except ValueError as error:
            self._complaints.report(
                subject,
                "camera_info",
                f"camera_info on {self._config.camera_info_topic_of(camera)}: {error}",
                time.monotonic(),
            )
            return False
        self._info_bytes[camera] = body
        self._complaints.resolve(subject, "camera_info")
        calibration = Calibration(model, message.frame_id)
        if self.calibrations.get(camera) == calibration:  # other bytes, same meaning: CDR's padding is not always zero
            return False
        self.calibrations = {**self.calibrations, camera: calibration}
        return True

    def on_image(self, camera: str, buffer: bytes, compressed: bool) -> TimeJump | None:
        """Take an image message; call `poll` afterwards. A jump is returned when stamps have gone back."""
        subject, arrival = f"camera '{camera}'", time.monotonic()
        try:
            if len(buffer) > (most := self._most_bytes(camera)):
                raise ValueError(f"it has {len(buffer)} bytes; expected at most {most}, by its camera_info")
            stamp_ns, frame_id = cdr.read_header(buffer)
            _check_length(frame_id)
        except ValueError as error:
            self._complaints.report(subject, "image", f"image message dropped: {error}", arrival)
            return None
        if stamp_ns == 0:
            self._complaints.report(
                subject, "stamp", "image dropped: its stamp is zero; the driver must fill header.stamp", arrival
            )
            return None
        clock_ns = self._watch_clock(arrival)
        ahead = (stamp_ns - clock_ns) * 1e-9
        if self._config.max_future and clock_ns and ahead > self._config.max_future:
            if arrival < self._leftovers_until and stamp_ns < self._clock_before_jump + self._config.max_future * 1e9:
                text = "an image of before the clock jumped back came after it and is dropped"
                self._news.report(subject, "leftover", text, arrival)
                return None
            self._complaints.report(
                subject,
                "stamp",
                f"image dropped: its stamp is {ahead:.3f} s ahead of the node's clock; synchronise the camera's clock "
                "with this computer's, or set use_sim_time when a bag with /clock is played",
                arrival,
            )
            return None
        frame_id = self._config.camera_frame_of(camera) or frame_id
        with self._lock:
            return self._matcher.add(camera, stamp_ns, CameraImage(buffer, compressed, frame_id, arrival), self._time)

    def _watch_clock(self, now: float) -> int:
        """The node's clock, nanoseconds; notes when it goes back."""
        clock_ns = self._clock_ns()
        if self._newest_clock - clock_ns > CLOCK_BACK_NS:
            self._clock_before_jump, self._leftovers_until = self._newest_clock, now + LEFTOVERS
            self._newest_clock = clock_ns
        self._newest_clock = max(self._newest_clock, clock_ns)
        return clock_ns

    def _most_bytes(self, camera: str) -> int:
        """What is kept until its set is complete is bounded by what a camera of this size can have sent."""
        calibration = self.calibrations.get(camera)
        if calibration is None:
            return MOST_BYTES
        pixels = calibration.model.width * calibration.model.height
        return min(pixels, MAX_PIXELS) * MOST_BYTES_OF_PIXEL + (1 << 20)  # rows may be padded, JPEG has a header

    def tick(self) -> None:
        """Let time pass: called every few hundredths of a second by the thread that also hands over the messages.

        Waiting is judged by the time of the tick before, so that a message which was there in time counts even when its
        callback had to wait for a busy computer: between two ticks every subscription has had its turn.
        """
        self._time, self._time_of_next_tick = self._time_of_next_tick, self._now()
        self._watch_clock(time.monotonic())

    def poll(self) -> MatchedSet | None:
        """The next set that is complete or has waited long enough; call it until it gives None."""
        with self._lock:
            return self._matcher.poll(self._time)

    def statistics(self) -> dict[str, CameraStatistics]:
        """Per camera, for diagnostics."""
        with self._lock:
            return self._matcher.statistics(self._time)

    @property
    def too_few(self) -> tuple[int, dict[str, str]]:
        """How many sets had fewer images than `min_cameras`, and {camera: reason} of the last set's missing ones."""
        with self._lock:
            return self._matcher.too_few, dict(self._matcher.last_missing)

    def resume(self) -> None:
        """The node becomes active: the time since it last took an image, or was configured, is nobody's silence."""
        self._time = self._time_of_next_tick = self._now()
        with self._lock:
            self._matcher.resume(self._time)

    @property
    def past_start(self) -> bool:
        """Whether there was time for every camera to send something: `camera_timeout` since the node became active."""
        with self._lock:
            return self._matcher.past_start(self._time)

    def reset(self) -> None:
        """Forget all queued images; calibrations stay."""
        with self._lock:
            self._matcher.reset()


def _check_length(frame_id: str) -> None:
    if len(frame_id) > LONGEST_NAME:
        raise ValueError(
            f"its frame_id has {len(frame_id)} characters; expected at most {LONGEST_NAME}; repair the camera's driver"
        )
