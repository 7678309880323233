"""The stage of a campaign: cameras, node and observer on a ROS domain of their own, and what a fault can do to them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from system import Program, Scene, node_command, wait_for

from campaign.observer import Observer, Output
from campaign.player import ScenePlayer

__all__ = ["CAMERA_TIMEOUT", "DIAGNOSTICS_PERIOD", "Stage", "StageError", "start_node"]

NODE = "renderocc_ros.start"
CAMERA_TIMEOUT = 1.0  # seconds; the node's own default is 2.0
DIAGNOSTICS_PERIOD = 0.25  # seconds; the node's own default is 1.0
LOADING = 240.0  # seconds a new process may take until it is active, on a busy machine
SETTLING = 20.0  # seconds within which the node must work as usual before a fault is injected
WHOLE_CYCLE = (
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
)


class StageError(RuntimeError):
    """The node does not come up, even without any fault."""


def start_node(
    cameras: tuple[str, ...],
    parameters: Mapping[str, object],
    domain: int,
    log: Path,
    module: str = NODE,
    environment: Mapping[str, str] | None = None,
) -> Program:
    """Start a process of the node for cameras on `/<camera>/image_raw` and `/<camera>/camera_info`.

    Args:
        parameters: further ones.
        module: what to run in place of the node.
        environment: added to the program's.
    """
    topics = {"image_topic": "/{camera}/image_raw", "camera_info_topic": "/{camera}/camera_info"}
    command = node_command({"cameras": cameras, **topics, **parameters}, module=module)
    return Program(command, domain, environment, log)


def until_active(node: Program, timeout: float = LOADING) -> None:
    """Wait until a process of the node is active.

    Raises:
        StageError: it did not become active; the process is ended.
    """
    wait_for(lambda: node.said("active: ") or not node.alive, timeout)
    if not node.said("active: "):
        node.stop()
        raise StageError(f"the node did not become active; it printed:\n{node.tail()}")


class Stage:
    """Cameras, observer and the node's process.

    Args:
        folder: for logs, checkpoint and what ~/save writes.
        scene, network: what the cameras show; the checkpoint, copied to `folder`.
        domain: ROS domain.
        simulated: use /clock.
        usual: the module that is run as the node.
    Attributes:
        broken: what a fault itself found wrong in the current run, one line each.
    """

    def __init__(
        self, folder: Path, scene: Scene, network: Path, domain: int, simulated: bool, usual: str = NODE
    ) -> None:
        self.usual = self.module = usual
        self.folder, self.scene, self.domain, self.simulated = folder, scene, domain, simulated
        self.saved = folder / f"saved_{domain}"
        self.saved.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / f"network_{domain}{network.suffix}"
        shutil.copyfile(network, self.checkpoint)
        self.broken: list[str] = []
        self.player = ScenePlayer(scene, domain, simulated)
        self.observer = Observer(self.player, domain)
        self.player.start()
        self.node: Program | None = None
        try:
            self.restart()
        except BaseException:  # also Ctrl-C while the node loads: it must not be left running
            self.close()
            raise

    def add_broken(self, text: str) -> None:
        """Note that something was wrong in the current run."""
        self.broken.append(text)

    def close(self) -> None:
        if self.node is not None:
            self.node.stop()
        self.observer.close()
        self.player.close()

    # ---- the node

    def restart(self, wait: bool = True, module: str = "", environment: Mapping[str, str] | None = None) -> None:
        """End the process, if it runs, and start another, of the usual module or this one.

        The watchdogs' limits are shorter than by default, so that an hour holds more faults.

        Raises:
            StageError: it does not become active.
        """
        if self.node is not None:
            self.node.stop()
        self.observer.forget_clients()
        self.module = module or self.usual
        parameters = {
            "camera_timeout": CAMERA_TIMEOUT,
            "diagnostics_period": DIAGNOSTICS_PERIOD,
            "checkpoint": self.checkpoint,
            "save_directory": self.saved,
            "cpu_threads": 1,
            "use_sim_time": self.simulated,
        }
        log = self.folder / f"node_{self.domain}.log"
        self.node = start_node(self.scene.cameras, parameters, self.domain, log, self.module, environment)
        if wait:
            until_active(self.node)

    def settle(self) -> bool:
        """Wait until outputs of all cameras come and nothing is said to be wrong; True if that took a new process."""
        fresh = False
        if self.module != self.usual or not self.node.alive:
            self.restart()
        for _ in range(3):
            since = time.monotonic()
            if wait_for(lambda: self.all_cameras_used(since), SETTLING):
                return fresh
            self.restart()
            fresh = True
        raise StageError(f"no output of all cameras within {SETTLING:g} s of a fresh start; see {self.node.log}")

    def first_fresh(self, since: float) -> Output | None:
        """The first output of an image that was sent after `since`."""
        fresh = {image.stamp for images in self.player.sent.values() for image in list(images) if image.at >= since}
        return next((o for o in list(self.observer.outputs) if o.at >= since and o.stamp in fresh), None)

    def all_cameras_used(self, since: float) -> float | None:
        """When a report first said, after the first fresh output, that the last frame had all cameras."""
        first = self.first_fresh(since)
        if first is None:
            return None
        for at, lines in list(self.observer.reports):
            frames = lines.get("frames")
            if at < first.at or frames is None:
                continue
            used = frames.values.get("cameras in the last one", "").split(", ")
            levels = [lines[name].level for name in (f"camera {c}" for c in self.scene.cameras) if name in lines]
            silent = len(levels) < len(self.scene.cameras) or max(levels) >= 2
            if set(used) == set(self.scene.cameras) and not silent and "nothing published" not in frames.text:
                return at
        return None

    # ---- what faults do

    def call(self, service_type, name: str, request=None, timeout: float = 20.0):
        """The answer of a service of the node; None if none came in time or the process has ended."""
        return self.observer.ask(service_type, f"/renderocc/{name}", request, timeout, lambda: self.node.alive)

    def change_state(self, transition: int) -> bool:
        """Ask for a lifecycle transition; whether it was made."""
        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self.call(ChangeState, "change_state", request, 30.0)
        if answer is None and self.node.alive:
            self.add_broken(f"lifecycle transition {transition}: no answer within 30 s")
        return answer is not None and answer.success

    def state(self) -> str:
        """The lifecycle's state; empty without an answer."""
        answer = self.call(GetState, "get_state")
        return "" if answer is None else answer.current_state.label

    def cycle(self) -> None:
        """Deactivate, clean up, configure, activate."""
        for transition in WHOLE_CYCLE:
            self.change_state(transition)

    def make_active(self) -> None:
        """From whatever state it is in."""
        if not self.node.alive:
            self.restart()
            return
        for _ in range(3):
            state = self.state()
            if state == "active":
                return
            if state == "unconfigured":
                self.change_state(Transition.TRANSITION_CONFIGURE)
            if state in ("unconfigured", "inactive"):
                self.change_state(Transition.TRANSITION_ACTIVATE)
            if state == "finalized":
                self.restart()
                return
        if self.state() != "active":
            self.add_broken(f"the node could not be made active again, it is {self.state() or 'without an answer'}")
            self.restart()

    def shut_down(self) -> None:
        """The transition from which nothing leads back."""
        if not self.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN):
            self.add_broken("the transition to shut down failed")

    def save(self) -> Trigger.Response | None:
        """The answer of ~/save."""
        return self.call(Trigger, "save")

    def set_parameter(self, name: str, value) -> tuple[bool, str]:
        """(accepted, reason)."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        answer = self.call(SetParameters, "set_parameters", request)
        if answer is None or not answer.results:
            self.add_broken(f"parameter {name}: no answer")
            return False, "no answer"
        return answer.results[0].successful, answer.results[0].reason
