"""Settings of all tests: ROS stays on this machine, and message fields refuse values of a wrong type."""

import os
import signal
import sys
from pathlib import Path

# ColorRGBA(r=1) would silently arrive as 0.0; with this setting, the message class raises an error.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "test"), str(ROOT), str(ROOT / "tools")]

from renderocc_ros.process import prepare_process  # noqa: E402  (the path comes first)

prepare_process()

from town import town_bag  # noqa: E402, F401  (a fixture for all files, made once for all tests)

# A shell ignores Ctrl-C in what it starts in the background, and so would every program that the tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
