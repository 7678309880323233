"""The topics of a recording that hold LiDAR data: messages that are read, and others that have to be converted."""

from __future__ import annotations

from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag

__all__ = ["CLOUD_TYPES", "POINT_CLOUD", "other_lidars", "read_cloud"]

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
_LIVOX = tuple(f"{package}/msg/CustomMsg" for package in ("livox_ros_driver2", "livox_ros_driver", "livox_interfaces"))
CLOUD_TYPES = (POINT_CLOUD, *_LIVOX)
# A part of the name of a package or type, and what makes PointCloud2 of it.
_CONVERTERS = (
    ("livox", "publish PointCloud2 with the Livox driver (xfer_format 0), or convert the messages while replaying"),
    ("velodyne", "replay the recording with velodyne_pointcloud's transform node, and record its PointCloud2"),
    ("ouster", "replay the recording with ouster_ros (replay.launch), and record its PointCloud2"),
    ("hesai", "replay the recording with the Hesai driver, and record its PointCloud2"),
    ("rslidar", "replay the recording with rslidar_sdk, and record its PointCloud2"),
    ("robosense", "replay the recording with rslidar_sdk, and record its PointCloud2"),
    ("nebula", "replay the recording with Nebula, and record its PointCloud2"),
    ("pandar", "replay the recording with Nebula, and record its PointCloud2"),
    ("sensor_msgs/msg/LaserScan", "a scan in one plane labels hardly a pixel"),
    ("sensor_msgs/msg/MultiEchoLaserScan", "a scan in one plane labels hardly a pixel"),
    ("sensor_msgs/msg/PointCloud", "convert it to PointCloud2 while replaying"),
)


def read_cloud(kind: str, data: bytes) -> cdr.PointCloudMessage:
    """A serialised message of one of `CLOUD_TYPES`.

    Raises:
        MessageError: the bytes are cut short or are not such a message.
    """
    return cdr.read_livox(data) if kind in _LIVOX else cdr.read_point_cloud(data)


def other_lidars(bag: Bag) -> str:
    """The LiDAR topics that cannot be read, with their types and what to do, as text; empty if there are none."""
    found = []
    for topic in bag.topics.values():
        if topic.type in CLOUD_TYPES or not topic.count:
            continue
        for name, remedy in _CONVERTERS:
            known = name == topic.type if "/" in name else name in topic.type.split("/")[0].lower()
            if known:
                found.append(f"{topic.name} holds {topic.type.split('/')[-1]} ({topic.type}): {remedy}")
                break
    return "; ".join(found)
