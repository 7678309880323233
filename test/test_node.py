"""The real node in its own process, fed and heard through ordinary messages; bad input, one kind after the other.

One node lives through the whole file: that it survives each fault and works again afterwards is part of every claim.
"""

import json
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import OccupancyGrid
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger
from system import (
    LATCHED,
    Listener,
    Program,
    new_domain,
    node_command,
    noise_cameras,
    pixels_of,
    stamp_message,
    stamp_ns,
    transform_message,
    untrained_network,
    wait_until,
)
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

pytestmark = pytest.mark.system

CAMERAS = ("front", "left", "back")
SECOND = 1_000_000_000


class System:
    """Node, listener and rig on one domain; `frame()` publishes one frame and waits for its points."""

    def __init__(self, save_directory, checkpoint) -> None:
        domain = new_domain()
        self.node = Program(
            node_command(
                {
                    "cameras": CAMERAS,
                    "image_topic": "/{camera}/image_raw",
                    "camera_info_topic": "/{camera}/camera_info",
                    "camera_timeout": 1.0,
                    "diagnostics_period": 0.2,
                    "save_directory": save_directory,
                    "checkpoint": checkpoint,
                    "min_camera": 2,
                }
            ),
            domain,
        )
        self.domain = domain
        self.listener = Listener(domain)
        self.cameras = noise_cameras(self.listener, CAMERAS)
        listen = self.listener.listen
        self.points = listen(PointCloud2, "/renderocc/points")
        self.markers = listen(MarkerArray, "/renderocc/markers")
        self.grid = listen(OccupancyGrid, "/renderocc/grid", LATCHED)
        self.classes = listen(String, "/renderocc/classes", LATCHED)
        self.semantic = listen(Image, "/renderocc/rendered/front/semantic")
        self.depth = listen(Image, "/renderocc/rendered/front/depth")
        self.rendered_info = listen(CameraInfo, "/renderocc/rendered/front/camera_info")
        self.diagnostics = listen(DiagnosticArray, "/diagnostics")
        self.node.expect("active: 3 cameras", 90)
        wait_until(
            lambda: self.cameras.subscribers("raw", "back") and self.cameras.subscribers("tf"),
            10,
            "subscriptions",
        )
        wait_until(lambda: self.listener.node.count_subscribers("/renderocc/points") == 1, 10, "discovery")
        time.sleep(1.0)  # both sides of every match
        self.cameras.send_mounts()

    def now(self) -> int:
        return time.time_ns() - 200_000_000

    def frame(self, timeout: float = 40.0, leave_out: tuple = ()) -> int:
        """Publish one good frame and wait until its points are there. Returns its stamp."""
        stamp = self.now()
        self.cameras.frame(stamp, leave_out)
        wait_until(
            lambda: any(stamp_ns(message) == stamp for message in list(self.points)), timeout, f"points of {stamp}"
        )
        return stamp

    def status(self, name: str) -> DiagnosticStatus:
        """The newest status of this name."""
        return next(status for status in self.diagnostics[-1].status if status.name == f"renderocc: {name}")

    def expect_status(self, name: str, text: str, timeout: float = 5.0) -> DiagnosticStatus:
        wait_until(lambda: self.diagnostics and text in self.status(name).message, timeout, f"{name} saying {text!r}")
        return self.status(name)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    running = System(tmp_path_factory.mktemp("saved"), untrained_network(tmp_path_factory.mktemp("network")))
    running.saved = None
    yield running
    assert running.node.alive, "the node died:\n" + "\n".join(running.node.lines[-30:])
    status = running.node.stop()
    running.listener.close()
    assert status == 0, "\n".join(running.node.lines[-30:])


@pytest.fixture(autouse=True)
def works_again_afterwards(system):
    """Whatever a test did to it: the node lives, and the next good frame is published."""
    yield
    assert system.node.alive
    system.frame()


# ---- what it publishes -----------------------------------------------------------------------------------------------


