"""Manners of worker processes: they leave stopping to the process they work for, and end when it does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["serve_parent"]

_PR_SET_PDEATHSIG = 1


def serve_parent(parent: int) -> None:
    """To be called first in a worker process.

    Ctrl-C reaches all processes of a terminal; the parent answers it. SIGTERM ends a worker at once, and so does the
    end of its parent, however that comes about: else a worker waits for its next task for ever.

    Args:
        parent: process id of the process it works for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this was said
        os._exit(1)
