"""Fast DDS's files in /dev/shm: whose they are, and which of them nobody has any longer.

A process that ends by itself takes its own away. One that is killed cannot: `Segments` does it afterwards, for those
that the tests have started, and only with what these had.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["MEMORY", "Segments", "all_segments", "left_of", "segments_of"]

MEMORY = Path("/dev/shm")
MARKS = ("fastrtps_", "fastdds_", "sem.fastrtps_", "sem.fastdds_")  # segments and ports, and the locks of the latter


def all_segments() -> set[str]:
    """Names of all that Fast DDS has in /dev/shm now, whoever made it."""
    return {name for name in os.listdir(MEMORY) if name.startswith(MARKS)} if MEMORY.is_dir() else set()


def segments_of(pid: int) -> set[str]:
    """Names in /dev/shm of the files of Fast DDS that a process maps or has open; none where it has ended."""
    process, paths = Path(f"/proc/{pid}"), []
    try:
        maps = (process / "maps").read_text().splitlines()
        paths += [line.split(maxsplit=5)[5] for line in maps if "/dev/shm/" in line]
        for number in os.listdir(process / "fd"):
            try:
                paths.append(os.readlink(process / "fd" / number))
            except OSError:  # closed meanwhile
                continue
    except OSError:
        return set()
    names = (path.removesuffix(" (deleted)").removeprefix(f"{MEMORY}/") for path in paths)
    return {name for name in names if name.startswith(MARKS)}


def left_of(names: set[str]) -> set[str]:
    """Those of the names that still lie in /dev/shm and that no living process has."""
    left = {name for name in names if (MEMORY / name).exists()}
    for process in os.listdir("/proc") if left else ():
        if process.isdigit():
            left -= segments_of(int(process))
    return left


class Segments:
    """What processes had in /dev/shm, each time they were looked at."""

    def __init__(self, period: float = 0.0) -> None:
        """period: seconds between two looks; more frequent ones are left out."""
        self.names: set[str] = set()
        self._period, self._looked = period, -period

    def look(self, *pids: int) -> None:
        if (now := time.monotonic()) - self._looked >= self._period:
            self._looked = now
            for pid in pids:
                self.names |= segments_of(pid)

    @property
    def left(self) -> set[str]:
        return left_of(self.names)

    def remove(self) -> set[str]:
        """Delete what no living process has; the names of it."""
        left = self.left
        for name in left:
            with contextlib.suppress(FileNotFoundError):
                (MEMORY / name).unlink()
        return left
