"""One cell of the table: a size, a transport, a rate; what went in, what came out, how old it was, what was shed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from system import Program, wait_for

from campaign.observer import Observer, Status, queues
from campaign.stage import StageError, start_node, until_active

__all__ = ["Cell", "LoadedNode"]

_WARM_UP_S, _FIRST_S = 4.0, 20.0
_FRAMES = {"published": "published", "skipped": "skipped, a newer one was there", "failed": "failed"}


class Cell(tuple):
    """(width, height, transport, rate)."""

    @property
    def name(self) -> str:
        width, height, transport, rate = self
        return f"{width}x{height} {transport} {rate:g} Hz"


class LoadedNode:
    """The node, an observer, and a source that is started anew for each cell; use as a context manager.

    Args:
        out: folder for logs.
        bag, checkpoint: what the cameras show; the network.
        cameras: their names.
        domain: ROS domain.
        threads: of the network; 0: all cores.
    """

    def __init__(self, out: Path, bag: Path, checkpoint: Path, cameras: tuple[str, ...], domain: int, threads: int):
        self.out, self.bag, self.domain = out, bag, domain
        parameters = {"checkpoint": checkpoint, "save_directory": out, "cpu_threads": threads}
        self.observer = Observer(None, domain)
        self.node = start_node(cameras, parameters, domain, out / "node.log")
        try:
            until_active(self.node)
        except BaseException:  # also Ctrl-C while the node loads: it must not be left running
            self.close()
            raise

    def __enter__(self) -> LoadedNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.node.stop()
        self.observer.close()

    def measure(self, cell: Cell, seconds: float) -> dict:
        """Send for so many seconds. Returns the figures of a row."""
        width, height, transport, rate = cell
        specification = self.out / "source.json"
        content = {"bag": str(self.bag), "width": width, "height": height, "transport": transport, "rate": rate}
        specification.write_text(json.dumps(content))
        source = Program(["-m", "campaign.load.source", specification], self.domain, log=self.out / "source.log")
        try:
            since = time.monotonic()
            wait_for(lambda: self._heard_since(since) or not source.alive, _FIRST_S)
            flowing = self._heard_since(since)
            if not source.alive:
                raise StageError(f"the source ended: {source.tail()}")
            time.sleep(_WARM_UP_S if flowing else 0.0)
            return {**content, "bag": self.bag.name, "flowing": flowing, **self._look(source, seconds)}
        finally:
            source.stop(10.0)

    def _heard_since(self, since: float) -> bool:
        return any(output.at >= since for output in list(self.observer.outputs))

    def _look(self, source: Program, seconds: float) -> dict:
        before, sent_before, began = self._state(), _sent(source)[-1:], time.monotonic()
        ages: list[float] = []
        while time.monotonic() - began < seconds:
            time.sleep(0.02)
            newest = next((o.stamp for o in reversed(list(self.observer.outputs)) if o.topic == "grid"), None)
            if newest is not None:
                ages.append(time.time() - newest * 1e-9)
        after, sent, took = self._state(), _sent(source), time.monotonic() - began
        outputs = sum(o.topic == "grid" and o.at >= began for o in list(self.observer.outputs))
        first, last = (sent_before or sent[:1])[0], sent[-1]
        span = max(last["t"] - first["t"], 1e-9)
        counted = {name: after[name] - before[name] for name in after if isinstance(after[name], (int, float))}
        dropped = {reason: after["reasons"][reason] - before["reasons"].get(reason, 0) for reason in after["reasons"]}
        percentile = lambda q: float(np.percentile(ages, q)) if ages else None
        return {
            "sent_rate": (last["sent"] - first["sent"]) / span,
            "source_late": max(entry["late"] for entry in sent[-int(seconds) :]),
            "source_cores": (last["cpu"] - first["cpu"]) / span,
            "bytes_of_a_frame": _frame_bytes(source),
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
        """Counters of the next /diagnostics, and the process's CPU time."""
        asked = time.monotonic()
        if not wait_for(lambda: self.observer.reports and self.observer.reports[-1][0] >= asked, 10.0):
            raise StageError("no /diagnostics for 10 s; see node.log")
        at, lines = self.observer.reports[-1]
        holdings = self.node.holdings()
        if holdings is None:
            raise StageError(f"the node ended; it printed:\n{self.node.tail()}")
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


def _sent(source: Program) -> list[dict]:
    """What the source printed, once a second, of what it sent."""
    found = [json.loads(line) for line in list(source.lines) if line.startswith('{"t"')]
    if not found:
        raise StageError(f"the source sent nothing: {source.tail()}")
    return found


def _frame_bytes(source: Program) -> int:
    return json.loads(next(line for line in source.lines if line.startswith('{"bytes')))["bytes_of_a_frame"]
