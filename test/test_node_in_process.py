"""The real node in this process, with a small network: cameras of the usual QoS, and a device without memory."""

import threading
import time
from types import SimpleNamespace

import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from small_models import small_config
from system import Listener, new_domain, node_command, noise_cameras, wait_until

import renderocc_ros.frame.worker
import renderocc_ros.node
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.untrained import untrained_checkpoint
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.node import GRAPH_PERIOD, RenderOccNode

pytestmark = pytest.mark.system

CAMERAS = ("front", "left", "back")


class System:
    """Node and listener in this process, on a domain of their own."""

    def __init__(self, checkpoint) -> None:
        domain = new_domain()
        parameters = {
            "cameras": CAMERAS,
            "image_topic": "/{camera}/image_raw",
            "camera_info_topic": "/{camera}/camera_info",
            "checkpoint": checkpoint,
            "device": "cpu",
            "cpu_threads": 2,
            "diagnostics_period": 0.1,
            "max_wait": 2.0,  # the messages of a frame are made one after the other, on a computer that may be busy
        }
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = RenderOccNode(context=self.context, cli_args=node_command(parameters)[2:])
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.spin, daemon=True)
        self.thread.start()
        self.listener = Listener(domain)
        self.cameras = noise_cameras(self.listener, CAMERAS)
        self.points = self.listener.listen(PointCloud2, "/renderocc/points")
        self.diagnostics = self.listener.listen(DiagnosticArray, "/diagnostics")

    def spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def state(self) -> int:
        return self.listener.call(GetState, "/renderocc/get_state").current_state.id

    def change(self, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.listener.call(ChangeState, "/renderocc/change_state", request).success

    def send(self) -> None:
        self.cameras.frame(time.time_ns() - 200_000_000)

    def status(self) -> DiagnosticStatus:
        return self.diagnostics[-1].status[0]

    def close_node(self) -> None:
        self.executor.shutdown()
        self.thread.join()
        self.node.release()

    def close(self) -> None:
        self.close_node()
        self.node.destroy_node()
        self.context.try_shutdown()
        self.listener.close()


@pytest.fixture
def system(tmp_path):
    threads = torch.get_num_threads()
    checkpoint = untrained_checkpoint(small_config("tiny"), OCC3D_NUSCENES)
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, checkpoint.network, OCC3D_NUSCENES, 0.3)
    running = System(path)
    yield running
    running.close()
    torch.set_num_threads(threads)


def until_active(system) -> None:
    wait_until(lambda: system.state() == State.PRIMARY_STATE_ACTIVE, 60, "the active node")
    wait_until(lambda: system.cameras.subscribers("raw", "back"), 10, "subscriptions")
    time.sleep(1.0)  # both sides of every match
    system.cameras.send_mounts()


def test_cameras_that_publish_with_best_effort_as_drivers_do_are_heard(system):
    for camera in CAMERAS:
        for kind in ("raw", "camera_info"):
            system.cameras.unplug(kind, camera)
            system.cameras.publisher(kind, camera, qos_profile_sensor_data)
    until_active(system)
    cameras = system.cameras
    wait_until(lambda: all(cameras.subscribers("camera_info", camera) for camera in CAMERAS), 10, "subscriptions")

    def heard_from_all() -> bool:
        system.send()  # best effort: one frame or another may be lost
        time.sleep(0.3)
        return bool(system.points) and system.node._configured.worker.last_frame.used == CAMERAS

    wait_until(heard_from_all, 20, "a frame of all cameras")


def test_out_of_memory_twice_deactivates_with_the_reason_and_the_node_can_be_activated_again(system, monkeypatch):
    """A device that runs out of memory when asked to cannot be had here: the exception takes the network's place."""
    until_active(system)
    system.send()
    wait_until(lambda: system.points, 20, "points")

    calls = []

    def no_memory(*arguments, **named):
        calls.append(time.monotonic())
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation.")

    with monkeypatch.context() as patched:
        patched.setattr(system.node._configured.predictor, "predict", no_memory)
        system.send()
        wait_until(lambda: system.state() == State.PRIMARY_STATE_INACTIVE, 20, "the deactivated node")
    assert len(calls) == 2
    before = len(system.diagnostics)
    wait_until(lambda: len(system.diagnostics) > before + 1, 5, "diagnostics")
    assert system.status().level == DiagnosticStatus.ERROR
    assert system.status().message == (
        "the device is out of memory, twice: CUDA out of memory. Tried to allocate 2.00 GiB.; "
        "use a smaller preset, or close other users of the GPU, then activate again"
    )

    system.node.set_parameters([Parameter("max_markers", value=1000)])
    assert "out of memory" in system.node._error  # that has not mended it

    system.change(Transition.TRANSITION_ACTIVATE)
    before = len(system.points)
    system.send()
    wait_until(lambda: len(system.points) > before, 20, "points again")
    wait_until(lambda: system.status().level == DiagnosticStatus.OK, 5, "a node without an error")


