"""A node with a deliberate fault, named by the variable LIE, to test whether the fault campaign notices it."""

import dataclasses
import os
import sys

import numpy as np

from renderocc_model.field.occupancy import UNLABELLED, Occupancy
from renderocc_model.inference.rolling_map import RollingMap
from renderocc_model.ops import mapping
from renderocc_ros import main as program
from renderocc_ros.frame.vehicle_map import VehicleMap
from renderocc_ros.input.camera_queue import CameraQueue
from renderocc_ros.output import messages as outputs
from renderocc_ros.output import publishers


def everything_is_free() -> None:
    real = outputs.height_band_cells

    def cells(*arguments):
        told = real(*arguments)
        told[told == outputs.UNKNOWN_CELL] = outputs.FREE_CELL
        return told

    outputs.height_band_cells = cells


def nothing_is_unknown() -> None:
    """The fault is in the files of ~/save."""
    real = Occupancy.save_npz

    def save_npz(self, path):
        told = np.where(self.semantics == UNLABELLED, self.classes.free, self.semantics).astype(np.uint8)
        real(Occupancy(self.grid, self.classes, told, self.confidence, np.ones_like(self.visible)), path)

    Occupancy.save_npz = save_npz


def nobody_is_silent() -> None:
    real = CameraQueue.statistics
    CameraQueue.statistics = lambda self, now, silent: real(self, now, False)


def stamps_fall() -> None:
    """Every second output is published a second time."""
    real, before = publishers.OutputPublishers.publish, []

    def publish(self, frame):
        real(self, frame)
        before.append(frame)
        if len(before) % 2 == 0:
            real(self, before[-2])

    publishers.OutputPublishers.publish = publish


def map_knows_everything() -> None:
    """The map calls free what nobody has looked at; the frames do not."""
    real = mapping.read_out

    def read_out(state, free, backend="auto"):
        semantics, log_odds = real(state, free, backend)
        unknown = log_odds == 0
        return np.where(unknown, np.uint8(free), semantics), np.where(unknown, np.float32(-1), log_odds)

    mapping.read_out = read_out


def map_survives_jumps() -> None:
    """The map goes on after the odometry has jumped."""
    real = VehicleMap.add
    VehicleMap.add = lambda self, frame: real(self, dataclasses.replace(frame, jump=None))
    RollingMap._jump = lambda self, odom_from_base, stamp_ns: ""


def map_never_forgets() -> None:
    """What moves stays in the map until it is seen free."""
    mapping.expire = lambda *arguments: None


LIES = {
    "free": everything_is_free,
    "volume": nothing_is_unknown,
    "watchdog": nobody_is_silent,
    "stamps": stamps_fall,
    "map free": map_knows_everything,
    "map jump": map_survives_jumps,
    "map decay": map_never_forgets,
}

if __name__ == "__main__":
    LIES[os.environ["LIE"]]()
    sys.exit(program.main())
