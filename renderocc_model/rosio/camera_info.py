"""What a sensor_msgs/CameraInfo says of the images beside it."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio.cdr_reader import CameraInfoMessage

__all__ = ["camera_model_from_info"]


def camera_model_from_info(message: CameraInfoMessage) -> CameraModel:
    """Intrinsics of the images that a CameraInfo describes, with its binning and region of interest applied.

    Raises:
        ValueError: the calibration cannot be used; the text says why.
    """
    if not np.any(message.K):
        raise ValueError(
            "camera_info has no calibration (K is all zeros); calibrate the camera or set its camera_info_url"
        )
    K = np.asarray(message.K, np.float64).reshape(3, 3).copy()
    width, height = message.width, message.height
    if message.roi.width and message.roi.height:
        K[0, 2] -= message.roi.x_offset
        K[1, 2] -= message.roi.y_offset
        width, height = message.roi.width, message.roi.height
    binning_x, binning_y = max(message.binning_x, 1), max(message.binning_y, 1)
    if binning_x > 1 or binning_y > 1:
        # Pixel centres are at integer coordinates: binning b maps u to (u - (b - 1) / 2) / b.
        K[0, 2] -= (binning_x - 1) / 2
        K[1, 2] -= (binning_y - 1) / 2
        K[0] /= binning_x
        K[1] /= binning_y
        width, height = width // binning_x, height // binning_y
    return CameraModel(width, height, K, message.distortion_model, tuple(message.D))
