"""One frame from message bytes to occupancy, with the real network, the real TF buffer and real messages."""

import sys
import time

import cv2
import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from small_models import small_config
from system import MOUNTS, stamp_message

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.geometry.transforms import transform_from
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.preprocessing import view_from_rgb
from renderocc_model.inference.device_decoding import DeviceDecoder
from renderocc_model.inference.predictor import Predictor
from renderocc_model.network.checkpoint import Checkpoint
from renderocc_model.network.network import build_network
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.decoding import ViewTables, decode_view, decode_view_on_device
from renderocc_ros.frame.pipeline import MOST_WAITS_IN_VAIN, FramePipeline
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.calibrations import Calibration
from renderocc_ros.input.intake import CameraImage
from renderocc_ros.input.matcher import MatchedSet
from renderocc_ros.parameters import NodeConfig

torch.set_num_threads(2)

SECOND = 1_000_000_000
START = 100 * SECOND
IDENTITY = (0.0, 0.0, 0.0, 1.0)
WIDTH, HEIGHT = 320, 200
K = np.array([[192.0, 0.0, 159.5], [0.0, 192.0, 99.5], [0.0, 0.0, 1.0]])
MODEL = CameraModel(WIDTH, HEIGHT, K, "plumb_bob", (0.0,) * 5)
PICTURE = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


def raw(picture=PICTURE, encoding: str = "rgb8", frame_id: str = "front_optical", **fields) -> CameraImage:
    """A raw Image of this picture, with these fields changed afterwards."""
    height, width = picture.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=picture.nbytes // height)
    message.header.stamp, message.header.frame_id = stamp_message(START), frame_id
    message.data = picture.tobytes()
    for name, value in fields.items():
        setattr(message, name, value)
    return CameraImage(serialize_message(message), False, frame_id, time.monotonic())


def compressed(data: bytes, frame_id: str = "front_optical") -> CameraImage:
    message = CompressedImage(format="png", data=data)
    return CameraImage(serialize_message(message), True, frame_id, time.monotonic())


