"""The pose of each camera when it took its image, in the vehicle's base frame at the anchor's stamp."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from renderocc_model.geometry.transforms import invert
from renderocc_model.rosio.motion import JumpWatch
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError

FARTHEST = 1000.0  # metres; no camera is mounted so far from the base, and no vehicle moves so far between images


@dataclass
class Placements:
    """Camera poses of one frame.

    base_from_camera: {camera: (4, 4)} from the optical frame to the base frame at the anchor's stamp.
    mounts: {camera: (4, 4)} from the optical frame to the base frame, both at the camera's own stamp.
    odom_from_base: (4, 4) ego pose at the anchor's stamp; None without ego motion.
    unplaced: {camera: reason} of the cameras that TF does not connect to the base frame.
    ego_motion_missing: why there is no ego motion; empty if there is.
    frames_from_optical: as given to `place_cameras`.
    """

    base_from_camera: dict[str, np.ndarray] = field(default_factory=dict)
    mounts: dict[str, np.ndarray] = field(default_factory=dict)
    odom_from_base: np.ndarray | None = None
    unplaced: dict[str, str] = field(default_factory=dict)
    ego_motion_missing: str = ""
    frames_from_optical: dict[str, np.ndarray] = field(default_factory=dict)


def place_cameras(
    transforms: TransformBuffer,
    cameras: dict[str, tuple[str, int]],
    anchor_stamp_ns: int,
    base_frame: str,
    odom_frame: str,
    timeout: float = 0.0,
    fixed_mounts: dict[str, np.ndarray] | None = None,
    watch: JumpWatch | None = None,
    frames_from_optical: dict[str, np.ndarray] | None = None,
) -> Placements:
    """Place each camera at its own stamp: inv(odom_from_base(anchor)) @ odom_from_base(its stamp) @ base_from_camera.

    If the ego pose is missing at any of the stamps (no odom frame, or /tf does not reach that far), or jumps between
    two of them, all cameras get their mount alone, so that they stay consistent with each other, and
    `ego_motion_missing` gives the reason.

    Args:
        transforms: the transforms of /tf and /tf_static.
        cameras: {name: (optical frame, image stamp)}.
        anchor_stamp_ns: stamp of the outputs.
        base_frame: frame of the outputs.
        odom_frame: fixed frame; empty means no ego motion.
        timeout: longest wait for /tf to reach the newest stamp, seconds.
        fixed_mounts: {camera: (4, 4)} for cameras whose mount does not come from TF.
        watch: finds the jumps of the ego pose, up to the newest one; None: there are none.
        frames_from_optical: {camera: (4, 4)} of cameras whose images are rectified: their optical axes in their frames.
    """
    fixed_mounts = fixed_mounts or {}
    placements = Placements(frames_from_optical=frames_from_optical or {})
    ego = _ego_motion(transforms, cameras, anchor_stamp_ns, base_frame, odom_frame, timeout, watch, placements)
    for camera, (frame, stamp_ns) in cameras.items():
        try:
            mount = fixed_mounts[camera] if camera in fixed_mounts else transforms.lookup(base_frame, frame, stamp_ns)
        except TransformError as error:
            placements.unplaced[camera] = str(error)
            continue
        if camera in placements.frames_from_optical:
            mount = mount @ placements.frames_from_optical[camera]
        if not _near(mount):
            placements.unplaced[camera] = f"TF has it {np.abs(mount[:3, 3]).max():.3g} m away from '{base_frame}'"
            continue
        placements.mounts[camera] = mount
        placements.base_from_camera[camera] = ego[stamp_ns] @ mount if ego else mount
    return placements


def _ego_motion(
    transforms: TransformBuffer,
    cameras: dict[str, tuple[str, int]],
    anchor_stamp_ns: int,
    base_frame: str,
    odom_frame: str,
    timeout: float,
    watch: JumpWatch | None,
    placements: Placements,
) -> dict[int, np.ndarray]:
    """{stamp: (4, 4) base at the anchor's stamp from base at this stamp}; empty without ego motion."""
    if not odom_frame:
        placements.ego_motion_missing = "parameter 'odom_frame' is empty"
        return {}
    stamps = {anchor_stamp_ns, *(stamp_ns for _, stamp_ns in cameras.values())}
    try:
        transforms.wait_for(odom_frame, base_frame, max(stamps), timeout)
        odom_from_base = {stamp_ns: transforms.lookup(odom_frame, base_frame, stamp_ns) for stamp_ns in stamps}
    except TransformError as error:
        placements.ego_motion_missing = str(error)
        return {}
    if watch is not None:
        watch.update()
        jump = watch.jumps.between(min(stamps), max(stamps))
        if jump is not None:
            placements.ego_motion_missing = f"'{base_frame}' in '{odom_frame}': {jump}"
            return {}
    anchor_from_odom = invert(odom_from_base[anchor_stamp_ns])
    moved = {stamp_ns: anchor_from_odom @ pose for stamp_ns, pose in odom_from_base.items()}
    for stamp_ns, pose in moved.items():
        if not _near(pose):
            placements.ego_motion_missing = (
                f"'{base_frame}' jumps by more than {FARTHEST:g} m in '{odom_frame}' within "
                f"{abs(stamp_ns - anchor_stamp_ns) * 1e-9:.3f} s; check its publisher"
            )
            return {}
    placements.odom_from_base = odom_from_base[anchor_stamp_ns]
    return moved


def _near(pose: np.ndarray) -> bool:
    """Whether a (4, 4) pose can be one of this vehicle. Larger numbers are errors, and can overflow later."""
    return bool(np.abs(pose[:3, 3]).max() <= FARTHEST)  # false for NaN too
