"""The lifecycle node `renderocc`: topics, services, parameters and states; the work itself is done in the modules it wires."""

from __future__ import annotations

import difflib
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import OccupancyGrid
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from renderocc_model.config import Setting, from_mapping, settings_of
from renderocc_model.messages import cdr
from renderocc_ros import outputs
from renderocc_ros.complaints import Complaints
from renderocc_ros.diagnostics import NodeReport, diagnostics_message
from renderocc_ros.intake import Intake
from renderocc_ros.latency import StageTimes
from renderocc_ros.pace import Pace
from renderocc_ros.parameters import RUNTIME_PARAMETERS, NodeConfig, cameras_on_graph
from renderocc_ros.pipeline import Frame, FramePipeline
from renderocc_ros.process import end_at_first_signal, ignore_signals, prepare_process
from renderocc_ros.rendered import rendered_view
from renderocc_ros.subscriptions import AdaptiveSubscription, ImageSubscription
from renderocc_model.messages.tf_buffer import TransformBuffer, TransformError
from renderocc_ros.worker import Worker

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
CLOCK_JUMP_BACK = 0.5  # seconds a simulated clock may go back before everything is forgotten
TF_AHEAD_NS = 1_000_000_000  # after a jump back to T, transforms up to this much later than T may be of the new pass
TICK_PERIOD = 0.03  # seconds between two looks for images that have waited long enough
GRAPH_PERIOD = 0.5  # seconds between two looks at which publishers there are


