"""A training sample: what is set of it, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderocc_model.base.config import configuration, setting
from renderocc_model.geometry.rays import Rays

from .augment import AugmentConfig

__all__ = ["FrameViews", "Sample", "SampleConfig"]


@configuration
class SampleConfig:
    """The contents of a training sample."""

    height: int = setting(256, "rows of a view", minimum=1)
    width: int = setting(704, "columns of a view", minimum=1)
    rays: int = setting(38_400, "largest number of rays of a sample", minimum=0)
    auxiliary_offsets: tuple[int, ...] = setting((-3, -2, -1, 1, 2, 3), "other frames whose rays are used, too")
    static_weight: float = setting(0.3, "W_t of a ray of another frame on a static or unknown class", minimum=0.0)
    dynamic_weight: float = setting(0.0, "W_t of a ray of another frame on a class that moves", minimum=0.0)
    balance_gain: float = setting(0.005, "g in W_b = exp(g (N_max / N_c - 1))", minimum=0.0)
    balance_cap: float = setting(1000.0, "largest W_b", minimum=1.0)
    balanced_share: float = setting(
        1.0, "share of the rays that are drawn with W_b; the others are drawn with W_t alone (1 in the paper)", 0.0, 1.0
    )
    previous: int = setting(0, "earlier frames whose views are loaded for temporal fusion", minimum=0)
    previous_interval: float = setting(0.5, "time from each of these frames to the next [s]", minimum=0.05)
    truth: bool = setting(False, "load the 3D truth if a recording has it")
    voxels: bool = setting(False, "mark the voxels of the labels, also those of the auxiliary frames")
    voxel_rays: int = setting(30_000, "largest number of rays for finding free voxels, spread evenly", minimum=1)
    voxel_returns: int = setting(
        2_000_000, "largest number of pixels for finding occupied voxels, spread evenly", minimum=1
    )
    depth_rays: int = setting(
        0,
        "largest number of rays for the depth bins, spread evenly over the frame's labels; 0: the rays above serve "
        "for them, too",
        minimum=0,
    )
    augment: AugmentConfig = AugmentConfig()

    def check(self) -> None:
        if 0 in self.auxiliary_offsets or len(set(self.auxiliary_offsets)) != len(self.auxiliary_offsets):
            raise ValueError(f"auxiliary_offsets are {self.auxiliary_offsets}; expected different frames other than 0")


@dataclass(frozen=True, eq=False)
class FrameViews:
    """One frame as the network gets it.

    stamp_ns: the frame's time.
    views: (N, H, W, 3) uint8 RGB, undistorted; zeros for cameras that are not present.
    present: (N,) bool.
    intrinsics: (N, 3, 3) of the views.
    base_from_camera: (N, 4, 4), base_link at the frame's own time; the mount for cameras that are not present. The
        determinant is -1 if an augmentation mirrored the view or the vehicle.
    odom_from_base: (4, 4).
    """

    stamp_ns: int
    views: np.ndarray
    present: np.ndarray
    intrinsics: np.ndarray
    base_from_camera: np.ndarray
    odom_from_base: np.ndarray


@dataclass(frozen=True, eq=False)
class Sample:
    """One training sample.

    recording, frame, epoch, index: its origin.
    current: the frame to predict.
    previous: earlier frames of the recording, nearest first; fewer at its beginning and after a jump of the ego pose.
    rays: labelled rays in base_link of the current frame, with distances (0 if only the class is known), classes (255
        if only the distance is known) and frame_offsets.
    ray_cameras: (R,) int64, the camera of each ray, also of rays of other frames.
    depth_rays: rays of the current frame for the depth bins, and the camera of each; None: `rays` are used.
    truth: {"semantics", "mask_camera", "mask_lidar"} of the current frame, or None.
    label_voxels: {"semantics", "occupied", "free"} of the labels (`VoxelLabels`), or None.
    """

    recording: str
    frame: int
    epoch: int
    index: int
    current: FrameViews
    previous: tuple[FrameViews, ...]
    rays: Rays
    ray_cameras: np.ndarray
    depth_rays: tuple[Rays, np.ndarray] | None
    truth: dict[str, np.ndarray] | None
    label_voxels: dict[str, np.ndarray] | None
