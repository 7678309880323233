"""/diagnostics: levels and texts, from the parts that the node reports on."""

import pytest
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from small_models import small_config
from system import stamp_message

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint
from renderocc_model.network.network import build_network
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.configured import ConfiguredNode
from renderocc_ros.frame.pipeline import Frame, FramePipeline
from renderocc_ros.frame.vehicle_map import VehicleMap
from renderocc_ros.frame.worker import Worker
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.intake import Intake
from renderocc_ros.output.diagnostics import FRAME_LIMIT, NodeReport, diagnostics_message
from renderocc_ros.parameters import NodeConfig

torch.set_num_threads(2)

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SECOND = 1_000_000_000
START = 1000 * SECOND
IDENTITY = (0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """With random weights, but said to be trained."""
    network = build_network(small_config("tiny"))
    return Predictor(Checkpoint(network, OCC3D_NUSCENES, 0.37, None, {"trained_on": "a test"}), device="cpu")


class Setup:
    """A configured and active node's parts, two cameras that send images and calibrations; steady time is `now`."""

    def __init__(self, predictor: Predictor, **parameters) -> None:
        self.config = NodeConfig(cameras=("front", "left"), camera_timeout=2.0, **parameters)
        self.predictor = predictor
        self.said: list[str] = []
        self.log = ThrottledLog(self.said.append)
        self.times = StageTimes()
        self.transforms = TransformBuffer()
        self.now, self.clock_ns, self.state, self.error, self.simulated = 0.0, START, "active", "", False
        cameras = self.config.cameras
        events = ThrottledLog(lambda text: None)
        self.intake = Intake(self.config, cameras, self.transforms, self.log, events, lambda: 0, lambda: self.now)
        self.pipeline = FramePipeline(self.config, cameras, predictor, self.transforms, self.log, self.times)
        self.worker = Worker(self.intake, self.pipeline, print, print, self.log, self.times)
        for camera in cameras:
            self.send_info(camera)

    def send_info(self, camera: str) -> None:
        info = CameraInfo(width=640, height=400, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = [400.0, 0.0, 319.5, 0.0, 400.0, 199.5, 0.0, 0.0, 1.0]
        self.intake.add_camera_info(camera, serialize_message(info))

    def send(self, camera: str, stamp_ns: int) -> None:
        message = Image(height=1, width=1, encoding="mono8", step=1, data=[0])
        message.header.stamp = stamp_message(stamp_ns)
        self.intake.add(camera, serialize_message(message), False)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.intake.tick()
        self.intake.tick()  # waiting and silence are judged by the time of the tick before

    def see(self, frame: Frame) -> None:
        """Make this the worker's last frame."""
        self.worker._last = self.intake.generation, frame

    def run(self, frames: int = 5, leave_out: str = "") -> None:
        """So many images of each camera, a tenth of a second apart."""
        for index in range(frames):
            for camera in self.config.cameras:
                if camera != leave_out:
                    self.send(camera, START + index * SECOND // 10)
            self.intake.mailbox.clear()
            self.pass_time(0.1)

    def message(self, name: str = "/renderocc", configured: bool = True) -> DiagnosticArray:
        """Through serialisation, as a listener gets it."""
        parts = ConfiguredNode(
            self.config,
            self.predictor,
            self.transforms,
            self.intake,
            self.pipeline,
            self.worker,
            VehicleMap(self.config, self.predictor, self.log),
        )
        report = NodeReport(
            state=self.state,
            error=self.error,
            configured=parts if configured else None,
            log=self.log,
            times=self.times,
            clock_ns=self.clock_ns,
            simulated_time=self.simulated,
            now=self.now,
        )
        message = diagnostics_message(report, name, Time(sec=1000, nanosec=5))
        return deserialize_message(serialize_message(message), DiagnosticArray)

    def status(self, name: str) -> tuple[bytes, str]:
        """(level, text) of one line."""
        status = next(status for status in self.message().status if status.name == f"renderocc: {name}")
        return status.level, status.message

    def value(self, name: str, key: str) -> str | None:
        status = next(status for status in self.message().status if status.name == f"renderocc: {name}")
        return {value.key: value.value for value in status.values}.get(key)


@pytest.fixture
def setup(predictor):
    made = Setup(predictor)
    yield made
    made.pipeline.close()


# ---- the node ---------------------------------------------------------------------------


def test_a_node_at_work_is_ok_in_every_line(setup):
    setup.run()
    setup.see(Frame(START, "front", 0.0, occupancy=object(), used=("front", "left")))
    message = setup.message()
    assert [(status.name, status.level) for status in message.status] == [
        (f"renderocc: {name}", OK)
        for name in ("node", "camera front", "camera left", "frames", "latency", "network", "tf", "map")
    ]
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1000, 5)
    assert {status.hardware_id for status in message.status} == {"renderocc"}
    assert setup.status("node") == (OK, "ok") and setup.value("node", "state") == "active"


def test_names_start_with_the_nodes_own_in_its_namespace(setup):
    message = setup.message("/robot_1/renderocc")
    assert message.status[0].name == "robot_1/renderocc: node" and message.status[0].hardware_id == "robot_1/renderocc"


def test_an_unconfigured_node_says_so_and_nothing_else(setup):
    setup.state = "unconfigured"
    (status,) = setup.message(configured=False).status
    assert (status.name, status.level, status.message) == ("renderocc: node", WARN, "unconfigured")


def test_a_node_that_could_not_be_configured_says_why(setup):
    setup.state, setup.error = "unconfigured", "lost.safetensors: no such file; set the parameter 'checkpoint'"
    (status,) = setup.message(configured=False).status
    assert (status.level, status.message) == (ERROR, setup.error)


def test_simulated_time_without_a_clock_is_an_error_with_the_remedy(setup):
    setup.simulated, setup.clock_ns = True, 0
    level, text = setup.status("node")
    assert level == ERROR
    assert text.startswith("use_sim_time is true but nothing is published on /clock; play a bag with --clock")
    setup.clock_ns = START  # it has started
    assert setup.status("node") == (OK, "ok")


def test_an_unknown_parameter_colours_the_node_for_a_while(setup):
    setup.log.report("parameters", "min_camera", "unknown parameter 'min_camera' has no effect", setup.now)
    assert setup.status("node") == (WARN, "unknown parameter 'min_camera' has no effect")
    setup.pass_time(4.9)
    assert setup.status("node")[0] == WARN
    setup.pass_time(0.2)
    assert setup.status("node") == (OK, "ok")


@pytest.mark.parametrize("subject", ["node", "lifecycle", "cameras"])
def test_what_else_goes_wrong_in_the_node_colours_its_line(setup, subject):
    setup.log.report(subject, "a kind", "a callback failed: RuntimeError", setup.now)
    assert setup.status("node") == (WARN, "a callback failed: RuntimeError")


# ---- cameras ---------------------------------------------------------------------------


def test_a_camera_at_work_shows_its_rate_age_counts_and_calibration(setup):
    setup.run(frames=5)
    assert setup.status("camera front") == (OK, "ok")
    assert setup.value("camera front", "rate") == "10.00 Hz"
    assert setup.value("camera front", "age") == "0.100 s"
    assert (setup.value("camera front", "received"), setup.value("camera front", "matched")) == ("5", "5")
    assert setup.value("camera front", "calibration") == "640x400 plumb_bob"


def test_a_camera_that_never_sent_anything_is_an_error_with_its_topic(setup):
    setup.run(leave_out="left")
    assert setup.status("camera left") == (WARN, "no image yet on left/image_raw; its view is unknown"), "it has time"
    setup.run(frames=20, leave_out="left")
    assert setup.status("camera left") == (ERROR, "no image yet on left/image_raw; its view is unknown")
    assert setup.value("camera left", "age") == "never received"
    assert setup.status("camera front")[0] == OK


def test_a_silent_camera_is_an_error_with_the_time_of_its_silence(setup):
    setup.run()  # the last image 0.1 s ago
    setup.pass_time(1.8)
    assert setup.status("camera front")[0] == OK
    setup.pass_time(1.2)
    assert setup.status("camera front") == (ERROR, "silent for 3.1 s; its view is unknown")
    assert setup.value("camera front", "rate") == "0.00 Hz"


def test_a_pause_of_the_node_is_not_the_silence_of_its_cameras(setup):
    """Found by configuring anew on a busy computer: cameras were called silent for as long as that took."""
    setup.run()
    setup.now += 60.0  # inactive: no ticks
    setup.intake.resume()
    setup.pass_time(1.0)
    assert setup.status("camera front")[0] == OK
    setup.pass_time(2.0)
    assert setup.status("camera front") == (ERROR, "silent for 3.0 s; its view is unknown")


def test_a_camera_is_not_called_silent_by_a_node_that_takes_no_images(setup):
    setup.pass_time(10.0)
    setup.state = "inactive"
    assert setup.status("node") == (WARN, "inactive")
    assert setup.status("camera front") == (OK, "ok")


def test_a_camera_without_a_calibration_is_an_error_with_its_topic(predictor):
    made = Setup(predictor)
    made.intake._calibrations.known = {}
    made.run(frames=25)
    assert made.status("camera front") == (ERROR, "no usable camera_info on front/camera_info; its view is unknown")
    assert made.value("camera front", "calibration") == "none"
    made.pipeline.close()


def test_a_camera_whose_mount_the_first_images_wait_for_is_named_at_once_and_for_how_long(setup):
    setup.run()
    setup.worker.awaited, setup.worker.startup_grace = ("left",), 2.5
    assert setup.status("camera left") == (
        WARN,
        "cannot be placed yet: its mount is not on /tf_static or /tf; "
        "the first images wait for it, at most 2.5 s (startup_grace)",
    )
    assert setup.status("camera front") == (OK, "ok")


def test_dropped_images_are_counted_by_reason(setup):
    setup.run()
    for _ in range(2):
        setup.send("front", START + 4 * SECOND // 10)  # the newest one again
    assert setup.value("camera front", "dropped, duplicate") == "2"
    assert setup.value("camera left", "dropped, duplicate") is None


def test_why_the_last_frame_went_without_a_camera_is_said_once(setup):
    setup.run()
    reason = "image is 320x200 but camera_info says 640x400; publish a matching camera_info"
    setup.see(Frame(START, "front", 0.0, occupancy=object(), used=("front",), missing={"left": reason}))
    setup.log.report("camera 'left'", "image", reason, setup.now)
    assert setup.status("camera left") == (WARN, reason)
    assert setup.status("camera front") == (OK, "ok")


def test_several_faults_of_a_camera_are_all_said_at_the_highest_level(setup):
    setup.intake._calibrations.known = {}
    setup.run(frames=25, leave_out="left")
    setup.log.report("camera 'left'", "stamp", "image dropped: its stamp is zero", setup.now)
    level, text = setup.status("camera left")
    assert level == ERROR
    assert text.split("; its view is unknown; ") == [
        "no image yet on left/image_raw",
        "no usable camera_info on left/camera_info",
        "image dropped: its stamp is zero",
    ]


# ---- frames, latency ---------------------------------------------------------------------------


def test_before_the_first_frame_there_is_nothing_to_complain_about(setup):
    assert setup.status("frames") == (OK, "ok")
    assert setup.value("frames", "anchor camera") == "front" and setup.value("frames", "cameras in the last one") == ""
    assert setup.value("frames", "age of the last image") is None


def test_frames_are_counted_with_the_age_of_the_last_one(setup):
    setup.see(Frame(START - SECOND // 4, "front", 0.0, occupancy=object(), used=("front", "left")))
    counters = setup.worker.counters
    counters.published, counters.skipped, counters.withheld, counters.failed = 7, 3, 1, 2
    keys = ("published", "skipped, a newer one was there", "withheld, too few cameras", "failed")
    assert [setup.value("frames", key) for key in keys] == ["7", "3", "1", "2"]
    assert setup.value("frames", "age of the last image") == "0.250 s"
    assert setup.value("frames", "cameras in the last one") == "front, left"


def test_sets_with_too_few_images_count_as_withheld(predictor):
    made = Setup(predictor, min_cameras=2, max_wait=0.0)
    made.run(frames=3, leave_out="left")
    assert made.value("frames", "withheld, too few cameras") == "3"
    made.pipeline.close()


def test_a_camera_that_stands_in_for_the_anchor_is_a_warning_with_both_names(setup):
    setup.see(Frame(START, "left", 0.0, occupancy=object(), used=("left",)))
    assert setup.status("frames") == (WARN, "'left' stands in for the anchor camera 'front'")
    assert setup.value("frames", "anchor camera") == "left"


def test_a_frame_without_enough_cameras_is_an_error_with_both_numbers(predictor):
    made = Setup(predictor, min_cameras=2)
    made.see(Frame(START, "front", 0.0, used=("front",)))
    assert made.status("frames") == (ERROR, "nothing published: 1 usable cameras, min_cameras is 2")
    made.pipeline.close()


def test_a_frame_that_failed_is_a_warning_for_a_while(setup):
    setup.log.report("frame", "RuntimeError", "frame failed: RuntimeError: stuck", setup.now)
    assert setup.status("frames") == (WARN, "frame failed: RuntimeError: stuck")


def test_frames_that_all_fail_are_an_error_until_one_does_not(setup):
    setup.worker.failed_in_row = 1
    assert setup.status("frames") == (OK, "ok")  # the warning of the test before says enough
    setup.worker.failed_in_row = 2
    assert setup.status("frames") == (ERROR, "nothing published: the last 2 frames failed")
    setup.state = "inactive"
    assert setup.status("frames") == (OK, "ok")


def test_a_frame_that_does_not_end_is_an_error(setup):
    setup.worker.begun = setup.now
    setup.pass_time(FRAME_LIMIT)
    assert setup.status("frames") == (OK, "ok")
    setup.pass_time(1.5)
    assert setup.status("frames") == (
        ERROR,
        "nothing published: the frame under way began 6.5 s ago; if it does not end, start the node again",
    )
    setup.worker.begun = None
    assert setup.status("frames") == (OK, "ok")


def test_a_worker_whose_thread_has_ended_is_an_error_of_an_active_node(setup):
    setup.worker.start()
    assert setup.status("frames") == (OK, "ok")
    setup.intake.mailbox.close()
    setup.worker._running.clear()
    setup.worker._thread.join()
    assert setup.status("frames") == (
        ERROR,
        "nothing published: the worker's thread has ended; deactivate the node and activate it again",
    )
    setup.worker.stop()
    assert setup.status("frames") == (OK, "ok")


def test_a_flood_of_frames_is_said_until_a_reset_forgets_it(setup):
    setup.transforms = TransformBuffer(max_frames=3)
    for child in ("made_up_1", "made_up_2"):
        setup.transforms.set("odom", child, START, (0, 0, 0), IDENTITY)
    assert setup.status("tf") == (
        WARN,
        "the memory for /tf is full: a publisher floods it or invents frames; stop it, then call ~/reset, or clean "
        "up and configure the node if static mounts are missing",
    )
    setup.transforms.clear()
    assert setup.status("tf") == (OK, "ok")


def test_latency_is_shown_by_stage(setup):
    for milliseconds in (10, 20, 30):
        setup.times.add("network", milliseconds / 1000)
    # The median is 20 ms; the 99th percentile lies 98 % of the way from the second to the third: 29.8 ms.
    assert setup.value("latency", "network") == "20.0 ms, 29.8 ms (3 frames)"
    assert setup.status("latency")[0] == OK and "total is from the arrival" in setup.status("latency")[1]


# ---- network, TF ---------------------------------------------------------------------------


def test_a_trained_network_is_ok_and_shown_with_device_and_threshold(setup):
    assert setup.status("network") == (OK, "ok")
    shown = [setup.value("network", key) for key in ("device", "precision", "threshold")]
    assert shown == ["cpu", setup.predictor.precision, "0.37"]
    assert setup.value("network", "checkpoint") == "tiny, in the package"  # none is named


def test_an_untrained_network_is_a_warning_with_the_remedy(setup):
    setup.predictor = Predictor.untrained(small_config("tiny"), device="cpu")
    assert setup.status("network") == (WARN, "UNTRAINED: its output means nothing; set the parameter 'checkpoint'")
    assert setup.value("network", "checkpoint") == "none"


def test_a_rig_unlike_the_one_it_was_trained_on_is_a_warning(setup):
    setup.log.report("checkpoint", "x", "trained with 6 cameras, running with 2", setup.now)
    assert setup.status("network") == (WARN, "trained with 6 cameras, running with 2")


def test_static_mounts_are_a_warning_with_the_reason(setup):
    setup.see(Frame(START, "front", 0.0, occupancy=object(), ego_motion_missing="'odom' does not exist"))
    assert setup.status("tf") == (WARN, "static mounts are used: 'odom' does not exist")


def test_a_jump_of_the_ego_pose_is_a_warning_with_its_time_and_size(setup):
    for index in range(6):
        place = (0.2 * index, 30.0 * (index > 3), 0.0)
        setup.transforms.set("odom", "base_link", 100 * SECOND + index * SECOND // 50, place, IDENTITY)
    setup.pipeline.jumps.update()
    assert setup.value("tf", "jumps of the ego pose") == "1"
    # From 100.06 s to 100.08 s: 30 m to the left and 0.2 m ahead, 1500 m/s.
    assert setup.value("tf", "last jump") == "at 100.080 s it jumps: moves 30.00 m within 0.020 s (1500 m/s)"
    setup.log.report("ego pose", "jump", "at 100.080 s it jumps", setup.now)
    assert setup.status("tf") == (WARN, "at 100.080 s it jumps")


def test_transforms_are_counted(setup):
    setup.transforms.set("base_link", "front_optical", 0, (0, 0, 0), IDENTITY, static=True)
    setup.transforms.set("odom", "base_link", 60 * SECOND, (0, 0, 0), IDENTITY)
    setup.transforms.set("odom", "base_link", 1 * SECOND, (0, 0, 0), IDENTITY)  # older than the ten seconds kept
    assert setup.status("tf") == (OK, "ok")
    assert (setup.value("tf", "frames"), setup.value("tf", "ignored, too old")) == ("2", "1")


def test_a_frame_with_two_parents_and_a_refused_transform_are_warnings(setup):
    for index in range(1, 5):
        setup.transforms.set(("odom", "map")[index % 2], "base_link", index * SECOND, (0, 0, 0), IDENTITY)
    setup.log.report("TF", "base_link front_optical", "transform ignored: NaN", setup.now)
    level, text = setup.status("tf")
    assert level == WARN
    assert "frame 'base_link' is published" in text and "'odom'" in text and "'map'" in text
    assert text.endswith("transform ignored: NaN")
