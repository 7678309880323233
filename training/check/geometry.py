"""Checks whether calibrations and mounts are plausible, and whether TF has the ego pose at every image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from renderocc_model.base.findings import Findings
from renderocc_model.geometry.mount_entries import camera_mounts
from renderocc_model.geometry.mounts import mount_faults, place_faults, shared_mounts
from renderocc_model.rosio.camera_topics import CameraTopics
from renderocc_model.rosio.heading import heading_fault
from renderocc_model.rosio.motion import find_jumps
from renderocc_model.rosio.rectification import baseline_doubts, frames_from_optical
from renderocc_model.rosio.tf_buffer import TransformError
from renderocc_model.rosio.vehicle import Vehicle
from training.recordings.pose_gaps import pose_gap

from .contents import Contents

__all__ = ["check_calibration", "check_lidars", "check_mounts", "check_poses"]

_NARROW, _WIDE = 10.0, 220.0  # smallest and largest horizontal field of view, degrees
_SQUARE = 1.25  # largest ratio of the focal lengths of square pixels
_OFF_CENTRE = 0.25  # largest distance of the principal point from the image's centre, share of the image's size


def check_calibration(findings: Findings, camera: CameraTopics) -> None:
    """Check K, distortion and field of view of a camera whose calibration could be read."""
    model, subject, topic = camera.model, f"camera '{camera.name}'", camera.info_topic
    assert model is not None
    remedy = "compare with the camera's calibration file"

    def warn(text: str) -> None:
        findings.warn(subject, text, remedy, topic)

    for text in camera.doubts:
        warn(text)
    view = math.degrees(sum(model.horizontal_extent))
    if not _NARROW <= view <= _WIDE:
        warn(f"K and distortion give a view of {view:.1f} degrees, which is not a driving camera's")
    fx, fy = model.K[0, 0], model.K[1, 1]
    if not 1 / _SQUARE < fx / fy < _SQUARE:
        warn(f"focal lengths are {fx:.1f} and {fy:.1f} pixels: pixels would not be square")
    for axis, size, word in ((0, model.width, "columns"), (1, model.height, "rows")):
        off = model.K[axis, 2] - (size - 1) / 2
        if abs(off) > _OFF_CENTRE * size:
            warn(f"principal point {model.K[axis, 2]:.1f} lies {abs(off):.0f} {word} beside the middle of {size}")
    edges = [(0, 0), (model.width - 1, 0), (0, model.height - 1), (model.width - 1, model.height - 1)]
    lost = int((~np.isfinite(model.unproject(np.array(edges, float))).all(axis=1)).sum())
    if lost and model.distortion_model != "equidistant":  # the corners of a fisheye image are often black
        warn(f"the distortion folds over before {lost} of the image's corners, pixels there have no direction")


def check_mounts(findings: Findings, contents: Contents, vehicle: Vehicle) -> dict[str, np.ndarray]:
    """Check that each camera has a plausible mount on the vehicle. Returns {camera: base_from_camera}."""
    base_frame, topic = vehicle.base, contents.reader.static
    fixed = _fixed_mounts(findings, contents, vehicle)
    mounts = {}
    rectified = {name: (one.frame_id, one.rectification) for name, one in contents.cameras.items() if one.stamps}
    turned = frames_from_optical(rectified)
    for name, text in baseline_doubts(rectified).items():
        remedy = "look at its frame_id, or use the pair's first camera, too"
        findings.warn(f"camera '{name}'", text, remedy, contents.cameras[name].info_topic)
    unplaced: dict[str, str] = {}
    for camera in contents.cameras.values():
        if not camera.stamps:
            continue
        subject = f"camera '{camera.name}'"
        try:
            if camera.name in fixed:
                mounts[camera.name] = fixed[camera.name]
            else:
                mounts[camera.name] = contents.transforms.lookup(base_frame, camera.frame_id, camera.stamps[0])
        except TransformError as error:
            unplaced[camera.name] = str(error)
            continue
        mounts[camera.name] = mounts[camera.name] @ turned.get(camera.name, np.eye(4))
        given = "the entry of --mounts" if camera.name in fixed else f"the transform from {base_frame} to"
        for text in mount_faults(mounts[camera.name]):
            findings.warn(subject, text, f"check {given} {camera.frame_id}", topic)
    if unplaced:
        cameras = [contents.cameras[name] for name in unplaced]
        findings.fail(
            f"camera {', '.join(map(repr, unplaced))}",
            f"no TF from {base_frame} to {', '.join(repr(camera.frame_id) for camera in cameras)}: "
            f"{next(iter(unplaced.values()))}",
            _mend_frames(contents, "set --mounts, --camera-frame or --frame-prefix"),
            topic,
            contents.time_text(cameras[0].stamps[0]),
        )
    for text in shared_mounts(mounts):
        findings.warn("mounts", text, "one of them probably has the other's transform", topic)
    return mounts


def _fixed_mounts(findings: Findings, contents: Contents, vehicle: Vehicle) -> dict[str, np.ndarray]:
    """{camera: mount} of the setting `mounts`."""
    try:
        return camera_mounts(vehicle.mounts, tuple(contents.cameras))
    except ValueError as error:
        findings.fail("mounts", str(error))
        return {}


def check_lidars(findings: Findings, contents: Contents, vehicle: Vehicle, needed: bool) -> None:
    """Check that each LiDAR has a mount on the vehicle, which `renderocc label` needs.

    Args:
        findings: gets the faults.
        contents: contents of the recording.
        vehicle: its frames and mounts.
        needed: whether the recording is to be labelled; then it is a failure if no LiDAR has a mount.
    """
    unplaced = {}
    for topic, (frame, stamps) in contents.clouds.items():
        if any(text.rpartition(":")[0].strip() == topic for text in vehicle.mounts):
            continue
        try:
            mount = contents.transforms.lookup(vehicle.base, frame, stamps[0])
            for text in place_faults(mount):
                remedy = f"check the transform from {vehicle.base} to {frame}"
                findings.warn(f"cloud {topic}", text, remedy, contents.reader.static)
        except TransformError as error:
            unplaced[topic] = f"no TF from {vehicle.base} to {frame!r}: {error}", contents.time_text(stamps[0])
    placeless = not findings.could_run and contents.reader.missing  # of which the cameras have told
    for topic, (text, time) in ({} if placeless else unplaced).items():
        report = findings.fail if needed and len(unplaced) == len(contents.clouds) else findings.warn
        remedy = f"its points cannot label images; {_mend_frames(contents, 'set --mounts or --frame-prefix')}"
        report(f"cloud {topic}", text, remedy, contents.reader.static, time)


def _mend_frames(contents: Contents, options: str) -> str:
    """What to do about a frame that TF does not place."""
    return _with_topics(contents, f"{options}, or record {contents.reader.static} from the start")


def _with_topics(contents: Contents, remedy: str) -> str:
    """A remedy after what topics lack; where one of several has to be chosen, that is the remedy."""
    lacking = "; ".join(contents.reader.missing.values())
    return lacking if "choose" in lacking else "; ".join(filter(None, (lacking, remedy)))


def check_poses(findings: Findings, contents: Contents, vehicle: Vehicle, max_gap: float) -> None:
    """Check that the ego pose does not jump, and that every image has one.

    There is one finding for each unbroken row of images without a pose. Images inside a jump are not among them: they
    are left out, and the jump is named.

    Args:
        findings: gets the faults.
        contents: contents of the recording.
        vehicle: its frames and limits of motion.
        max_gap: longest time in seconds from an image to the ego poses around it.
    """
    base_frame, odom_frame, topic = vehicle.base, contents.reader.fixed, contents.reader.pose_topic
    if not odom_frame:
        findings.ok("ego motion", "the vehicle stands still (--odom-frame is empty)")
        return
    jumps = find_jumps(contents.transforms, odom_frame, base_frame, vehicle.motion)
    for text in jumps.texts(contents.time_text):
        findings.warn("ego motion", text, "what is before it and what is after it are not related", topic)
    heading = heading_fault(contents.transforms, odom_frame, base_frame, vehicle.motion)
    if heading:
        findings.warn("ego motion", heading, "correct what publishes it, or set --base-frame", topic)
    holes = _holes(contents, base_frame, odom_frame, max_gap)
    remedy = _with_topics(
        contents,
        "record the poses from before the first image to after the last without holes, set --odom-frame or "
        "--odom-topic, or leave these frames out (renderocc prepare --skip-unposed)",
    )
    for hole in holes:
        images = " and ".join(f"{count} images of '{name}'" for name, count in hole.images.items())
        begin, end = (contents.time_text(stamp) for stamp in (hole.first, hole.last))
        span = f"from {begin} to {end}" if hole.last > hole.first else f"at {begin}"
        findings.fail(
            "ego motion",
            f"no TF from {odom_frame} to {base_frame} {hole.where}, {images} {span}: {hole.reason}",
            remedy,
            topic,
            begin,
        )
    if not holes and any(camera.stamps for camera in contents.cameras.values()):
        findings.ok("ego motion", f"{base_frame} has a pose in {odom_frame} at every image of every camera")


@dataclass
class _Hole:
    """A time without ego poses, and the images in it.

    Attributes:
        where: the time in relation to the poses, for people.
        reason: why there is no pose at its first image.
        first, last: stamps of the first and the last image, nanoseconds.
        images: {camera: number of images}.
    """

    where: str
    reason: str
    first: int
    last: int
    images: dict[str, int] = field(default_factory=dict)


def _holes(contents: Contents, base_frame: str, odom_frame: str, max_gap: float) -> list[_Hole]:
    """The times without an ego pose in which there are images, in their order."""
    stamps = sorted((stamp, name) for name, camera in contents.cameras.items() for stamp in set(camera.stamps))
    holes: list[_Hole] = []
    inside = False
    for stamp, name in stamps:
        reason = _missing(contents, stamp, base_frame, odom_frame, max_gap)
        if reason is not None:
            if not inside:
                holes.append(_Hole("", reason, stamp, stamp))
            holes[-1].last = stamp
            holes[-1].images[name] = holes[-1].images.get(name, 0) + 1
        inside = reason is not None
    for hole in holes:
        hole.where = _where(contents, hole, len(stamps))
    return holes


def _where(contents: Contents, hole: _Hole, images: int) -> str:
    poses = contents.pose_stamps
    if not poses or sum(hole.images.values()) == images:
        return "at all"
    if hole.last < poses[0]:
        return f"before {contents.time_text(poses[0])}"
    if hole.first > poses[-1]:
        return f"after {contents.time_text(poses[-1])}"
    return "between its poses"


def _missing(contents: Contents, stamp: int, base_frame: str, odom_frame: str, max_gap: float) -> str | None:
    """The reason why there is no ego pose at a stamp; None if there is one."""
    try:
        contents.transforms.lookup(odom_frame, base_frame, stamp)
    except TransformError as error:
        return str(error)
    gap = pose_gap(contents.pose_stamps, stamp)
    return f"the nearest poses are up to {gap:.3f} s away, more than {max_gap:g} s" if gap > max_gap else None
