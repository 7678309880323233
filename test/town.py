"""A small recording of the simulated town, made once a session and shared; tests that change it write copies."""

import pytest

from training.simulate.record import Settings, record
from training.simulate.sensors import town_rig

FRAMES, WIDTH, HEIGHT = 3, 352, 128
SETTINGS = Settings(seed=5, frames=FRAMES, rate=2.0)


@pytest.fixture(scope="session")
def town_bag(tmp_path_factory):
    """Path of a recording of six cameras with LiDAR, labels and 3D truth; not to be written to."""
    folder = tmp_path_factory.mktemp("town") / "drive"
    record(folder, town_rig(WIDTH, HEIGHT), SETTINGS)
    return folder
