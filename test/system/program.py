"""A program of this package in its own process: what it prints, what it holds, and how it ends."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from .processes import Holdings, holdings_of
from .shared_memory import Segments
from .waiting import PATIENCE

__all__ = ["ROOT", "Program", "new_domain", "node_command", "program_environment"]

ROOT = Path(__file__).resolve().parents[2]
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_RUN = zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())).encode())
_domains = itertools.count(_RUN % 100 * _WORKERS + _WORKER, _WORKERS)


def new_domain() -> int:
    """A ROS domain of its own, so that tests and other ROS programs on this machine do not hear each other."""
    return next(_domains) % 100 + 1


def program_environment(domain: int | None = None) -> dict[str, str]:
    """This process's environment for a program: it finds the packages and `test`, and prints each line at once.

    Args:
        domain: ROS domain, on this machine alone; None: this process's.
    """
    paths = [str(ROOT), str(ROOT / "test"), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONUNBUFFERED="1", RCUTILS_COLORIZED_OUTPUT="0")
    if domain is not None:
        made.update(ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    return made


def node_command(parameters: Mapping[str, object], *arguments: str, module: str = "renderocc_ros.main") -> list[str]:
    """Command of the node with parameters given as ROS arguments."""
    command = ["-m", module, "--ros-args", *arguments]
    for name, value in parameters.items():
        if isinstance(value, (list, tuple)):
            value = "[" + ", ".join(value) + "]"
        command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return command


class Program:
    """A Python program in its own process, its output collected line by line.

    Args:
        command: the interpreter's arguments.
        domain: ROS domain; None: this process's.
        environment: added to `program_environment`.
        log: file to which everything it prints is appended; ROS's own logs go into `ros` beside it.
        folder: its working directory.
        own_session: in a session of its own, which a signal to this process's group does not reach.
    Attributes:
        lines: what it has printed so far, and `times`, when: seconds of the monotonic clock.
        segments: what it has had in /dev/shm; it is removed if the program ends in any other way than by itself, which
            it does with status 0.
    """

    def __init__(
        self,
        command: Sequence[object],
        domain: int | None,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        folder: Path = ROOT,
        own_session: bool = False,
    ) -> None:
        variables = {**program_environment(domain), **(environment or {})}
        if log is not None:
            variables["ROS_LOG_DIR"] = str(log.parent / "ros")
        self.log = log
        self.segments = Segments(period=1.0)
        self.lines: list[str] = []
        self.times: list[float] = []
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=variables,
            cwd=folder,
            start_new_session=own_session,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self.stop)  # where a test has failed: it must not disturb the next ones, nor anybody else

    def _read(self) -> None:
        with open(self.log or os.devnull, "a") as file, self.process.stdout:
            file.write(f"---- process {self.pid}\n")
            for line in self.process.stdout:
                self.segments.look(self.pid)
                self.times.append(time.monotonic())
                self.lines.append(line.rstrip("\n"))
                file.write(line)
                file.flush()

    # ---- what it prints

    def lines_since(self, since: float, until: float = math.inf) -> list[str]:
        """What it has printed from then on and before `until`, seconds of the monotonic clock."""
        return self.lines[bisect_left(self.times, since) : bisect_left(self.times, until)]

    def said(self, pattern: str, since: float = 0.0) -> float | None:
        """When a line that matches was printed first after `since`; None if none was."""
        first = bisect_left(self.times, since)
        for at, line in zip(self.times[first:], self.lines[first:]):
            if re.search(pattern, line):
                return at
        return None

    def count(self, pattern: str) -> int:
        """How many lines match."""
        return sum(bool(re.search(pattern, line)) for line in list(self.lines))

    def tail(self, count: int = 12) -> str:
        """The last lines."""
        return "\n".join(self.lines[-count:])

    def expect(self, pattern: str, timeout: float = 20.0) -> str:
        """Wait for a line of output that matches; fails with what was printed when none comes or the program ends."""
        end = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < end:
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            if not self.alive and not self._reader.is_alive():
                break
            time.sleep(0.02)
        how = "runs" if self.alive else "ended"
        raise AssertionError(f"no line like {pattern!r}; the program {how} and printed:\n{self.tail(40)}")

    # ---- the process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def holdings(self) -> Holdings | None:
        """Its memory, threads, files and processor time; None once it has ended."""
        self.segments.look(self.pid)
        return holdings_of(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.alive:
            self.segments.look(self.pid)
            self.process.send_signal(number)

    def wait(self, timeout: float) -> int | None:
        """The exit status, or None if it has not ended in time."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(2.0)
        if status != 0:
            self.segments.remove()
        return status

    def stop(self, timeout: float = 15.0) -> int | None:
        """SIGINT, then SIGKILL; the exit status, None if it had to be killed."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGINT)
        status = self.wait(timeout * PATIENCE)
        if status is None:
            self.kill()
        return status

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(2.0)
        self.segments.remove()

    def kill_session(self) -> None:
        """End it at once, and all that it has started in its own session."""
        self.kill()
        with contextlib.suppress(ProcessLookupError):  # nothing is left of it
            os.killpg(self.pid, signal.SIGKILL)
