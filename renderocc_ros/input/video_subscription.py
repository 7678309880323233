"""A camera's video topic: which one it is on the graph, and the subscription to it where its messages are installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from renderocc_model.rosio.video_track import video_topic

from .subscriptions import AdaptiveSubscription

if TYPE_CHECKING:
    from rclpy.node import Node

__all__ = ["VideoSubscription", "video_class"]

_DEPTH = 60  # packets; one that is lost costs all pictures up to the next key frame


def video_class(message_type: str) -> type:
    """The message class of a video type.

    Args:
        message_type: one of `VIDEO_READERS`.
    Raises:
        ImportError: its package is not installed; the text says what to install.
    """
    package, _, name = message_type.split("/")
    try:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"no module named {package!r}")
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        remedy = f"sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"
        raise ImportError(f"{message_type} needs the package {package} ({error}); {remedy}") from None


class VideoSubscription:
    """Subscribes to a camera's video while there is one on the graph and no other form of its images.

    Args:
        node: owner of the subscription.
        topic: name of the raw image topic; the video is there, or at TOPIC/foxglove, TOPIC/ffmpeg and the like.
        callback: called with (bytes, message type).
        report: called with a text if the video cannot be subscribed to.
        class_of: as `video_class`.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        callback: Callable[[bytes, str], None],
        report: Callable[[str], None],
        class_of: Callable[[str], type] = video_class,
    ) -> None:
        self._node, self._callback, self._report, self._class_of = node, callback, report, class_of
        self._topic = node.resolve_topic_name(topic)
        self._subscription: AdaptiveSubscription | None = None
        self._subscribed: tuple[str, str] | None = None

    def follow_publishers(self, wanted: bool) -> None:
        """Adapt to publishers that have come or gone. wanted: whether there is no other form of the images."""
        found = self._find() if wanted else None
        if found is None and wanted and self._subscribed:
            found = self._subscribed  # its publisher may come back
        if found != self._subscribed:
            self.destroy()
            if found is not None:
                self._subscribe(*found)
        if self._subscription is not None:
            self._subscription.follow_publishers()

    def destroy(self) -> None:
        """Give the subscription back."""
        if self._subscription is not None:
            self._subscription.destroy()
        self._subscription = self._subscribed = None

    def _find(self) -> tuple[str, str] | None:
        topics = {name: types for name, types in self._node.get_topic_names_and_types()}
        found = video_topic(topics, self._topic)
        return found if found is not None and self._node.count_publishers(found[0]) else None

    def _subscribe(self, topic: str, message_type: str) -> None:
        try:
            message_class = self._class_of(message_type)
        except ImportError as error:
            self._report(f"the video on {topic} is not used: {error}")
            return

        def deliver(buffer: bytes) -> None:
            self._callback(buffer, message_type)

        self._subscription = AdaptiveSubscription(self._node, message_class, topic, deliver, depth=_DEPTH)
        self._subscribed = topic, message_type
