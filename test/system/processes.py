"""What Linux says of a process: memory, threads, files, processor time."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holdings", "address_space", "cpu_seconds", "holdings_of"]


@dataclass(frozen=True)
class Holdings:
    """What a process holds: resident MiB, threads, file descriptors, and the CPU seconds it has used."""

    memory: float
    threads: int
    files: int
    cpu: float


def holdings_of(pid: int) -> Holdings | None:
    """None once the process has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        files = len(os.listdir(folder / "fd"))
        memory, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        return Holdings(round(memory, 2), threads, files, cpu_seconds(pid))
    except (OSError, KeyError, ValueError):
        return None


def cpu_seconds(pid: int, with_children: bool = False) -> float:
    """Processor time that a process has used; `with_children`: and those of its children that have ended.

    Raises:
        OSError: it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11 : 15 if with_children else 13]
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


def address_space(pid: int) -> int:
    """Bytes of address space that a process has.

    Raises:
        OSError: it has ended.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
