"""The worker's thread: which sets it takes, what it counts, and what it survives.

Intake, mailbox and messages are the real ones. The pipeline is a small stand-in that does what each test says, because
a device that runs out of memory at the right moment cannot be had; the real one is tested in test_pipeline.py and, with
this worker, in every test that starts the node.
"""

import threading
import time
import weakref

import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from system import stamp_message, wait_until

import renderocc_ros.frame.worker
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.frame.worker import Worker
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.intake import Intake
from renderocc_ros.input.mailbox import Mailbox
from renderocc_ros.parameters import NodeConfig

pytestmark = pytest.mark.system

SECOND = 1_000_000_000
_NOTHING = np.zeros((1, 1, 1), np.float32)
OCCUPANCY = Occupancy(
    VoxelGrid((0, 0, 0), (1, 1, 1), 1.0), OCC3D_NUSCENES, _NOTHING.astype(np.uint8), _NOTHING, _NOTHING > 0
)


class Pipeline:
    """In place of a FramePipeline: runs the next of `steps` at each call (none left: all is well), and notes it.

    log: a stamp in seconds for every call of `process`, "reset" for every reset.
    """

    def __init__(self) -> None:
        self.steps: list = []
        self.log: list = []
        self.hold = threading.Event()
        self.hold.set()
        self.usable = True
        self.lack: set = set()

    def lacking(self, matched, calibrations) -> list[str]:
        return [camera for camera in matched.entries if camera in self.lack]

    def process(self, matched, calibrations) -> Frame:
        self.log.append(matched.stamp_ns // SECOND)
        assert self.hold.wait(10)
        if self.steps:
            self.steps.pop(0)()
        arrival = max(image.arrival for _, image in matched.entries.values())
        frame = Frame(matched.stamp_ns, matched.anchor, arrival, missing=dict(matched.missing))
        frame.occupancy = OCCUPANCY if self.usable else None
        return frame

    def reset(self) -> None:
        self.log.append("reset")


class Setup:
    def __init__(self, cameras=("front",), startup_grace: float = 0.0, **parameters) -> None:
        self.said: list[str] = []
        self.published: list[int] = []
        self.out_of_memory: list[str] = []
        self.times = StageTimes()
        self.pipeline = Pipeline()
        log = ThrottledLog(self.said.append)
        config = NodeConfig(cameras=cameras, max_future=0.0, **parameters)
        self.intake = Intake(config, cameras, TransformBuffer(), log, ThrottledLog(lambda text: None), lambda: 0)
        self.worker = Worker(
            self.intake, self.pipeline, self.publish, self.out_of_memory.append, log, self.times, startup_grace
        )

    @property
    def skipped(self) -> int:
        """Sets replaced in the mailbox, or while the worker waited with them."""
        return self.intake.skipped + self.worker.counters.skipped

    def reset(self) -> None:
        """What ~/reset does."""
        self.intake.start_afresh("reset", "asked by ~/reset")
        self.worker.withhold()

    def publish(self, frame: Frame) -> None:
        self.published.append(frame.stamp_ns // SECOND)

    def send(self, second: int, camera: str = "front") -> None:
        """An image of this stamp, as from a subscription."""
        message = Image(height=1, width=1, encoding="mono8", step=1, data=[0])
        message.header.stamp = stamp_message(second * SECOND)
        self.intake.add(camera, serialize_message(message), False)

    def send_and_hold(self, second: int) -> None:
        """Send one and leave the worker in the middle of it, until `pipeline.hold.set()`."""
        self.pipeline.hold.clear()
        self.send(second)
        wait_until(lambda: second in self.pipeline.log, 5, "the frame's begin")

    def expect(self, *published: int) -> None:
        wait_until(lambda: self.published == list(published), 5, f"{published}, not {self.published}")


@pytest.fixture
def setup():
    made = Setup()
    made.worker.start()
    yield made
    made.pipeline.hold.set()
    made.worker.stop()


def test_a_set_is_processed_published_counted_and_timed(setup):
    setup.send(1)
    setup.expect(1)
    setup.send(2)
    setup.expect(1, 2)
    setup.worker.stop()
    assert setup.worker.last_frame.stamp_ns == 2 * SECOND
    counters = setup.worker.counters
    assert (counters.published, setup.skipped, counters.withheld, counters.failed) == (2, 0, 0, 0)
    times = setup.times.percentiles()
    assert list(times) == ["waiting", "publish", "total"] and times["total"][2] == 2
    assert times["total"][0] >= times["publish"][0] >= 0 and times["waiting"][0] >= 0


def test_while_it_is_busy_the_newest_set_replaces_those_that_wait_and_they_are_counted(setup):
    setup.send_and_hold(1)
    for second in (2, 3, 4):
        setup.send(second)
    setup.pipeline.hold.set()
    setup.expect(1, 4)
    assert setup.skipped == 2  # 2 and 3
    assert setup.pipeline.log == ["reset", 1, 4]


# ---- the first set -----------------------------------------------------------------------------


@pytest.fixture
def patient():
    """A worker that waits at most 20 s for what the first set's cameras lack; no test waits so long."""
    made = Setup(startup_grace=20.0)
    made.pipeline.lack = {"front"}
    made.worker.start()
    yield made
    made.worker.stop()


def test_the_only_set_waits_until_its_cameras_can_be_placed(patient):
    patient.send(1)
    time.sleep(0.3)
    assert patient.pipeline.log == []
    patient.pipeline.lack = set()
    patient.expect(1)
    assert patient.skipped == 0


def test_it_can_be_seen_which_cameras_are_waited_for_and_no_longer_than_that(patient):
    assert patient.worker.awaited == ()
    patient.send(1)
    wait_until(lambda: patient.worker.awaited == ("front",), 5, "the wait for the camera")
    patient.pipeline.lack = set()
    patient.expect(1)
    assert patient.worker.awaited == ()


def test_while_the_first_set_waits_a_newer_one_takes_its_place(patient):
    for second in (1, 2, 3):
        patient.send(second)
        time.sleep(0.1)
    patient.pipeline.lack = set()
    patient.expect(3)
    assert patient.skipped == 2


def test_later_sets_do_not_wait(patient):
    patient.pipeline.lack = set()
    patient.send(1)
    patient.expect(1)
    patient.pipeline.lack = {"front"}
    patient.send(2)
    patient.expect(1, 2)


def test_after_the_grace_the_set_is_processed_as_it_is_and_no_other_waits():
    made = Setup(startup_grace=0.5)
    made.pipeline.lack = {"front"}
    made.worker.start()
    began = time.monotonic()
    made.send(1)
    made.expect(1)
    assert time.monotonic() - began >= 0.5
    made.send(2)
    made.expect(1, 2)
    made.worker.stop()


def test_each_activation_has_a_grace_of_its_own_and_an_end_is_heard_within_it(patient):
    patient.send(1)
    time.sleep(0.1)
    assert patient.worker.stop() and patient.pipeline.log == []
    patient.worker.start()
    patient.send(2)
    time.sleep(0.2)
    assert patient.pipeline.log == []
    patient.pipeline.lack = set()
    patient.expect(2)


def test_a_set_of_before_a_jump_of_time_is_not_waited_with_any_longer(patient):
    patient.send(100)
    time.sleep(0.1)
    patient.reset()
    patient.pipeline.lack = set()
    patient.send(1)
    patient.expect(1)


# ---- starting afresh ---------------------------------------------------------------------------


def test_a_reset_during_a_frame_keeps_it_and_what_waits_from_being_published(setup):
    setup.send_and_hold(100)
    setup.send(101)
    setup.reset()
    setup.send(1)  # the bag's first one again
    setup.pipeline.hold.set()
    setup.expect(1)
    assert setup.pipeline.log == ["reset", 100, "reset", 1]  # 101 was never begun, earlier frames are forgotten
    setup.worker.stop()
    assert setup.worker.counters.published == 1 and setup.worker.counters.failed == 0


def test_when_time_jumps_the_last_frame_before_the_jump_is_still_published(setup):
    setup.send_and_hold(100)
    setup.intake.start_afresh("clock", "the clock jumped back")
    setup.send(1)  # the bag's first one again
    setup.pipeline.hold.set()
    setup.expect(100, 1)
    assert setup.pipeline.log == ["reset", 100, "reset", 1]


def test_a_jump_forgets_the_last_frame(setup):
    setup.send(1)
    setup.expect(1)
    wait_until(lambda: setup.worker.counters.published == 1, 5, "the end of the frame")
    assert setup.worker.last_frame is not None
    setup.intake.start_afresh("clock", "the clock jumped back")
    assert setup.worker.last_frame is None


def test_a_set_that_was_taken_just_before_a_reset_is_not_published():
    """The reset comes between taking the set and beginning with it."""
    made = Setup()
    resets = [made.reset]

    class Interrupted(Mailbox):
        def take(self, timeout=None):
            taken = super().take(timeout)
            if taken is not None and resets:
                resets.pop()()
            return taken

    made.intake.mailbox = Interrupted()
    made.worker.start()
    made.send(1)
    wait_until(lambda: 1 in made.pipeline.log, 5, "the frame's begin")
    made.send(2)
    made.expect(2)
    made.worker.stop()
    assert made.pipeline.log == ["reset", 1, "reset", 2]


def test_what_is_remembered_from_before_a_pause_is_forgotten(setup):
    setup.send(1)
    setup.expect(1)
    setup.worker.stop()
    setup.reset()
    setup.worker.start()
    setup.send(50)
    setup.expect(1, 50)
    assert setup.pipeline.log == ["reset", 1, "reset", 50]


# ---- what goes wrong ---------------------------------------------------------------------------


def fail(error: Exception):
    def step() -> None:
        raise error

    return step


def test_a_frame_that_fails_is_named_with_the_place_and_the_next_one_is_published(setup):
    setup.pipeline.steps = [fail(RuntimeError("the lift is stuck"))]
    setup.send(1)
    wait_until(lambda: setup.worker.counters.failed == 1, 5, "the failure")
    setup.send(2)
    setup.expect(2)
    (line,) = setup.said
    assert line.startswith("frame: frame failed: RuntimeError: the lift is stuck (step, ") and "test_worker.py:" in line


def test_a_publication_that_fails_does_not_end_the_worker(setup):
    real, setup.worker._publish = setup.worker._publish, lambda frame: fail(ValueError("no such topic"))()
    setup.send(1)
    wait_until(lambda: setup.worker.counters.failed == 1, 5, "the failure")
    setup.worker._publish = real
    setup.send(2)
    setup.expect(2)
    setup.worker.stop()
    assert setup.worker.counters.published == 1


def test_frames_that_fail_in_a_row_are_counted_until_one_does_not(setup):
    setup.pipeline.steps = [fail(RuntimeError("stuck")), fail(RuntimeError("stuck"))]
    for second in (1, 2):
        setup.send(second)
        wait_until(lambda second=second: setup.worker.failed_in_row == second, 5, "the failure")
    setup.send(3)
    setup.expect(3)
    wait_until(lambda: setup.worker.failed_in_row == 0, 5, "the end of the row")


def test_a_failure_between_two_frames_does_not_end_the_worker():
    made = Setup()
    failures = [fail(MemoryError("none for the lock"))]

    class Failing(Mailbox):
        def take(self, timeout=None):
            if failures:
                failures.pop()()
            return super().take(timeout)

    made.intake.mailbox = Failing()
    forget, made.pipeline.reset = made.pipeline.reset, fail(RuntimeError("cannot forget"))
    made.worker.start()
    made.send(1)
    wait_until(lambda: made.worker.counters.failed == 2, 5, "both failures")
    made.pipeline.reset = forget
    made.send(2)
    made.expect(2)
    assert made.pipeline.log == ["reset", 2]  # what could not be forgotten then is forgotten now
    made.worker.stop()


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation.")


def test_out_of_memory_once_is_tried_again_and_then_published(setup):
    setup.pipeline.steps = [fail(OUT_OF_MEMORY)]
    setup.send(1)
    setup.expect(1)
    setup.send(2)
    setup.expect(1, 2)
    assert setup.pipeline.log == ["reset", 1, 1, 2]
    assert setup.out_of_memory == [] and setup.worker.counters.failed == 0 and setup.said == []


def test_before_the_cache_is_emptied_the_failed_frame_has_given_its_memory_back(setup, monkeypatch):
    taken, held = [], []

    def step() -> None:
        tensor = torch.zeros(1)
        taken.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append(taken[0]() is not None))
    setup.pipeline.steps = [step]
    setup.send(1)
    setup.expect(1)
    assert held == [False]


def test_out_of_memory_twice_is_reported_once_and_ends_the_work_without_a_crash(setup):
    setup.pipeline.steps = [fail(OUT_OF_MEMORY), fail(OUT_OF_MEMORY)]
    setup.send(1)
    wait_until(lambda: setup.out_of_memory, 5, "the report")
    setup.send(2)
    setup.worker.stop()
    assert setup.out_of_memory == ["CUDA out of memory. Tried to allocate 2.00 GiB."]
    assert setup.published == [] and setup.pipeline.log == ["reset", 1, 1]
    assert setup.worker.counters.failed == 1


def test_after_out_of_memory_it_can_be_started_again(setup):
    setup.pipeline.steps = [fail(OUT_OF_MEMORY), fail(OUT_OF_MEMORY)]
    setup.send(1)
    wait_until(lambda: setup.out_of_memory, 5, "the report")
    setup.worker.stop()
    setup.worker.start()
    setup.send(2)
    setup.expect(2)


def test_it_can_be_stopped_from_its_own_thread():
    made = Setup()
    made.worker._out_of_memory = lambda text: (made.worker.stop(), made.out_of_memory.append(text))
    made.pipeline.steps = [fail(OUT_OF_MEMORY), fail(OUT_OF_MEMORY)]
    made.worker.start()
    made.send(1)
    wait_until(lambda: made.out_of_memory, 5, "the report")
    made.worker.stop()


# ---- too few cameras ---------------------------------------------------------------------------


def test_a_frame_without_enough_usable_cameras_is_withheld_and_the_reasons_are_said(setup):
    setup.pipeline.usable = False
    process = setup.pipeline.process

    def with_reason(matched, calibrations) -> Frame:
        frame = process(matched, calibrations)
        frame.missing = {"front": "no usable camera_info yet on front/camera_info"}
        return frame

    setup.pipeline.process = with_reason
    setup.send(1)
    wait_until(lambda: setup.worker.counters.withheld == 1, 5, "the frame")
    setup.worker.stop()
    assert setup.published == [] and setup.worker.last_frame.stamp_ns == SECOND
    assert setup.said == [
        "frame: nothing published, fewer usable cameras than 'min_cameras' "
        "(front: no usable camera_info yet on front/camera_info)"
    ]


def test_a_set_with_too_few_images_is_said_too_though_no_frame_is_made_of_it():
    made = Setup(cameras=("front", "left"), min_cameras=2, max_wait=0.0)
    made.worker.start()
    made.send(1)
    made.worker.stop()
    assert made.pipeline.log == []
    assert made.said == ["frame: nothing published, fewer usable cameras than 'min_cameras' (left: no image received)"]
    made.intake.tick()  # the same set is not said again
    assert len(made.said) == 1


# ---- stopping ---------------------------------------------------------------------------


def test_stopping_finishes_the_frame_under_way_and_leaves_what_waits(setup):
    setup.send_and_hold(1)
    setup.send(2)
    stopping = threading.Thread(target=setup.worker.stop)
    stopping.start()
    wait_until(lambda: not setup.worker._running.is_set(), 5, "the stop's begin")
    setup.pipeline.hold.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert setup.published == [1] and setup.pipeline.log == ["reset", 1]


def test_stopping_twice_or_before_the_start_is_harmless():
    made = Setup()
    made.worker.stop()
    made.worker.start()
    made.worker.stop()
    made.worker.stop()


def test_a_frame_that_never_ends_is_left_behind_named_and_not_published(setup, monkeypatch):
    monkeypatch.setattr(renderocc_ros.frame.worker, "STOP_LIMIT", 0.05)
    setup.send_and_hold(1)
    assert setup.worker.stop() is False
    assert setup.said == ["frame: the frame under way did not end within 0.05 s; it is left behind"]
    setup.pipeline.hold.set()
    wait_until(lambda: setup.worker.ended, 5, "the thread's end")
    assert setup.worker.stop() is True and not setup.worker.ended
    assert setup.published == []


def test_when_the_frame_under_way_began_is_known_until_it_ends(setup):
    before = time.monotonic()
    assert setup.worker.begun is None
    setup.send_and_hold(1)
    assert before <= setup.worker.begun <= time.monotonic()
    setup.pipeline.hold.set()
    wait_until(lambda: setup.worker.begun is None, 5, "the end of the frame")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_by_itself_is_known(setup):
    assert not setup.worker.ended
    setup.pipeline.steps = [fail(SystemExit())]
    setup.send(1)
    wait_until(lambda: setup.worker.ended, 5, "the thread's end")
    setup.worker.stop()
    assert not setup.worker.ended
