"""What a frame of a Rerun recording shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.undistortion import View

__all__ = ["CameraImage", "FrameContents", "RenderedView", "Voxels", "surface_of"]


@dataclass(frozen=True, eq=False)
class Voxels:
    """The surface voxels of a volume.

    Attributes:
        centres: (N, 3) float32, metres in the volume's frame.
        labels: (N,) uint8 class ids.
        size: edge of a voxel, metres.
    """

    centres: np.ndarray
    labels: np.ndarray
    size: float


@dataclass(frozen=True, eq=False)
class CameraImage:
    """A camera's image without distortion.

    Attributes:
        view: its pinhole.
        base_from_camera: (4, 4) pose of the camera at the image's stamp, in base_link at the frame's stamp.
        image: (H, W, 3) uint8 RGB, of the view's size.
    """

    view: View
    base_from_camera: np.ndarray
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class RenderedView:
    """The volume as a camera sees it.

    Attributes:
        view: pinhole, one pixel for each ray.
        base_from_camera: as in `CameraImage`.
        colours: (H, W, 3) uint8 RGB of the classes; None without them.
        depth: (H, W) float32 z-depth, metres, 0 or NaN where there is none; None without depth.
    """

    view: View
    base_from_camera: np.ndarray
    colours: np.ndarray | None
    depth: np.ndarray | None


@dataclass(frozen=True, eq=False)
class FrameContents:
    """What is known at one moment.

    Attributes:
        stamp_ns: the moment.
        odom_from_base: (4, 4) pose of the vehicle.
        images: {camera: image}.
        rendered: {camera: rendered view}.
        voxels: of the frame, in base_link; None if nothing was predicted.
        map: of the map that remembers, in odom; None if there is none.
        truth: 3D truth, in base_link; None if there is none.
    """

    stamp_ns: int
    odom_from_base: np.ndarray
    images: dict[str, CameraImage] = field(default_factory=dict)
    rendered: dict[str, RenderedView] = field(default_factory=dict)
    voxels: Voxels | None = None
    map: Voxels | None = None
    truth: Voxels | None = None


def surface_of(occupancy: Occupancy) -> Voxels:
    """The surface voxels of a volume, in its grid's frame."""
    centres, labels, _ = occupancy.surface_points()
    return Voxels(centres, labels, occupancy.grid.voxel_size)
