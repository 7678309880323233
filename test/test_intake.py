"""What the callbacks do with bytes: stamps, calibrations, matching."""

import time

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from renderocc_model.rosio import cdr
from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.intake import Intake
from renderocc_ros.input.matcher import MatchedSet
from renderocc_ros.parameters import NodeConfig

SECOND = 1_000_000_000


def image(stamp_ns: int, frame_id: str = "front_optical") -> bytes:
    message = Image(height=2, width=2, encoding="mono8", step=2, data=[0, 1, 2, 3])
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    message.header.frame_id = frame_id
    return serialize_message(message)


def info(**fields) -> CameraInfo:
    message = CameraInfo(width=640, height=400, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = [400.0, 0.0, 319.5, 0.0, 400.0, 199.5, 0.0, 0.0, 1.0]
    message.header.frame_id = "front_optical"
    for name, value in fields.items():
        setattr(message, name, value)
    return message


class Setup:
    def __init__(self, cameras=("front", "back"), clock_ns: int = 100 * SECOND, **parameters):
        self.said: list[str] = []
        self.config = NodeConfig(cameras=cameras, **parameters)
        self.now = 0.0
        self.transforms = TransformBuffer()
        self.events: list[str] = []
        self.clock_ns = clock_ns
        self.intake = Intake(
            self.config,
            cameras,
            self.transforms,
            ThrottledLog(self.said.append),
            ThrottledLog(self.events.append),
            lambda: self.clock_ns,
            lambda: self.now,
        )

    def taken(self) -> MatchedSet | None:
        """What a worker finds in the mailbox."""
        ready = self.intake.mailbox.take(0)
        return None if ready is None else ready.matched

    def pass_time(self, until: float) -> None:
        """Two ticks: the second one judges by the time of the first."""
        self.now = until
        self.intake.tick()
        self.intake.tick()


def test_images_of_all_cameras_become_a_set():
    setup = Setup()
    assert setup.intake.add("front", image(100 * SECOND), False) == []
    assert setup.taken() is None
    (matched,) = setup.intake.add("back", image(100 * SECOND + 1, "back_optical"), True)
    assert setup.taken() is matched
    assert matched.stamp_ns == 100 * SECOND and set(matched.entries) == {"front", "back"}
    stamp_ns, payload = matched.entries["back"]
    assert (stamp_ns, payload.compressed, payload.frame_id) == (100 * SECOND + 1, True, "back_optical")
    assert payload.arrival == pytest.approx(time.monotonic(), abs=5.0)


def test_an_image_whose_callback_was_late_counts_if_it_was_there_before_the_second_tick():
    setup = Setup()
    setup.intake.add("front", image(100 * SECOND), False)
    setup.now = 5.0  # the computer was busy for five seconds, much more than max_wait
    setup.intake.tick()
    assert setup.taken() is None
    setup.intake.add("back", image(100 * SECOND), False)
    assert set(setup.taken().entries) == {"front", "back"}


def test_what_does_not_come_is_given_up_after_max_wait():
    setup = Setup(max_wait=0.15)
    for camera in ("front", "back"):  # both live
        setup.intake.add(camera, image(99 * SECOND), False)
    setup.taken()
    setup.intake.add("front", image(100 * SECOND), False)
    setup.pass_time(0.14)
    assert setup.taken() is None
    setup.pass_time(0.16)
    matched = setup.taken()
    assert set(matched.entries) == {"front"} and "back" in matched.missing


def test_the_optical_frame_can_be_given_by_template():
    setup = Setup(cameras=("front",), camera_frame="{camera}_lens")
    setup.intake.add("front", image(100 * SECOND), False)
    assert setup.taken().entries["front"][1].frame_id == "front_lens"


@pytest.mark.parametrize(
    ("buffer", "line"),
    [
        (image(0), "camera 'front': image dropped: its stamp is zero"),
        (image(102 * SECOND), "camera 'front': image dropped: its stamp is 2.000 s ahead"),
        (image(100 * SECOND)[:9], "camera 'front': image message dropped"),
    ],
    ids=("zero", "ahead", "cut"),
)
def test_a_useless_header_is_refused_with_the_camera_and_the_remedy(buffer, line):
    setup = Setup(cameras=("front",))
    setup.intake.add("front", buffer, False)
    assert setup.taken() is None
    assert len(setup.said) == 1 and setup.said[0].startswith(line)


def test_before_a_simulated_clock_starts_no_stamp_is_in_the_future():
    setup = Setup(cameras=("front",), clock_ns=0)
    setup.intake.add("front", image(100 * SECOND), False)
    assert setup.taken() is not None


def test_a_calibration_is_read_once_and_again_when_it_changes():
    setup = Setup()
    message = info()
    assert setup.intake.add_camera_info("front", serialize_message(message))
    message.header.stamp.sec = 77  # only the stamp differs
    assert not setup.intake.add_camera_info("front", serialize_message(message))
    message.width = 641
    assert setup.intake.add_camera_info("front", serialize_message(message))
    assert setup.intake.calibrations["front"].model.width == 641


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (info(k=[0.0] * 9), "K is all zeros"),
        (info(k=[float("nan")] * 9), "K"),
        (info(distortion_model="magic", d=[0.1, 0.0, 0.0, 0.0, 0.0]), "magic"),
        (info(width=0), "0"),
    ],
)
def test_a_bad_calibration_is_named_and_leaves_the_last_good_one(bad, named):
    setup = Setup()
    assert setup.intake.add_camera_info("front", serialize_message(info()))
    good = setup.intake.calibrations["front"]
    assert not setup.intake.add_camera_info("front", serialize_message(bad))
    assert setup.intake.calibrations["front"] is good
    assert setup.said[0].startswith("camera 'front': camera_info on front/camera_info: ") and named in setup.said[0]
    assert not setup.intake.add_camera_info("front", serialize_message(info()))  # the good one is still in force