def png(picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()  # OpenCV writes what it takes for blue first


# ---- tables ---------------------------------------------------------------------------------------------------------


def pitched(degrees: float) -> np.ndarray:
    """A camera that looks along the vehicle's x, turned down by so many degrees."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    mount = np.eye(4)
    mount[:3, :3] = [[0, -sine, cosine], [-1, 0, 0], [0, -cosine, -sine]]
    return mount


def test_a_table_is_kept_while_calibration_and_mount_stay():
    tables = ViewTables(64, 96)
    first = tables.of("front", MODEL, pitched(0))
    again = CameraModel(WIDTH, HEIGHT, K.copy(), "plumb_bob", (0.0,) * 5)  # the same numbers in another message
    assert tables.of("front", again, pitched(0)) is first
    moved = pitched(0)
    moved[:3, 3] = 5.0, 1.0, 2.0  # where the camera is does not change its horizon
    assert tables.of("front", MODEL, moved) is first


def test_a_new_calibration_makes_a_new_table():
    tables = ViewTables(64, 96)
    first = tables.of("front", MODEL, pitched(0))
    new = CameraModel(WIDTH, HEIGHT, K * [[1.1], [1.1], [1.0]], "plumb_bob", (0.0,) * 5)
    second = tables.of("front", new, pitched(0))
    assert second is not first and second.model == new
    assert tables.of("front", new, pitched(0)) is second


def test_a_turned_mount_makes_a_new_table_and_a_trembling_one_does_not():
    tables = ViewTables(32, 96)
    first = tables.of("front", MODEL, pitched(0))
    assert tables.of("front", MODEL, pitched(1.0)) is first  # 1 degree is 0.0175
    assert tables.of("front", MODEL, pitched(1.3)) is not first  # 0.0227 from where the table was made
    down = tables.of("front", MODEL, pitched(10))
    # A camera that looks down has its horizon higher up: the view's optical axis lies lower in it.
    assert down.view == network_view(MODEL, 32, 96, pitched(10)) and down.view.K[1, 2] > first.view.K[1, 2]


def test_each_camera_has_a_table_of_its_own():
    tables = ViewTables(64, 96)
    left, right = tables.of("left", MODEL, pitched(0)), tables.of("right", MODEL, pitched(0))
    assert left is not right and tables.of("left", MODEL, pitched(0)) is left


# ---- decoding -------------------------------------------------------------------------------------------------------

TABLE = UndistortTable(MODEL, network_view(MODEL, 64, 96))


@pytest.mark.parametrize(
    "image",
    [raw(), raw(PICTURE[:, :, ::-1], "bgr8"), compressed(png())],
    ids=["rgb8", "bgr8", "png"],
)
def test_every_way_to_send_a_picture_gives_the_same_view(image):
    view = decode_view(image, TABLE)
    assert view.shape == (64, 96, 3) and view.dtype == np.uint8
    np.testing.assert_array_equal(view, view_from_rgb(TABLE, PICTURE))


@pytest.mark.parametrize("image", [raw(), compressed(png()), raw(encoding="bgr8")], ids=["rgb8", "png", "bgr8"])
def test_a_view_decoded_to_a_device_is_that_of_the_cpu(image):
    """The CPU stands for the device; `test_resample` compares the kernels."""
    out, said = torch.zeros(64, 96, 3, dtype=torch.uint8), []
    decoder = DeviceDecoder("cpu", lambda *words: said.append(words), decode_jpeg=lambda data: None)
    decode_view_on_device(image, TABLE, decoder, "front", out)
    np.testing.assert_array_equal(out.numpy(), decode_view(image, TABLE))
    assert [camera for camera, _ in said] == (["front"] if image.compressed else [])


@pytest.mark.parametrize("image", [raw(PICTURE[:100]), compressed(png(PICTURE[:100]))], ids=["raw", "compressed"])
def test_a_picture_of_another_size_than_the_calibration_is_refused_with_both_sizes(image):
    expected = "image is 320x100 but camera_info says 320x200; publish a matching camera_info"
    with pytest.raises(ValueError, match=expected):
        decode_view(image, TABLE)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (raw(step=7), "step is 7 bytes"),
        (raw(data=b"123"), "image data is 3 bytes"),
        (CameraImage(raw().buffer[:100], False, "front_optical", 0.0), "bytes"),
        (compressed(png()[:2000]), "PNG"),
        (compressed(b"no picture"), "JPEG"),
    ],
    ids=["step", "too little data", "truncated message", "truncated picture", "no picture"],
)
def test_bytes_that_are_no_picture_are_refused_with_the_reason(image, reason):
    with pytest.raises(ValueError, match=reason):
        decode_view(image, TABLE)


def test_an_unknown_encoding_is_refused_with_the_known_ones_where_there_is_no_cv_bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # the import fails, also where it is installed
    with pytest.raises(ValueError, match="encoding is 'magic8'; expected one of rgb8, .*, or install cv_bridge"):
        decode_view(raw(encoding="magic8"), TABLE)


# cv_bridge comes with a whole ROS install and not from a package index: what is tried here is how its answers and
# failures are taken, with a module of the same names.
CV_BRIDGE = """
class CvBridgeError(TypeError):
    pass

class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        import numpy
        assert encoding == "rgb8"
        if message.encoding == "known_to_it":
            return numpy.frombuffer(message.data, numpy.uint8).reshape(message.height, message.width, 3)
        if message.encoding == "clash":
            raise ImportError("numpy.core.multiarray failed to import")
        raise CvBridgeError("Unrecognized image encoding [" + message.encoding + "]")
"""


@pytest.fixture
def stand_in_cv_bridge(tmp_path, monkeypatch):
    (tmp_path / "cv_bridge.py").write_text(CV_BRIDGE)
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("cv_bridge", None)


def test_an_encoding_that_cv_bridge_knows_is_read_by_it(stand_in_cv_bridge):
    np.testing.assert_array_equal(decode_view(raw(encoding="known_to_it"), TABLE), view_from_rgb(TABLE, PICTURE))


@pytest.mark.parametrize(
    ("encoding", "reason"), [("magic8", "Unrecognized image encoding"), ("clash", "numpy.core.multiarray failed")]
)
def test_what_cv_bridge_cannot_convert_is_refused_with_its_reason_also_where_it_clashes_with_numpy(
    stand_in_cv_bridge, encoding, reason
):
    with pytest.raises(ValueError, match=rf"encoding is '{encoding}' and cv_bridge cannot convert it \(.*{reason}"):
        decode_view(raw(encoding=encoding), TABLE)


# ---- whole frames ---------------------------------------------------------------------------------------------------

CAMERAS = ("front", "left", "back")


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    return Predictor.untrained("tiny", device="cpu")


class RecordingTransforms(TransformBuffer):
    """A TransformBuffer that notes how long it was asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float] = []

    def wait_for(self, target: str, source: str, stamp_ns: int, timeout: float) -> np.ndarray:
        self.timeouts.append(timeout)
        return super().wait_for(target, source, stamp_ns, timeout)


