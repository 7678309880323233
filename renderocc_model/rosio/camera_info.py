"""What a sensor_msgs/CameraInfo says of the images beside it."""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.distortion_names import conventional_distortion
from renderocc_model.geometry.undistortion import check_sees_ahead
from renderocc_model.rosio.cdr_messages import CameraInfoMessage
from renderocc_model.rosio.rectification import rectified_intrinsics

__all__ = ["camera_model_from_info"]

_IN_THE_MIDDLE, _OFF_THE_MIDDLE = 0.12, 0.2  # distances of a principal point from the middle, shares of the size


def camera_model_from_info(message: CameraInfoMessage, rectified: bool = False) -> CameraModel:
    """Intrinsics of the images that a CameraInfo describes, with its binning and region of interest applied.

    Args:
        message: the CameraInfo.
        rectified: whether the images are rectified: then they have the pinhole of P, and no distortion; else K and D.
    Raises:
        ValueError: the calibration cannot be used; the text says why.
    """
    K = rectified_intrinsics(message) if rectified else np.asarray(message.K, np.float64).reshape(3, 3).copy()
    if not np.any(K):
        raise ValueError(
            "camera_info has no calibration (K is all zeros); calibrate the camera or set its camera_info_url"
        )
    width, height = message.width, message.height
    _check_region(message)
    original = K[:2, 2].copy()
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
    _check_not_applied_before(message, original, K[:2, 2], (width, height))
    if rectified:
        model = CameraModel(width, height, K, "plumb_bob", (0.0,) * 5)
    else:
        model = CameraModel(width, height, K, *conventional_distortion(message.distortion_model, message.D.tolist()))
    check_sees_ahead(model)
    return model


def _check_region(message: CameraInfoMessage) -> None:
    """Refuse a region of interest that is not inside the sensor, or that has a place but no size."""
    roi = message.roi
    named = f"camera_info has the roi {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset})"
    if not (roi.width and roi.height):
        if roi.x_offset or roi.y_offset or roi.width or roi.height:
            raise ValueError(f"{named}; give width and height of the part, or set all four to 0 for the whole picture")
    elif roi.x_offset + roi.width > message.width or roi.y_offset + roi.height > message.height:
        raise ValueError(
            f"{named}, which is not inside the {message.width}x{message.height} sensor; width and height of "
            "camera_info are those of the whole sensor"
        )


def _check_not_applied_before(
    message: CameraInfoMessage, before: np.ndarray, after: np.ndarray, size: tuple[int, int]
) -> None:
    """Refuse a K that is of the picture already, beside the binning or region of interest that made it.

    Drivers that fill in both put the principal point of K into the picture's middle, and far from it once binning and
    region are applied, as they have to be (REP 104).
    """
    if np.array_equal(before, after) or not np.isfinite(before).all() or min(size) < 1:
        return
    middle = (np.array(size) - 1) / 2
    off_before, off_after = (np.abs(point - middle) / np.array(size) for point in (before, after))
    if off_before.max() > _IN_THE_MIDDLE or off_after.max() < _OFF_THE_MIDDLE:
        return
    roi = message.roi
    names = []
    if message.binning_x > 1 or message.binning_y > 1:
        names.append(f"binning {message.binning_x}x{message.binning_y}")
    if roi.width and roi.height:
        names.append(f"roi {roi.width}x{roi.height} at ({roi.x_offset}, {roi.y_offset})")
    raise ValueError(
        f"camera_info has {' and '.join(names)}, but its K is that of the {size[0]}x{size[1]} picture already: its "
        f"principal point ({before[0]:.1f}, {before[1]:.1f}) is in the picture's middle, and would be at "
        f"({after[0]:.1f}, {after[1]:.1f}) if they were applied; set K, width and height of the full sensor, or "
        "those of the picture without binning and roi"
    )
