"""A command in a process of its own: what it says, how it ends, and what it leaves running."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "Interference", "family", "limit_memory", "run_command"]

ROOT = Path(__file__).resolve().parents[3]
LINGER_S = 20.0  # for what a command has started to end after it
_LOOK_S = 0.05
_MARK = "RENDEROCC_FAULTS_RUN"


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status (negative: the signal), seconds, what it printed, processes it left behind.

    cpu: seconds of processor time, of all its processes, when it was last looked at.
    interfered: whether the interference took place; a command may be done before.
    """

    status: int
    seconds: float
    text: str
    left_running: int = 0
    timed_out: bool = False
    cpu: float = 0.0
    interfered: bool = False

    @property
    def last_line(self) -> str:
        """Of what it printed, what is neither empty nor a progress bar."""
        lines = [line.rpartition("\r")[2].strip() for line in self.text.splitlines()]
        return next((line for line in reversed(lines) if line), "")


@dataclass(frozen=True)
class Interference:
    """What is done to a running command: `act(pid, mark)` is called when it has used `after` seconds of processor time,
    which tells how far it is on a machine that is busy with other things, too."""

    after: float
    act: Callable[[int, str], None]


def run_command(
    arguments: Sequence[str], place: Path, log: Path, limit_s: float, interference: Interference | None = None
) -> Ended:
    """Run `renderocc ARGUMENTS` in a folder, in a session of its own, and wait for all that it has started.

    Args:
        place: working directory.
        log: file that gets what it prints.
        limit_s: it is killed after so long.
    """
    mark = uuid.uuid4().hex
    environment = {**os.environ, _MARK: mark, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "renderocc_model.cli", *arguments],
            cwd=place,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    timed_out, interfered, cpu = False, False, 0.0
    try:
        while process.poll() is None and not timed_out:
            time.sleep(_LOOK_S)
            cpu = max(cpu, _cpu_seconds(mark))
            if interference is not None and cpu >= interference.after:
                interference.act(process.pid, mark)
                interference, interfered = None, True
            timed_out = time.monotonic() - began > limit_s
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        seconds = time.monotonic() - began
        left = _end_family(mark)
    text = log.read_text(errors="replace")
    return Ended(process.returncode, seconds, text, left, timed_out, cpu, interfered)


def family(mark: str) -> list[int]:
    """Process ids of a command and all that it has started, in whatever session."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            zombie = b") Z" in Path("/proc", entry, "stat").read_bytes()
            if not zombie and wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                found.append(int(entry))
    return found


def _cpu_seconds(mark: str) -> float:
    """Processor time of a command and all that it has started and that has ended."""
    ticks = 0
    for pid in family(mark):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _end_family(mark: str) -> int:
    """Wait for what is left of a command; the number of processes that had to be killed."""
    until = time.monotonic() + LINGER_S
    while (left := family(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def limit_memory(pid: int, more_bytes: int) -> None:
    """Let a running process take only so much more address space than it has; what it asks for beyond is refused."""
    with contextlib.suppress(OSError, ProcessLookupError):  # it has just ended
        pages = int(Path("/proc", str(pid), "statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
