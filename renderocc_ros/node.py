"""The lifecycle node `renderocc`: topics, services, parameters and states; the modules that it wires do the work."""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import time
import traceback
from collections.abc import Callable

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.declaration import declare_parameters, read_config, unknown_parameters
from renderocc_ros.frame.pipeline import Frame, FramePipeline
from renderocc_ros.frame.worker import Worker
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import Complaints
from renderocc_ros.input.inputs import Inputs
from renderocc_ros.input.intake import Intake
from renderocc_ros.input.playback_clock import Pace
from renderocc_ros.output.diagnostics import NodeReport, diagnostics_message
from renderocc_ros.output.publishers import OutputPublishers
from renderocc_ros.output.saving import SaveFolder
from renderocc_ros.parameters import RUNTIME_PARAMETERS, NodeConfig, cameras_on_graph
from renderocc_ros.process import end_at_first_signal, ignore_signals, leave, prepare_process, signals_later
from renderocc_ros.ros_arguments import RosArgumentsError, start_ros

CLOCK_JUMP_BACK = 0.5  # seconds a simulated clock may go back before everything is forgotten
MOST_TF_SAMPLES = 200_000  # 80 MB; a hundred frames at 100 Hz for ten seconds are half of it
USAGE = """usage: renderocc_node [--ros-args -p NAME:=VALUE --params-file FILE ...]

The node `renderocc`: cameras and TF in, occupancy out. Without parameters it takes every camera that it finds.
example: renderocc_node --ros-args -p cameras:="[front, left, right]" -p "image_topic:=<camera>/image"
All parameters, with their meaning and range, are in config/renderocc.yaml; `ros2 param describe` tells them too."""
TICK_PERIOD = 0.03  # seconds between two looks for images that have waited long enough
LAST_ANSWER = 0.2  # seconds from the shutdown transition to the process's end: its answer must reach who asked for it
FAILURE_PAUSE = 0.1  # seconds after a callback's failure, which may come back at once
GRAPH_PERIOD = 0.5  # seconds between two looks at which publishers there are


