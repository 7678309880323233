"""The topics of a recording that hold LiDAR data in other messages than PointCloud2."""

from __future__ import annotations

from renderocc_model.rosio.bags import Bag

__all__ = ["POINT_CLOUD", "other_lidars"]

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
# A part of the name of a package or type, and what makes PointCloud2 of it.
_CONVERTERS = (
    ("livox", "publish PointCloud2 with the Livox driver (xfer_format 0), or convert the messages while replaying"),
    ("velodyne", "replay the recording with velodyne_pointcloud's transform node, and record its PointCloud2"),
    ("ouster", "replay the recording with ouster_ros (replay.launch), and record its PointCloud2"),
    ("hesai", "replay the recording with the Hesai driver, and record its PointCloud2"),
    ("rslidar", "replay the recording with rslidar_sdk, and record its PointCloud2"),
    ("nebula", "replay the recording with Nebula, and record its PointCloud2"),
    ("pandar", "replay the recording with Nebula, and record its PointCloud2"),
    ("sensor_msgs/msg/LaserScan", "a scan in one plane labels hardly a pixel"),
    ("sensor_msgs/msg/MultiEchoLaserScan", "a scan in one plane labels hardly a pixel"),
    ("sensor_msgs/msg/PointCloud", "convert it to PointCloud2 while replaying"),
)


def other_lidars(bag: Bag) -> str:
    """The LiDAR topics that are not PointCloud2, with their types and what to do, as text; empty if there are none."""
    found = []
    for topic in bag.topics.values():
        if topic.type == POINT_CLOUD or not topic.count:
            continue
        for name, remedy in _CONVERTERS:
            known = name == topic.type if "/" in name else name in topic.type.split("/")[0].lower()
            if known:
                found.append(f"{topic.name} holds {topic.type.split('/')[-1]} ({topic.type}): {remedy}")
                break
    return "; ".join(found)
