"""The real node on real recordings, fed by `renderocc replay`, heard by typed subscriptions; and what it computes."""

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from realdata import REALDATA, needs_realdata
from scipy.spatial.transform import Rotation, Slerp
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import String
from system import LATCHED, Listener, Program, new_domain, node_command, stamp_ns, untrained_network, wait_until
from visualization_msgs.msg import MarkerArray

from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.placement import place_cameras
from renderocc_ros.input.discovery import cameras_on_graph
from renderocc_ros.parameters import NodeConfig

pytestmark = [needs_realdata, pytest.mark.realdata]
ABSOLUTE = NodeConfig(image_topic="/{camera}/image_raw", camera_info_topic="/{camera}/camera_info")
SECOND = 1_000_000_000


def cameras_of(bag: Bag) -> tuple[str, ...]:
    return cameras_on_graph([(topic.name, [topic.type]) for topic in bag.topics.values()], ABSOLUTE, "/")


def image_stamps(bag: Bag, camera: str) -> list[int]:
    return [cdr.read_header(buffer)[0] for _, _, buffer in bag.messages([f"/{camera}/image_raw/compressed"])]


def recorded_transforms(bag: Bag) -> tuple[TransformBuffer, list]:
    """A buffer with all of the recording's transforms, and the same as a list."""
    buffer, transforms = TransformBuffer(history=1000.0), []
    for topic, _, message in bag.messages(["/tf", "/tf_static"]):
        for transform in cdr.read_tf(message):
            buffer.set(
                transform.parent,
                transform.child,
                transform.stamp_ns,
                transform.translation,
                transform.quaternion,
                topic == "/tf_static",
            )
            transforms.append((transform, topic == "/tf_static"))
    return buffer, transforms


