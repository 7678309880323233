"""Settings every test shares: this machine only, and message fields that refuse the wrong type."""

import os
import sys
from pathlib import Path

# ColorRGBA(r=1) would arrive as 0.0 in silence; with this, the message class raises instead.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
# The node's own setting: threads that wait sleep, so that tests run as fast beside other programs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
# Idle OpenMP threads that spin take the cores from whoever has work: a busy machine slows PyTorch down twenty-fold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.path.insert(0, str(Path(__file__).resolve().parent))
