"""Entry point of `renderocc_node`: handles signals from the first moment, then loads and runs the node.

Loading ROS takes a second or more. A signal during that time ends the process as it does later: with status 0 and one
line, not with a traceback from the middle of an import.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

__all__ = ["main"]


def end_while_loading(number: int, _frame) -> None:
    print(f"ended by {signal.Signals(number).name} while loading", file=sys.stderr, flush=True)
    os._exit(0)  # an unfinished import, in this thread or another, leaves no better way to end


def main(args: list[str] | None = None) -> NoReturn:
    """Run `renderocc_ros.main.main`; its signal handlers take over once it is loaded."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_while_loading)
    from renderocc_ros.main import main as run
    from renderocc_ros.process import leave

    leave(run(args))


if __name__ == "__main__":
    main()
