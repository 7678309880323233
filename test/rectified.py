"""Recordings of ideal cameras written as those of rectified pictures: same pixels, another camera_info and TF."""

import shutil
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.geometry.transforms import quaternion_from_matrix, transform_from

STORE = get_typestore(Stores.ROS2_JAZZY)
TURNED = cv2.Rodrigues(np.array([0.03, -0.06, 0.04]))[0]  # R: 4.5 degrees, the two cameras of a stereo pair differ so
RAW_K = np.array([[0.8, 0, 0], [0, 0.8, 0], [0, 0, 1]])  # times K: that of the raw picture


def as_rectified(bag, out, name="image_rect"):
    """A copy of a recording whose pictures are those of rectified cameras, on /CAMERA/NAME/compressed.

    K, D and the frame in TF become those of a raw camera that sees them turned, closer and distorted; P and R say how
    the pictures came from it.
    """
    with Reader(bag) as reader, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        out_of = {}
        for connection in reader.connections:
            topic = connection.topic.replace("/image_raw", f"/{name}")
            qos = connection.ext.offered_qos_profiles
            out_of[connection.topic] = writer.add_connection(
                topic, connection.msgtype, typestore=STORE, offered_qos_profiles=qos
            )
        for connection, when, raw in reader.messages():
            if connection.topic.endswith("/camera_info"):
                raw = _rectified_info(raw, connection.msgtype)
            elif connection.topic == "/tf_static":
                raw = _turned_mounts(raw, connection.msgtype)
            writer.write(out_of[connection.topic], when, raw)
    if (Path(bag) / "occupancy").is_dir():
        shutil.copytree(Path(bag) / "occupancy", Path(out) / "occupancy")
    return out


def _rectified_info(raw, kind):
    info = STORE.deserialize_cdr(raw, kind)
    K = info.k.reshape(3, 3)
    info.p = np.hstack([K, np.zeros((3, 1))]).ravel()
    info.r = TURNED.ravel()
    info.k = (RAW_K @ K).ravel()
    info.d = np.array([-0.3, 0.1, 0.001, -0.002, 0.0])
    return STORE.serialize_cdr(info, kind)


def _turned_mounts(raw, kind):
    """The frames of cameras turned: what was their optical frame is that of the rectified picture, R times theirs."""
    message = STORE.deserialize_cdr(raw, kind)
    for item in message.transforms:
        if "cam" not in item.child_frame_id:
            continue
        rotation, place = item.transform.rotation, item.transform.translation
        mount = transform_from((place.x, place.y, place.z), (rotation.x, rotation.y, rotation.z, rotation.w))
        numbers = quaternion_from_matrix(mount[:3, :3] @ TURNED)
        rotation.x, rotation.y, rotation.z, rotation.w = map(float, numbers)
    return STORE.serialize_cdr(message, kind)
