"""The stage of one lane: rig, node and observer on a ROS domain of their own, and what a fault can do to them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from campaign.observer import Observer, Output
from campaign.process import NodeProcess, node_parameters
from campaign.rig import Rig
from campaign.scene import Scene

__all__ = ["Stage", "StageError", "wait_for"]

USUAL = "renderocc_ros.start"
LOADING = 90.0  # seconds a new process may take until it is active
SETTLING = 20.0  # seconds within which all is as usual before a fault is injected


class StageError(RuntimeError):
    """The node does not come up, even without any fault."""


def wait_for(condition, timeout: float, step: float = 0.02) -> bool:
    """Whether `condition()` became true within so many seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


class Stage:
    """Rig, observer and the node's process.

    Args:
        folder: for logs, checkpoint and what ~/save writes.
        scene, network: what the rig shows; the checkpoint, copied to `folder`.
        domain: ROS domain.
        simulated: use /clock.
        usual: the module that is run as the node.
    Attributes:
        complaints: what a fault itself found wrong in the current run, one line each.
    """

    def __init__(
        self, folder: Path, scene: Scene, network: Path, domain: int, simulated: bool, usual: str = USUAL
    ) -> None:
        self.usual = usual
        self.folder, self.scene, self.domain, self.simulated = folder, scene, domain, simulated
        self.saved = folder / f"saved_{domain}"
        self.saved.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / f"network_{domain}{network.suffix}"
        shutil.copyfile(network, self.checkpoint)
        self.complaints: list[str] = []
        self.module = usual
        self.rig = Rig(scene, domain, simulated)
        self.observer = Observer(self.rig, domain)
        self.rig.start()
        self.node: NodeProcess | None = None
        self.restart()

    @property
    def environment(self) -> dict[str, str]:
        return dict(os.environ, ROS_DOMAIN_ID=str(self.domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")

    def broken(self, text: str) -> None:
        self.complaints.append(text)

    def close(self) -> None:
        if self.node is not None:
            self.node.stop()
        self.observer.close()
        self.rig.close()

    # ---- the node

    def restart(self, wait: bool = True, module: str = "", environment: dict[str, str] | None = None) -> None:
        """End the process, if it runs, and start another, of the usual module or this one.

        Raises:
            StageError: it does not become active.
        """
        if self.node is not None and self.node.alive:
            self.node.stop()
        self.observer.forget_clients()
        self.module = module or self.usual
        parameters = node_parameters(self.scene.cameras, self.checkpoint, self.saved, self.simulated)
        log = self.folder / f"node_{self.domain}.log"
        self.node = NodeProcess(parameters, self.domain, log, self.module, environment)
        if wait and not wait_for(lambda: self.node.said("active: ") or not self.node.alive, LOADING):
            self.node.stop()
        if wait and not self.node.said("active: "):
            raise StageError("the node did not become active; it printed:\n" + "\n".join(self.node.tail()))

    def settle(self) -> bool:
        """Wait until outputs of all cameras come and nothing is said to be wrong; True if that took a new process."""
        fresh = False
        if self.module != self.usual or not self.node.alive:
            self.restart()
        for _ in range(3):
            since = time.monotonic()
            if wait_for(lambda: self.whole(since), SETTLING):
                return fresh
            self.restart()
            fresh = True
        raise StageError(f"no output of all cameras within {SETTLING:g} s of a fresh start; see {self.node.log}")

    def first_fresh(self, since: float) -> Output | None:
        """The first output of an image that was sent after `since`."""
        fresh = {image.stamp for images in self.rig.sent.values() for image in list(images) if image.at >= since}
        return next((o for o in list(self.observer.outputs) if o.at >= since and o.stamp in fresh), None)

    def whole(self, since: float) -> float | None:
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
        return self.observer.call(service_type, f"/renderocc/{name}", request, timeout, lambda: self.node.alive)

    def change_state(self, transition: int) -> bool:
        """Ask for a lifecycle transition; whether it was made."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self.call(ChangeState, "change_state", request, 30.0)
        if answer is None and self.node.alive:
            self.broken(f"lifecycle transition {transition}: no answer within 30 s")
        return answer is not None and answer.success

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState

        answer = self.call(GetState, "get_state")
        return "" if answer is None else answer.current_state.label

    def cycle(self) -> None:
        """Deactivate, clean up, configure, activate."""
        for transition in (4, 2, 1, 3):
            self.change_state(transition)

    def make_active(self) -> None:
        """Whatever state it is in."""
        if not self.node.alive:
            self.restart()
            return
        for _ in range(3):
            state = self.state()
            if state == "active":
                return
            if state == "unconfigured":
                self.change_state(1)
            if state in ("unconfigured", "inactive"):
                self.change_state(3)
            if state == "finalized":
                self.restart()
                return
        if self.state() != "active":
            self.broken(f"the node could not be made active again, it is {self.state() or 'without an answer'}")
            self.restart()

    def shut_down(self) -> None:
        """The transition from which nothing leads back."""
        if not self.change_state(7):  # from active
            self.broken("the transition to shut down failed")

    def save(self):
        """The answer of ~/save."""
        from std_srvs.srv import Trigger

        return self.call(Trigger, "save")

    def set_parameter(self, name: str, value, wait: bool = True) -> tuple[bool, str]:
        """(accepted, reason)."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        answer = self.call(SetParameters, "set_parameters", request)
        if answer is None or not answer.results:
            self.broken(f"parameter {name}: no answer")
            return False, "no answer"
        return answer.results[0].successful, answer.results[0].reason
