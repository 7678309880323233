"""The node's output topics. Messages are built only for topics that somebody subscribes to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from renderocc_model.field.classes import ClassTable
from renderocc_model.rosio import cdr
from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.output import messages as outputs
from renderocc_ros.output.view_schedule import ViewSchedule
from renderocc_ros.parameters import NodeConfig

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)


class OutputPublishers:
    """Lifecycle publishers of ~/points, ~/markers, ~/grid and ~/classes, and of semantic, depth and camera_info in
    ~/rendered/<camera>.

    The camera_info belongs to both views. Subscribers such as depth_image_proc expect it beside the image, with the
    same stamp.

    Args:
        node: their owner; inactive nodes publish nothing.
        cameras: camera names; each has its rendered views.
        config: the node's parameters.
    Attributes:
        config: replace it when a parameter changes.
    """

    def __init__(self, node: LifecycleNode, cameras: tuple[str, ...], config: NodeConfig) -> None:
        self.config = config
        self._node = node
        self._schedule = ViewSchedule()
        self._renderers: dict[str, Any] = {}  # ViewRenderer of each camera
        overriding = QoSOverridingOptions.with_default_policies()

        def publisher(message_type, topic: str, qos: QoSProfile):
            return node.create_lifecycle_publisher(message_type, topic, qos, qos_overriding_options=overriding)

        self._publishers = {}
        try:
            self._publishers["points"] = publisher(PointCloud2, "~/points", RELIABLE)
            self._publishers["markers"] = publisher(MarkerArray, "~/markers", RELIABLE)
            self._publishers["grid"] = publisher(OccupancyGrid, "~/grid", LATCHED)
            self._publishers["classes"] = publisher(String, "~/classes", LATCHED)
            for camera in cameras:
                for kind, message_type in (("semantic", Image), ("depth", Image), ("camera_info", CameraInfo)):
                    topic = f"~/rendered/{camera}/{kind}"
                    self._publishers[f"{camera}/{kind}"] = publisher(message_type, topic, RELIABLE)
        except BaseException:
            self.destroy()
            raise

    def publish_classes(self, classes: ClassTable) -> None:
        self._publishers["classes"].publish(String(data=outputs.classes_json(classes)))

    def publish(self, frame: Frame) -> None:
        """Publish the volume of a frame. The grid is latched and always made; the rest only if somebody subscribes."""
        config = self.config
        occupancy, stamp, base = frame.occupancy, frame.stamp_ns, config.base
        if self._wanted("points") or self._wanted("markers"):
            surface = outputs.surface_voxels(occupancy)
            if self._wanted("points"):
                self._send("points", outputs.points_message(surface, occupancy.classes, stamp, base))
            if self._wanted("markers"):
                nearest = surface.nearest(config.max_markers)
                self._send(
                    "markers",
                    outputs.markers_message(nearest, occupancy.classes, occupancy.grid.voxel_size, stamp, base),
                )
        cells = outputs.height_band_cells(
            occupancy, config.grid_min_height, config.grid_max_height, config.grid_ignored_classes
        )
        self._send("grid", outputs.grid_message(cells, occupancy, config.grid_min_height, stamp, base))

    def publish_rendered(self, frame: Frame, late: Callable[[], bool]) -> tuple[int, int]:
        """Draw and publish the views of a frame that somebody subscribes to, once its volume is out.

        Args:
            late: whether the next frame waits. Then views are skipped, but for a small share of the time
                (`ViewSchedule`).
        Returns:
            how many views were drawn, and how many were skipped.
        """
        stride, drawn, wanted = self.config.rendered_stride, 0, []
        for camera in frame.used:
            kinds = {kind for kind in ("semantic", "depth") if self._wanted(f"{camera}/{kind}")}
            if kinds:
                wanted.append((camera, kinds))
            elif self._wanted(f"{camera}/camera_info"):
                self._send_camera_info(frame, camera, stride)
        for camera, kinds in self._schedule.in_turn(wanted):
            began = time.monotonic()
            if not self._schedule.allows(late(), began):
                break
            self._publish_view(frame, camera, kinds, stride)
            self._schedule.drawn(camera, began, time.monotonic())
            drawn += 1
        return drawn, len(wanted) - drawn

    def destroy(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def _wanted(self, name: str) -> bool:
        return self._publishers[name].get_subscription_count() > 0

    def _send(self, name: str, message: bytes | CameraInfo) -> None:
        self._publishers[name].publish(message)

    def _send_camera_info(self, frame: Frame, camera: str, stride: int) -> None:
        view, stamp, optical_frame = frame.views[camera], frame.stamps[camera], frame.optical_frames[camera]
        self._send(f"{camera}/camera_info", outputs.rendered_camera_info(view, stride, stamp, optical_frame))

    def _publish_view(self, frame: Frame, camera: str, kinds: set[str], stride: int) -> None:
        # Imported here because it loads PyTorch, which a node without a network does not need.
        from renderocc_model.inference.rendered_views import ViewRenderer

        view, stamp, optical_frame = frame.views[camera], frame.stamps[camera], frame.optical_frames[camera]
        renderer = self._renderers.get(camera)
        if renderer is None or renderer.view is not view or renderer.stride != stride:
            renderer = self._renderers[camera] = ViewRenderer(view, stride)
        self._send_camera_info(frame, camera, stride)
        colours, depth = renderer.render(frame.occupancy, frame.base_from_frame(camera))
        for kind, image, encoding in (("semantic", colours, "rgb8"), ("depth", depth, "32FC1")):
            if kind in kinds:
                self._send(f"{camera}/{kind}", cdr.write_image(stamp, optical_frame, image, encoding))
