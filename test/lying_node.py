"""The node, but it lies as the variable LIE says: so that it can be seen whether the fault campaign notices."""

import os
import sys

from renderocc_ros import node, outputs, publishers
from renderocc_ros.camera_queue import CameraQueue


def everything_is_free() -> None:
    real = outputs.height_band_cells

    def cells(*arguments):
        told = real(*arguments)
        told[told == outputs.UNKNOWN_CELL] = outputs.FREE_CELL
        return told

    outputs.height_band_cells = cells


def nobody_is_silent() -> None:
    real = CameraQueue.statistics
    CameraQueue.statistics = lambda self, now, silent: real(self, now, False)


def stamps_fall() -> None:
    """Every other output is published again."""
    real, before = publishers.OutputPublishers.publish, []

    def publish(self, frame, config):
        real(self, frame, config)
        before.append(frame)
        if len(before) % 2 == 0:
            real(self, before[-2], config)

    publishers.OutputPublishers.publish = publish


LIES = {"free": everything_is_free, "watchdog": nobody_is_silent, "stamps": stamps_fall}

if __name__ == "__main__":
    LIES[os.environ["LIE"]]()
    sys.exit(node.main())
