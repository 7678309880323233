"""The node under test: the real program in its own process, what it printed, what it holds, and how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holdings", "NodeProcess", "node_parameters"]

MOST_LINES = 5000
CAMERA_TIMEOUT = 1.0  # seconds; the node's own default is 2.0
DIAGNOSTICS_PERIOD = 0.25  # seconds; the node's own default is 1.0


@dataclass(frozen=True)
class Holdings:
    """What a process holds: resident MiB, threads, file descriptors, and the CPU seconds it has used."""

    memory: float
    threads: int
    files: int
    cpu: float


def node_parameters(cameras: tuple[str, ...], checkpoint: Path, saved: Path, simulated: bool) -> dict[str, str]:
    """The node's parameters in the campaign; watchdogs are shorter than by default, to have more faults in an hour."""
    return {
        "cameras": "[" + ", ".join(cameras) + "]",
        "image_topic": "/{camera}/image_raw",
        "camera_info_topic": "/{camera}/camera_info",
        "camera_timeout": str(CAMERA_TIMEOUT),
        "diagnostics_period": str(DIAGNOSTICS_PERIOD),
        "checkpoint": str(checkpoint),
        "save_directory": str(saved),
        "cpu_threads": "1",
        "use_sim_time": "true" if simulated else "false",
    }


class NodeProcess:
    """`renderocc_node` with parameters, on a domain of its own.

    Args:
        parameters: given as ROS arguments.
        domain: ROS domain.
        log: file to which everything it prints is appended.
        module: what to run in its place (the stand-in whose memory runs out).
        environment: added to this process's.
    """

    def __init__(
        self,
        parameters: dict[str, str],
        domain: int,
        log: Path,
        module: str = "renderocc_ros.start",
        environment: dict[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", module, "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        self.log = log
        self.lines: deque[tuple[float, str]] = deque(maxlen=MOST_LINES)
        self.started = time.monotonic()
        self._ended = threading.Event()
        variables = dict(os.environ, ROS_DOMAIN_ID=str(domain), PYTHONUNBUFFERED="1", RCUTILS_COLORIZED_OUTPUT="0")
        variables.update(ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", ROS_LOG_DIR=str(log.parent / "ros"))
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**variables, **(environment or {})},
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.log.open("a") as file:
            file.write(f"---- process {self.process.pid}\n")
            for line in self.process.stdout:
                self.lines.append((time.monotonic(), line.rstrip("\n")))
                file.write(line)
                file.flush()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.alive:
            self.process.send_signal(number)

    def wait(self, timeout: float) -> int | None:
        """The exit status, or None if it has not ended in time."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(2.0)
        return status

    def stop(self) -> int | None:
        """SIGINT, then SIGKILL; the exit status, None if it had to be killed."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGINT)
        status = self.wait(15.0)
        if status is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        return status

    def said(self, pattern: str, since: float = 0.0) -> float | None:
        """When a line that matches was printed first after `since`; None if none was."""
        for at, line in list(self.lines):
            if at >= since and re.search(pattern, line):
                return at
        return None

    def tail(self, count: int = 12) -> list[str]:
        return [line for _, line in list(self.lines)[-count:]]

    def holdings(self) -> Holdings | None:
        """None once it has ended."""
        folder = Path(f"/proc/{self.pid}")
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            files = len(os.listdir(folder / "fd"))
            ticks = (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
            memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        except (OSError, KeyError, ValueError):
            return None
        return Holdings(round(memory, 2), threads, files, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
