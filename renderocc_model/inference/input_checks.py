"""Checks what a predictor is given for a frame, before anything is computed from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_inputs"]


def check_inputs(
    views: np.ndarray | Tensor,
    cameras: int,
    view_size: tuple[int, int],
    base_from_camera: np.ndarray,
    odom_from_base: np.ndarray | None,
) -> None:
    """Raise ValueError if these cannot be the views and poses of a frame, with what was expected.

    Args:
        views: should be (cameras, height, width, 3) uint8.
        cameras: number of cameras.
        view_size: (height, width) of the network's views.
        base_from_camera: should be (cameras, 4, 4), finite.
        odom_from_base: should be (4, 4), finite; or None.
    """
    expected = (cameras, *view_size, 3)
    if not cameras:
        raise ValueError("there is no view; give at least one camera's")
    if not isinstance(views, (np.ndarray, Tensor)):
        raise ValueError(f"views are a {type(views).__name__}; expected an array, uint8 {expected}")
    if views.dtype not in (np.uint8, torch.uint8) or tuple(views.shape) != expected:
        raise ValueError(f"views are {views.dtype} of shape {tuple(views.shape)}; expected uint8 {expected}")
    if np.shape(base_from_camera) != (cameras, 4, 4) or not np.isfinite(base_from_camera).all():
        raise ValueError(f"base_from_camera is {np.shape(base_from_camera)} or not finite; expected ({cameras}, 4, 4)")
    if odom_from_base is not None and (np.shape(odom_from_base) != (4, 4) or not np.isfinite(odom_from_base).all()):
        raise ValueError("odom_from_base is no finite 4x4 transform; give None if the vehicle's pose is not known")
