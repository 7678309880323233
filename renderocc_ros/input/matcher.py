"""Joins the images of several cameras that belong to one moment: those nearest in stamp to the anchor camera's image.

Nothing here reads a clock: the caller gives `now` in steady seconds, so every rule can be tested.

The rules:
- Every image of the anchor becomes a set. Each other camera adds its image that is nearest in stamp, at most
  `max_time_diff` away; of two equally near images, the earlier one.
- A set is ready once no image still to come can be nearer. A camera can send no nearer one if it has an image at or
  after the anchor's stamp (its stamps only rise), or if its newest image is earlier by at most half the shortest of its
  recent intervals. Otherwise the set is ready `max_wait` after the anchor's image came in, with the images that came.
- No set waits for a camera that sent nothing usable for `camera_timeout`. Time in which all cameras were silent does
  not count, so that slow playback of a recording does not look like the death of its cameras.
- Sets come out in the order of their stamps. Every image of the anchor gets a set, whatever the rates are. Later images
  cannot hold a set back: its deadline stays, and a full queue makes its oldest set ready. Older sets are skipped only
  after a stall: a set is overdue by more than another `max_wait` and a newer one is ready.
- If the anchor sends nothing usable for `camera_timeout`, the next camera in order that does takes its place until the
  anchor returns.
- An image is dropped if its stamp is not later than its camera's last one. If a stamp falls by more than `jump_back`
  seconds, a second image must confirm that time has gone back: of another camera, or of the same camera while no other
  camera continues as before. Then it is a `TimeJump`: the bag has looped, or the clock was set back. A single such
  image is dropped. A camera that alone goes back has a wrong clock and is left out. A camera that comes back to the
  time of the others had wrong stamps before. None of these disturbs the other cameras.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from typing import Any

from .camera_liveness import CameraLiveness
from .camera_queue import CameraQueue, CameraStatistics, QueuedImage
from .clock_jumps import ClockJumpDetection
from .matched_set import MatchedSet, PendingSet, TimeJump, why_missing

__all__ = ["AnchorMatcher", "CameraStatistics", "MatchedSet", "TimeJump"]

_NANOSECONDS = 1_000_000_000


class AnchorMatcher:
    """Matches cameras to an anchor by the rules above. It has no lock: call it from one thread or under one lock.

    Args:
        cameras: names, in the order of the entries. The first one that is alive stands in for a silent anchor.
        anchor: the camera whose stamps the sets have.
        max_time_diff: seconds that a camera's stamp may differ from the anchor's.
        max_wait: seconds to wait for the other cameras after the anchor's image came in.
        camera_timeout: seconds of silence after which nothing waits for a camera.
        min_cameras: least number of cameras in a set; smaller sets are not given out.
        jump_back: stamps that fall by more seconds than this may be a jump of time; others are disorder.
        queue_size: most images kept per camera.
    Attributes:
        too_few: number of sets not given out because they had fewer than `min_cameras`.
        last_missing: {camera: reason} of the last set, given out or not.
    Raises:
        ValueError: the arguments contradict each other.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        anchor: str,
        max_time_diff: float,
        max_wait: float,
        camera_timeout: float,
        min_cameras: int = 1,
        jump_back: float = 1.0,
        queue_size: int = 8,
    ):
        cameras = tuple(cameras)
        _check(cameras, anchor, max_time_diff, max_wait, camera_timeout, min_cameras, jump_back, queue_size)
        self._cameras = {name: CameraQueue(name) for name in cameras}
        self._anchor = self._leader = self._cameras[anchor]
        self._max_time_diff = max_time_diff
        self._max_diff_ns = round(max_time_diff * _NANOSECONDS)
        self._max_wait = max_wait
        self._liveness = CameraLiveness(camera_timeout)
        self._min_cameras = min_cameras
        self._jump_back_ns = round(jump_back * _NANOSECONDS)
        self._queue_size = queue_size
        self._pending: list[PendingSet] = []
        self._jump_detection = ClockJumpDetection(self._jump_back_ns)
        self._last_output: int | None = None
        self.too_few = 0
        self.last_missing: dict[str, str] = {}

    @property
    def anchor(self) -> str:
        """The camera that leads now: the anchor asked for, or the one that stands in for it."""
        return self._leader.name

    def add(self, camera: str, stamp_ns: int, payload: Any, now: float) -> TimeJump | None:
        """Take in an image; `poll` afterwards.

        Returns:
            A `TimeJump` if this image confirms that stamps have gone back. The matcher has then started afresh and
            holds the new images. The caller clears everything else that depends on time.
        Raises:
            ValueError: the camera is not one of `cameras`.
        """
        state = self._cameras.get(camera)
        if state is None:
            raise ValueError(f"camera '{camera}' is not one of {', '.join(self._cameras)}")
        self._liveness.begin(now)
        state.arrive(now)
        image = QueuedImage(state, stamp_ns, payload, now)
        if stamp_ns <= 0:
            state.dropped["stamp_zero"] += 1
            return None
        if state.last_stamp is not None and stamp_ns <= state.last_stamp:
            if state.last_stamp - stamp_ns > self._jump_back_ns:
                return self._went_back(image, now)
            state.dropped["duplicate" if stamp_ns == state.last_stamp else "out_of_order"] += 1
            return None
        self._jump_detection.drop(state)
        self._accept(image, now)
        return None

    def poll(self, now: float) -> MatchedSet | None:
        """The oldest set that is ready, or None. Call until None, after every `add` and at `next_deadline`."""
        self._liveness.begin(now)
        self._lead(now)
        ready = [index for index in range(len(self._pending)) if self._is_ready(index, now)]
        while ready:
            index = ready.pop(0)
            pending = self._pending[index]
            if ready and now > pending.deadline + self._max_wait:
                continue  # a stall: skip this one; it is dropped with all sets older than the one that comes out
            for older in self._pending[:index]:
                older.release("superseded")
            del self._pending[: index + 1]
            ready = [later - index - 1 for later in ready]
            matched = self._put_together(pending, now)
            while self._pending and not self._is_new(self._pending[0].image):  # sets of the camera that led before
                self._pending.pop(0).release("late")
            for camera in self._cameras.values():
                self._prune(camera)
            if matched is not None:
                return matched
        return None

    def next_deadline(self, now: float) -> float | None:
        """When to `poll` again if nothing is added before; None if only an image can change anything."""
        times = []
        for pending in self._pending:
            given_up = [self._liveness.waits_until(camera) for camera in self._undecided(pending, now)]
            times.append(min(pending.deadline, max(given_up, default=now)))
        leader_silent_at = self._liveness.silent_at(self._leader)
        if leader_silent_at is not None and leader_silent_at > now:
            others = [camera for camera in self._cameras.values() if camera is not self._leader]
            candidates = self._cameras.values() if self._anchor.heard is None else others
            if any(map(self._leads_on, candidates)):
                times.append(leader_silent_at)
        return max(now, min(times)) if times else None

    def reset(self) -> None:
        """Forget all images and stamps, for a jump of the clock or a reset of the node. Counters and rates stay."""
        for pending in self._pending:
            pending.release("reset")
        self._pending.clear()
        self._jump_detection.clear("reset")
        for camera in self._cameras.values():
            camera.restart("reset")
        self._last_output = None

    def statistics(self, now: float) -> dict[str, CameraStatistics]:
        """Statistics of each camera, in order, for diagnostics."""
        return {
            name: camera.statistics(now, self._liveness.is_silent(camera, now))
            for name, camera in self._cameras.items()
        }

    def resume(self, now: float) -> None:
        """Give every camera `camera_timeout` again, after a pause in which no image was taken in."""
        self._liveness.resume(self._cameras.values(), now)

    def past_start(self, now: float) -> bool:
        """Whether `camera_timeout` has passed since the first image or poll. Earlier, none is missing."""
        return self._liveness.past_start(now)

    # ---- which camera leads

    def _undecided(self, pending: PendingSet, now: float) -> list[CameraQueue]:
        """The cameras that a set still waits for."""
        return [
            camera
            for name, camera in self._cameras.items()
            if camera is not pending.image.camera
            and name not in pending.nearest
            and now < self._liveness.waits_until(camera)
        ]

    def _lead(self, now: float) -> None:
        """Choose the leading camera, and begin a set with its newest image if it has just taken over."""
        leader = self._choose_leader(now)
        changed = leader is not self._leader
        self._leader = leader
        if not self._leads_on(leader):
            return
        # An image that came long ago is not used, unless no other will come: a recording of one moment.
        fresh = changed and now - leader.queue[-1].arrived <= self._max_wait
        if fresh or self._anchor.heard is None and self._liveness.is_silent(leader, now):
            if leader is self._anchor:  # it is back: drop the sets that its stand-in has begun
                for pending in self._pending:
                    pending.release("superseded")
                self._pending.clear()
            self._begin(leader.queue[-1])

    def _choose_leader(self, now: float) -> CameraQueue:
        if not self._liveness.is_silent(self._anchor, now):
            return self._anchor
        heard = [camera for camera in self._cameras.values() if camera.heard is not None]
        for camera in heard:
            if not self._liveness.is_silent(camera, now):
                return camera
        if self._anchor.heard is None and self._leader is self._anchor:
            return max(heard, key=lambda camera: camera.heard, default=self._anchor)
        return self._leader

    def _leads_on(self, camera: CameraQueue) -> bool:
        """Whether the camera's newest image can lead a set: it is in no set yet, and newer than the last one."""
        newest = camera.queue[-1] if camera.queue else None
        return newest is not None and not newest.led and not newest.used and self._is_new(newest)

    def _is_new(self, image: QueuedImage) -> bool:
        return self._last_output is None or image.stamp_ns > self._last_output

    # ---- images and sets

    def _accept(self, image: QueuedImage, now: float) -> None:
        camera = image.camera
        self._jump_detection.note_good(camera)
        self._liveness.hear(camera, now)
        camera.append(image)
        for pending in self._pending:
            pending.decide(camera, self._max_diff_ns)
        self._lead(now)
        if camera is self._leader and not image.led:
            if self._is_new(image):
                self._begin(image)
            else:
                image.fate = "late"
        self._prune(camera)

    def _begin(self, image: QueuedImage) -> None:
        if len(self._pending) >= self._queue_size:  # only if `poll` was not called for so long
            self._pending.pop(0).release("superseded")
        image.led = True
        pending = PendingSet(image, self._max_wait)
        for camera in self._cameras.values():
            pending.decide(camera, self._max_diff_ns)
        insort(self._pending, pending)

    def _is_ready(self, index: int, now: float) -> bool:
        pending = self._pending[index]
        full = index == 0 and len(self._pending) >= self._queue_size
        return full or now >= pending.deadline or not self._undecided(pending, now)

    def _put_together(self, pending: PendingSet, now: float) -> MatchedSet | None:
        anchor, entries, missing = pending.image, {}, {}
        for name, camera in self._cameras.items():
            image = anchor if camera is anchor.camera else pending.nearest.get(name) or camera.nearest(anchor.stamp_ns)
            if image is not None and abs(image.stamp_ns - anchor.stamp_ns) <= self._max_diff_ns:
                entries[name] = image
            else:
                silent = now >= self._liveness.waits_until(camera)
                missing[name] = why_missing(camera, image, anchor.stamp_ns, now, silent, self._max_time_diff)
        self.last_missing = missing
        if len(entries) < self._min_cameras:
            self.too_few += 1
            pending.release("too_few")
            return None
        for image in entries.values():
            image.camera.matched += not image.used
            image.used = True
        pending.release("")
        self._last_output = anchor.stamp_ns
        payloads = {name: (image.stamp_ns, image.payload) for name, image in entries.items()}
        return MatchedSet(anchor.stamp_ns, anchor.camera.name, payloads, missing, anchor.arrived)

    def _prune(self, camera: CameraQueue) -> None:
        camera.prune(self._pending[0].image.stamp_ns if self._pending else self._last_output, self._queue_size)

    # ---- stamps that go back

    def _went_back(self, image: QueuedImage, now: float) -> TimeJump | None:
        """Decide about an image that is more than `jump_back` earlier than its camera's last one."""
        camera, stamp_ns = image.camera, image.stamp_ns
        output_agrees = self._last_output is None or self._last_output - stamp_ns <= self._jump_back_ns
        if output_agrees and any(
            other.last_stamp is not None and abs(other.last_stamp - stamp_ns) <= self._jump_back_ns
            for other in self._cameras.values()
            if other is not camera
        ):
            self._correct_clock(camera)
            self._accept(image, now)
            return None
        supporters = self._jump_detection.take_supporters(image)
        if not supporters:
            self._jump_detection.keep(image)
            return None
        newest = max(other.last_stamp for other in self._cameras.values() if other.last_stamp is not None)
        self.reset()
        for new in (*supporters, image):
            self._accept(new, now)
        for supporter in supporters:
            supporter.release("")  # the queue has it now
        return TimeJump(camera.name, newest, min(new.stamp_ns for new in (*supporters, image)))

    def _correct_clock(self, camera: CameraQueue) -> None:
        """Forget a camera's images whose stamps turned out to be ahead of all other cameras'."""
        self._jump_detection.drop(camera)
        for pending in self._pending:
            mistaken = pending.nearest.pop(camera.name, None)
            if mistaken is not None:
                mistaken.release("wrong_clock")
            if pending.image.camera is camera:
                pending.release("wrong_clock")
        self._pending = [pending for pending in self._pending if pending.image.camera is not camera]
        camera.restart("wrong_clock")


def _check(
    cameras: tuple[str, ...],
    anchor: str,
    max_time_diff: float,
    max_wait: float,
    camera_timeout: float,
    min_cameras: int,
    jump_back: float,
    queue_size: int,
) -> None:
    if not cameras or len(set(cameras)) != len(cameras):
        raise ValueError(f"cameras are {cameras}; expected at least one name, each once")
    if anchor not in cameras:
        raise ValueError(f"anchor '{anchor}' is not one of the cameras {', '.join(cameras)}")
    if not 1 <= min_cameras <= len(cameras):
        raise ValueError(f"min_cameras is {min_cameras}; with {len(cameras)} cameras expected 1..{len(cameras)}")
    for name, value in (("max_time_diff", max_time_diff), ("max_wait", max_wait)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; expected seconds, 0 or more")
    for name, value in (("camera_timeout", camera_timeout), ("jump_back", jump_back)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; expected seconds, more than 0")
    if queue_size < 2:
        raise ValueError(f"queue_size is {queue_size}; the images before and after a stamp need 2")