def test_binning_and_region_of_interest_move_the_principal_point():
    message = info(binning_x=2, binning_y=2, roi=RegionOfInterest(x_offset=100, y_offset=40, width=400, height=300))
    model = camera_model_from_info(cdr.read_camera_info(serialize_message(message)))
    # cx: 319.5 - 100 = 219.5 in the region; two columns become one: (219.5 - 0.5) / 2 = 109.5. cy: (159.5 - 0.5) / 2.
    assert (model.width, model.height) == (200, 150)
    assert np.asarray(model.K)[0].tolist() == [200.0, 0.0, 109.5]
    assert np.asarray(model.K)[1].tolist() == [0.0, 200.0, 79.5]


def test_stamps_that_go_back_are_a_jump_and_then_matching_goes_on():
    setup = Setup(cameras=("front",))
    for stamp in (90, 91, 92):
        setup.pass_time(float(stamp))
        setup.intake.add("front", image(stamp * SECOND), False)
        setup.taken()
    setup.transforms.set("odom", "base_link", 92 * SECOND, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), False)
    for stamp, generation in ((10, 0), (11, 1)):  # the second one confirms that time has gone back
        setup.pass_time(90.0 + stamp)
        setup.intake.add("front", image(stamp * SECOND), False)
        assert setup.intake.generation == generation
    assert setup.events == ["starting afresh: image stamps went back by 82.0 s (a bag loop?)"]
    assert setup.taken().stamp_ns == 11 * SECOND  # the newest: the first of them waited for a second
    with pytest.raises(TransformError):  # what /tf said of the recording's end is forgotten
        setup.transforms.lookup("odom", "base_link", 92 * SECOND)


def test_a_set_that_is_not_taken_is_replaced_by_a_newer_one_and_counted():
    setup = Setup(cameras=("front",))
    for stamp in (98, 99, 100):
        (matched,) = setup.intake.add("front", image(stamp * SECOND), False)
        assert matched.stamp_ns == stamp * SECOND
    assert setup.intake.skipped == 2 and setup.taken().stamp_ns == 100 * SECOND and setup.taken() is None


