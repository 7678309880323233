"""COLMAP's names for our cameras, and its import."""

from __future__ import annotations

from typing import Any

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel

from .settings import StructureError

__all__ = ["colmap_camera", "import_pycolmap"]


def import_pycolmap() -> Any:
    """The module pycolmap.

    Raises:
        StructureError: it is not installed; says how to install it.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise StructureError(f"depth from motion needs pycolmap ({error}); pip install pycolmap") from None
    pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
    return pycolmap


def colmap_camera(name: str, model: CameraModel, camera_id: int) -> Any:
    """The pycolmap.Camera of a camera model. COLMAP's pixel centres are at halves, ours at integers.

    plumb_bob is OPENCV, or FULL_OPENCV with k3; rational_polynomial is FULL_OPENCV; equidistant is OPENCV_FISHEYE.

    Args:
        name: of the camera, for error texts.
        model: its model.
        camera_id: its number in COLMAP.
    Raises:
        StructureError: COLMAP has no such model (skew, thin prism, tilted sensor).
    """
    coefficients = [*model.coefficients, *[0.0] * (14 - len(model.coefficients))]
    fx, skew, cx, fy, cy = model.K[0, 0], model.K[0, 1], model.K[0, 2] + 0.5, model.K[1, 1], model.K[1, 2] + 0.5
    lacking = [
        what
        for what, values in (
            ("skew", [skew]),
            ("thin-prism coefficients", coefficients[8:12]),
            ("a tilted sensor", coefficients[12:]),
        )
        if any(values)
    ]
    if lacking:
        raise StructureError(
            f"camera '{name}' has {' and '.join(lacking)}, for which COLMAP has no camera model; leave the camera out "
            "with --cameras, or calibrate it with rational_polynomial of 8 coefficients or equidistant"
        )
    if model.distortion_model == "equidistant":
        kind, extra = "OPENCV_FISHEYE", coefficients[:4]
    else:
        full = any(coefficients[4:8])
        kind, extra = ("FULL_OPENCV", coefficients[:8]) if full else ("OPENCV", coefficients[:4])
    camera = import_pycolmap().Camera.create_from_model_name(camera_id, kind, fx, model.width, model.height)
    camera.params = np.array([fx, fy, cx, cy, *extra])
    return camera