def test_every_frame_comes_out_on_every_topic_with_the_anchors_stamp(system):
    stamps = []
    for _ in range(5):
        stamps.append(system.frame())
        # Views are drawn after the cloud is out, and not where the next frame waits already.
        for name in ("points", "grid", "semantic", "depth"):
            wait_until(lambda: {stamp_ns(message) for message in getattr(system, name)} >= set(stamps), 5, name)
    wait_until(lambda: {stamp_ns(message.markers[0]) for message in system.markers} >= set(stamps), 5, "markers")
    assert all(message.header.frame_id == "base_link" for message in [*system.points, *system.grid])
    assert all(message.header.frame_id == "front_optical" for message in [*system.semantic, *system.depth])


def test_points_lie_on_voxel_centres_inside_the_grid(system):
    system.frame()
    message = system.points[-1]
    assert [(field.name, field.offset) for field in message.fields] == [
        ("x", 0),
        ("y", 4),
        ("z", 8),
        ("rgb", 12),
        ("confidence", 16),
        ("label", 20),
    ]
    dtype = np.dtype([("xyz", "<f4", 3), ("rgb", "<u4"), ("confidence", "<f4"), ("label", "<u4")])
    points = np.frombuffer(message.data, dtype)
    assert len(points) == message.width > 0
    lower, upper = np.array([-20, -20, -1]), np.array([20, 20, 5.4])
    assert ((points["xyz"] > lower) & (points["xyz"] < upper)).all()
    steps = (points["xyz"] - lower) / 0.4 - 0.5  # centres are half a voxel from the corner
    assert np.abs(steps - steps.round()).max() < 1e-4
    assert ((points["confidence"] > 0) & (points["confidence"] <= 1)).all() and points["label"].max() < 17


def test_markers_are_one_list_of_cubes_of_voxel_size(system):
    system.frame()
    (marker,) = system.markers[-1].markers
    assert (marker.type, marker.action) == (Marker.CUBE_LIST, Marker.ADD)
    assert len(marker.points) == len(marker.colors) == min(system.points[-1].width, 50_000)
    assert marker.scale.x == pytest.approx(0.4)


def test_the_grid_is_unknown_where_no_camera_looks(system):
    system.frame()
    grid = system.grid[-1]
    assert (grid.info.width, grid.info.height, grid.info.resolution) == (100, 100, pytest.approx(0.4))
    assert (grid.info.origin.position.x, grid.info.origin.position.y) == (-20.0, -20.0)
    cells = np.array(grid.data).reshape(100, 100)  # [y, x]
    assert set(np.unique(cells)) <= {-1, 0, 100}
    # Cameras look forward, left and backward with 80 degrees each: straight to the right nobody looks.
    assert (cells[:40, 50] == -1).all()


def test_classes_are_latched_for_whoever_comes_late(system):
    late = system.listener.listen(String, "/renderocc/classes", QoSProfile(depth=1, durability=LATCHED.durability))
    wait_until(lambda: late, 5, "the latched class table")
    table = json.loads(late[-1].data)
    assert table["classes"][4] == {"id": 4, "name": "car", "color": table["classes"][4]["color"], "dynamic": True}
    assert (table["free"], table["unknown"]) == (17, 255)


def test_rendered_views_have_a_ray_for_every_fourth_pixel(system):
    system.frame()
    wait_until(lambda: system.depth and system.semantic, 5, "rendered views")
    assert (system.semantic[-1].width, system.semantic[-1].height, system.semantic[-1].encoding) == (88, 32, "rgb8")
    assert (system.depth[-1].width, system.depth[-1].height, system.depth[-1].encoding) == (88, 32, "32FC1")


def test_the_camera_info_beside_rendered_views_has_their_stamp_size_and_frame(system):
    """image_transport's subscriber to a camera pairs an image with the camera_info beside it, by the exact stamp."""
    stamp = system.frame()
    wait_until(lambda: any(stamp_ns(info) == stamp for info in system.rendered_info), 5, "its camera_info")
    info = next(info for info in system.rendered_info if stamp_ns(info) == stamp)
    wait_until(lambda: any(stamp_ns(depth) == stamp for depth in system.depth), 5, "its depth")
    depth = next(depth for depth in system.depth if stamp_ns(depth) == stamp)
    assert (info.width, info.height, info.header) == (depth.width, depth.height, depth.header)


