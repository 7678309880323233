"""The lifecycle node `renderocc`: its parameters, states, services and events. The folders below do the work.

An image goes from `input` (subscriptions, matching) through `frame` (placement, decoding, network) to `output`
(publishers); each folder's `__init__` says in which of its modules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from renderocc_model.base.config import settings_of
from renderocc_model.base.machine_errors import says_out_of_memory
from renderocc_model.rosio.camera_search import FoundCameras, with_template
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros import rclpy_private
from renderocc_ros.declaration import declare_parameters, read_config, unknown_parameters
from renderocc_ros.frame.configured import ConfiguredNode
from renderocc_ros.frame.pipeline import Frame, FramePipeline
from renderocc_ros.frame.vehicle_map import VehicleMap
from renderocc_ros.frame.worker import Worker
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.discovery import CameraSearch, find_cameras, transforms_elsewhere
from renderocc_ros.input.inputs import Inputs
from renderocc_ros.input.intake import Intake
from renderocc_ros.input.playback_clock import PlaybackClock
from renderocc_ros.lifecycle import transition
from renderocc_ros.output.diagnostics import NodeReport, diagnostics_message
from renderocc_ros.output.map_publishers import MapPublishers
from renderocc_ros.output.publishers import OutputPublishers
from renderocc_ros.output.saving import SaveFolder
from renderocc_ros.parameters import RUNTIME_PARAMETERS, NodeConfig
from renderocc_ros.services import Services

CLOCK_JUMP_BACK = 0.5  # seconds; a simulated clock that goes back further has jumped
MOST_TF_SAMPLES = 200_000  # 80 MB; 100 frames at 100 Hz for 10 s are half of it
TICK_PERIOD = 0.03  # seconds between two checks for images that have waited long enough
LAST_ANSWER = 0.2  # seconds from the shutdown transition to the process's end, for its answer to arrive
FAILURE_PAUSE = 0.1  # seconds to pause after a callback has failed; it may fail again at once
GRAPH_PERIOD = 0.5  # seconds between two checks of which publishers there are


class RenderOccNode(LifecycleNode):
    """Cameras and TF in; points, markers, grid, rendered views and diagnostics out.

    Attributes:
        ended: whether the shutdown transition was made and answered; nothing comes after it.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("renderocc", **kwargs)
        # Each on a line of its own: rclpy's logger refuses two severities from one place in the code.
        self._log = ThrottledLog(lambda text: self.get_logger().warning(text))
        self._events = ThrottledLog(lambda text: self.get_logger().info(text))
        self._times = StageTimes()
        self._state = "unconfigured"
        self._error = ""
        self._deactivation_wanted = False
        self._autostart_pending = True  # until it has succeeded once; later transitions are the operator's
        self._configured: ConfiguredNode | None = None
        self._inputs: Inputs | None = None
        self._outputs: OutputPublishers | None = None
        self._map_outputs: MapPublishers | None = None
        self._services_offered: Services | None = None
        self._camera_search = CameraSearch(self, self._log)
        self._end_timer = None
        self.ended = False

        for line in declare_parameters(self):
            self.set_error(line)
        for name, line in unknown_parameters(self).items():
            self._log.report("parameters", name, line, time.monotonic())
        if missing := rclpy_private.missing_names(self):
            self._log.report("node", "rclpy", rclpy_private.describe_missing(missing), time.monotonic())
        self._save_folder = SaveFolder(self.get_parameter("save_directory").value)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(
            float(self.get_parameter("diagnostics_period").value), self._publish_diagnostics, clock=steady
        )
        self._tick_timer = self.create_timer(TICK_PERIOD, self._tick, clock=steady)
        self._graph_timer = self.create_timer(GRAPH_PERIOD, self._watch_graph, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(seconds=-CLOCK_JUMP_BACK), on_clock_change=False),
            post_callback=lambda jump: self._on_clock_jump(),
        )

    # ---- parameters ------------------------------------------------------------------------------------------------

    def _on_set_parameters(self, parameters) -> SetParametersResult:
        known = {setting.name for setting in settings_of(NodeConfig)}
        changed = {parameter.name: parameter.value for parameter in parameters if parameter.name in known}
        # The intake's time follows the clock that was chosen when the node was configured.
        fixed = sorted({parameter.name for parameter in parameters} & {*changed, "use_sim_time"} - RUNTIME_PARAMETERS)
        if not changed and not fixed:
            return SetParametersResult(successful=True)
        try:
            config = read_config(self, changed)
            self._save_folder.check(config.save_directory)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._configured is None:
            self._error = ""  # the new values may have repaired what was wrong: autostart tries again
        elif fixed:
            names = ", ".join(fixed)
            return SetParametersResult(
                successful=False,
                reason=f"{names} can be set only while the node is unconfigured; "
                f"run: ros2 lifecycle set {self.get_fully_qualified_name()} "
                "deactivate, then cleanup, then set it, configure and activate",
            )
        else:
            self._configured = dataclasses.replace(self._configured, config=config)
            self._outputs.config = self._map_outputs.config = config
            self._configured.vehicle_map.set_config(config)
            predictor = self._configured.predictor
            predictor.threshold = config.threshold or predictor.stored_threshold
        return SetParametersResult(successful=True)

    # ---- lifecycle -------------------------------------------------------------------------------------------------

    @transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            config = read_config(self)
            found = None if config.cameras else find_cameras(self, config)
            self._configure(*((config, config.cameras) if found is None else self._with_found(config, found)))
        except (ValueError, OSError, RuntimeError, ImportError, MemoryError, NameValidationException) as error:
            text = str(error)
            if says_out_of_memory(error):
                text = f"out of memory ({text}); close other programs or choose a smaller network, then configure again"
            self.set_error(text, f"cannot configure: {text}")
            self.release()
            return TransitionCallbackReturn.FAILURE
        self._state, self._error = "inactive", ""
        return super().on_configure(state)

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._inputs.resume()
        self._configured.worker.start()
        self._state, self._error = "active", ""
        self._outputs.publish_classes(self._configured.predictor.classes)
        cameras = self._configured.intake.cameras
        self.get_logger().info(f"active: {len(cameras)} cameras ({', '.join(cameras)})")
        return result

    @transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if not self._configured.worker.stop():
            return TransitionCallbackReturn.FAILURE  # the next attempt succeeds, once the frame has ended
        self._inputs.pause()
        self._deactivation_wanted = False
        self._state = "inactive"
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        self._state = "unconfigured"
        return super().on_cleanup(state)

    @transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        self._state = "finalized"
        self._end_timer = self.create_timer(LAST_ANSWER, self._end, clock=Clock(clock_type=ClockType.STEADY_TIME))
        return super().on_shutdown(state)

    def _end(self) -> None:
        self._end_timer.cancel()
        self.ended = True

    @transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        self._state = "unconfigured"
        return super().on_error(state)

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """Refuse a transition that the state does not have. rclpy raises: any client could so end the process."""
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError:
            text = f"transition {transition_id} refused: the state '{self._state}' has no such transition"
            self._log.report("lifecycle", "transition", text, time.monotonic())
            return TransitionCallbackReturn.FAILURE

    def _with_found(self, config: NodeConfig, found: FoundCameras) -> tuple[NodeConfig, tuple[str, ...]]:
        """The configuration for the images that were found on the graph, and the names of their cameras."""
        if found.note:
            self.get_logger().info(found.note)
        return with_template(config, found), tuple(found.cameras)

    def _configure(self, config: NodeConfig, cameras: tuple[str, ...]) -> None:
        """Make the parts of a configured node; subscriptions come last, so that messages find the rest ready."""
        from renderocc_ros.frame.network_setup import make_predictor

        predictor = make_predictor(config, self.get_logger())
        from renderocc_model.inference import rendered_views  # loads PyTorch, as the predictor has done

        layers = predictor.config.heads.density_layers
        rendered_views.warm_up(predictor.grid, predictor.classes, predictor.device, layers)
        transforms = TransformBuffer(history=config.tf_history, max_total=MOST_TF_SAMPLES)
        now = PlaybackClock(self._clock_ns).now if self.get_parameter("use_sim_time").value else time.monotonic
        intake = Intake(config, cameras, transforms, self._log, self._events, self._clock_ns, now)
        self._outputs = OutputPublishers(self, cameras, config)
        self._map_outputs = map_outputs = MapPublishers(self, config)
        vehicle_map = VehicleMap(config, predictor, self._events)
        vehicle_map.warm_up()

        def remember(frame: Frame | None) -> None:
            if frame is None:
                vehicle_map.clear()
                return
            with self._times.measure("map"):
                vehicle_map.add(frame)
            with self._times.measure("publish map"):
                map_outputs.publish(vehicle_map)

        pipeline = FramePipeline(config, cameras, predictor, transforms, self._log, self._times)
        worker = Worker(
            intake,
            pipeline,
            self._outputs.publish,
            self._on_out_of_memory,
            self._log,
            self._times,
            config.startup_grace,
            remember,
            self._outputs.publish_rendered,
        )
        self._configured = ConfiguredNode(config, predictor, transforms, intake, pipeline, worker, vehicle_map)
        self._diagnostics_timer.timer_period_ns = int(config.diagnostics_period * 1e9)
        self._diagnostics_timer.reset()
        self._inputs = Inputs(self, intake)
        self._services_offered = Services(self, self._save_folder, lambda: self._configured)
        self._services_offered.offer()

    def release(self) -> None:
        """Give back everything that configuring took; safe to call at any time."""
        self._deactivation_wanted = False
        if self._configured is not None and self._configured.worker.stop():
            self._configured.pipeline.close()  # not if a frame is left behind: it may wait for the pipeline's threads
        for part in (self._inputs, self._outputs, self._map_outputs, self._services_offered):
            if part is not None:
                part.destroy()
        self._configured = self._inputs = self._outputs = self._map_outputs = self._services_offered = None
        self._log.clear()
        self._times.clear()

    def destroy_node(self) -> None:
        super().destroy_node()
        rclpy_private.release_state_machine(self)

    # ---- events ------------------------------------------------------------------------------------------------------

    def _on_clock_jump(self) -> None:
        if self._configured is not None:
            self._configured.intake.start_afresh("clock", "the clock jumped back (a bag loop?)")
            self._configured.vehicle_map.clear()

    def _on_out_of_memory(self, text: str) -> None:
        """Called by the worker's thread. The executor's thread makes the transition."""
        self.set_error(
            f"the device is out of memory, twice: {text}; "
            "use a smaller preset, or close other users of the GPU, then activate again"
        )
        self._deactivation_wanted = True

    def set_error(self, text: str, log: str = "") -> None:
        """Keep what went wrong for the diagnostics, and log it: `text`, or what `log` says in its place."""
        self._error = text
        self.get_logger().error(log or text)

    def report_failure(self, error: Exception) -> None:
        """Report that a callback has failed, and pause; the node goes on."""
        with contextlib.suppress(Exception):  # there may not even be memory for that
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"a callback failed: {type(error).__name__}: {error} ({where.name}, {where.filename}:{where.lineno})"
            self._log.report("node", type(error).__name__, text, time.monotonic())
        time.sleep(FAILURE_PAUSE)

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # ---- timers ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._inputs is not None:
            self._inputs.tick()

    def _publish_diagnostics(self) -> None:
        report = NodeReport(
            state=self._state,
            error=self._error,
            configured=self._configured,
            log=self._log,
            times=self._times,
            clock_ns=self._clock_ns(),
            simulated_time=bool(self.get_parameter("use_sim_time").value),
            now=time.monotonic(),
        )
        self._diagnostics.publish(
            diagnostics_message(report, self.get_fully_qualified_name(), self.get_clock().now().to_msg())
        )

    def _watch_graph(self) -> None:
        """Follow publishers that come and go; with `autostart`, configure and activate once there are cameras."""
        if self._inputs is not None:
            self._inputs.follow_publishers()
            self._name_other_transforms()
        if self._deactivation_wanted:
            self._deactivation_wanted = False
            self.trigger_deactivate()
        waiting = self._autostart_pending and self._state == "unconfigured" and not self._error
        if waiting and self.get_parameter("autostart").value:
            self._autostart()

    def _name_other_transforms(self) -> None:
        """Say where transforms are published if not on the topics of the parameters."""
        parts = self._configured
        if parts is None or (parts.worker.last_frame is not None and not parts.worker.last_frame.ego_motion_missing):
            return
        if text := transforms_elsewhere(self, parts.config, ego_motion=parts.pipeline.has_ego_motion()):
            self._log.report("TF", "topics", text, time.monotonic())

    def _autostart(self) -> None:
        try:
            config = read_config(self)
        except ValueError as error:
            self.set_error(str(error), f"cannot configure: {error}")
            return
        if not config.cameras and not self._camera_search.settled(config):
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self._autostart_pending = self.trigger_activate() != TransitionCallbackReturn.SUCCESS
