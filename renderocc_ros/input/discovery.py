"""Which cameras are on the ROS graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from renderocc_model.rosio.vehicle import CAMERA_MARK, MOST_CAMERAS, is_camera_name
from renderocc_model.rosio.video_track import VIDEO_READERS, video_topic
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.parameters import NodeConfig

if TYPE_CHECKING:
    from rclpy.node import Node

__all__ = ["CameraSearch", "cameras_now", "cameras_on_graph", "find_cameras"]


def find_cameras(node: Node, config: NodeConfig) -> tuple[str, ...]:
    """Names of the cameras that the node can use now.

    Raises:
        ValueError: there is none, or there are more than `MOST_CAMERAS`.
    """
    cameras = cameras_now(node, config)
    if not cameras:
        raise ValueError(
            "no camera is on the graph: "
            f"nothing publishes both {config.camera_info_topic} and {config.image_topic}; "
            "start the cameras, or set the parameter 'cameras' (and 'image_topic', 'camera_info_topic')"
        )
    return cameras


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
            seen = cameras_now(self._node, config)
        except ValueError as error:
            self._log.report("cameras", "too many", str(error), time.monotonic())
            return False
        settled, self._seen = bool(seen) and seen == self._seen, seen
        if not settled:
            text = f"waiting for cameras: looking for {config.camera_info_topic} with {config.image_topic}"
            self._log.report("cameras", "none", text, time.monotonic())
        return settled


def cameras_now(node: Node, config: NodeConfig) -> tuple[str, ...]:
    """As `cameras_on_graph`, for the graph that the node sees."""
    topics = node.get_topic_names_and_types()
    return cameras_on_graph(topics, config, node.get_namespace(), lambda topic: node.count_publishers(topic) > 0)


def cameras_on_graph(
    topics: list[tuple[str, list[str]]],
    config: NodeConfig,
    namespace: str,
    is_published: Callable[[str], bool] = lambda topic: True,
) -> tuple[str, ...]:
    """Names of the cameras whose calibration topic and image topic both have publishers.

    Args:
        topics: (fully qualified name, type names) of every topic on the graph.
        config: its topic templates are matched; relative ones are resolved in `namespace`, as ROS does.
        namespace: the node's, e.g. "/" or "/robot".
        is_published: whether anybody publishes on a topic: those that are only listened to are on the graph as well.
            Asked for topics of cameras alone.
    Returns:
        Camera names, sorted; a name may itself contain slashes.
    Raises:
        ValueError: there are more than `MOST_CAMERAS`.
    """

    def resolve(topic: str) -> str:
        return topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}"

    images = {name for name, types in topics if "sensor_msgs/msg/Image" in types}
    compressed = {name for name, types in topics if "sensor_msgs/msg/CompressedImage" in types}
    videos = {name: types for name, types in topics if not VIDEO_READERS.keys().isdisjoint(types)}
    before, after = resolve(config.camera_info_topic_of(CAMERA_MARK)).split(CAMERA_MARK, 1)
    found = []
    for name, types in topics:
        if "sensor_msgs/msg/CameraInfo" not in types or not (name.startswith(before) and name.endswith(after)):
            continue
        camera = name[len(before) : len(name) - len(after)]
        if not is_camera_name(camera):
            continue
        image = resolve(config.image_topic_of(camera))
        candidates = {image} & images | {f"{image}/compressed"} & compressed
        video = video_topic(videos, image)
        if video is not None:
            candidates.add(video[0])
        if candidates and is_published(name) and any(map(is_published, candidates)):
            found.append(camera)
    if len(found) > MOST_CAMERAS:
        raise ValueError(
            f"{len(found)} cameras are on the graph, at most {MOST_CAMERAS} can be used; "
            "name those that are meant in the parameter 'cameras'"
        )
    return tuple(sorted(found))
