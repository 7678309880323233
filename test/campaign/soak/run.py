"""The long run: faults at random moments, and a thread that looks every second."""

from __future__ import annotations

import random
import re
import threading
import time
from pathlib import Path

from system import wait_for

from campaign.faults.catalogue import FAULTS
from campaign.faults.fault import Fault, Injection
from campaign.faults.judge import FAILURES
from campaign.json_lines import append, read_lines
from campaign.recordings import load_scene
from campaign.stage import Stage

from .samples import Ages, sample
from .statistics import soaked_seconds

__all__ = ["Soak", "soaking_faults"]

_LOOK_S, _SAMPLE_S, _SAY_S = 0.1, 1.0, 60.0
_QUIET_S = 20.0  # without output while no fault is on, after which the node counts as broken
_LEFT_OUT = ("process",)  # these faults end the process, whose memory is watched


def soaking_faults() -> list[Fault]:
    """The faults that end no process and need no simulated clock."""
    return [
        fault
        for fault in FAULTS.values()
        if fault.clock != "sim" and not fault.ends_node and fault.group not in _LEFT_OUT
    ]


class Soak:
    """A run of the node for a long time.

    Args:
        out: folder for samples.jsonl, events.jsonl and logs.
        bag, network: what the cameras show, and the checkpoint.
        domain: ROS domain.
        rate: frames a second.
    """

    def __init__(self, out: Path, bag: Path, network: Path, domain: int, rate: float) -> None:
        self.samples, self.events = out / "samples.jsonl", out / "events.jsonl"
        before = read_lines(self.samples)
        self.seconds_before = soaked_seconds(before)
        self.life = 1 + max((entry["life"] for entry in before), default=-1)
        self.stage = Stage(out, load_scene(bag), network, domain, simulated=False)
        self.stage.player.rate = rate
        self.stage.observer.judge_free = False  # `make faults` judges it; here the judging would slow the node down
        self._fault = ""
        self._ended = threading.Event()
        self._began = self._seen_until = time.monotonic()

    def run(self, seconds: float, pause: float, seed: int) -> None:
        """Until the node has run for so many seconds, earlier runs included.

        Args:
            pause: mean seconds between two faults; 0: none.
            seed: of the faults; with the number of processes before this one.
        """
        draw = random.Random(f"soak {seed} {self.life}")
        faults = soaking_faults()
        left = seconds - self.seconds_before
        print(f"{max(left, 0) / 60:.1f} of {seconds / 60:.1f} minutes to go, {len(faults)} kinds of faults", flush=True)
        watch = threading.Thread(target=self._watch, args=(left,), name="watch", daemon=True)
        try:
            wait_for(lambda: bool(self.stage.observer.outputs), 60.0)
            self._began = time.monotonic()
            watch.start()
            waiting: list[Fault] = []
            while self._left(left) > 0:
                self._ended.wait(min(draw.expovariate(1 / pause) if pause else 5.0, self._left(left)))
                self._keep_alive()
                if pause and self._left(left) > 0:
                    waiting = waiting or draw.sample(faults, len(faults))
                    self._inject(waiting.pop(), draw)
        finally:
            self._ended.set()
            if watch.is_alive():
                watch.join()
            self.stage.close()

    def _left(self, seconds: float) -> float:
        return max(0.0, seconds - (time.monotonic() - self._began))

    def _time(self) -> float:
        return round(time.monotonic() - self._began, 2)

    def _inject(self, fault: Fault, draw: random.Random) -> None:
        """One fault, from its beginning to its end."""
        struck = draw.choice(self.stage.scene.cameras) if fault.strikes_any else ""
        camera = self.stage.scene.cameras[0] if fault.strikes_anchor else struck
        injection = Injection(fault, self.stage, camera, random.Random(draw.random()))
        length = draw.uniform(*fault.seconds) * draw.choice((1.0, 1.0, 3.0))
        self.stage.broken.clear()
        began, self._fault = self._time(), fault.name
        self.stage.player.changes.append(injection.change)
        try:
            injection.begin()
            time.sleep(length)
        except OSError as error:  # a process that has ended meanwhile, a file that is gone
            self.stage.add_broken(f"{type(error).__name__}: {error}")
        finally:
            self.stage.player.changes.remove(injection.change)
            injection.end()
            self._fault = ""
        append(
            self.events,
            {
                "life": self.life,
                "t": began,
                "end": self._time(),
                "fault": fault.name,
                "camera": camera,
                "broken": list(self.stage.broken),
                "unexpected": self._unexpected(fault),
            },
        )

    def _unexpected(self, fault: Fault) -> list[str]:
        """Lines of the log about failures that do not belong to this fault."""
        since, self._seen_until = self._seen_until, time.monotonic()
        return [
            line[-300:]
            for line in self.stage.node.lines_since(since, self._seen_until)
            if re.search(FAILURES, line) and not (fault.errors and re.search(fault.errors, line))
        ]

    def _keep_alive(self) -> None:
        """Start a new process if the old one has ended, or publishes nothing although no fault is on."""
        since = time.monotonic()
        alive = self.stage.node.alive and wait_for(
            lambda: self.stage.observer.outputs[-1].at >= since or not self.stage.node.alive, _QUIET_S
        )
        if alive and self.stage.node.alive:
            return
        why = f"no output for {_QUIET_S:g} s" if self.stage.node.alive else f"status {self.stage.node.process.poll()}"
        said = [why, *self.stage.node.lines[-5:]]
        append(self.events, {"life": self.life, "t": self._time(), "ended": True, "said": said})
        self.stage.restart()
        self.life += 1

    def _watch(self, seconds: float) -> None:
        """Samples, until the end."""
        ages, sampled, said = Ages(), 0.0, time.monotonic()
        while not self._ended.wait(_LOOK_S):
            ages.look(self.stage)
            now = time.monotonic()
            if now - sampled < _SAMPLE_S:
                continue
            sampled = now
            entry = {"life": self.life, "t": self._time(), "fault": self._fault, **sample(self.stage)}
            append(self.samples, {**entry, "ages": ages.take()})
            if now - said >= _SAY_S:
                said = now
                print(
                    f"{entry['t'] / 60:.0f} of {seconds / 60:.0f} minutes: {entry.get('own')} MiB of its own, "
                    f"{entry.get('threads')} threads, p50 {entry.get('p50')} ms, p99 {entry.get('p99')} ms, "
                    f"{entry.get('published')} frames",
                    flush=True,
                )
