"""A command in a process of its own: what it says, how it ends, and what it leaves running."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from system import Program, address_space, cpu_seconds

__all__ = ["Ended", "Interference", "family", "limit_memory", "run_command"]

_LINGER_S = 20.0  # how long processes that a command has started may live after it
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
        """The last line it printed that is not empty."""
        return next((line.strip() for line in reversed(self.text.splitlines()) if line.strip()), "")


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
    environment = {_MARK: mark, "OMP_NUM_THREADS": "1"}
    command = ["-m", "renderocc_model.cli", *arguments]
    began = time.monotonic()
    program = Program(command, None, environment, log, place, own_session=True)
    timed_out, interfered, cpu = False, False, 0.0
    try:
        while program.alive and not timed_out:
            time.sleep(_LOOK_S)
            cpu = max(cpu, _cpu_seconds(mark))
            program.segments.look(*family(mark))
            if interference is not None and cpu >= interference.after:
                interference.act(program.pid, mark)
                interference, interfered = None, True
            timed_out = time.monotonic() - began > limit_s
    finally:
        seconds = time.monotonic() - began
        program.kill()
        left = _end_family(mark)
    status = program.wait(_LINGER_S)  # until all that it has printed is read
    return Ended(status, seconds, "\n".join(program.lines), left, timed_out, cpu, interfered)


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
    seconds = 0.0
    for pid in family(mark):
        with contextlib.suppress(OSError):
            seconds += cpu_seconds(pid, with_children=True)
    return seconds


def _end_family(mark: str) -> int:
    """Wait for what is left of a command; the number of processes that had to be killed."""
    until = time.monotonic() + _LINGER_S
    while (left := family(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def limit_memory(pid: int, more_bytes: int) -> None:
    """Let a running process take only so much more address space than it has; what it asks for beyond is refused."""
    with contextlib.suppress(OSError, ProcessLookupError):  # it has just ended
        limit = address_space(pid) + more_bytes
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