@pytest.fixture
def front_compressed(system):
    """The front camera publishes only compressed images; afterwards raw ones again."""
    system.cameras.unplug("raw", "front")
    wait_until(lambda: system.cameras.subscribers("compressed", "front") == 1, 10, "subscription to compressed images")
    time.sleep(0.7)
    yield
    wait_until(lambda: system.cameras.subscribers("raw", "front") == 1, 10, "subscription to raw images")
    wait_until(lambda: system.cameras.subscribers("compressed", "front") == 0, 10, "end of the compressed subscription")
    time.sleep(0.5)


def send_compressed(system, data: bytes) -> int:
    """A frame whose front image is a CompressedImage of this data. Returns its stamp."""
    stamp = system.now()
    system.cameras.send_odom(stamp + 50_000_000)
    system.cameras.send_infos(stamp)
    for camera in ("left", "back"):
        system.cameras.send_image(camera, stamp)
    message = CompressedImage(format="jpeg", data=data)
    message.header.stamp, message.header.frame_id = stamp_message(stamp), "front_optical"
    system.cameras.publisher("compressed", "front").publish(message)
    wait_until(lambda: any(stamp_ns(points) == stamp for points in system.points), 40, "points")
    return stamp


def test_where_raw_images_end_compressed_ones_are_taken_and_corrupt_ones_named(system, front_compressed):
    import cv2

    jpeg = cv2.imencode(".jpg", pixels_of(system.cameras.image_message("front", 0)))[1].tobytes()
    stamp = send_compressed(system, jpeg)
    wait_until(lambda: any(stamp_ns(image) == stamp for image in system.depth), 5, "the front camera's rendered view")
    for data, line in ((jpeg[: len(jpeg) // 2], "JPEG"), (b"no image at all", "image")):
        stamp = send_compressed(system, data)
        system.node.expect(f"camera 'front': .*{line}")
        time.sleep(0.3)
        assert not any(stamp_ns(image) == stamp for image in system.depth)


def frames_in_the_map(system) -> int:
    return int({value.key: value.value for value in system.status("map").values}["frames"])


def test_save_writes_the_current_volume_and_says_where(system):
    stamp = system.frame()
    wait_until(lambda: frames_in_the_map(system) > 0, 5, "a map")
    answer = system.listener.call(Trigger, "/renderocc/save")
    assert answer.success, answer.message
    npz, ply, map_npz, map_ply = answer.message.split()
    assert npz.endswith(f"{stamp}.npz") and ply.endswith(f"{stamp}.ply")
    assert map_npz.endswith(f"{stamp}_map.npz") and map_ply.endswith(f"{stamp}_map.ply")
    assert np.load(npz)["semantics"].shape == (100, 100, 16)
    assert np.load(map_npz)["semantics"].shape == (116, 116, 18)  # 8 voxels more on each side, and 1 above and below


# ---- the map ---------------------------------------------------------------------------------------------------------


def test_the_map_is_published_in_odom_once_someone_listens_and_can_be_reset(system, request):
    listener = Listener(system.domain, "map_listener")  # of this test alone: without listeners nothing is built
    request.addfinalizer(listener.close)
    listen = listener.listen
    points = listen(PointCloud2, "/renderocc/map/points")
    grids = listen(OccupancyGrid, "/renderocc/map/grid", LATCHED)
    updates = listen(pytest.importorskip("map_msgs.msg").OccupancyGridUpdate, "/renderocc/map/grid_updates")
    markers = listen(MarkerArray, "/renderocc/map/markers")
    for name in ("points", "markers", "grid", "grid_updates"):
        topic = f"/renderocc/map/{name}"
        wait_until(lambda topic=topic: listener.node.count_publishers(topic) == 1, 10, f"{topic} on the graph")
    time.sleep(1.0)  # both sides of every match
    stamp = system.frame()
    wait_until(lambda: all(any(stamp_ns(one) == stamp for one in got) for got in (points, grids)), 10, "the map")
    wait_until(lambda: markers, 10, "the map's markers")
    assert points[-1].header.frame_id == grids[-1].header.frame_id == "odom" == markers[-1].markers[0].header.frame_id
    info, cells = grids[-1].info, np.array(grids[-1].data)
    assert (info.width, info.height) == (116, 116) and info.resolution == pytest.approx(0.4)
    assert {-1} < set(cells.tolist()) <= {-1, 0, 100}
    for _ in range(3):
        system.frame()
    # Another grid at the latest after a second; between them updates, within the grid, each with all its cells.
    for update in updates:
        assert update.header.frame_id == "odom" and len(update.data) == update.width * update.height > 0
        assert 0 <= update.x and update.x + update.width <= 116 and 0 <= update.y and update.y + update.height <= 116
    wait_until(lambda: frames_in_the_map(system) >= 4, 5, "four frames in the map")
    assert system.listener.call(Trigger, "/renderocc/map/reset").success
    system.frame()

    wait_until(lambda: frames_in_the_map(system) in (1, 2), 5, "the new map")


def test_the_maps_memory_can_change_while_running_and_its_size_cannot(system):
    def change(name: str, value: float) -> tuple[bool, str]:
        return set_parameter(system, name, type=ParameterType.PARAMETER_DOUBLE, double_value=value)

    assert change("map.dynamic_decay", 0.5) == (True, "")
    accepted, reason = change("map.size", 20.0)
    assert not accepted and "map.size can be set only while the node is unconfigured" in reason
    assert not change("map.memory", 1.5)[0]


def test_reset_forgets_tf_and_the_next_frame_comes(system):
    answer = system.listener.call(Trigger, "/renderocc/reset")
    assert answer.success
    system.node.expect("starting afresh: asked by ~/reset")


def test_diagnostics_name_rate_age_and_latency_of_every_part(system):
    system.frame()
    time.sleep(0.5)
    names = {status.name for status in system.diagnostics[-1].status}
    assert {f"renderocc: camera {camera}" for camera in CAMERAS} | {"renderocc: latency", "renderocc: frames"} <= names
    latency = {value.key: value.value for value in system.status("latency").values}
    assert {"waiting", "placement", "decode", "network", "publish", "total"} <= set(latency)
    camera = {value.key: value.value for value in system.status("camera left").values}
    assert (
        camera["calibration"] == "320x200 plumb_bob"
        and camera["rate"].endswith("Hz")
        and float(camera["age"].split()[0]) < 5
    )
    assert "UNTRAINED" in system.status("network").message


# ---- bad input: one clear line with the name and the remedy, then on -------------------------------------------------


def bend(system, change) -> int:
    """Send a frame whose front image was changed by `change(message)`; the other images are good. Returns its stamp."""
    stamp = system.now()
    system.cameras.send_odom(stamp + 50_000_000)
    system.cameras.send_infos(stamp)
    for camera in ("left", "back"):
        system.cameras.send_image(camera, stamp)
    message = system.cameras.image_message("front", stamp)
    system.cameras.publisher("raw", "front").publish(change(message) or message)
    return stamp


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("step", 7, "camera 'front': step is 7 bytes but a row of 320 rgb8 pixels takes 960"),
        ("step", 1000, r"camera 'front': image data is 192000 bytes but 200 rows of step 1000 are 200000"),
        ("encoding", "magic8", "camera 'front': encoding is 'magic8'; expected one of"),
        ("width", 160, "camera 'front': image is 160x200 but camera_info says 320x200; publish a matching camera_info"),
        ("height", 100, "camera 'front': image data is 192000 bytes but 100 rows of step 960 are 96000"),
    ],
)
def test_a_bent_image_is_named_and_the_other_cameras_are_used(system, field, value, line):
    stamp = bend(system, lambda message: setattr(message, field, value))
    wait_until(lambda: any(stamp_ns(points) == stamp for points in system.points), 40, "points of the other cameras")
    time.sleep(0.3)
    diagnostic = system.expect_status("camera front", line.split("camera 'front': ")[1][:20])
    assert diagnostic.level >= DiagnosticStatus.WARN


def test_the_log_names_the_camera_with_a_bent_image_once_in_a_while(system):
    for _ in range(5):
        bend(system, lambda message: setattr(message, "step", 7))
        time.sleep(0.3)
    assert system.node.count("camera 'front': step is 7 bytes") <= 2


def test_a_truncated_message_is_dropped_and_named(system):
    from rclpy.serialization import serialize_message

    bend(system, lambda message: serialize_message(message)[:5000])
    system.node.expect(r"camera 'front': .*(needs|bytes|truncated)")


def test_a_stamp_of_zero_is_named(system):
    bend(system, lambda message: setattr(message.header, "stamp", stamp_message(0)))
    system.node.expect("camera 'front': image dropped: its stamp is zero; the driver must fill header.stamp")


def test_a_stamp_from_the_future_is_named(system):
    system.frame()
    system.cameras.send_image("front", time.time_ns() + 3600 * SECOND)
    system.node.expect(
        r"camera 'front': image dropped: its stamp is 3[56]\d\d\.\d+ s ahead of the node's clock; synchronise"
    )


@pytest.mark.parametrize(
    ("k", "line"), [([0.0] * 9, "K is all zeros"), ([float("nan")] * 9, "camera_info on /front/camera_info: K")]
)
def test_an_impossible_calibration_is_named_and_the_last_good_one_kept(system, k, line):
    message = system.cameras.info_message("front", system.now())
    message.k = k
    system.cameras.publisher("camera_info", "front").publish(message)
    system.node.expect(f"camera 'front': camera_info on /front/camera_info: .*{line.split(': ')[-1]}")


def test_a_calibration_of_another_size_is_named_until_it_fits_again(system):
    stamp = system.now()
    message = system.cameras.info_message("front", stamp)
    message.width, message.k[0], message.k[2] = 640, 384.0, 319.5
    system.cameras.send_odom(stamp + 50_000_000)
    system.cameras.publisher("camera_info", "front").publish(message)
    time.sleep(0.1)
    for camera in CAMERAS:
        system.cameras.send_image(camera, stamp)
    system.node.expect("camera 'front': image is 320x200 but camera_info says 640x200; publish a matching camera_info")


def test_a_silent_camera_is_named_and_the_others_go_on(system):
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        system.frame(leave_out=("left",))
        time.sleep(0.1)
    status = system.expect_status("camera left", "silent for")
    assert status.level == DiagnosticStatus.ERROR
    cells = np.array(system.grid[-1].data).reshape(100, 100)
    assert (cells[60:, 50] == -1).all(), "what only the silent camera saw is unknown, not free"


def test_a_dead_anchor_is_stood_in_for(system):
    deadline = time.monotonic() + 20  # it takes 2.5; a busy computer gets its time
    before = len(system.points)
    while len(system.points) <= before + 2 and time.monotonic() < deadline:
        system.cameras.frame(system.now(), leave_out=("front",))
        time.sleep(0.2)
    assert len(system.points) > before + 2
    system.expect_status("frames", "stands in for the anchor camera 'front'")


def test_a_transform_with_nan_is_refused_and_named(system):
    system.cameras.publisher("tf_static").publish(
        TFMessage(transforms=[transform_message("base_link", "front_optical", 1, (float("nan"), 0.0, 0.0))])
    )
    system.node.expect("TF: transform from 'front_optical' to 'base_link' ignored: .*NaN")
    system.cameras.send_mounts()  # the latched message of a late subscriber is a good one again


def test_without_odometry_the_node_says_so_and_uses_the_mounts(system):
    system.listener.call(Trigger, "/renderocc/reset")
    stamp = system.now()
    system.cameras.send_infos(stamp)
    for camera in CAMERAS:
        system.cameras.send_image(camera, stamp)
    wait_until(lambda: any(stamp_ns(points) == stamp for points in system.points), 40, "points without odometry")
    system.node.expect("ego motion: using the static mounts")
    system.expect_status("tf", "static mounts are used")


def test_an_unknown_parameter_is_named_with_the_nearest_known_one(system):
    system.node.expect("unknown parameter 'min_camera' has no effect; did you mean 'min_cameras'?")


# ---- parameters and lifecycle ----------------------------------------------------------------------------------------


def set_parameter(system, name: str, **value) -> tuple[bool, str]:
    parameter = Parameter(name=name, value=ParameterValue(**value))
    (result,) = system.listener.call(
        SetParameters, "/renderocc/set_parameters", SetParameters.Request(parameters=[parameter])
    ).results
    return result.successful, result.reason


def test_parameters_are_described_with_their_ranges(system):
    request = DescribeParameters.Request(names=["max_wait", "min_cameras", "device"])
    wait, least, device = system.listener.call(
        DescribeParameters, "/renderocc/describe_parameters", request
    ).descriptors
    assert (wait.floating_point_range[0].from_value, wait.floating_point_range[0].to_value) == (0.0, 5.0)
    assert (least.integer_range[0].from_value, least.integer_range[0].to_value) == (1, 64)
    assert "auto, cpu, cuda" in device.additional_constraints and "CUDA" in device.description


def test_the_cap_on_markers_can_change_while_running(system):
    assert set_parameter(system, "max_markers", type=ParameterType.PARAMETER_INTEGER, integer_value=7) == (True, "")
    system.frame()
    wait_until(lambda: len(system.markers[-1].markers[0].points) == 7, 5, "seven cubes")
    set_parameter(system, "max_markers", type=ParameterType.PARAMETER_INTEGER, integer_value=50_000)


def test_what_is_read_at_configuration_is_refused_while_running_with_the_way_to_change_it(system):
    done, reason = set_parameter(system, "base_frame", type=ParameterType.PARAMETER_STRING, string_value="other")
    assert not done and "lifecycle" in reason


def test_a_value_that_contradicts_another_is_refused(system):
    done, reason = set_parameter(system, "grid_min_height", type=ParameterType.PARAMETER_DOUBLE, double_value=3.0)
    assert not done and "grid_min_height" in reason


def test_the_whole_lifecycle_twice(system):
    def change(transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert system.listener.call(ChangeState, "/renderocc/change_state", request, timeout=60).success

    for _ in range(2):
        change(Transition.TRANSITION_DEACTIVATE)
        before = len(system.points)
        system.cameras.frame(system.now())
        time.sleep(0.7)
        assert len(system.points) == before, "inactive nodes publish nothing"
        change(Transition.TRANSITION_CLEANUP)
        change(Transition.TRANSITION_CONFIGURE)
        change(Transition.TRANSITION_ACTIVATE)
        wait_until(
            lambda: (
                system.listener.call(GetState, "/renderocc/get_state", timeout=60).current_state.id
                == State.PRIMARY_STATE_ACTIVE
            ),
            60,
            "active again",
        )
        wait_until(
            lambda: system.cameras.subscribers("raw", "back") and system.cameras.subscribers("tf_static"),
            10,
            "subscriptions",
        )
        time.sleep(1.0)


# ---- time that jumps -------------------------------------------------------------------------------------------------


def test_when_stamps_go_back_everything_starts_afresh_and_goes_on(system):
    """As when a bag loops: 20 s back, for all cameras and /tf."""
    system.frame()
    past = system.now() - 20 * SECOND
    for index in range(4):
        system.cameras.frame(past + index * 300_000_000)
        time.sleep(0.4)
    wait_until(
        lambda: any(stamp_ns(message) == past + 900_000_000 for message in list(system.points)),
        40,
        "points of the past",
    )
    system.node.expect(r"starting afresh: image stamps went back by (19|20)\.\d s \(a bag loop\?\)")
    # And forward again: a jump ahead is only a gap.
    system.frame()
