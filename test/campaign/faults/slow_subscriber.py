"""A subscriber that cannot keep up: takes every output of the node, reliably, and sleeps over each message.

usage: python -m campaign.faults.slow_subscriber SECONDS CAMERA...
"""

from __future__ import annotations

import sys
import time

DEPTH = 1000


def main(seconds: float, cameras: list[str]) -> None:
    import rclpy
    from nav_msgs.msg import OccupancyGrid
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image, PointCloud2
    from visualization_msgs.msg import MarkerArray

    rclpy.init()
    node = rclpy.create_node("slow_subscriber", start_parameter_services=False)
    topics = [("points", PointCloud2), ("markers", MarkerArray), ("grid", OccupancyGrid)]
    topics += [(f"rendered/{camera}/{kind}", Image) for camera in cameras for kind in ("semantic", "depth")]
    for topic, kind in topics:
        node.create_subscription(kind, f"/renderocc/{topic}", lambda _: time.sleep(seconds), QoSProfile(depth=DEPTH))
    print("listening", flush=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
