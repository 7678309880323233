"""What the fault campaign found in the node, each with what keeps it from coming back."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from system import new_domain, program_environment, wait_until
from test_worker import Setup, fail

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.undistortion import View
from renderocc_model.ops.visibility import ViewFrusta, cast, visible_voxels
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_ros.frame.placement import place_cameras
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.node import RenderOccNode

pytestmark = pytest.mark.system

ENDING = """
import atexit, os, signal, threading, time
import rclpy
from renderocc_ros import node, start

def end():
    while not rclpy.ok():
        time.sleep(0.05)
    time.sleep(1.5)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()
atexit.register(print, "the interpreter cleans up")
start.main(["--ros-args", "-p", "cameras:=[front]", "-p", "autostart:=false"])
"""


FAILING = """
def fail(self):
    raise MemoryError("none left")

node.RenderOccNode._watch_graph = fail
"""


def test_a_worker_that_cannot_even_report_lives_for_the_next_frame():
    """Found with memory exhausted: the report of a failed frame failed too, and the worker's thread was gone."""
    setup = Setup()
    setup.worker.start()
    real, setup.worker._log.report = setup.worker._log.report, fail_with(MemoryError())
    setup.pipeline.steps = [fail(MemoryError())]
    setup.send(1)
    wait_until(lambda: setup.worker.counters.failed == 2, 10, "both failures")
    setup.worker._log.report = real
    setup.send(2)
    setup.expect(2)
    setup.worker.stop()


def fail_with(error):
    def report(*_):
        raise error

    return report


def test_warnings_and_events_can_be_said_in_one_life():
    """rclpy's logger refuses a second severity from one place in the code: the first warning ended the worker."""
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    try:
        node = RenderOccNode(context=context)
        for number, log in enumerate((node._log, node._events, node._log, node._events)):
            assert isinstance(log, ThrottledLog)
            log.report("a test", f"kind {number}", "said", time.monotonic())
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_a_node_that_is_told_to_end_leaves_nothing_for_the_interpreter_to_do():
    """Found with SIGTERM on a busy computer: it took five seconds to end, in the collection of PyTorch's objects."""
    environment = program_environment(new_domain())
    done = subprocess.run([sys.executable, "-c", ENDING], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "cleans up" not in done.stdout, done.stdout + done.stderr


def test_a_transition_that_the_state_does_not_have_is_refused_and_said(monkeypatch):
    """Found with random transitions: rclpy raises in the service's callback, and any client could end the process."""
    said = []
    context = Context()
    rclpy.init(context=context, domain_id=new_domain())
    try:
        node = RenderOccNode(context=context)
        monkeypatch.setattr(node._log, "_write", said.append)
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
        answer = node._LifecycleNodeMixin__on_change_state(request, ChangeState.Response())
        assert not answer.success
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert said == ["lifecycle: transition 3 refused: the state 'unconfigured' has no such transition"]


def test_a_callback_that_fails_does_not_end_the_process():
    """Found with memory exhausted: the executor hands an exception of one callback to `main`."""
    environment = program_environment(new_domain())
    program = ENDING.replace("def end", FAILING + "\ndef end")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "cleans up" not in done.stdout, done.stdout + done.stderr
    assert "a callback failed: MemoryError: none left" in done.stdout + done.stderr


def test_a_face_that_is_upright_but_for_rounding_hides_what_lies_beyond_it():
    """Found by an unreadable image: with rotations of ego motion, cells that no camera saw were now and then free.

    A level camera's left and right faces are upright; rounding leaves them a slope of 1e-17 to 1e-25 (found: where a
    column meets such a face was beyond all integers, and the whole column was called visible).
    """
    grid = VoxelGrid((-16.0, -16.0, -1.0), (16.0, 16.0, 4.0), 1.0)
    view = View(128, 64, np.array([[91.0, 0, 63.5], [0, 91.0, 28.5], [0, 0, 1]]))
    field = SemanticDensityField(grid, torch.full(grid.shape, 0.001), torch.zeros(*grid.shape, 1))
    frusta = ViewFrusta(grid, [view], [None], torch.device("cpu"))
    for exponent in range(14, 30):
        for sign in (1, -1):
            pose = np.eye(4)
            pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # columns: right, down and forward along x
            pose[2, 0] = sign * 10.0**-exponent  # its right is that much up
            pose[:3, 3] = 1.7, 0.0, 1.5
            found = cast(field.density, frusta.at(pose[None]), "cpu").numpy()
            expected = visible_voxels(field, [view], pose[None], backend="reference").numpy()
            assert (found != expected).mean() < 0.002, f"{sign * 10.0**-exponent}: {found.sum()}, not {expected.sum()}"


STILL = (0.0, 0.0, 0.0, 1.0)


def test_a_vehicle_that_odometry_puts_beyond_all_measure_keeps_its_mounts():
    """Found with odometry of 1e300 m: between it and a true pose, cameras stood where no number reaches; a crash."""
    transforms = TransformBuffer()
    transforms.set("base_link", "optical", 1, (1.0, 0.0, 1.5), STILL, static=True)
    transforms.set("odom", "base_link", 1_000_000_000, (0.0, 0.0, 0.0), STILL)
    transforms.set("odom", "base_link", 2_000_000_000, (1e300, 0.0, 0.0), STILL)
    placements = place_cameras(transforms, {"front": ("optical", 1_500_000_000)}, 1_000_000_000, "base_link", "odom")
    assert placements.base_from_camera["front"][:3, 3].tolist() == [1.0, 0.0, 1.5]
    assert placements.odom_from_base is None
    assert placements.ego_motion_missing.startswith("'base_link' jumps by more than 1000 m in 'odom' within 0.500 s")


def test_a_camera_that_tf_puts_beyond_all_measure_is_not_placed():
    transforms = TransformBuffer()
    transforms.set("base_link", "optical", 1, (1e300, 0.0, 1.5), STILL, static=True)
    placements = place_cameras(transforms, {"front": ("optical", 5)}, 5, "base_link", "")
    assert placements.base_from_camera == {}
    assert placements.unplaced["front"] == "TF has it 1e+300 m away from 'base_link'"


def test_visibility_refuses_a_camera_beyond_all_measure():
    view = View(128, 64, np.array([[91.0, 0, 63.5], [0, 91.0, 28.5], [0, 0, 1]]))
    frusta = ViewFrusta(VoxelGrid((-16.0, -16.0, -1.0), (16.0, 16.0, 4.0), 1.0), [view], [None], torch.device("cpu"))
    pose = np.eye(4)
    pose[0, 3] = 1e300
    with pytest.raises(ValueError, match="1e[+]300 voxels away"):
        frusta.at(pose[None])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_loads_ends_the_node_with_a_line_and_status_0(number):
    """Found by signals in the first seconds: a traceback out of an import, and a status as if it had been killed."""
    program = (
        "import os, sys, types; from renderocc_ros import start\n"
        "node = types.ModuleType('renderocc_ros.main')\n"
        f"node.__getattr__ = lambda name: os.kill(os.getpid(), {int(number)}) or print('not ended')\n"
        "sys.modules['renderocc_ros.main'] = node; start.main([])"
    )
    environment = program_environment()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"ended by {signal.Signals(number).name} while loading\n"