class Setup:
    """A pipeline and what it is fed: mounts of `system.MOUNTS`, a vehicle at 10 m/s along odom's x, calibrations."""

    def __init__(self, predictor: Predictor, **parameters) -> None:
        self.said: list[str] = []
        self.times = StageTimes()
        self.transforms = RecordingTransforms()
        self.config = NodeConfig(cameras=CAMERAS, **{"tf_timeout": 0.01, **parameters})
        self.pipeline = FramePipeline(
            self.config, CAMERAS, predictor, self.transforms, ThrottledLog(self.said.append), self.times
        )
        for camera in CAMERAS:
            self.transforms.set("base_link", f"{camera}_optical", 0, *MOUNTS[camera], static=True)
        self.calibrations = {camera: Calibration(MODEL, f"{camera}_optical") for camera in CAMERAS}
        self.images = {camera: raw(frame_id=f"{camera}_optical") for camera in CAMERAS}
        self.stamps = {camera: START + index * 40_000_000 for index, camera in enumerate(CAMERAS)}  # 40 ms apart

    def drive(self, until_ns: int = START + SECOND) -> None:
        for stamp_ns in range(START - SECOND // 2, until_ns + 1, SECOND // 10):
            self.transforms.set("odom", "base_link", stamp_ns, ((stamp_ns - START) * 1e-8, 0.0, 0.0), IDENTITY)

    def process(self, missing: dict[str, str] | None = None, later_ns: int = 0):
        missing = missing or {}
        entries = {
            camera: (self.stamps[camera] + later_ns, self.images[camera]) for camera in CAMERAS if camera not in missing
        }
        return self.pipeline.process(MatchedSet(START + later_ns, "front", entries, missing, 0.0), self.calibrations)


@pytest.fixture
def setup(tiny):
    made = Setup(tiny)
    made.drive()
    yield made
    made.pipeline.close()


@pytest.fixture(scope="module")
def small() -> Predictor:
    return Predictor.untrained(small_config("tiny"), device="cpu")


@pytest.fixture
def quick(small):
    """For what is decided before the network: a thousandth of it."""
    made = Setup(small)
    yield made
    made.pipeline.close()


def test_a_frame_becomes_occupancy_with_each_camera_where_it_was_at_its_own_stamp(setup, tiny):
    frame = setup.process()
    assert frame.used == CAMERAS and frame.missing == {} and frame.ego_motion_missing == "" and setup.said == []
    assert (frame.stamp_ns, frame.anchor, frame.stamps) == (START, "front", setup.stamps)
    assert frame.arrival == max(image.arrival for image in setup.images.values())
    assert frame.optical_frames == {camera: f"{camera}_optical" for camera in CAMERAS}
    # At 10 m/s the left camera's image is taken 40 ms and 0.4 m further on, the back camera's 80 ms and 0.8 m.
    x = [frame.base_from_camera[camera][0, 3] for camera in CAMERAS]
    assert x == pytest.approx([1.5, 1.0 + 0.4, -0.5 + 0.8])
    assert frame.occupancy.grid == tiny.grid and frame.occupancy.occupied.any()
    assert frame.occupancy.unknown.any()  # nobody looks to the right
    assert all((view.height, view.width) == tiny.view_size for view in frame.views.values())
    assert list(setup.times.percentiles()) == ["placement", "decode", "network"]


def test_the_occupancy_is_what_the_network_says_of_these_pictures(setup, tiny):
    """The same result by the way without ROS."""
    frame = setup.process()
    tables = [UndistortTable(MODEL, frame.views[camera]) for camera in CAMERAS]
    views = np.stack([view_from_rgb(table, PICTURE) for table in tables])
    expected = tiny.predict(views, tables, np.stack([frame.base_from_camera[camera] for camera in CAMERAS]))
    np.testing.assert_array_equal(frame.occupancy.semantics, expected.semantics)


def test_images_decoded_to_the_networks_device_give_the_same_occupancy_and_the_same_warnings(setup):
    """The CPU stands for the device."""
    expected = setup.process()
    setup.pipeline._device_decoder = DeviceDecoder("cpu", print, decode_jpeg=lambda data: None)
    frame = setup.process()
    assert frame.used == CAMERAS
    np.testing.assert_array_equal(frame.occupancy.semantics, expected.occupancy.semantics)
    setup.images["back"] = compressed(png()[:2000], "back_optical")
    frame = setup.process()
    assert frame.used == ("front", "left") and frame.missing["back"].startswith("PNG")


def test_decoding_on_a_device_that_the_network_is_not_on_is_refused(small):
    with pytest.raises(ValueError, match="image_decoding is 'cuda' but the network runs on 'cpu'; set device"):
        Setup(small, image_decoding="cuda")


def test_each_camera_that_cannot_be_used_is_named_with_the_reason_and_the_others_go_in(setup):
    del setup.calibrations["left"]
    setup.images["back"] = compressed(png()[:2000], "back_optical")
    frame = setup.process()
    assert frame.used == ("front",) and frame.occupancy is not None
    assert frame.missing["left"] == "no usable camera_info yet on left/camera_info"
    assert frame.missing["back"].startswith("PNG")
    assert sorted(line.split(":")[0] for line in setup.said) == ["camera 'back'", "camera 'left'"]
    assert set(frame.views) == set(frame.base_from_camera) == set(frame.stamps) == {"front"}


def test_the_rig_is_compared_with_that_of_the_training_by_where_cameras_look_once_all_have_mounts():
    """As `renderocc doctor`: not with the camera whose field of view is nearest, which here is that of another side."""
    larger = CameraModel(2 * WIDTH, 2 * HEIGHT, np.array(K) * 2 - np.diag([0, 0, 1.0]), "plumb_bob", (0.0,) * 5)
    models = {"ahead": ("front", MODEL), "side": ("left", larger), "behind": ("back", MODEL)}
    trained = Rig(
        tuple(Camera(name, model, transform_from(*MOUNTS[camera])) for name, (camera, model) in models.items())
    )
    network = build_network(small_config("tiny"))
    made = Setup(Predictor(Checkpoint(network, OCC3D_NUSCENES, 0.3, trained.summary(), {}), device="cpu"))
    made.drive()
    try:
        made.process(missing={"left": "no image"})
        assert not [line for line in made.said if line.startswith("checkpoint")]
        made.process()
        made.process()
        said = [line for line in made.said if line.startswith("checkpoint")]
        assert said == ["checkpoint: camera 'left' (compared with 'side'): image 320x200, trained 640x400"]
    finally:
        made.pipeline.close()


def test_a_camera_that_no_transform_places_is_named_with_the_remedy(quick):
    quick.drive()
    quick.images["left"] = raw(frame_id="nowhere")
    frame = quick.process()
    assert frame.used == ("front", "back")
    assert frame.missing["left"].startswith('cannot be placed: "nowhere"')
    assert frame.missing["left"].endswith("publish its mount on /tf_static, or set the parameter 'mounts'")


def test_a_camera_that_no_transform_places_is_placed_by_the_parameter(tiny):
    made = Setup(tiny, mounts=("left: 1 2 3 0 0 0",), odom_frame="")
    made.images["left"] = raw(frame_id="nowhere")
    frame = made.process()
    made.pipeline.close()
    assert frame.used == CAMERAS
    assert frame.base_from_camera["left"][:3, 3].tolist() == [1.0, 2.0, 3.0]


def test_a_mount_that_cannot_be_true_is_named_and_used(quick):
    quick.drive()
    assert not quick.process().missing and quick.said == []
    quick.transforms.set("base_link", "left_body", 0, (1.0, 0.5, 1.5), IDENTITY, static=True)
    quick.images["left"] = raw(frame_id="left_body")
    assert quick.process().used == CAMERAS
    (line,) = quick.said
    assert line.startswith("camera 'left': looks into the sky, 90 degrees up, as if its frame were that of the camera")
    assert "set the parameter 'camera_frame' or 'mounts'" in line


def test_a_lens_that_sees_nothing_ahead_costs_only_its_own_camera(quick):
    """Its principal point lies so far beside the picture that all of it looks more than 55 degrees to the side."""
    # The leftmost pixel is 300 px from the axis, at atan(300 / 150) = 63 degrees.
    beside = np.array([[150.0, 0.0, -300.0], [0.0, 150.0, 99.5], [0.0, 0.0, 1.0]])
    lens = CameraModel(WIDTH, HEIGHT, beside, "plumb_bob", (0.0,) * 5)
    quick.drive()
    quick.calibrations["left"] = Calibration(lens, "left_optical")
    frame = quick.process()
    assert frame.used == ("front", "back")
    assert "sees nothing within 55 degrees" in frame.missing["left"]
    assert quick.said[0].startswith("camera 'left': ")


def test_what_the_matcher_missed_stays_named(quick):
    quick.drive()
    frame = quick.process(missing={"left": "silent for 3.0 s"})
    assert frame.missing == {"left": "silent for 3.0 s"} and frame.used == ("front", "back")


def test_images_without_a_frame_id_get_the_one_of_their_calibration(quick):
    quick.drive()
    quick.images["left"] = raw(frame_id="")
    frame = quick.process()
    assert frame.used == CAMERAS and frame.optical_frames["left"] == "left_optical"


def test_below_min_cameras_the_network_is_not_asked(tiny):
    made = Setup(tiny, min_cameras=3)
    made.drive()
    del made.calibrations["left"]
    frame = made.process()
    made.pipeline.close()
    assert frame.occupancy is None and frame.used == ("front", "back")
    assert "network" not in made.times.percentiles()


def test_without_one_usable_camera_there_is_no_occupancy(setup):
    setup.calibrations = {}
    frame = setup.process()
    assert frame.occupancy is None and frame.used == () and set(frame.missing) == set(CAMERAS)


def test_a_reset_forgets_the_previous_frame():
    predictor = Predictor.untrained(small_config("tiny", "fusion.enabled=true"), device="cpu")
    made = Setup(predictor)
    made.drive()
    first, second = made.process(), made.process(later_ns=SECOND // 2)
    made.pipeline.reset()
    third = made.process()
    made.pipeline.close()
    assert not np.array_equal(second.occupancy.confidence, first.occupancy.confidence)
    np.testing.assert_allclose(third.occupancy.confidence, first.occupancy.confidence, atol=1e-5)


# ---- jumps of the ego pose ------------------------------------------------------------------------------------------


def drive_with_jump(made: Setup, at_ns: int) -> None:
    """10 m/s along odom's x, a pose every 20 ms from half a second before START; from a time on 40 m to the left."""
    for stamp_ns in range(START - SECOND // 2, START + SECOND, SECOND // 50):
        place = ((stamp_ns - START) * 1e-8, 40.0 * (stamp_ns >= at_ns), 0.0)
        made.transforms.set("odom", "base_link", stamp_ns, place, IDENTITY)


def test_cameras_are_not_placed_across_a_jump_of_the_ego_pose_which_is_named(quick):
    drive_with_jump(quick, START + 60_000_000)  # the images of a frame are 0, 40 and 80 ms after its stamp
    frame = quick.process()
    assert [frame.base_from_camera[camera][:2, 3].tolist() for camera in CAMERAS] == [[1.5, 0], [1.0, 0.5], [-0.5, 0]]
    assert frame.odom_from_base is None
    assert "jumps: moves 40.00 m within 0.020 s" in frame.ego_motion_missing
    (line,) = quick.said
    # Poses of START + 40 ms and START + 60 ms, 40 m to the left and 0.2 m ahead.
    assert line.startswith("ego pose: at 100.060 s it jumps: moves 40.00 m within 0.020 s")
    assert quick.pipeline.jumps.count == 1


def test_frames_on_one_side_of_a_jump_are_placed_by_their_ego_motion(quick):
    drive_with_jump(quick, START + 300_000_000)
    before, after = quick.process(), quick.process(later_ns=400_000_000)
    for frame in (before, after):  # 10 m/s for 40 ms
        assert frame.base_from_camera["left"][:2, 3] == pytest.approx([1.4, 0.5])
    assert before.jump is None and after.jump.after_ns == START + 300_000_000
    assert after.odom_from_base[:2, 3] == pytest.approx([4.0, 40.0]) and after.ego_motion_missing == ""
    assert quick.process(later_ns=500_000_000).jump is None


def test_a_volume_from_before_a_jump_is_not_joined():
    made = Setup(Predictor.untrained(small_config("tiny", "fusion.enabled=true"), device="cpu"))
    drive_with_jump(made, START + 300_000_000)
    first, second = made.process(), made.process(later_ns=100_000_000)
    third, fourth = made.process(later_ns=400_000_000), made.process(later_ns=500_000_000)
    made.pipeline.close()
    alone = first.occupancy.confidence
    np.testing.assert_allclose(third.occupancy.confidence, alone, atol=1e-5)
    assert not np.allclose(second.occupancy.confidence, alone, atol=1e-5)
    assert not np.allclose(fourth.occupancy.confidence, alone, atol=1e-5)


def test_a_reset_forgets_the_jumps(quick):
    drive_with_jump(quick, START + 300_000_000)
    quick.process(), quick.process(later_ns=400_000_000)
    assert len(quick.pipeline.jumps.jumps) == 1
    quick.transforms.clear()
    quick.pipeline.reset()
    quick.drive()
    assert quick.process().jump is None and len(quick.pipeline.jumps.jumps) == 0


# ---- waiting for the ego pose ---------------------------------------------------------------------------------------


def test_without_odometry_the_static_mounts_are_used_and_the_reason_is_said(quick):
    frame = quick.process()
    assert frame.used == CAMERAS and '"odom"' in frame.ego_motion_missing
    assert [frame.base_from_camera[camera][0, 3] for camera in CAMERAS] == [1.5, 1.0, -0.5]
    (line,) = quick.said
    assert line.startswith("ego motion: using the static mounts, so cameras of a moving vehicle disagree: ")


def test_no_odom_frame_is_a_choice_and_not_complained_about(tiny):
    made = Setup(tiny, odom_frame="", min_cameras=3)
    del made.calibrations["left"]
    made.process()
    made.pipeline.close()
    assert made.transforms.timeouts == [] and len(made.said) == 1 and made.said[0].startswith("camera 'left'")


def test_after_some_waits_in_vain_frames_do_not_wait_until_there_is_odometry(quick):
    for _ in range(5):
        quick.process()
    assert quick.transforms.timeouts == [0.01] * MOST_WAITS_IN_VAIN + [0.0, 0.0]
    quick.drive()
    frame = quick.process()
    assert quick.transforms.timeouts[-1] == 0.01 and frame.ego_motion_missing == ""


def test_frames_wait_for_odometry_that_started_late_and_comes_a_little_after_the_images(quick):
    """Its newest pose is always older than the newest image: only a frame that waits can be placed by it."""
    for _ in range(5):
        quick.process()
    for index in range(1, 6):
        later_ns = index * SECOND // 10
        quick.drive(until_ns=START + later_ns)  # reaches the anchor's stamp, not those of the other cameras
        quick.transforms.timeouts.clear()
        quick.process(later_ns=later_ns)
        assert quick.transforms.timeouts == [0.01]


def test_when_odometry_ends_frames_stop_waiting_after_some(quick):
    quick.drive(until_ns=START)
    for index in range(1, 7):
        quick.process(later_ns=index * SECOND)
    assert quick.transforms.timeouts == [0.01] * MOST_WAITS_IN_VAIN + [0.0] * 3
