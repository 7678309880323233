"""The thread that turns sets of images into published outputs; the newest set comes first."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from renderocc_ros.frame.pipeline import Frame, FramePipeline
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.intake import Intake, ReadySet, report_too_few
from renderocc_ros.input.matcher import MatchedSet

IDLE = 0.5  # seconds after which an idle worker checks whether to stop
LOOK = 0.02  # seconds after which the first set's cameras are checked again
STOP_LIMIT = 5.0  # seconds that `stop` waits for the frame under way; launch kills ten seconds after Ctrl-C
FAILURE_PAUSE = 0.1  # seconds to pause after a failure before a set was taken


@dataclass
class FrameCounters:
    """What became of the sets that the worker took.

    published: frames given to the publishers. withheld: frames with too few usable cameras. skipped: sets replaced by a
    newer one while they waited for mounts and calibrations. failed: frames that raised. views: rendered views that were
    drawn. views_skipped: those that somebody subscribes to and that were not drawn because the next frame waited.
    """

    published: int = 0
    withheld: int = 0
    skipped: int = 0
    failed: int = 0
    views: int = 0
    views_skipped: int = 0


class Worker:
    """Takes the newest set out of the intake's mailbox, runs the pipeline, and publishes, in a thread of its own.

    Args:
        intake: its mailbox has the sets.
        pipeline: turns a set into a frame.
        publish: called with each frame that has an occupancy; usually `OutputPublishers.publish`.
        out_of_memory: called once when the device has no memory for a frame even after its cache was emptied.
        log: receives frames that failed; the worker goes on.
        times: receives the durations of the stages.
        startup_grace: seconds for which the first set waits for mounts and calibrations of its cameras; a newer one
            takes its place.
        remember: called with each frame after it was published, and with None where what later frames bring is not
            related to what was before: after a jump of time, a pause or ~/reset.
        draw: called with each frame after `remember`, and with a function that says whether the next one waits; gives
            how many views were drawn and skipped. Usually `OutputPublishers.publish_rendered`.
    Attributes:
        counters: what became of the sets.
        begun: steady seconds at which the frame under way began; None between two frames.
        failed_in_row: how many frames have failed since one was processed whole.
        awaited: cameras for whose mounts or calibrations the first set waits now.
        startup_grace: how long it does so at most, seconds.
    """

    def __init__(
        self,
        intake: Intake,
        pipeline: FramePipeline,
        publish: Callable[[Frame], None],
        out_of_memory: Callable[[str], None],
        log: ThrottledLog,
        times: StageTimes,
        startup_grace: float = 0.0,
        remember: Callable[[Frame | None], None] = lambda frame: None,
        draw: Callable[[Frame, Callable[[], bool]], tuple[int, int]] = lambda frame, late: (0, 0),
    ) -> None:
        self._intake = intake
        self._pipeline = pipeline
        self._publish = publish
        self._out_of_memory = out_of_memory
        self._log = log
        self._times = times
        self.startup_grace = startup_grace
        self._remember = remember
        self._draw = draw
        self._grace_until: float | None = None  # steady seconds; None: counted from the first set on
        self._oldest_published = 0  # frames of earlier generations of the intake are not published
        self._last: tuple[int, Frame] | None = None  # the last frame, with its generation
        self._running = threading.Event()
        self._thread: threading.Thread | None = None
        self.counters = FrameCounters()
        self.begun: float | None = None
        self.failed_in_row = 0
        self.awaited: tuple[str, ...] = ()

    def start(self) -> None:
        """Open the mailbox and begin to work."""
        self._intake.mailbox.open()
        self.begun, self.failed_in_row, self.awaited = None, 0, ()
        self._grace_until = None
        self._running.set()
        self._thread = threading.Thread(target=self._run, name="renderocc worker", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Close the mailbox, finish the frame under way, and end the thread.

        Returns:
            Whether the thread has ended. False if the frame takes longer than `STOP_LIMIT`, which is reported. That
            frame is not published, and the thread ends with it.
        """
        self._running.clear()
        self._intake.mailbox.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_LIMIT)
            if self._thread.is_alive():
                self._intake.reset()
                self.withhold()
                text = f"the frame under way did not end within {STOP_LIMIT:g} s; it is left behind"
                self._log.report("frame", "stuck", text, time.monotonic())
                return False
            self._thread = None
        return True

    @property
    def ended(self) -> bool:
        """Whether the thread has ended without `stop`, or after `stop` had given it up."""
        return self._thread is not None and not self._thread.is_alive()

    @property
    def last_frame(self) -> Frame | None:
        """The newest frame; None before the first one, and after the intake has started afresh."""
        return self._last[1] if self._last is not None and self._last[0] == self._intake.generation else None

    def withhold(self) -> None:
        """Do not publish the frame under way if it is from before the intake's last reset.

        Without this call it is published: after a jump of time it is the last frame from before, and its cameras are
        placed already.
        """
        self._oldest_published = self._intake.generation

    def _run(self) -> None:
        generation = None  # what the pipeline remembers is from before a pause
        while self._running.is_set():
            ready = None
            try:
                ready = self._take()
                if ready is None:
                    continue
                self.begun = time.monotonic()
                if generation != ready.generation:
                    self._pipeline.reset()
                    self._remember(None)
                    generation = ready.generation
                self._handle(ready)
                self.failed_in_row = 0
            except Exception as error:  # the next frame gets its chance, whatever this one has raised
                self.counters.failed += 1
                self.failed_in_row += 1
                self._report_failure(error)
                if ready is None:
                    time.sleep(FAILURE_PAUSE)
            finally:
                self.begun = None

    def _take(self) -> ReadySet | None:
        """The newest set, or None. The first set waits: recordings often have /tf_static after the first images."""
        ready = self._intake.mailbox.take(IDLE)
        while ready is not None and self._must_wait(ready.matched):
            if not self._running.is_set():
                return None
            newer = self._intake.mailbox.take(LOOK)
            if newer is not None:
                self.counters.skipped += 1
                ready = newer
            elif ready.generation != self._intake.generation:  # from before a jump of time
                return None
        return ready

    def _must_wait(self, matched: MatchedSet) -> bool:
        if self._grace_until is None:
            self._grace_until = time.monotonic() + self.startup_grace
        within = time.monotonic() < self._grace_until
        self.awaited = tuple(self._pipeline.lacking(matched, self._intake.calibrations)) if within else ()
        if self.awaited:
            return True
        self._grace_until = 0.0  # over for good: from now on, cameras that cannot be placed are left out and named
        return False

    def _report_failure(self, error: Exception) -> None:
        try:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"frame failed: {type(error).__name__}: {error} ({where.name}, {where.filename}:{where.lineno})"
            self._log.report("frame", type(error).__name__, text, time.monotonic())
        except Exception:  # without memory even the report can fail; the thread must live on for the next frames
            self.counters.failed += 1

    def _handle(self, ready: ReadySet) -> None:
        started = time.monotonic()
        frame = self._process(ready.matched)
        if frame is None or ready.generation < self._oldest_published:
            return
        self._times.add("waiting", max(0.0, started - frame.arrival))
        self._last = ready.generation, frame
        if frame.occupancy is None:
            self.counters.withheld += 1
            report_too_few(self._log, frame.missing)
            return
        with self._times.measure("publish"):
            self._publish(frame)
        self._times.add("total", time.monotonic() - frame.arrival)
        self.counters.published += 1
        self._remember(frame)
        self._draw_views(frame)

    def _draw_views(self, frame: Frame) -> None:
        began = time.monotonic()
        drawn, skipped = self._draw(frame, self._late)
        if drawn:
            self._times.add("rendered views", time.monotonic() - began)
        self.counters.views += drawn
        self.counters.views_skipped += skipped

    def _late(self) -> bool:
        """Whether there is something to do that is more urgent than views."""
        return self._intake.mailbox.waiting or not self._running.is_set()

    def _process(self, matched: MatchedSet) -> Frame | None:
        """The frame of a set. If the device is out of memory, try once more with an empty cache; then end the work."""
        import torch

        calibrations = self._intake.calibrations
        try:
            return self._pipeline.process(matched, calibrations)
        except torch.OutOfMemoryError:
            pass  # the error keeps the frame's memory until this block has ended
        torch.cuda.empty_cache()
        try:
            return self._pipeline.process(matched, calibrations)
        except torch.OutOfMemoryError as error:
            self.counters.failed += 1
            self._running.clear()
            self._out_of_memory(str(error).split("\n")[0])
            return None
