"""Errors of the machine, not of the program: one line that says whether disk or memory ran out, and what to do."""

from __future__ import annotations

import errno
import os

__all__ = ["machine_error", "says_out_of_memory"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = ("No space left on device", "File too large", "Disk quota exceeded", "database or disk is full")
_MEMORY_TEXTS = (
    "allocate memory",
    "out of memory",
    "Out of memory",
    "Insufficient memory",
    "Cannot allocate",
    "bad_alloc",
    "can't start new thread",
    "pthread_create failed",
    "failed to map segment",
    "Unable to allocate",
)
_AGAIN = "give the same command again"


def machine_error(error: BaseException, place: object = "", less: str = "fewer --jobs") -> str:
    """The line that a command prints for an error of the disk or of memory; empty for any other error.

        >>> machine_error(OSError(28, "No space left on device", "runs/tiny/state.pt"))
        'runs/tiny/state.pt: the disk is full; make room and give the same command again'
        >>> machine_error(ValueError("expected four numbers"))
        ''

    Args:
        error: what was raised, by Python, NumPy, PyTorch, OpenCV, SQLite or safetensors.
        place: the file or folder that was being written. A file that the error itself names is given instead.
        less: the setting that makes the command need less memory.
    """
    text = " ".join(str(error).split())
    named = getattr(error, "filename", None)
    where = os.fspath(named) if isinstance(named, (str, os.PathLike)) and named else str(place)
    prefix = f"{where}: " if where else ""
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or any(part in text for part in _FULL_TEXTS):
        return f"{prefix}the disk is full; make room and {_AGAIN}"
    if number == errno.EROFS:
        return f"{prefix}lies on a disk that is read-only; name another folder, or mount it for writing"
    if number in (errno.EACCES, errno.EPERM):
        return f"{prefix}{os.strerror(number)}; change its permissions, or name another place"
    if number == errno.ENOMEM or says_out_of_memory(error):
        why = text[:120] or type(error).__name__
        return f"out of memory ({why}); try {less}, or close other programs, and {_AGAIN}"
    return ""


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library, or one that it was raised from, means that memory or threads have run out.

    llvmlite says that its library may be missing where the loader had no memory for it. The loader's own error is the
    one that it was raised from.
    """
    text = str(error)
    no_thread = isinstance(error, RuntimeError) and text == os.strerror(errno.EAGAIN)  # std::thread's only words
    if isinstance(error, MemoryError) or no_thread or any(part in text for part in _MEMORY_TEXTS):
        return True
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return before is not None and says_out_of_memory(before)