def test_starting_afresh_forgets_what_waits_and_what_tf_has_said_but_no_calibration_and_no_mount():
    setup = Setup()
    setup.intake.add_camera_info("front", serialize_message(info()))
    pose = (1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
    setup.transforms.set("odom", "base_link", 100 * SECOND, *pose, False)
    setup.transforms.set("base_link", "front_optical", 0, *pose, True)
    for camera in ("front", "back"):
        setup.intake.add(camera, image(99 * SECOND), False)
    setup.intake.add("front", image(100 * SECOND), False)
    setup.intake.start_afresh("reset", "asked by ~/reset")
    assert setup.events[-1] == "starting afresh: asked by ~/reset" and setup.intake.generation == 1
    assert setup.taken() is None and setup.intake.add("back", image(100 * SECOND), False) == []  # front's is gone
    assert list(setup.intake.calibrations) == ["front"]
    setup.transforms.lookup("base_link", "front_optical", 100 * SECOND)
    with pytest.raises(TransformError):
        setup.transforms.lookup("odom", "base_link", 100 * SECOND)


def test_a_new_calibration_is_an_event():
    setup = Setup()
    log, events = ThrottledLog(setup.said.append), ThrottledLog(setup.events.append)
    intake = Intake(setup.config, ("front", "back"), setup.transforms, log, events, lambda: 0)
    intake.add_camera_info("front", serialize_message(info()))
    assert setup.events == ["camera 'front': 640x400, plumb_bob, frame front_optical"] and setup.said == []


def test_tf_that_cannot_be_read_or_used_is_named_and_the_rest_is_kept():
    setup = Setup()
    setup.intake.add_tf(b"no message", static=True)
    message = TFMessage()
    for child, parent, w in (("lens", "base_link", 1.0), ("base_link", "odom", float("nan"))):
        transform = TransformStamped(child_frame_id=child)
        transform.header.frame_id, transform.transform.rotation.w = parent, w
        message.transforms.append(transform)
    setup.intake.add_tf(serialize_message(message), static=True)
    unread, unused = setup.said
    assert unread.startswith("TF: message on /tf_static dropped: ")
    assert unused.startswith("TF: transform from 'base_link' to 'odom' ignored: ")
    setup.transforms.lookup("base_link", "lens", 0)


def test_a_static_transform_that_is_published_again_elsewhere_is_named_in_the_log():
    setup = Setup()
    for stamp, x in ((5, 1.0), (5, 1.0), (9, 1.3)):
        transform = TransformStamped(child_frame_id="lens")
        transform.header.frame_id, transform.header.stamp.sec, transform.transform.translation.x = "base_link", stamp, x
        transform.transform.rotation.w = 1.0
        setup.intake.add_tf(serialize_message(TFMessage(transforms=[transform])), static=True)
    (line,) = setup.said
    assert line.startswith(
        "TF: frame 'lens' is published on /tf_static again with other values, 0.300 m and 0.00 degrees"
    )
    assert "(stamp 9.000000000); only the last ones count" in line


def test_an_image_larger_than_its_camera_can_send_is_dropped_before_it_waits_for_others():
    setup = Setup()
    setup.intake.add_camera_info("front", serialize_message(info()))
    bomb = image(100 * SECOND) + bytes(4 << 20)  # 640 x 400 pixels of 8 bytes and 1 MiB are 3,096,576 bytes
    setup.intake.add("front", bomb, False)
    assert setup.intake.statistics()["front"].received == 0
    assert setup.said == [
        f"camera 'front': image message dropped: it has {len(bomb)} bytes; expected at most 3096576, by its camera_info"
    ]
    setup.intake.add("back", bomb, False)  # not known to be too large: no camera_info yet
    assert setup.intake.statistics()["back"].received == 1
    setup.intake.add("back", bytes(image(101 * SECOND)) + bytes(64 << 20), False)
    assert setup.intake.statistics()["back"].received == 1


def test_the_size_of_an_image_is_looked_at_before_anything_is_read_from_it():
    setup = Setup(cameras=("front",))
    setup.intake.add("front", b"\xff" * ((64 << 20) + 1), False)  # its header cannot be read either
    assert len(setup.said) == 1 and "it has 67108865 bytes; expected at most 67108864" in setup.said[0]


def test_an_image_with_a_frame_id_as_long_as_a_book_is_dropped_with_the_camera_and_the_remedy():
    setup = Setup(cameras=("front",))
    setup.intake.add("front", image(100 * SECOND, "x" * 1001), False)
    assert setup.intake.statistics()["front"].received == 0
    assert setup.said == [
        "camera 'front': image message dropped: its frame_id has 1001 characters; expected at most 1000; "
        "repair the camera's driver"
    ]
    setup.intake.add("front", image(100 * SECOND, "x" * 1000), False)
    assert setup.intake.statistics()["front"].received == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"d": [0.0] * 8192}, " bytes; expected at most 65536; repair its publisher"),
        (
            {"header": Header(frame_id="x" * 1001)},
            "its frame_id has 1001 characters; expected at most 1000; repair the camera's driver",
        ),
    ],
)
def test_a_camera_info_larger_than_any_camera_needs_is_refused_and_leaves_the_last_good_one(fields, named):
    setup = Setup()
    assert setup.intake.add_camera_info("front", serialize_message(info()))
    good = setup.intake.calibrations["front"]
    assert not setup.intake.add_camera_info("front", serialize_message(info(**fields)))
    assert setup.intake.calibrations["front"] is good
    assert setup.said[0].startswith("camera 'front': camera_info on front/camera_info: it") and named in setup.said[0]
    assert not setup.intake.add_camera_info("front", serialize_message(info()))  # the good one is still in force


def test_images_that_a_looping_recording_leaves_behind_are_no_wrong_clocks():
    """The clock jumps from 109 s back to 100 s; images of the end come after it, later one that really is ahead."""
    setup = Setup(clock_ns=109 * SECOND)
    setup.intake.add("front", image(109 * SECOND), False)
    setup.clock_ns = 100 * SECOND
    for stamp in (109 * SECOND, 109 * SECOND + SECOND // 2):
        setup.intake.add("back", image(stamp), False)
    assert setup.said == [] and len(setup.events) == 1 and "before the clock's jump" in setup.events[0]
    assert setup.intake.statistics()["back"].received == 0
    setup.intake.add("back", image(111 * SECOND), False)  # further than anything before the jump
    assert len(setup.said) == 1 and "11.000 s ahead" in setup.said[0]


def test_long_after_a_jump_an_image_that_is_ahead_is_one_of_a_wrong_clock(monkeypatch):
    monkeypatch.setattr("renderocc_ros.input.intake.LEFTOVERS", 0.0)
    setup = Setup(cameras=("front",), clock_ns=109 * SECOND)
    setup.intake.add("front", image(109 * SECOND), False)
    setup.clock_ns = 100 * SECOND
    setup.intake.add("front", image(109 * SECOND), False)
    assert len(setup.said) == 1 and "9.000 s ahead" in setup.said[0] and "synchronise" in setup.said[0]
