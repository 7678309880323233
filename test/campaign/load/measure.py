"""One cell of the table: a size, a transport, a rate; what went in, what came out, how old it was, what was shed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from campaign.observer import Observer, Status
from campaign.process import NodeProcess
from campaign.soak.samples import queues
from campaign.stage import StageError, wait_for

__all__ = ["Bench", "Cell"]

_WARM_UP_S, _FIRST_S, _LOADING_S = 4.0, 20.0, 120.0
_FRAMES = {"published": "published", "skipped": "skipped, a newer one was there", "failed": "failed"}


class Cell(tuple):
    """(width, height, transport, rate)."""

    @property
    def name(self) -> str:
        width, height, transport, rate = self
        return f"{width}x{height} {transport} {rate:g} Hz"


class Bench:
    """The node, an observer, and a source that is started anew for each cell; use as a context manager.

    Args:
        out: folder for logs.
        bag, checkpoint: what the cameras show; the network.
        cameras: their names.
        domain: ROS domain.
        threads: of the network; 0: all cores.
    """

    def __init__(self, out: Path, bag: Path, checkpoint: Path, cameras: tuple[str, ...], domain: int, threads: int):
        self.out, self.bag = out, bag
        parameters = {
            "cameras": f"[{', '.join(cameras)}]",
            "image_topic": "/{camera}/image_raw",
            "camera_info_topic": "/{camera}/camera_info",
            "checkpoint": str(checkpoint),
            "save_directory": str(out),
            "cpu_threads": str(threads),
        }
        self.environment = dict(os.environ, ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
        self.observer = Observer(None, domain)
        self.observer.judge_free = False
        self.node = NodeProcess(parameters, domain, out / "node.log")
        if not wait_for(lambda: self.node.said("active: ") or not self.node.alive, _LOADING_S) or not self.node.alive:
            self.close()
            raise StageError("the node did not become active; it printed:\n" + "\n".join(self.node.tail()))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.node.stop()
        self.observer.close()

    def measure(self, cell: Cell, seconds: float) -> dict:
        """Send for so many seconds and look; the figures of a row."""
        width, height, transport, rate = cell
        specification = self.out / "source.json"
        content = {"bag": str(self.bag), "width": width, "height": height, "transport": transport, "rate": rate}
        specification.write_text(json.dumps(content))
        log = self.out / "source.log"
        with log.open("w") as file:
            source = subprocess.Popen(
                [sys.executable, "-m", "campaign.load.source", str(specification)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )
        try:
            since = time.monotonic()
            wait_for(lambda: self._heard_since(since) or source.poll() is not None, _FIRST_S)
            flowing = self._heard_since(since)
            if source.poll() is not None:
                raise StageError(f"the source ended: {log.read_text()[-1500:]}")
            time.sleep(_WARM_UP_S if flowing else 0.0)
            return {**content, "bag": self.bag.name, "flowing": flowing, **self._look(log, seconds)}
        finally:
            source.send_signal(signal.SIGINT)
            try:
                source.wait(10.0)
            except subprocess.TimeoutExpired:
                source.kill()
                source.wait()

    def _heard_since(self, since: float) -> bool:
        return any(output.at >= since for output in list(self.observer.outputs))

    def _look(self, log: Path, seconds: float) -> dict:
        before, sent_before, began = self._state(), _said(log)[-1:], time.monotonic()
        ages: list[float] = []
        while time.monotonic() - began < seconds:
            time.sleep(0.02)
            newest = next((o.stamp for o in reversed(list(self.observer.outputs)) if o.topic == "grid"), None)
            if newest is not None:
                ages.append(time.time() - newest * 1e-9)
        after, sent, took = self._state(), _said(log), time.monotonic() - began
        outputs = sum(o.topic == "grid" and o.at >= began for o in list(self.observer.outputs))
        first, last = (sent_before or sent[:1])[0], sent[-1]
        span = max(last["t"] - first["t"], 1e-9)
        counted = {name: after[name] - before[name] for name in after if isinstance(after[name], (int, float))}
        dropped = {reason: after["reasons"][reason] - before["reasons"].get(reason, 0) for reason in after["reasons"]}
        percentile = lambda q: float(np.percentile(ages, q)) if ages else None  # noqa: E731
        return {
            "sent_rate": (last["sent"] - first["sent"]) / span,
            "source_late": max(entry["late"] for entry in sent[-int(seconds) :]),
            "source_cores": (last["cpu"] - first["cpu"]) / span,
            "bytes_of_a_frame": _frame_bytes(log),
            "output_rate": outputs / took,
            "age_p50": percentile(50),
            "age_p99": percentile(99),
            "age_most": percentile(100),
            "node_cores": counted.pop("cpu") / took,
            "received_rate": counted.pop("received") / max(after["cameras"], 1) / counted.pop("at"),
            **{name: counted[name] for name in (*_FRAMES, "held")},
            "dropped": {reason: count for reason, count in dropped.items() if count},
            "memory": after["memory"],
        }

    def _state(self) -> dict:
        """Counters of the newest report that came now, and the process's CPU time."""
        asked = time.monotonic()
        if not wait_for(lambda: self.observer.reports and self.observer.reports[-1][0] >= asked, 10.0):
            raise StageError("no /diagnostics for 10 s; see node.log")
        at, lines = self.observer.reports[-1]
        holdings = self.node.holdings()
        if holdings is None:
            raise StageError("the node ended; it printed:\n" + "\n".join(self.node.tail()))
        cameras = {name: status for name, status in lines.items() if name.startswith("camera ")}
        state = {name: _count(lines["frames"], key) for name, key in _FRAMES.items()}
        reasons: dict[str, int] = {}
        for status in cameras.values():
            for key in status.values:
                if key.startswith("dropped, "):
                    reasons[key[9:]] = reasons.get(key[9:], 0) + int(status.values[key])
        return {
            **state,
            "at": at,
            "held": queues(lines)[0],
            "cpu": holdings.cpu,
            "reasons": reasons,
            "received": sum(int(status.values["received"]) for status in cameras.values()),
            "cameras": len(cameras),
            "memory": holdings.memory,
        }


def _count(status: Status, key: str) -> int:
    return int(status.values.get(key, 0))


def _said(log: Path) -> list[dict]:
    """What the source said of what it sent."""
    lines = [line for line in log.read_text().splitlines() if line.startswith('{"t"') and line.endswith("}")]
    if not lines:
        raise StageError(f"the source sent nothing: {log.read_text()[-1500:]}")
    return [json.loads(line) for line in lines]


def _frame_bytes(log: Path) -> int:
    return json.loads(next(line for line in log.read_text().splitlines() if line.startswith('{"bytes')))[
        "bytes_of_a_frame"
    ]