def transition(callback: Callable) -> Callable:
    """A lifecycle callback whose exceptions are logged: rclpy turns them into the error state and says nothing."""

    @functools.wraps(callback)
    def logged(self: RenderOccNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state)
        except Exception as error:
            self._error = f"{callback.__name__} failed: {type(error).__name__}: {error}"
            self.get_logger().error(f"{self._error}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return logged


class RenderOccNode(LifecycleNode):
    """Cameras and TF in; points, markers, grid, rendered views and diagnostics out (design of the package: README).

    Attributes:
        ended: whether nothing can come any more: the shutdown transition was made and answered.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("renderocc", **kwargs)
        # Each through a line of its own: rclpy's logger refuses two severities from one place in the code.
        self._complaints = Complaints(lambda text: self.get_logger().warning(text))
        self._news = Complaints(lambda text: self.get_logger().info(text))  # what senders cause, as often as they like
        self._times = StageTimes()
        self._transforms = TransformBuffer()
        self._config: NodeConfig | None = None
        self._state = "unconfigured"
        self._error = ""
        self._deactivation_wanted = False
        self._autostart_pending = True  # until it has succeeded once; what follows is the operator's
        self._cameras: tuple[str, ...] = ()
        self._inputs: Inputs | None = None
        self._outputs: OutputPublishers | None = None
        self._services_offered: list = []
        self._predictor = None
        self._intake: Intake | None = None
        self._pipeline: FramePipeline | None = None
        self._worker: Worker | None = None
        self._seen_cameras: tuple[str, ...] = ()
        self._end_timer = None
        self.ended = False

        for line in declare_parameters(self):
            self._error = line
            self.get_logger().error(line)
        for name, line in unknown_parameters(self).items():
            self._complaints.report("parameters", name, line, time.monotonic())
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
        changed = {parameter.name: parameter.value for parameter in parameters if hasattr(NodeConfig, parameter.name)}
        # The intake's time follows the clock that was chosen when the node was configured.
        fixed = sorted({parameter.name for parameter in parameters} & {*changed, "use_sim_time"} - RUNTIME_PARAMETERS)
        if not changed and not fixed:
            return SetParametersResult(successful=True)
        try:
            config = read_config(self, changed)
            self._save_folder.check(config.save_directory)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if fixed and self._config is not None:
            names = ", ".join(fixed)
            return SetParametersResult(
                successful=False,
                reason=f"{names} can be set only while the node is unconfigured; "
                f"run: ros2 lifecycle set {self.get_fully_qualified_name()} "
                "deactivate, then cleanup, then set it, configure and activate",
            )
        if self._config is None:
            self._error = ""  # perhaps; what has stopped a configured node no parameter that is free then can mend
        else:
            self._config = config
            self._predictor.threshold = config.threshold or self._predictor.stored_threshold
        return SetParametersResult(successful=True)

    # ---- lifecycle -------------------------------------------------------------------------------------------------

    @transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            config = read_config(self)
            self._cameras = config.cameras or self._find_cameras(config)
            self._configure(config)
        except (ValueError, OSError, RuntimeError, ImportError, NameValidationException) as error:
            self._error = str(error)
            self.get_logger().error(f"cannot configure: {error}")
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._state, self._error = "inactive", ""
        return super().on_configure(state)

    @transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._intake.resume()
        self._worker.start()
        self._state, self._error = "active", ""
        self._outputs.publish_classes(self._predictor.classes)
        self.get_logger().info(f"active: {len(self._cameras)} cameras ({', '.join(self._cameras)})")
        return result

    @transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if not self._worker.stop():
            return TransitionCallbackReturn.FAILURE  # once the frame has ended, the next attempt succeeds
        self._worker.reset()
        self._deactivation_wanted = False
        self._state = "inactive"
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "unconfigured"
        return super().on_cleanup(state)

    @transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "finalized"
        self._end_timer = self.create_timer(LAST_ANSWER, self._end, clock=Clock(clock_type=ClockType.STEADY_TIME))
        return super().on_shutdown(state)

    def _end(self) -> None:
        self._end_timer.cancel()
        self.ended = True

    @transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "unconfigured"
        return super().on_error(state)

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """rclpy's own, which raises where the state has no such transition: any client could so end the process."""
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError:
            text = f"transition {transition_id} refused: the state '{self._state}' has no such transition"
            self._complaints.report("lifecycle", "transition", text, time.monotonic())
            return TransitionCallbackReturn.FAILURE

    def _find_cameras(self, config: NodeConfig) -> tuple[str, ...]:
        cameras = self._cameras_on_graph(config)
        if not cameras:
            raise ValueError(
                "no camera is on the graph: "
                f"nothing publishes both {config.camera_info_topic} and {config.image_topic}; "
                "start the cameras, or set the parameter 'cameras' (and 'image_topic', 'camera_info_topic')"
            )
        return cameras

    def _cameras_on_graph(self, config: NodeConfig) -> tuple[str, ...]:
        topics = self.get_topic_names_and_types()
        return cameras_on_graph(topics, config, self.get_namespace(), lambda topic: self.count_publishers(topic) > 0)

    def _configure(self, config: NodeConfig) -> None:
        from renderocc_ros.frame.network_setup import make_predictor

        self._predictor = make_predictor(config, self.get_logger())
        self._transforms = TransformBuffer(history=config.tf_history, max_total=MOST_TF_SAMPLES)
        now = Pace(self._clock_ns).now if self.get_parameter("use_sim_time").value else time.monotonic
        self._intake = Intake(config, self._cameras, self._complaints, self._clock_ns, now, self._news)
        self._pipeline = FramePipeline(
            config, self._cameras, self._predictor, self._transforms, self._complaints, self._times
        )
        self._worker = Worker(
            self._intake, self._pipeline, self._publish_frame, self._on_out_of_memory, self._complaints, self._times,
            config.startup_grace,
        )  # fmt: skip
        self._config = config
        self._diagnostics_timer.timer_period_ns = int(config.diagnostics_period * 1e9)
        self._diagnostics_timer.reset()
        self._outputs = OutputPublishers(self, self._cameras)
        self._inputs = Inputs(
            self,
            config,
            self._cameras,
            lambda: self._state == "active",
            self._intake,
            self._transforms,
            self._worker,
            self._predictor,
            self._complaints,
            self._news,
        )
        for name, callback in (("~/reset", self._on_reset), ("~/save", self._on_save)):
            self._services_offered.append(self.create_service(Trigger, name, callback))

    def destroy_node(self) -> None:
        """rclpy's own leaves the node on the graph for as long as its state machine lives; if the process ends then,
        other programs see the node for another 20 s and its shared memory stays."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def _release(self) -> None:
        """Give back everything that configuring took; safe to call at any time."""
        ended = self._worker is None or self._worker.stop()
        self._deactivation_wanted = False
        if self._pipeline is not None and ended:  # a frame that is left behind may wait for the pipeline's threads
            self._pipeline.close()
        if self._inputs is not None:
            self._inputs.destroy()
        if self._outputs is not None:
            self._outputs.destroy()
        for service in self._services_offered:
            self.destroy_service(service)
        self._services_offered = []
        self._inputs = self._outputs = self._worker = self._pipeline = self._intake = None
        self._predictor = self._config = None
        self._complaints.clear()
        self._times.clear()

    # ---- outputs -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._state == "active":
            self._intake.tick()
            self._worker.collect()

    def _publish_frame(self, frame: Frame) -> None:
        """Called by the worker."""
        self._outputs.publish(frame, self._config)

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
        self._diagnostics.publish(
            diagnostics_message(report, self.get_fully_qualified_name(), self.get_clock().now().to_msg())
        )

    # ---- services and events -----------------------------------------------------------------------------------------

    def _on_reset(self, request, response):
        self._news.report("starting afresh", "reset", "asked by ~/reset", time.monotonic())
        self._transforms.clear()
        self._worker.reset()
        response.success, response.message = True, "queues, /tf and the previous volume are cleared"
        return response

    def _on_save(self, request, response):
        frame = self._worker.last_frame if self._worker is not None else None
        if frame is None or frame.occupancy is None:
            response.success, response.message = False, "there is no volume yet; nothing was written"
            return response
        try:
            paths = self._save_folder.save(frame, self._config)
        except OSError as error:
            folder = self._config.save_directory
            response.success, response.message = False, f"nothing was saved to {folder}: {error}; set 'save_directory'"
            return response
        response.success, response.message = True, f"{paths[0]} {paths[1]}"
        return response

    def _on_clock_jump(self) -> None:
        """Clear queues, dynamic TF and temporal state, and go on; calibrations and static mounts stay."""
        self._news.report("starting afresh", "clock", "the clock jumped back (a bag loop?)", time.monotonic())
        self._transforms.clear()
        if self._worker is not None:
            self._intake.reset()
            self._worker.start_afresh()

    def _on_out_of_memory(self, text: str) -> None:
        self._error = (
            f"the device is out of memory, twice: {text}; "
            "use a smaller preset, or close other users of the GPU, then activate again"
        )
        self.get_logger().error(self._error)
        self._deactivation_wanted = True  # by the executor's thread: transitions are not made from the worker's

    def report_failure(self, error: Exception) -> None:
        """A callback failed: say so, once in a while, and pause; the node goes on."""
        with contextlib.suppress(Exception):  # not even memory for that
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"a callback failed: {type(error).__name__}: {error} ({where.name}, {where.filename}:{where.lineno})"
            self._complaints.report("node", type(error).__name__, text, time.monotonic())
        time.sleep(FAILURE_PAUSE)

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _watch_graph(self) -> None:
        """Follow publishers that come and go; with `autostart`, configure and activate once there are cameras."""
        if self._inputs is not None:
            self._inputs.follow_publishers()
        if self._deactivation_wanted:
            self._deactivation_wanted = False
            self.trigger_deactivate()
        if (
            self._autostart_pending
            and self._state == "unconfigured"
            and not self._error
            and self.get_parameter("autostart").value
        ):
            self._autostart()

    def _autostart(self) -> None:
        try:
            config = read_config(self)
        except ValueError as error:
            self._error = str(error)
            self.get_logger().error(f"cannot configure: {error}")
            return
        if not config.cameras:
            try:
                seen = self._cameras_on_graph(config)
            except ValueError as error:
                self._complaints.report("cameras", "too many", str(error), time.monotonic())
                return
            settled, self._seen_cameras = bool(seen) and seen == self._seen_cameras, seen
            if not settled:
                self._complaints.report(
                    "cameras",
                    "none",
                    f"waiting for cameras: looking for {config.camera_info_topic} with {config.image_topic}",
                    time.monotonic(),
                )
                return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self._autostart_pending = self.trigger_activate() != TransitionCallbackReturn.SUCCESS


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or the shutdown transition; status 2 for arguments that ROS cannot read."""
    words = sys.argv[1:] if args is None else args
    if {"-h", "--help"} & set(words):
        with contextlib.suppress(BrokenPipeError):  # as of `renderocc_node --help | head -1`
            print(USAGE)
        return 0
    prepare_process()
    end_at_first_signal()
    node = executor = None
    try:
        with signals_later():  # a node half made could not be taken off the graph
            start_ros(args)
            node = RenderOccNode()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
        spin(node, executor)
    except RosArgumentsError as error:
        print(f"renderocc_node: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        ignore_signals()
        leave_graph(node, executor)
    return 0


def spin(node: RenderOccNode, executor: SingleThreadedExecutor) -> None:
    """Run the callbacks until the node has ended, whatever one of them does."""
    while rclpy.ok() and not node.ended:  # rclpy's spin_until_future_complete keeps a reference for each callback
        try:
            executor.spin_once()
        except Exception as error:  # of one callback, out of memory perhaps; the others get their chance
            if isinstance(error, ExternalShutdownException):
                raise
            node.report_failure(error)


def leave_graph(node: RenderOccNode | None, executor: SingleThreadedExecutor | None) -> None:
    """Give everything back, so that no other program sees the node any longer, also where the process ends at once."""
    if node is not None:
        node._release()
    if executor is not None:
        executor.shutdown()
    if node is not None:
        node.destroy_node()
    gc.collect()  # what a signal has left half made holds on to the node
    rclpy.try_shutdown()


if __name__ == "__main__":
    leave(main())
