"""What is looked at every second."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from campaign.observer import queues
from campaign.stage import Stage

__all__ = ["Ages", "sample", "shares"]

_COUNTERS = {
    "published": "published",
    "skipped": "skipped, a newer one was there",
    "withheld": "withheld, too few cameras",
    "failed": "failed",
}


def shares(pid: int) -> dict[str, float]:
    """MiB of a process: `pss`, shared pages counted by their share, and `own`, anonymous pages: heap and stacks.

    The share in libraries grows when other programs that use them end; what a process leaks is its own.
    """
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = {name: re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("Pss", "Anonymous")}
        if all(found.values()):
            return {"pss": round(int(found["Pss"][1]) / 1024, 2), "own": round(int(found["Anonymous"][1]) / 1024, 2)}
    return {}


class Ages:
    """How old the newest result is, several times a second: seconds since the stamp of its image."""

    def __init__(self) -> None:
        self._newest, self._heard = 0, -1.0
        self._found: list[float] = []

    def look(self, stage: Stage) -> None:
        """Note the age now."""
        for output in reversed(list(stage.observer.outputs)):
            if output.at <= self._heard:
                break
            if output.topic == "grid":
                self._heard, self._newest = output.at, output.stamp
                break
        if self._newest:
            self._found.append(time.time() - self._newest * 1e-9)

    def take(self) -> list[float]:
        """The ages since the last call."""
        found, self._found = self._found, []
        return [round(age, 4) for age in found]


def sample(stage: Stage) -> dict:
    """What the node's process holds, and what its newest /diagnostics say of queues, frames and latency."""
    holdings = stage.node.holdings()
    entry: dict = {"load": round(os.getloadavg()[0], 2)}
    entry |= {} if holdings is None else {**vars(holdings), **shares(stage.node.pid)}
    if not stage.observer.reports:
        return entry
    lines = stage.observer.reports[-1][1]
    entry["held"], entry["dropped"] = queues(lines)
    if "frames" in lines:
        values = lines["frames"].values
        entry |= {name: int(values[key]) for name, key in _COUNTERS.items() if values.get(key, "").isdigit()}
    if "latency" in lines:
        total = re.match(r"([\d.]+) ms, ([\d.]+) ms", lines["latency"].values.get("total", ""))
        if total:
            entry["p50"], entry["p99"] = float(total[1]), float(total[2])
    return entry
