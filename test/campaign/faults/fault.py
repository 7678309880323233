"""What a fault is: functions that cause it and end it, and what the node must say about it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from campaign.player import Message, ScenePlayer

if TYPE_CHECKING:
    from campaign.stage import Stage

__all__ = ["Fault", "Injection", "keep", "no_action", "node_fault"]


def no_action(injection: Injection) -> None:
    """Do nothing."""


def keep(injection: Injection, message: Message) -> Iterable[Message]:
    """Send the message unchanged."""
    return (message,)


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    name, group, what: for people; the group is a heading of the table.
    change: what goes out in place of a message of the camera that is struck (of every message where `strikes` is not
        'camera').
    begin, end: done when it starts and ends; `end` leaves things as `begin` found them and the node active.
    strikes: 'camera' (one at random), 'anchor', 'cameras' (all), 'mount' (one camera's, on /tf_static), 'anchor mount'
        (on /tf), or 'node' (TF, clock, process, files).
    line, named: the line of /diagnostics, {camera} standing for the one struck, and what its text must match; empty:
        nothing has to be said.
    level: of that line at least: 1 a warning, 2 an error.
    said: or, in place of a line of /diagnostics, what the node's log must match.
    clock: 'any', 'wall', or 'sim' for what needs use_sim_time.
    back: output stamps may go back, because time has gone back.
    judge_free: whether free cells can be told from outside while it is on.
    stops: outputs may stop, so that no other fault can be expected to be seen.
    ends_node: the process may end; with `exits`, what the last line must match if the status is not 0.
    ends_within: seconds within which it must; 0: it need not.
    alone: never in combination with others.
    seconds: how long it lasts at least.
    within: seconds beyond the promise in which it must be named, for what is timed by something else.
    errors: a pattern of log lines about failed frames that belong to it.
    """

    name: str
    group: str
    what: str
    change: Callable[[Injection, Message], Iterable[Message]] = keep
    begin: Callable[[Injection], None] = no_action
    end: Callable[[Injection], None] = no_action
    strikes: str = "camera"
    line: str = "camera {camera}"
    named: str = ""
    level: int = 1
    said: str = ""
    clock: str = "any"
    back: bool = False
    judge_free: bool = True
    stops: bool = False
    ends_node: bool = False
    exits: str = ""
    ends_within: float = 0.0
    alone: bool = False
    seconds: tuple[float, float] = (1.5, 2.2)
    within: float = 0.0
    errors: str = ""

    @property
    def strikes_any(self) -> bool:
        """One camera at random, or its mount."""
        return self.strikes in ("camera", "mount")

    @property
    def strikes_anchor(self) -> bool:
        """The first camera, or its mount."""
        return self.strikes in ("anchor", "anchor mount")


@dataclass
class Injection:
    """A fault in one run: the camera it strikes, its own random numbers, its state."""

    fault: Fault
    stage: Stage
    camera: str
    random: random.Random
    state: dict = field(default_factory=dict)
    on: bool = False

    @property
    def player(self) -> ScenePlayer:
        return self.stage.player

    @property
    def affected(self) -> tuple[str, ...]:
        """Cameras that the node may report while the fault is on."""
        return (self.camera,) if self.camera else self.player.scene.cameras

    def change(self, message: Message) -> Iterable[Message]:
        """The messages that are sent in place of this one."""
        filtered = self.fault.strikes in ("camera", "anchor")
        if not self.on or (filtered and message.camera != self.camera):
            return (message,)
        return self.fault.change(self, message)

    def begin(self) -> None:
        self.state["began"] = time.monotonic()
        self.on = True
        self.fault.begin(self)

    def end(self) -> None:
        self.on = False
        self.fault.end(self)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.state["began"]


def node_fault(name: str, group: str, what: str, **more) -> Fault:
    """A fault that strikes the node itself, and is named on its own line of /diagnostics."""
    return Fault(name, group, what, **{"strikes": "node", "line": "node", **more})
