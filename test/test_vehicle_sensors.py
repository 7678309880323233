"""Several LiDARs, LiDARs that are not in TF, replaying a vehicle alone, and transforms on other topics of a graph."""

import numpy as np
import pytest
from disguised_vehicle import NAMESPACED, as_namespaced
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile
from system import Listener, new_domain, wait_until
from tf2_msgs.msg import TFMessage
from town import STORE, rewritten

from renderocc_model.rosio.bags import BagError
from renderocc_model.rosio.vehicle import Vehicle
from renderocc_ros.commands.replay import main as replay
from renderocc_ros.commands.replay import vehicle_topics
from renderocc_ros.input.discovery import transforms_elsewhere
from renderocc_ros.parameters import NodeConfig
from training.label import main as label
from training.recordings.frames import Recording

pytestmark = pytest.mark.slow

CLOUD, LIDAR = "sensor_msgs/msg/PointCloud2", "/lidar/points"
CAMERAS = ("cam_back", "cam_back_left", "cam_back_right", "cam_front", "cam_front_left", "cam_front_right")


@pytest.fixture(scope="module")
def plain(town_bag, tmp_path_factory):
    return depths(town_bag, tmp_path_factory.mktemp("plain") / "labels")


def depths(bag, out, *options):
    """{(camera, stamp): depth}, as `label` writes it."""
    assert label([str(bag), "--out", str(out), "--jobs", "1", *options]) == 0
    with Recording(bag, out) as recording:
        return {(one, at): recording.depth(one, at) for one in recording.cameras for at in recording.stamps[one]}


def halves(topic, when, data):
    """The points of a cloud by turns on two topics."""
    if topic != LIDAR:
        return [(topic, when, data)]
    written = []
    for number, name in enumerate(("/lidar/left", "/lidar/right")):
        message = STORE.deserialize_cdr(data, CLOUD)
        points = message.data.reshape(-1, message.point_step)[number::2]
        message.data, message.height, message.width = points.reshape(-1), 1, len(points)
        message.row_step = message.point_step * len(points)
        written.append((name, when, STORE.serialize_cdr(message, CLOUD).tobytes()))
    return written


def test_two_lidars_label_as_the_one_whose_points_they_share(town_bag, plain, tmp_path, capsys):
    bag = rewritten(town_bag, tmp_path / "two", halves, types={"/lidar/left": CLOUD, "/lidar/right": CLOUD})
    both = depths(bag, tmp_path / "both", "--lidar", "/lidar/left", "/lidar/right")
    one = depths(bag, tmp_path / "one", "--lidar", "/lidar/left")
    assert both.keys() == plain.keys()
    for key, depth in plain.items():
        np.testing.assert_array_equal(both[key], depth)
    labelled = [sum((depth > 0).sum() for depth in of.values()) for of in (one, plain)]
    assert 0.3 < labelled[0] / labelled[1] < 0.8  # every second point, and nearer points hide fewer of them
    capsys.readouterr()
    assert label([str(bag), "--out", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert "/lidar/left" in said and "/lidar/right" in said and "--lidar" in said


def without_frame(frame):
    def change(topic, when, data):
        if topic != "/tf_static":
            return [(topic, when, data)]
        message = STORE.deserialize_cdr(data, "tf2_msgs/msg/TFMessage")
        message.transforms = [item for item in message.transforms if item.child_frame_id != frame]
        return [(topic, when, STORE.serialize_cdr(message, "tf2_msgs/msg/TFMessage").tobytes())]

    return change


def test_a_lidar_that_is_not_in_tf_is_placed_by_mounts(town_bag, plain, tmp_path, capsys):
    with Recording(town_bag) as recording:
        (cloud,) = {STORE.deserialize_cdr(data, CLOUD).header.frame_id for data in clouds(recording)}
        pose = recording.transforms.lookup("base_link", cloud, recording.stamps["cam_front"][0])
    yaw, pitch = np.arctan2(pose[1, 0], pose[0, 0]), np.arcsin(-pose[2, 0])
    roll = np.arctan2(pose[2, 1], pose[2, 2])
    bag = rewritten(town_bag, tmp_path / "unmounted", without_frame(cloud))
    assert label([str(bag), "--out", str(tmp_path / "none")]) == 2
    assert cloud in capsys.readouterr().err
    numbers = " ".join(f"{number:.9f}" for number in (*pose[:3, 3], roll, pitch, yaw))
    mounted = depths(bag, tmp_path / "mounted", "--mounts", f"{LIDAR}: {numbers}")
    assert mounted.keys() == plain.keys()
    for key, depth in plain.items():
        assert (np.abs(mounted[key] - depth) < 0.0015).mean() > 0.999, key  # depth is written in whole millimetres


def clouds(recording):
    return [data for topic, _, data in recording.bag.messages() if topic == LIDAR]


def test_only_the_topics_of_the_vehicle_are_replayed(town_bag, tmp_path, capsys):
    other = rewritten(town_bag, tmp_path / "plain", halves, types={"/lidar/left": CLOUD, "/lidar/right": CLOUD})
    bag = as_namespaced(other, tmp_path / "drive")
    found = vehicle_topics(bag, Vehicle(**NAMESPACED))
    images = {f"/veh1/{camera}/image_raw/compressed" for camera in CAMERAS}
    infos = {f"/veh1/{camera}/camera_info" for camera in CAMERAS}
    assert set(found) == images | infos | {"/veh1/tf", "/veh1/tf_static"}
    named = Vehicle(**NAMESPACED, cameras=("cam_front",), lidar_topics=("/veh1/lidar/left",))
    front = {"/veh1/cam_front/image_raw/compressed", "/veh1/cam_front/camera_info", "/veh1/lidar/left"}
    assert set(vehicle_topics(bag, named)) == front | {"/veh1/tf", "/veh1/tf_static"}
    with pytest.raises(BagError, match="no camera can be used"):
        vehicle_topics(bag, Vehicle(image_topic="/other/{camera}/image"))
    assert replay([str(bag), "--only-vehicle", "--image-topic", "/other/{camera}/image"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--image-topic" in said


def test_transforms_and_odometry_on_other_topics_of_the_graph_are_named():
    listener = Listener(new_domain())
    try:
        node, config = listener.node, NodeConfig()
        assert transforms_elsewhere(node, config, ego_motion=False) == ""
        qos = QoSProfile(depth=1)
        moving = node.create_publisher(TFMessage, "/veh1/tf", qos)
        node.create_publisher(TFMessage, "/veh1/tf_static", qos)
        node.create_publisher(Odometry, "/odometry/filtered", qos)
        wait_until(lambda: node.count_publishers("/odometry/filtered"), 10, "the publishers")
        said = transforms_elsewhere(node, config, ego_motion=False)
        assert "nothing publishes /tf, but transforms are on /veh1/tf: set the parameter tf_topic" in said
        assert "/tf_static:=/veh1/tf_static" in said and "/odometry/filtered: set the parameter odom_topic" in said
        moving.publish(TFMessage(transforms=[TransformStamped()]))
        # What the parameters name, and ego motion that has come, are no news.
        given = NodeConfig(tf_topic="/veh1/tf", tf_static_topic="/veh1/tf_static")
        assert transforms_elsewhere(node, given, ego_motion=True) == ""
        assert "odom_topic" in transforms_elsewhere(node, given, ego_motion=False)
        node.create_publisher(TFMessage, "/tf", qos)
        wait_until(lambda: node.count_publishers("/tf"), 10, "the publisher")
        assert "publishes /tf," not in transforms_elsewhere(node, config, ego_motion=True)
    finally:
        listener.close()
