"""Keeps two processes, on one machine or on several that share a disk, from working on the same recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

__all__ = ["WorkedOnElsewhere", "lease", "lease_of"]

_DURATION_S = 60.0  # all that share a disk must have the same


class WorkedOnElsewhere(ValueError):
    """Another process is working on the recording."""


def lease_of(out: Path) -> Path:
    """The file of the lease for making `out`: hidden, beside it."""
    return out.with_name(f".{out.name}.lease")


@contextmanager
def lease(file: Path, patient: bool = False) -> Iterator[None]:
    """Hold a lease: a file that names this process, and whose time is set anew as long as this process lives.

    The lease of a process that died is taken over: at once if it ran on this machine; else by those who are patient,
    once the file has not changed for a minute. File locks of the system are not used, as some disks that machines
    share do not have them.

    Args:
        file: path of the lease.
        patient: if it is held by another process, wait until the file changes, so that this process lives, or until
            the lease may be taken over.
    Raises:
        WorkedOnElsewhere: another process holds it.
        OSError: the file cannot be written.
    """
    from filelock import SoftFileLease, Timeout

    file.parent.mkdir(parents=True, exist_ok=True)
    held = SoftFileLease(file, lease_duration=_DURATION_S)
    try:
        if patient:
            lives = partial(_has_changed, file, _written(file))
            held.acquire(timeout=2 * _DURATION_S, poll_interval=0.5, cancel_check=lives)
        else:
            held.acquire(timeout=0)
    except Timeout:
        raise WorkedOnElsewhere(f"{file}: held by {_holder(file)}") from None
    try:
        yield
    finally:
        held.release()


def _written(file: Path) -> tuple[int, int] | None:
    """The file's identity and time; None if it is gone."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _has_changed(file: Path, first: tuple[int, int] | None) -> bool:
    return _written(file) not in (None, first)


def _holder(file: Path) -> str:
    """Process and machine that a lease names."""
    try:
        said = dict(re.findall(r"^(pid|host)=(.*)$", file.read_text(encoding="utf-8"), re.M))
    except (OSError, ValueError):
        said = {}
    return f"process {said['pid']} on {said['host']}" if len(said) == 2 else "another process"
