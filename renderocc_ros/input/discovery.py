"""Which cameras are on the ROS graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from renderocc_model.rosio import camera_search
from renderocc_model.rosio.camera_search import FoundCameras
from renderocc_model.rosio.transform_topics import ODOMETRY, TRANSFORMS, other_topics
from renderocc_model.rosio.vehicle import MOST_CAMERAS
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.parameters import NodeConfig

if TYPE_CHECKING:
    from rclpy.node import Node

__all__ = ["CameraSearch", "cameras_now", "cameras_on_graph", "find_cameras", "found_on_graph", "transforms_elsewhere"]


def find_cameras(node: Node, config: NodeConfig) -> FoundCameras:
    """The cameras that the node can use now.

    Raises:
        ValueError: there is none, or there are more than `MOST_CAMERAS`.
    """
    found = cameras_now(node, config)
    if not found.cameras:
        raise ValueError(
            "no camera is on the graph: "
            f"nothing publishes both {config.camera_info_topic} and {config.image_topic}; "
            "start the cameras, or set the parameter 'cameras' (and 'image_topic', 'camera_info_topic')"
        )
    return found


class CameraSearch:
    """Watches the graph until cameras are there and stay the same.

    Args:
        node: its graph is watched.
        log: receives what is missing.
    """

    def __init__(self, node: Node, log: ThrottledLog) -> None:
        self._node = node
        self._log = log
        self._seen: tuple[str, ...] = ()

    def settled(self, config: NodeConfig) -> bool:
        """Whether there are cameras on the graph, and the same ones as at the last call."""
        try:
            seen = tuple(cameras_now(self._node, config).cameras)
        except ValueError as error:
            self._log.report("cameras", "too many", str(error), time.monotonic())
            return False
        settled, self._seen = bool(seen) and seen == self._seen, seen
        if not settled:
            text = f"waiting for cameras: looking for {config.camera_info_topic} with {config.image_topic}"
            self._log.report("cameras", "none", text, time.monotonic())
        return settled


def transforms_elsewhere(node: Node, config: NodeConfig, ego_motion: bool) -> str:
    """Where transforms or the ego motion are published, if not on the topics of the parameters; else empty.

    Args:
        node: its graph is looked at.
        config: names the topics.
        ego_motion: whether the ego motion has come.
    """
    lines = []
    there = {
        kind: [
            name for name, types in node.get_topic_names_and_types() if kind in types and node.count_publishers(name)
        ]
        for kind in (TRANSFORMS, ODOMETRY)
    }
    for parameter, wanted in (("tf_topic", config.tf_topic), ("tf_static_topic", config.tf_static_topic)):
        topic = node.resolve_topic_name(wanted)
        others = other_topics(there[TRANSFORMS], topic)
        if others and not node.count_publishers(topic):
            lines.append(
                f"nothing publishes {topic}, but transforms are on {', '.join(others)}: set the parameter {parameter}, "
                f"or remap {wanted}:={others[0]}"
            )
    if there[ODOMETRY] and config.odom_frame and not config.odom_topic and not ego_motion:
        names = ", ".join(there[ODOMETRY])
        lines.append(f"TF has no ego motion, but nav_msgs/Odometry is on {names}: set the parameter odom_topic")
    return "; ".join(lines)


def cameras_now(node: Node, config: NodeConfig) -> FoundCameras:
    """As `found_on_graph`, for the graph that the node sees."""
    topics = node.get_topic_names_and_types()
    return found_on_graph(topics, config, node.get_namespace(), lambda topic: node.count_publishers(topic) > 0)


def found_on_graph(
    topics: list[tuple[str, list[str]]],
    config: NodeConfig,
    namespace: str,
    is_published: Callable[[str], bool] = lambda topic: True,
) -> FoundCameras:
    """The cameras whose calibration topic and image topic both have publishers.

    Args:
        topics: (fully qualified name, type names) of every topic on the graph.
        config: its topic templates are matched; relative ones are resolved in `namespace`, as ROS does.
        namespace: the node's, e.g. "/" or "/robot".
        is_published: whether anybody publishes on a topic: those that are only listened to are on the graph as well.
            Asked for topics of cameras alone.
    Raises:
        ValueError: there are more than `MOST_CAMERAS`.
    """

    published = {name: types for name, types in topics if _looked_at(types) and is_published(name)}
    found = camera_search.find_cameras(published, config, namespace)
    if len(found.cameras) > MOST_CAMERAS:
        raise ValueError(
            f"{len(found.cameras)} cameras are on the graph, at most {MOST_CAMERAS} can be used; "
            "name those that are meant in the parameter 'cameras'"
        )
    return found


def cameras_on_graph(
    topics: list[tuple[str, list[str]]],
    config: NodeConfig,
    namespace: str,
    is_published: Callable[[str], bool] = lambda topic: True,
) -> tuple[str, ...]:
    """Names of the cameras that `found_on_graph` finds, sorted; a name may itself contain slashes."""
    return tuple(found_on_graph(topics, config, namespace, is_published).cameras)


def _looked_at(types: list[str]) -> bool:
    return not camera_search.CAMERA_TYPES.isdisjoint(types)