def test_what_a_bad_configuration_has_made_is_gone_and_a_good_one_after_it_makes_everything_once(system, monkeypatch):
    until_active(system)
    node = system.node

    def made() -> list[str]:
        names = [f"{kind} {end.topic_name}" for kind in ("publishers", "subscriptions") for end in getattr(node, kind)]
        return sorted(names + [service.srv_name for service in node.services])

    time.sleep(2 * GRAPH_PERIOD)  # until the subscriptions have adapted to the publishers there are
    active = made()
    system.change(Transition.TRANSITION_DEACTIVATE)
    system.change(Transition.TRANSITION_CLEANUP)
    clean = made()
    assert len(clean) < len(active) == len(set(active))
    real = node.create_service
    with monkeypatch.context() as patched:
        patched.setattr(node, "create_service", lambda kind, name, *rest: {"~/reset": real}[name](kind, name, *rest))
        assert node.trigger_configure() != TransitionCallbackReturn.SUCCESS
    assert made() == clean

    (refused,) = node.set_parameters([Parameter("cameras", value=["front-left"])])
    assert not refused.successful and "'front-left', which cannot be part of a topic: use letters" in refused.reason
    node.set_parameters([Parameter("diagnostics_period", value=0.3)])
    system.change(Transition.TRANSITION_CONFIGURE)
    wait_until(lambda: made() == active, 10, "the same topics and services as before")
    assert node._diagnostics_timer.timer_period_ns == 300_000_000
    (refused,) = node.set_parameters([Parameter("use_sim_time", value=True)])
    assert not refused.successful and "use_sim_time can be set only while the node is unconfigured" in refused.reason
    assert not node.get_parameter("use_sim_time").value


def test_without_memory_for_the_network_it_stays_unconfigured_with_the_reason(system, monkeypatch):
    until_active(system)
    system.change(Transition.TRANSITION_DEACTIVATE)
    system.change(Transition.TRANSITION_CLEANUP)

    def no_memory(*arguments, **named):
        raise MemoryError("Cannot allocate memory (os error 12)")

    with monkeypatch.context() as patched:
        patched.setattr("renderocc_model.network.checkpoint.read_header", no_memory)
        assert system.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert system.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert system.node._error == (
        "out of memory (Cannot allocate memory (os error 12)); "
        "close other programs or choose a smaller network, then configure again"
    )
    assert system.node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_a_frame_that_never_ends_lets_the_node_end_and_is_named(system, monkeypatch):
    monkeypatch.setattr(renderocc_ros.frame.worker, "STOP_LIMIT", 0.2)
    said, hold = [], threading.Event()
    monkeypatch.setattr(system.node._log, "_write", said.append)
    until_active(system)
    predict = system.node._configured.predictor.predict
    monkeypatch.setattr(
        system.node._configured.predictor, "predict", lambda *a, **named: hold.wait(60) and predict(*a, **named)
    )
    wait_until(
        lambda: (system.send(), time.sleep(0.3), system.node._configured.worker.begun)[-1], 20, "the frame's begin"
    )
    try:
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        assert not system.listener.call(ChangeState, "/renderocc/change_state", request, 30).success
        assert system.state() == State.PRIMARY_STATE_ACTIVE
        system.close_node()
        assert not hold.is_set()
        stuck = "frame: the frame under way did not end within 0.2 s; it is left behind"
        assert any(line.startswith(stuck) for line in said), said
    finally:
        hold.set()


def test_a_deactivation_that_was_wanted_is_not_made_up_for_after_the_operators_own(system):
    until_active(system)
    system.node._graph_timer.cancel()  # the operator is faster than the next look
    system.node._deactivation_wanted = True
    assert system.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert not system.node._deactivation_wanted


def test_every_failure_of_a_callback_is_followed_by_a_pause(monkeypatch):
    """One that comes back at once would else be a loop that takes a whole core."""
    said, pauses = [], []
    monkeypatch.setattr(renderocc_ros.node.time, "sleep", pauses.append)
    failing = SimpleNamespace(_log=ThrottledLog(said.append))
    try:
        raise RuntimeError("again")
    except RuntimeError as error:
        RenderOccNode.report_failure(failing, error)
    failing._log = None  # not even that works
    RenderOccNode.report_failure(failing, MemoryError())
    assert len(said) == 1 and pauses == [renderocc_ros.node.FAILURE_PAUSE] * 2
