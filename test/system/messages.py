"""Stamps and transforms as messages."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

__all__ = ["LATCHED", "SECOND", "stamp_message", "stamp_ns", "transform_message"]

SECOND = 1_000_000_000  # nanoseconds
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)


def stamp_message(stamp: int) -> Time:
    """Of nanoseconds."""
    return Time(sec=stamp // SECOND, nanosec=stamp % SECOND)


def stamp_ns(message) -> int:
    """The header's stamp in nanoseconds."""
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


def transform_message(
    parent: str, child: str, stamp: int, translation=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0)
) -> TransformStamped:
    """parent_from_child at a stamp in nanoseconds; metres, and a quaternion (x, y, z, w)."""
    message = TransformStamped(child_frame_id=child)
    message.header.stamp, message.header.frame_id = stamp_message(stamp), parent
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, translation)
    q.x, q.y, q.z, q.w = map(float, quaternion)
    return message