class RenderOccNode(LifecycleNode):
    """Cameras and TF in; points, markers, grid, rendered views and diagnostics out (design of the package: README)."""

    def __init__(self, **kwargs) -> None:
        super().__init__("renderocc", **kwargs)
        self._complaints = Complaints(self.get_logger().warning)
        self._times = StageTimes()
        self._transforms = TransformBuffer()
        self._config: NodeConfig | None = None
        self._state = "unconfigured"
        self._error = ""
        self._deactivation_wanted = False
        self._cameras: tuple[str, ...] = ()
        self._subscriptions_in: list[AdaptiveSubscription | ImageSubscription] = []
        self._outputs: dict[str, object] = {}
        self._services_offered: list = []
        self._predictor = None
        self._intake: Intake | None = None
        self._pipeline: FramePipeline | None = None
        self._worker: Worker | None = None
        self._seen_cameras: tuple[str, ...] = ()

        self._declare_parameters()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(
            float(self.get_parameter("diagnostics_period").value), self._publish_diagnostics, clock=steady
        )
        self._tick_timer = self.create_timer(TICK_PERIOD, self._tick, clock=steady)
        self._graph_timer = self.create_timer(GRAPH_PERIOD, self._watch_graph, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(seconds=-CLOCK_JUMP_BACK), on_clock_change=False),
            post_callback=lambda jump: self._forget("the clock jumped back (a bag loop?)"),
        )

    # ---- parameters ------------------------------------------------------------------------------------------------

    def _declare_parameters(self) -> None:
        """Declare every field of NodeConfig; a bad override is said and left for `ros2 param set`, not fatal."""
        known = [setting.name for setting in settings_of(NodeConfig)]
        for setting in settings_of(NodeConfig):
            descriptor = parameter_descriptor(setting)
            default = list(setting.default) or [""] if isinstance(setting.default, tuple) else setting.default
            try:
                self.declare_parameter(setting.name, default, descriptor)
            except (ParameterException, InvalidParameterException) as error:
                self._error = f"parameter {setting.name!r}: {error}; {setting.help}"
                self.get_logger().error(self._error)
                self.declare_parameter(setting.name, default, descriptor, ignore_override=True)
        for name in sorted(set(self._parameter_overrides) - set(known)):
            if name.split(".")[0] in ("qos_overrides", "use_sim_time", "start_type_description_service"):
                continue
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "`ros2 param list` names all of them"
            self._complaints.report("parameters", name, f"unknown parameter {name!r} has no effect; {hint}", time.monotonic())
        self.add_on_set_parameters_callback(self._on_set_parameters)

    def _read_config(self, changed: dict | None = None) -> NodeConfig:
        values = {setting.name: self.get_parameter(setting.name).value for setting in settings_of(NodeConfig)} | (changed or {})
        for setting in settings_of(NodeConfig):
            if isinstance(setting.default, tuple):  # ROS cannot tell the type of an empty list: [""] stands for it
                values[setting.name] = [name for name in values[setting.name] or [] if name]
        return from_mapping(NodeConfig, values, where="the node's parameters")

    def _on_set_parameters(self, parameters) -> SetParametersResult:
        known = {setting.name for setting in settings_of(NodeConfig)}
        changed = {parameter.name: parameter.value for parameter in parameters if parameter.name in known}
        if not changed:
            return SetParametersResult(successful=True)
        try:
            config = self._read_config(changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        fixed = sorted(set(changed) - RUNTIME_PARAMETERS)
        if fixed and self._config is not None:
            names = ", ".join(fixed)
            return SetParametersResult(
                successful=False,
                reason=f"{names} can be set only while the node is unconfigured; run: ros2 lifecycle set {self.get_fully_qualified_name()} "
                "deactivate, then cleanup, then set it, configure and activate",
            )
        self._error = ""
        if self._config is not None:
            self._config = config
            self._predictor.threshold = config.threshold or self._predictor.stored_threshold
        return SetParametersResult(successful=True)

    # ---- lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            config = self._read_config()
            self._cameras = config.cameras or self._find_cameras(config)
            self._configure(config)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            self._error = str(error)
            self.get_logger().error(f"cannot configure: {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._state, self._error = "inactive", ""
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._worker.start()
        self._state, self._error = "active", ""
        self._outputs["classes"].publish(String(data=outputs.classes_json(self._predictor.classes)))
        self.get_logger().info(f"active: {len(self._cameras)} cameras ({', '.join(self._cameras)})")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._worker.stop()
        self._worker.reset()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "unconfigured"
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "unconfigured"
        return super().on_error(state)

    def _find_cameras(self, config: NodeConfig) -> tuple[str, ...]:
        cameras = cameras_on_graph(self.get_topic_names_and_types(), config, self.get_namespace())
        if not cameras:
            raise ValueError(
                f"no camera is on the graph: nothing publishes both {config.camera_info_topic} and {config.image_topic}; "
                "start the cameras, or set the parameter 'cameras' (and 'image_topic', 'camera_info_topic')"
            )
        return cameras

    def _configure(self, config: NodeConfig) -> None:
        from renderocc_ros.network_setup import make_predictor

        self._predictor = make_predictor(config, self.get_logger())
        self._transforms = TransformBuffer(history=config.tf_history)
        now = Pace(self._clock_ns).now if self.get_parameter("use_sim_time").value else time.monotonic
        self._intake = Intake(config, self._cameras, self._complaints, self._clock_ns, now)
        self._pipeline = FramePipeline(config, self._cameras, self._predictor, self._transforms, self._complaints, self._times)
        self._worker = Worker(self._intake, self._pipeline, self._publish_frame, self._on_out_of_memory, self._complaints, self._times)
        self._config = config
        self._create_publishers()
        self._create_subscriptions()
        self._services_offered = [
            self.create_service(Trigger, "~/reset", self._on_reset),
            self.create_service(Trigger, "~/save", self._on_save),
        ]

    def _create_publishers(self) -> None:
        overriding = QoSOverridingOptions.with_default_policies()

        def publisher(message_type, topic: str, qos: QoSProfile):
            return self.create_lifecycle_publisher(message_type, topic, qos, qos_overriding_options=overriding)

        self._outputs = {
            "points": publisher(PointCloud2, "~/points", RELIABLE),
            "markers": publisher(MarkerArray, "~/markers", RELIABLE),
            "grid": publisher(OccupancyGrid, "~/grid", LATCHED),
            "classes": publisher(String, "~/classes", LATCHED),
        }
        for camera in self._cameras:
            for kind in ("semantic", "depth"):
                self._outputs[f"{camera}/{kind}"] = publisher(Image, f"~/rendered/{camera}/{kind}", RELIABLE)

    def _create_subscriptions(self) -> None:
        config = self._config
        self._subscriptions_in = [
            AdaptiveSubscription(self, TFMessage, "/tf", lambda buffer: self._on_tf(buffer, static=False), depth=100),
            AdaptiveSubscription(
                self, TFMessage, "/tf_static", lambda buffer: self._on_tf(buffer, static=True), depth=100, latched=True
            ),
        ]
        for camera in self._cameras:
            self._subscriptions_in += [
                AdaptiveSubscription(
                    self, CameraInfo, config.camera_info_topic_of(camera),
                    lambda buffer, camera=camera: self._on_camera_info(camera, buffer), depth=5,
                ),
                ImageSubscription(
                    self, Image, CompressedImage, config.image_topic_of(camera), config.image_transport,
                    lambda buffer, compressed, camera=camera: self._on_image(camera, buffer, compressed),
                ),
            ]

    def _release(self) -> None:
        """Give back everything that configuring took; safe to call at any time."""
        if self._worker is not None:
            self._worker.stop()
        if self._pipeline is not None:
            self._pipeline.close()
        for subscription in self._subscriptions_in:
            subscription.destroy()
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        for service in self._services_offered:
            self.destroy_service(service)
        self._subscriptions_in, self._outputs, self._services_offered = [], {}, []
        self._worker = self._pipeline = self._intake = self._predictor = self._config = None
        self._complaints.clear()
        self._times.clear()

    # ---- callbacks: copy bytes, nothing else -------------------------------------------------------------------------

    def _on_image(self, camera: str, buffer: bytes, compressed: bool) -> None:
        if self._state != "active":
            return
        jump = self._intake.on_image(camera, buffer, compressed)
        if jump is not None:
            self.get_logger().info(f"starting afresh: image stamps went back by {(jump.from_ns - jump.to_ns) * 1e-9:.1f} s (a bag loop?)")
            self._transforms.clear(newer_than_ns=jump.to_ns + TF_AHEAD_NS)
            self._worker.forget_previous()
        self._worker.collect()

    def _tick(self) -> None:
        if self._state == "active":
            self._intake.tick()
            self._worker.collect()

    def _on_camera_info(self, camera: str, buffer: bytes) -> None:
        if self._intake.on_camera_info(camera, buffer):
            calibration = self._intake.calibrations[camera]
            model = calibration.model
            self.get_logger().info(f"camera '{camera}': {model.width}x{model.height}, {model.distortion_model}, frame {calibration.frame_id}")
            models = {name: calibration.model for name, calibration in self._intake.calibrations.items()}
            if len(models) == len(self._cameras):
                for warning in self._predictor.compare_rig(models):
                    self._complaints.report("checkpoint", warning, warning, time.monotonic())

    def _on_tf(self, buffer: bytes, static: bool) -> None:
        now = time.monotonic()
        try:
            transforms = cdr.read_tf(buffer)
        except cdr.MessageError as error:
            self._complaints.report("TF", "message", f"message on {'/tf_static' if static else '/tf'} dropped: {error}", now)
            return
        for t in transforms:
            try:
                self._transforms.set(t.parent, t.child, t.stamp_ns, t.translation, t.quaternion, static)
            except TransformError as error:
                self._complaints.report("TF", f"{t.parent} {t.child}", f"transform from '{t.child}' to '{t.parent}' ignored: {error}", now)

    # ---- outputs -------------------------------------------------------------------------------------------------------

    def _wanted(self, name: str) -> bool:
        return self._outputs[name].get_subscription_count() > 0

    def _publish_frame(self, frame: Frame) -> None:
        """Called by the worker. The grid is latched and always made; the rest only when someone listens."""
        config, occupancy, stamp = self._config, frame.occupancy, frame.stamp_ns
        base, classes = config.base_frame, occupancy.classes
        if self._wanted("points") or self._wanted("markers"):
            surface = outputs.surface_voxels(occupancy)
            if self._wanted("points"):
                self._outputs["points"].publish(outputs.points_message(surface, classes, stamp, base))
            if self._wanted("markers"):
                nearest = surface.nearest(config.max_markers)
                self._outputs["markers"].publish(outputs.markers_message(nearest, classes, occupancy.grid.voxel_size, stamp, base))
        cells = outputs.height_band_cells(occupancy, config.grid_min_height, config.grid_max_height, config.grid_ignored_classes)
        self._outputs["grid"].publish(outputs.grid_message(cells, occupancy, config.grid_min_height, stamp, base))
        for camera in frame.used:
            self._publish_rendered(frame, camera)

    def _publish_rendered(self, frame: Frame, camera: str) -> None:
        wanted = {kind for kind in ("semantic", "depth") if self._wanted(f"{camera}/{kind}")}
        if not wanted:
            return
        colours, depth = rendered_view(
            frame.occupancy, frame.views[camera], frame.base_from_camera[camera], self._config.rendered_stride
        )
        stamp, optical_frame = frame.stamps[camera], frame.optical_frames[camera]
        for kind, image, encoding in (("semantic", colours, "rgb8"), ("depth", depth, "32FC1")):
            if kind in wanted:
                self._outputs[f"{camera}/{kind}"].publish(cdr.write_image(stamp, optical_frame, image, encoding))

    def _publish_diagnostics(self) -> None:
        report = NodeReport(
            state=self._state,
            error=self._error,
            config=self._config,
            predictor=self._predictor,
            intake=self._intake,
            worker=self._worker,
            complaints=self._complaints,
            times=self._times,
            transforms=self._transforms,
            clock_ns=self._clock_ns(),
            simulated_time=bool(self.get_parameter("use_sim_time").value),
            now=time.monotonic(),
        )
        self._diagnostics.publish(diagnostics_message(report, self.get_fully_qualified_name(), self.get_clock().now().to_msg()))

    # ---- services and events -------------------------------------------------------------------------------------------

    def _on_reset(self, request, response):
        self._forget("asked by ~/reset")
        response.success, response.message = True, "queues, /tf and the previous volume are cleared"
        return response

    def _on_save(self, request, response):
        frame = self._worker.last_frame if self._worker is not None else None
        if frame is None or frame.occupancy is None:
            response.success, response.message = False, "there is no volume yet; nothing was written"
            return response
        folder = self._config.save_path()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = [folder / f"{frame.stamp_ns}.npz", folder / f"{frame.stamp_ns}.ply"]
            frame.occupancy.save_npz(paths[0])
            frame.occupancy.save_ply(paths[1])
        except OSError as error:
            response.success, response.message = False, f"nothing was saved to {folder}: {error}; set 'save_directory'"
            return response
        response.success, response.message = True, f"{paths[0]} {paths[1]}"
        return response

    def _forget(self, why: str) -> None:
        """Clear queues, dynamic TF and temporal state, and go on; calibrations and static mounts stay."""
        self.get_logger().info(f"starting afresh: {why}")
        self._transforms.clear()
        if self._worker is not None:
            self._worker.reset()

    def _on_out_of_memory(self, text: str) -> None:
        self._error = f"the device is out of memory, twice: {text}; use a smaller preset, or close other users of the GPU, then activate again"
        self.get_logger().error(self._error)
        self._deactivation_wanted = True  # by the executor's thread: transitions are not made from the worker's

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _watch_graph(self) -> None:
        """Follow publishers that come and go; with `autostart`, configure and activate once there are cameras."""
        for subscription in self._subscriptions_in:
            subscription.follow_publishers()
        if self._deactivation_wanted:
            self._deactivation_wanted = False
            self.trigger_deactivate()
        if self._state != "unconfigured" or self._error or not self.get_parameter("autostart").value:
            return
        try:
            config = self._read_config()
        except ValueError as error:
            self._error = str(error)
            self.get_logger().error(f"cannot configure: {error}")
            return
        if not config.cameras:
            seen = cameras_on_graph(self.get_topic_names_and_types(), config, self.get_namespace())
            settled, self._seen_cameras = bool(seen) and seen == self._seen_cameras, seen
            if not settled:
                self._complaints.report(
                    "cameras", "none", f"waiting for cameras: looking for {config.camera_info_topic} with {config.image_topic}", time.monotonic()
                )
                return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()


def parameter_descriptor(setting: Setting) -> ParameterDescriptor:
    """Description, range and choices of a NodeConfig field as `ros2 param describe` shows them."""
    descriptor = ParameterDescriptor(description=setting.help, dynamic_typing=True)  # so that 1 is taken for 1.0
    if setting.choices:
        descriptor.additional_constraints = "one of: " + ", ".join(setting.choices)
    if setting.minimum is not None and setting.type is int:
        descriptor.integer_range = [IntegerRange(from_value=setting.minimum, to_value=setting.maximum, step=1)]
    elif setting.minimum is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=setting.minimum, to_value=setting.maximum, step=0.0)]
    return descriptor


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    prepare_process()
    end_at_first_signal()
    node = None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = RenderOccNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        ignore_signals()
        if node is not None:
            node._release()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
