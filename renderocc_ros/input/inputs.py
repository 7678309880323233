"""What a configured node listens to: images, calibrations and TF. Callbacks copy bytes and do nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from renderocc_model.rosio import cdr
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_ros.frame.worker import Worker
from renderocc_ros.health.throttled_log import Complaints
from renderocc_ros.input.intake import Intake
from renderocc_ros.input.subscriptions import AdaptiveSubscription, ImageSubscription
from renderocc_ros.parameters import NodeConfig

if TYPE_CHECKING:
    from rclpy.node import Node

    from renderocc_model.inference.predictor import Predictor

__all__ = ["Inputs"]

TF_AHEAD_NS = 1_000_000_000  # after a jump back to T, transforms up to this much later than T may be of the new pass


class Inputs:
    """The subscriptions, from configuring to cleaning up.

    Args:
        node: to subscribe with.
        config: topics and transports.
        cameras: names of all cameras.
        is_active: whether images are wanted now.
        intake, transforms, worker: get what comes.
        predictor: compares the cameras with those it was trained on.
        complaints: of what is wrong.
        news: of what has changed.
    """

    def __init__(
        self,
        node: Node,
        config: NodeConfig,
        cameras: tuple[str, ...],
        is_active: Callable[[], bool],
        intake: Intake,
        transforms: TransformBuffer,
        worker: Worker,
        predictor: Predictor,
        complaints: Complaints,
        news: Complaints,
    ) -> None:
        self._cameras, self._is_active = cameras, is_active
        self._intake, self._transforms, self._worker, self._predictor = intake, transforms, worker, predictor
        self._complaints, self._news = complaints, news
        self._subscriptions: list[AdaptiveSubscription | ImageSubscription] = []
        try:
            self._subscribe(node, config)
        except BaseException:
            self.destroy()
            raise

    def follow_publishers(self) -> None:
        """Adapt to publishers that have come or gone."""
        for subscription in self._subscriptions:
            subscription.follow_publishers()

    def destroy(self) -> None:
        """Give the subscriptions back."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions = []

    def _subscribe(self, node: Node, config: NodeConfig) -> None:
        add = self._subscriptions.append
        add(AdaptiveSubscription(node, TFMessage, "/tf", lambda buffer: self._on_tf(buffer, static=False), depth=100))
        add(
            AdaptiveSubscription(
                node, TFMessage, "/tf_static", lambda buffer: self._on_tf(buffer, static=True), depth=100, latched=True
            )
        )
        for camera in self._cameras:
            add(
                AdaptiveSubscription(
                    node,
                    CameraInfo,
                    config.camera_info_topic_of(camera),
                    lambda buffer, camera=camera: self._on_camera_info(camera, buffer),
                    depth=5,
                )
            )
            add(
                ImageSubscription(
                    node,
                    Image,
                    CompressedImage,
                    config.image_topic_of(camera),
                    config.image_transport,
                    lambda buffer, compressed, camera=camera: self._on_image(camera, buffer, compressed),
                )
            )

    def _on_image(self, camera: str, buffer: bytes, compressed: bool) -> None:
        if not self._is_active():
            return
        jump = self._intake.on_image(camera, buffer, compressed)
        if jump is not None:
            text = f"image stamps went back by {(jump.from_ns - jump.to_ns) * 1e-9:.1f} s (a bag loop?)"
            self._news.report("starting afresh", "stamps", text, time.monotonic())
            self._transforms.clear(newer_than_ns=jump.to_ns + TF_AHEAD_NS)
            self._worker.start_afresh()
        self._worker.collect()

    def _on_camera_info(self, camera: str, buffer: bytes) -> None:
        if not self._intake.on_camera_info(camera, buffer):
            return
        calibration = self._intake.calibrations[camera]
        model = calibration.model
        text = f"{model.width}x{model.height}, {model.distortion_model}, frame {calibration.frame_id}"
        self._news.report(f"camera '{camera}'", "calibration", text, time.monotonic())
        models = {name: calibration.model for name, calibration in self._intake.calibrations.items()}
        if len(models) == len(self._cameras):
            for warning in self._predictor.compare_rig(models):
                self._complaints.report("checkpoint", warning, warning, time.monotonic())

    def _on_tf(self, buffer: bytes, static: bool) -> None:
        now = time.monotonic()
        try:
            transforms = cdr.read_tf(buffer)
        except cdr.MessageError as error:
            self._complaints.report(
                "TF", "message", f"message on {'/tf_static' if static else '/tf'} dropped: {error}", now
            )
            return
        for t in transforms:
            try:
                self._transforms.set(t.parent, t.child, t.stamp_ns, t.translation, t.quaternion, static)
            except TransformError as error:
                self._complaints.report(
                    "TF", f"{t.parent} {t.child}", f"transform from '{t.child}' to '{t.parent}' ignored: {error}", now
                )
