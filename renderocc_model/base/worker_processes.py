"""How worker processes end: with the process that they work for, which alone answers Ctrl-C."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["serve_parent"]

_PR_SET_PDEATHSIG = 1


def serve_parent(parent: int) -> None:
    """Tie a worker process to its parent; to be called first in the worker.

    Ctrl-C reaches all processes of a terminal. The parent answers it, the worker ignores it. SIGTERM ends a worker at
    once. So does the end of its parent, even by SIGKILL: without this, a worker would wait for its next task for ever.

    Args:
        parent: process id of the process it works for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this function was called
        os._exit(1)
