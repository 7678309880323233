"""A node with a deliberate fault, named by the variable LIE, to test whether the fault campaign notices it."""

import os
import sys

import numpy as np

from renderocc_model.field.occupancy import UNLABELLED, Occupancy
from renderocc_ros import main as program
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


LIES = {"free": everything_is_free, "volume": nothing_is_unknown, "watchdog": nobody_is_silent, "stamps": stamps_fall}

if __name__ == "__main__":
    LIES[os.environ["LIE"]]()
    sys.exit(program.main())