class Replayed:
    """A node that has heard a whole recording, and everything that it published."""

    def __init__(self, name: str, **parameters) -> None:
        with Bag(REALDATA / name) as bag:
            self.cameras = cameras_of(bag)
            self.stamps = {camera: image_stamps(bag, camera) for camera in self.cameras}
        domain = new_domain()
        fixed = {
            "cameras": self.cameras,
            "image_topic": ABSOLUTE.image_topic,
            "camera_info_topic": ABSOLUTE.camera_info_topic,
        }
        self.node = Program(
            node_command({**fixed, "use_sim_time": True, "diagnostics_period": 0.2, **parameters}), domain
        )
        self.listener = Listener(domain)
        listen = self.listener.listen
        self.points = listen(PointCloud2, "/renderocc/points")
        self.markers = listen(MarkerArray, "/renderocc/markers")
        self.grid = listen(OccupancyGrid, "/renderocc/grid")
        self.classes = listen(String, "/renderocc/classes", LATCHED)
        self.diagnostics = listen(DiagnosticArray, "/diagnostics")
        self.rendered = {
            (camera, kind): listen(Image, f"/renderocc/rendered/{camera}/{kind}")
            for camera in self.cameras
            for kind in ("semantic", "depth")
        }
        self.node.expect("active", 90)
        wait_until(lambda: self.listener.node.count_publishers("/renderocc/points") == 1, 10, "discovery")
        time.sleep(1.0)
        replay = Program(["-m", "renderocc_model.cli", "replay", REALDATA / name, "--clock", "--rate", "0.4"], domain)
        assert replay.process.wait(90) == 0, "\n".join(replay.lines)
        anchor_stamps = self.stamps[self.cameras[0]]
        wait_until(lambda: len(self.points) >= len(anchor_stamps), 40, f"{len(anchor_stamps)} point clouds")
        time.sleep(1.5)

    def close(self) -> None:
        assert self.node.stop() == 0
        self.listener.close()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Untrained: nobody says what a network of the town should see on these roads, but something it must."""
    return untrained_network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def ddad(network):
    replayed = Replayed("ddad_6cam", checkpoint=network)
    yield replayed
    replayed.close()


@pytest.fixture(scope="module")
def fisheye(network):
    replayed = Replayed("fisheye_4cam", checkpoint=network)
    yield replayed
    replayed.close()


def test_every_frame_of_six_cameras_comes_out_on_every_topic_with_the_anchors_stamp(ddad):
    stamps = ddad.stamps[ddad.cameras[0]]
    assert len(stamps) == 3 and len(ddad.cameras) == 6
    assert [stamp_ns(message) for message in ddad.points] == stamps
    assert [stamp_ns(message) for message in ddad.grid] == stamps
    assert [stamp_ns(message.markers[0]) for message in ddad.markers] == stamps
    assert len(ddad.classes) == 1
    for (camera, kind), images in ddad.rendered.items():
        assert [stamp_ns(image) for image in images] == ddad.stamps[camera], f"{camera} {kind}"


def test_points_of_the_recording_lie_inside_the_grid(ddad):
    for message in ddad.points:
        xyz = np.frombuffer(message.data, np.float32).reshape(-1, 6)[:, :3]
        assert message.header.frame_id == "base_link" and len(xyz) > 0
        assert (xyz > [-20, -20, -1]).all() and (xyz < [20, 20, 5.4]).all()


def test_under_the_vehicle_and_behind_what_is_seen_the_grid_is_unknown(ddad):
    for message in ddad.grid:
        cells = np.array(message.data).reshape(message.info.height, message.info.width)
        assert (cells == -1).any() and (cells != -1).any()
        assert cells[50, 50] == -1, "the cell under the vehicle's roof, where no camera looks"


def test_all_six_cameras_are_used_and_nothing_is_complained_about(ddad):
    last = ddad.diagnostics[-1]
    frames = next(status for status in last.status if status.name.endswith("frames"))
    used = next(value.value for value in frames.values if value.key == "cameras in the last one")
    assert used.split(", ") == list(ddad.cameras)
    assert ddad.node.count("WARN") == 0, "\n".join(ddad.node.lines)


def test_fisheye_cameras_of_two_sizes_work(fisheye):
    assert len(fisheye.cameras) == 4
    assert [stamp_ns(message) for message in fisheye.points] == fisheye.stamps[fisheye.cameras[0]]
    assert all(len(images) == 1 for images in fisheye.rendered.values())
    calibrations = {
        value.value
        for status in fisheye.diagnostics[-1].status
        for value in status.values
        if value.key == "calibration"
    }
    assert len(calibrations) == 2 and all(text.endswith("equidistant") for text in calibrations)


def matrix(translation, rotation: Rotation) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation.as_matrix(), translation
    return result


def test_each_camera_of_the_keyframe_stands_where_the_vehicle_was_at_its_own_stamp():
    """Against SciPy's interpolation of the recorded poses, for a keyframe whose cameras differ by up to 43 ms."""
    with Bag(REALDATA / "nuscenes_keyframe") as bag:
        cameras = cameras_of(bag)
        stamps = {camera: image_stamps(bag, camera)[0] for camera in cameras}
        frames = {camera: f"{camera}" for camera in cameras}
        for topic, _, buffer in bag.messages([f"/{camera}/image_raw/compressed" for camera in cameras]):
            frames[topic.split("/")[1]] = cdr.read_header(buffer)[1]
        buffer, transforms = recorded_transforms(bag)
    assert len(cameras) == 6 and max(stamps.values()) - min(stamps.values()) > 0.04 * SECOND

    ego = sorted((t for t, static in transforms if not static and t.child == "base_link"), key=lambda t: t.stamp_ns)
    times = np.array([t.stamp_ns - ego[0].stamp_ns for t in ego]) * 1e-9
    slerp = Slerp(times, Rotation.from_quat([t.quaternion for t in ego]))
    positions = np.array([t.translation for t in ego])

    def odom_from_base(stamp_ns: int) -> np.ndarray:
        at = (stamp_ns - ego[0].stamp_ns) * 1e-9
        return matrix([np.interp(at, times, positions[:, axis]) for axis in range(3)], slerp(at))

    anchor = "cam_front"
    placements = place_cameras(
        buffer, {camera: (frames[camera], stamps[camera]) for camera in cameras}, stamps[anchor], "base_link", "odom"
    )
    shifts = []
    for camera in cameras:
        mount_message = next(t for t, static in transforms if static and t.child == frames[camera])
        mount = matrix(mount_message.translation, Rotation.from_quat(mount_message.quaternion))
        expected = np.linalg.inv(odom_from_base(stamps[anchor])) @ odom_from_base(stamps[camera]) @ mount
        assert np.abs(placements.base_from_camera[camera] - expected).max() < 1e-6, camera
        shifts.append(np.linalg.norm(placements.base_from_camera[camera][:3, 3] - mount[:3, 3]))
    assert max(shifts) > 0.05, "the vehicle moved between the stamps, so a placement that ignores it is wrong"
    assert shifts[cameras.index(anchor)] < 1e-12
