"""The thread that turns matched images into published outputs, newest first."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from renderocc_ros.frame.pipeline import Frame, FramePipeline
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import Complaints
from renderocc_ros.input.intake import Intake
from renderocc_ros.input.mailbox import Mailbox
from renderocc_ros.input.matcher import MatchedSet

IDLE = 0.5  # seconds between two looks at whether to stop
LOOK = 0.02  # seconds between two looks at whether the first set's cameras can be placed
STOP_LIMIT = 5.0  # seconds for which the frame under way is waited for; launch kills ten seconds after Ctrl-C
FAILURE_PAUSE = 0.1  # seconds after a failure that took no set


@dataclass
class FrameCounters:
    """What became of the matched sets: published, too few usable cameras, replaced by a newer one before the worker was
    free, failed."""

    published: int = 0
    withheld: int = 0
    skipped: int = 0
    failed: int = 0


class Worker:
    """Runs `pipeline` and then `publish` for the newest matched set, in a thread of its own.

    Args:
        intake: where the sets come from.
        pipeline: bytes to occupancy.
        publish: called with each frame that has an occupancy.
        out_of_memory: called once when the device has no memory for a frame even after emptying its cache.
        complaints: failures of a frame are reported here; the worker goes on.
        times: durations of the stages.
        startup_grace: seconds for which the first set waits for mounts and calibrations of its cameras; a newer one
            takes its place.

    Attributes:
        begun: steady seconds at which the frame under way began, or None between two.
        failed_in_row: how many frames have failed since one was processed whole.
    """

    def __init__(
        self,
        intake: Intake,
        pipeline: FramePipeline,
        publish: Callable[[Frame], None],
        out_of_memory: Callable[[str], None],
        complaints: Complaints,
        times: StageTimes,
        startup_grace: float = 0.0,
    ) -> None:
        self._startup_grace = startup_grace
        self._grace_until: float | None = None  # steady seconds; None: counted from the first set on
        self._intake = intake
        self._pipeline = pipeline
        self._publish = publish
        self._out_of_memory = out_of_memory
        self._complaints = complaints
        self._times = times
        self._mailbox: Mailbox[tuple[int, MatchedSet]] = Mailbox()  # with the generation in which it was put together
        self._generation = 0
        self._oldest_published = 0  # generation before which frames are not published any more
        self._too_few = 0
        self._running = threading.Event()
        self._thread: threading.Thread | None = None
        self.counters = FrameCounters()
        self.last_frame: Frame | None = None
        self.begun: float | None = None
        self.failed_in_row = 0

    def start(self) -> None:
        self._mailbox = Mailbox()
        self.begun, self.failed_in_row = None, 0
        self._grace_until = None
        self._running.set()
        self._thread = threading.Thread(target=self._run, name="renderocc worker", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Finish the frame under way and end the thread.

        Returns:
            Whether it has ended; False when the frame takes longer than `STOP_LIMIT`, which is reported. That frame
            will not be published, and the thread ends with it.
        """
        self._running.clear()
        self._mailbox.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_LIMIT)
            if self._thread.is_alive():
                self._generation += 1
                self._oldest_published = self._generation
                text = f"the frame under way did not end within {STOP_LIMIT:g} s; it is left behind"
                self._complaints.report("frame", "stuck", text, time.monotonic())
                return False
            self._thread = None
        return True

    @property
    def ended(self) -> bool:
        """Whether the thread is gone although nobody has stopped it, or only after `stop` had given it up."""
        return self._thread is not None and not self._thread.is_alive()

    def collect(self) -> None:
        """Take over the sets that are ready; the newest replaces one that is still waiting.

        Called after every image and tick.
        """
        while (matched := self._intake.poll()) is not None:
            if self._mailbox.put((self._generation, matched)) is not None:
                self.counters.skipped += 1
        too_few, missing = self._intake.too_few
        if too_few > self._too_few:
            self._too_few = too_few
            self._report_too_few(missing)

    def start_afresh(self) -> None:
        """Time has jumped: forget the previous volume and what waits. The frame under way is the last one before the
        jump, whose cameras are placed already, and is published."""
        self._generation += 1
        self._mailbox.clear()
        self.last_frame = None

    def reset(self) -> None:
        """Forget everything: the previous volume, all images, and the frame under way."""
        self.start_afresh()
        self._oldest_published = self._generation
        self._intake.reset()

    def _run(self) -> None:
        generation = None  # none yet: what the pipeline remembers is from before a pause
        while self._running.is_set():
            taken = None
            try:
                taken = self._take()
                if taken is None:
                    continue
                self.begun = time.monotonic()
                if generation != taken[0]:
                    self._pipeline.reset()
                    generation = taken[0]
                self._handle(taken[1], generation)
                self.failed_in_row = 0
            except Exception as error:  # whatever one frame does, the next one gets its chance
                self.counters.failed += 1
                self.failed_in_row += 1
                self._report_failure(error)
                if taken is None:
                    time.sleep(FAILURE_PAUSE)
            finally:
                self.begun = None

    def _take(self) -> tuple[int, MatchedSet] | None:
        """The newest set, or None. The first waits: /tf_static often comes after a recording's first images."""
        taken = self._mailbox.take(IDLE)
        while taken is not None and self._must_wait(taken[1]):
            if not self._running.is_set():
                return None
            newer = self._mailbox.take(LOOK)
            if newer is not None:
                self.counters.skipped += 1
                taken = newer
            elif taken[0] != self._generation:  # from before a jump of time
                return None
        return taken

    def _must_wait(self, matched: MatchedSet) -> bool:
        if self._grace_until is None:
            self._grace_until = time.monotonic() + self._startup_grace
        if time.monotonic() < self._grace_until and self._pipeline.lacking(matched, self._intake.calibrations):
            return True
        self._grace_until = 0.0  # over for good: from now on what cannot be placed is left out, and named
        return False

    def _report_failure(self, error: Exception) -> None:
        try:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"frame failed: {type(error).__name__}: {error} ({where.name}, {where.filename}:{where.lineno})"
            self._complaints.report("frame", type(error).__name__, text, time.monotonic())
        except Exception:  # without memory not even that can be said; the thread must live for the frames to come
            self.counters.failed += 1

    def _handle(self, matched: MatchedSet, generation: int) -> None:
        started = time.monotonic()
        frame = self._process(matched)
        if frame is None or generation < self._oldest_published:
            return
        self._times.add("waiting", max(0.0, started - frame.arrival))
        self.last_frame = frame
        if frame.occupancy is None:
            self.counters.withheld += 1
            self._report_too_few(frame.missing)
            return
        with self._times.measure("publish"):
            self._publish(frame)
        self._times.add("total", time.monotonic() - frame.arrival)
        self.counters.published += 1

    def _report_too_few(self, missing: dict[str, str]) -> None:
        reasons = "; ".join(f"{camera}: {reason}" for camera, reason in missing.items())
        text = f"nothing published, fewer usable cameras than 'min_cameras' ({reasons})"
        self._complaints.report("frame", "too few cameras", text, time.monotonic())

    def _process(self, matched: MatchedSet) -> Frame | None:
        """One retry with an empty cache when the device is out of memory, then the error is the caller's to handle."""
        import torch

        calibrations = self._intake.calibrations
        try:
            return self._pipeline.process(matched, calibrations)
        except torch.OutOfMemoryError:
            pass  # until the end of this block the error holds on to what the frame has taken
        torch.cuda.empty_cache()
        try:
            return self._pipeline.process(matched, calibrations)
        except torch.OutOfMemoryError as error:
            self.counters.failed += 1
            self._running.clear()
            self._out_of_memory(str(error).split("\n")[0])
            return None
