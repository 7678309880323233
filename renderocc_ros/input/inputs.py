"""What a configured node subscribes to: images, CameraInfo and TF. Callbacks hand the bytes to the intake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from renderocc_ros.input.intake import Intake
from renderocc_ros.input.subscriptions import AdaptiveSubscription, ImageSubscription
from renderocc_ros.input.video_subscription import VideoSubscription

if TYPE_CHECKING:
    from rclpy.node import Node

__all__ = ["Inputs"]

TF_DEPTH = 100  # messages, as tf2's listener
INFO_DEPTH = 5


class Inputs:
    """The subscriptions of a node, from configuring to cleaning up.

    Images are taken in only between `resume` and `pause`, calibrations and TF always.

    Args:
        node: owner of the subscriptions.
        intake: receives every message; its configuration names the topics.
    """

    def __init__(self, node: Node, intake: Intake) -> None:
        self._intake = intake
        self._paused = True
        self._subscriptions: list[AdaptiveSubscription | ImageSubscription] = []
        self._videos: list[tuple[VideoSubscription, ImageSubscription | None]] = []  # with the camera's other images
        try:
            self._subscribe(node)
        except BaseException:
            self.destroy()
            raise

    def resume(self) -> None:
        """Take images in from now on."""
        self._intake.resume()
        self._paused = False

    def pause(self) -> None:
        """Take no images in, and forget those that have come."""
        self._paused = True
        self._intake.reset()

    def tick(self) -> None:
        """Let time pass for images that wait for others."""
        if not self._paused:
            self._intake.tick()

    def follow_publishers(self) -> None:
        """Adapt to publishers that have come or gone."""
        for subscription in self._subscriptions:
            subscription.follow_publishers()
        for video, images in self._videos:
            video.follow_publishers(images is None or not images.is_published)

    def destroy(self) -> None:
        """Give the subscriptions back."""
        for subscription in self._subscriptions:
            subscription.destroy()
        for video, _ in self._videos:
            video.destroy()
        self._subscriptions, self._videos = [], []

    def _subscribe(self, node: Node) -> None:
        config = self._intake.config
        if config.odom_frame and config.odom_topic:
            self._subscriptions.append(
                AdaptiveSubscription(node, Odometry, config.odom_topic, self._intake.add_odometry, depth=TF_DEPTH)
            )
        for topic, static in ((config.tf_topic, False), (config.tf_static_topic, True)):
            self._subscriptions.append(
                AdaptiveSubscription(
                    node,
                    TFMessage,
                    topic,
                    lambda buffer, static=static: self._intake.add_tf(buffer, static),
                    depth=TF_DEPTH,
                    latched=static,
                )
            )
        for camera in self._intake.cameras:
            self._subscriptions.append(
                AdaptiveSubscription(
                    node,
                    CameraInfo,
                    config.camera_info_topic_of(camera),
                    lambda buffer, camera=camera: self._intake.add_camera_info(camera, buffer),
                    depth=INFO_DEPTH,
                )
            )
            images = None
            if config.image_transport != "video":
                images = ImageSubscription(
                    node,
                    Image,
                    CompressedImage,
                    config.image_topic_of(camera),
                    config.image_transport,
                    lambda buffer, compressed, camera=camera: self._on_image(camera, buffer, compressed),
                )
                self._subscriptions.append(images)
            if config.image_transport in ("auto", "video"):
                video = VideoSubscription(
                    node,
                    config.image_topic_of(camera),
                    lambda buffer, message_type, camera=camera: self._on_video(camera, buffer, message_type),
                    lambda text, camera=camera: self._intake.report_video(camera, text),
                )
                self._videos.append((video, images))

    def _on_image(self, camera: str, buffer: bytes, compressed: bool) -> None:
        if not self._paused:
            self._intake.add(camera, buffer, compressed)

    def _on_video(self, camera: str, buffer: bytes, message_type: str) -> None:
        if not self._paused:
            self._intake.add_video(camera, buffer, message_type)
