"""What `renderocc_node` runs: the node, with signals heard from the first moment.

Loading ROS takes a second or more. A signal that comes meanwhile ends the process as it would later, with status 0 and
a line that says so, not with a traceback out of somebody's import.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

__all__ = ["main"]


def end_while_loading(number: int, _frame) -> None:
    print(f"ended by {signal.Signals(number).name} while loading", file=sys.stderr, flush=True)
    os._exit(0)  # an import half done, in this thread or another, can be left in no better way


def main(args: list[str] | None = None) -> NoReturn:
    """As `renderocc_ros.main.main`, whose handlers take over once it is loaded."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_while_loading)
    from renderocc_ros.main import main as run
    from renderocc_ros.process import leave

    leave(run(args))


if __name__ == "__main__":
    main()
