"""The cameras' calibrations, from their CameraInfo messages."""

from __future__ import annotations

import time
from dataclasses import dataclass

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio import cdr
from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.rectification import (
    Rectification,
    calibration_doubts,
    is_rectified,
    rectification_from_info,
)
from renderocc_model.rosio.tf_buffer import LONGEST_NAME
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.parameters import NodeConfig

__all__ = ["Calibration", "Calibrations", "check_frame_id"]

MOST_BYTES_OF_CAMERA_INFO = 64 << 10  # one has about 400, and 8 for each coefficient of D
STAMP_AND_FRAME_ID = 4 + 8  # where a frame_id begins: after encapsulation, sec and nanosec


@dataclass(frozen=True)
class Calibration:
    """A camera's intrinsics from its CameraInfo, the frame that the CameraInfo names, and how images were rectified."""

    model: CameraModel
    frame_id: str
    rectification: Rectification | None = None


class Calibrations:
    """Keeps the last usable calibration of each camera.

    Args:
        config: the node's parameters.
        log: receives CameraInfo that cannot be used.
        events: receives new and changed calibrations.
    Attributes:
        known: {camera: calibration}; replaced, never changed in place, so that another thread can keep it.
    """

    def __init__(
        self,
        config: NodeConfig,
        log: ThrottledLog,
        events: ThrottledLog,
    ) -> None:
        self.known: dict[str, Calibration] = {}
        self._config = config
        self._log = log
        self._events = events
        self._bodies: dict[str, bytes] = {}

    def add(self, camera: str, buffer: bytes) -> bool:
        """Take in a CameraInfo. An unusable one is reported, and the last usable one stays.

        Returns:
            Whether it has changed the camera's calibration.
        """
        subject, now = f"camera '{camera}'", time.monotonic()
        try:
            if len(buffer) > MOST_BYTES_OF_CAMERA_INFO:
                raise ValueError(
                    f"it has {len(buffer)} bytes; expected at most {MOST_BYTES_OF_CAMERA_INFO}; repair its publisher"
                )
            body = buffer[STAMP_AND_FRAME_ID:]
            if self._bodies.get(camera) == body:
                return False
            message = cdr.read_camera_info(buffer)
            check_frame_id(message.frame_id)
            rectified = is_rectified(self._config.image_topic_of(camera), self._config.rectified)
            model = camera_model_from_info(message, rectified)
            rectification = rectification_from_info(message) if rectified else None
        except ValueError as error:
            text = f"camera_info on {self._config.camera_info_topic_of(camera)}: {error}"
            self._log.report(subject, "camera_info", text, now)
            return False
        self._bodies[camera] = body
        self._log.resolve(subject, "camera_info")
        for doubt in calibration_doubts(message, rectified):
            text = f"camera_info on {self._config.camera_info_topic_of(camera)}: {doubt}"
            self._log.report(subject, "calibration doubts", text, now)
        calibration = Calibration(model, message.frame_id, rectification)
        if self.known.get(camera) == calibration:  # other bytes, same meaning: CDR's padding is not always zero
            return False
        self.known = {**self.known, camera: calibration}
        optics = "rectified" if rectified else model.distortion_model
        text = f"{model.width}x{model.height}, {optics}, frame {message.frame_id}"
        self._events.report(subject, "calibration", text, now)
        return True


def check_frame_id(frame_id: str) -> None:
    """Raises ValueError if a frame_id is longer than any frame's name."""
    if len(frame_id) > LONGEST_NAME:
        raise ValueError(
            f"its frame_id has {len(frame_id)} characters; expected at most {LONGEST_NAME}; repair the camera's driver"
        )
