"""Fast DDS's files in /dev/shm: whose they are, and which of them nobody has any longer."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["MEMORY", "all_segments", "left_of", "segments_of"]

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
