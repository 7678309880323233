"""The long run: faults at random moments, a look every second."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from ..catalogue import FAULTS
from ..fault import Fault, Injection
from ..judge import SURPRISES
from ..scene import load_scene
from ..stage import Stage, wait_for
from .samples import Ages, append, read_lines, sample

__all__ = ["Soak", "soaking_faults"]

_LOOK_S, _SAMPLE_S, _SAY_S = 0.1, 1.0, 60.0
_LEFT_OUT = ("process",)  # groups whose faults end the process: its memory is what is watched


def soaking_faults() -> list[Fault]:
    """The faults that a process lives through and that need no simulated clock."""
    return [
        fault
        for fault in FAULTS.values()
        if fault.clock != "sim" and not fault.ends_node and fault.group not in _LEFT_OUT
    ]


class Soak:
    """A stage on which the node runs for a long time.

    Args:
        out: folder for samples.jsonl, events.jsonl and logs.
        bag, network: what the rig shows, and the checkpoint.
        domain: ROS domain.
        rate: frames a second.
    """

    def __init__(self, out: Path, bag: Path, network: Path, domain: int, rate: float) -> None:
        self.out = out
        self.samples, self.events = out / "samples.jsonl", out / "events.jsonl"
        before = read_lines(self.samples)
        self.seconds_before = len(before) * _SAMPLE_S
        self.life = 1 + max((entry["life"] for entry in before), default=-1)
        self.stage = Stage(out, load_scene(bag), network, domain, simulated=False)
        self.stage.rig.rate = rate
        self.stage.observer.judge_free = False  # the campaign does; here it would take the node's time
        self._seen_until = time.monotonic()
        self._ages, self._sampled, self._said = Ages(), 0.0, 0.0

    def run(self, seconds: float, pause: float, seed: int) -> None:
        """Until there are samples of so many seconds.

        Args:
            pause: mean seconds between two faults; 0: none.
            seed: of the faults; with the number of processes before this one.
        """
        draw = random.Random(f"soak {seed} {self.life}")
        faults = soaking_faults()
        left = seconds - self.seconds_before
        print(f"{max(left, 0) / 60:.1f} of {seconds / 60:.1f} minutes to go, {len(faults)} kinds of faults", flush=True)
        try:
            wait_for(lambda: bool(self.stage.observer.outputs), 60.0)
            began = self._said = time.monotonic()
            waiting: list[Fault] = []
            while time.monotonic() - began < left:
                self._pass(draw.expovariate(1 / pause) if pause else 30.0, began, left)
                if not pause or time.monotonic() - began >= left:
                    continue
                if not waiting:
                    waiting = draw.sample(faults, len(faults))
                self._inject(waiting.pop(), draw, began, left)
        finally:
            self.stage.close()

    def _inject(self, fault: Fault, draw: random.Random, began: float, left: float) -> None:
        """One fault, from its beginning to its end."""
        struck = draw.choice(self.stage.scene.cameras) if fault.strikes in ("camera", "mount") else ""
        camera = self.stage.scene.cameras[0] if fault.strikes == "anchor" else struck
        injection = Injection(fault, self.stage, camera, random.Random(draw.random()))
        length = draw.uniform(*fault.seconds) * draw.choice((1.0, 1.0, 3.0))
        self.stage.complaints.clear()
        start, node = time.monotonic() - began, self.stage.node
        self.stage.rig.changes.append(injection.change)
        injection.begin()
        self._pass(length, began, left + length, fault.name)
        self.stage.rig.changes.remove(injection.change)
        injection.end()
        surprises = self._surprises(fault)
        append(self.events, {
            "life": self.life, "t": round(start, 2), "end": round(time.monotonic() - began, 2), "fault": fault.name,
            "camera": camera, "complaints": list(self.stage.complaints), "surprises": surprises,
        })  # fmt: skip
        if self.stage.node is not node or not self.stage.node.alive:
            append(self.events, {
                "life": self.life, "t": round(time.monotonic() - began, 2), "fault": fault.name, "ended": True,
                "said": node.tail(5),
            })  # fmt: skip
            if not self.stage.node.alive:
                self.stage.restart()
            self.life += 1

    def _surprises(self, fault: Fault) -> list[str]:
        """Lines of the log that tell of failures which are not this fault's own doing."""
        since, self._seen_until = self._seen_until, time.monotonic()
        return [
            line[-300:]
            for at, line in list(self.stage.node.lines)
            if since <= at < self._seen_until
            and re.search(SURPRISES, line)
            and not (fault.errors and re.search(fault.errors, line))
        ]

    def _pass(self, seconds: float, began: float, left: float, fault: str = "") -> None:
        """Let time pass, looking."""
        end = min(time.monotonic() + seconds, began + left)
        while (now := time.monotonic()) < end:
            self._ages.look(self.stage)
            if now - self._sampled >= _SAMPLE_S:
                self._sampled = now
                entry = {"life": self.life, "t": round(now - began, 2), "fault": fault, **sample(self.stage)}
                append(self.samples, {**entry, "ages": self._ages.take()})
                self._say(entry, began, left)
            if not self.stage.node.alive and not fault:
                append(self.events, {"life": self.life, "t": round(now - began, 2), "ended": True,
                                     "said": self.stage.node.tail(5)})  # fmt: skip
                self.stage.restart()
                self.life += 1
            time.sleep(_LOOK_S)

    def _say(self, entry: dict, began: float, left: float) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_S:
            self._said = now
            print(
                f"{(now - began) / 60:.0f} of {left / 60:.0f} minutes: {entry.get('memory')} MiB, "
                f"{entry.get('threads')} threads, p50 {entry.get('p50')} ms, p99 {entry.get('p99')} ms, "
                f"{entry.get('published')} frames",
                flush=True,
            )
