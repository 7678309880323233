"""Copies of a recording as other vehicles write them: in a namespace with prefixed frames; odometry as a topic."""

import shutil

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from town import STORE

NAMESPACE, PREFIX, ODOMETRY = "/veh1", "veh1/", "/odometry/filtered"
# What an owner of the vehicle writes into its parameter file.
NAMESPACED = {
    "image_topic": f"{NAMESPACE}/{{camera}}/image_raw",
    "camera_info_topic": f"{NAMESPACE}/{{camera}}/camera_info",
    "tf_topic": f"{NAMESPACE}/tf",
    "tf_static_topic": f"{NAMESPACE}/tf_static",
    "frame_prefix": PREFIX,
}
TF, ODOMETRY_TYPE = "tf2_msgs/msg/TFMessage", "nav_msgs/msg/Odometry"


def as_namespaced(bag, out):
    """Every topic in a namespace. The frames in TF have a prefix, those that images and clouds name have none."""

    def change(topic, kind, data):
        if kind == TF:
            message = STORE.deserialize_cdr(data, kind)
            for item in message.transforms:
                item.header.frame_id = PREFIX + item.header.frame_id
                item.child_frame_id = PREFIX + item.child_frame_id
            data = STORE.serialize_cdr(message, kind).tobytes()
        return NAMESPACE + topic, kind, data

    return _written(bag, out, change)


def as_odometry(bag, out, child="base_link"):
    """The poses of base_link in odom as nav_msgs/Odometry, and nothing of them in TF."""
    make = STORE.types

    def change(topic, kind, data):
        if topic != "/tf":
            return topic, kind, data
        (item,) = STORE.deserialize_cdr(data, kind).transforms
        place, turn = item.transform.translation, item.transform.rotation
        pose = make["geometry_msgs/msg/Pose"](make["geometry_msgs/msg/Point"](place.x, place.y, place.z), turn)
        zero = make["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
        twist = make["geometry_msgs/msg/Twist"](zero, zero)
        message = make[ODOMETRY_TYPE](
            item.header,
            child,
            make["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
            make["geometry_msgs/msg/TwistWithCovariance"](twist, np.zeros(36)),
        )
        return ODOMETRY, ODOMETRY_TYPE, STORE.serialize_cdr(message, ODOMETRY_TYPE).tobytes()

    return _written(bag, out, change)


def _written(bag, out, change):
    """A copy in which `change` makes (topic, type, bytes) of (topic, type, bytes)."""
    topics = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with Reader(bag) as reader, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for connection, stamp, data in reader.messages():
            topic, kind, data = change(connection.topic, connection.msgtype, data)
            if topic not in topics:
                qos = connection.ext.offered_qos_profiles
                topics[topic] = writer.add_connection(topic, kind, typestore=STORE, offered_qos_profiles=qos)
            writer.write(topics[topic], stamp, data)
    shutil.copytree(bag / "occupancy", out / "occupancy")
    return out
