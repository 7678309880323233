"""A disk that can be filled up and locked: a tmpfs where mounting is allowed, else limits of the process."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

__all__ = ["Disk"]

_ROOMY = 1 << 29


class Disk:
    """A folder on a file system of its own; use as a context manager.

    Where this process may not mount (it is not root), a full disk is a limit on the size of each file instead, and a
    locked one is a folder without write permission.

    Attributes:
        own: whether it is a file system of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.own = os.geteuid() == 0 and self._mount("-t", "tmpfs", "-o", f"size={_ROOMY}", "tmpfs", str(folder))
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self.make_room()
        if self.own:
            subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)

    def fill(self, room: int) -> None:
        """Leave room for so many bytes."""
        if self.own:
            self._remount(f"size={max(room, 8192)}")  # a tmpfs needs two pages for the folder itself
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, self._limits[1]))  # inherited by what is started

    def lock(self) -> None:
        """Refuse to write."""
        if self.own:
            self._remount("ro")
        else:
            self.folder.chmod(0o555)

    def make_room(self) -> None:
        """Undo `fill` and `lock`."""
        if self.own:
            self._remount(f"rw,size={_ROOMY}")
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
            self.folder.chmod(0o755)

    def _remount(self, options: str) -> None:
        if not self._mount("-o", f"remount,{options}", str(self.folder)):
            raise OSError(f"{self.folder}: cannot be mounted again with {options}")

    @staticmethod
    def _mount(*words: str) -> bool:
        try:
            return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
        except OSError:
            return False


def pages(folder: Path) -> int:
    """Bytes that a tmpfs needs for all that is in a folder."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
