"""The doctor's checks of a recording: everything that the node needs, checked beforehand and without ROS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from renderocc_model.base.findings import Findings
from renderocc_model.geometry.mount_entries import camera_mounts
from renderocc_model.geometry.mounts import mount_faults, shared_mounts
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.rosio.bags import Bag, BagError
from renderocc_model.rosio.camera_search import FoundCameras, find_cameras, no_cameras, topic_types
from renderocc_model.rosio.camera_topics import CameraTopics, stamp_faults, topics_of
from renderocc_model.rosio.heading import heading_fault
from renderocc_model.rosio.motion import find_jumps
from renderocc_model.rosio.rectification import baseline_doubts, frames_from_optical
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_model.rosio.transform_topics import TransformReader
from renderocc_model.rosio.vehicle import absolute
from renderocc_ros.parameters import NodeConfig

__all__ = ["check_bag"]

_TF_MARGIN_S = 1.0  # seconds after the last checked image in which poses are read too
_CLOCK_SLACK_S = 5.0  # between an image's stamp and when it was recorded


def check_bag(findings: Findings, path: Path, config: NodeConfig, seconds: float = 60.0) -> Rig | None:
    """Check a recording against the node's parameters.

    Returns:
        its rig, of the cameras that can be used; None where there is none.
    """
    try:
        with Bag(path) as bag:
            return _check_open_bag(findings, bag, config, seconds)
    except BagError as error:
        findings.fail("bag", str(error))
    return None


def _check_open_bag(findings: Findings, bag: Bag, config: NodeConfig, seconds: float) -> Rig | None:
    for note in bag.notes:
        findings.warn("bag", f"{bag.path}: {note}", f"ros2 bag reindex {bag.path}")
    if not bag.message_count:
        findings.fail("bag", f"{bag.path}: the recording holds no messages")
        return None
    length = (bag.end_ns - bag.start_ns) / 1e9
    looked = f", of which the first {seconds:g} s are checked" if length > seconds else ""
    findings.ok("bag", f"{bag.path}: {bag.message_count} messages, {length:.1f} s{looked}")
    for topic in bag.topics.values():
        rate = f", {(topic.count - 1) / length:.1f} Hz" if topic.count > 1 and length > 0 else ""
        text = f"{topic.type}, {topic.count} messages{rate}"
        (findings.ok if topic.count else findings.note)(f"topic {topic.name}", text)
    found = _find_cameras(findings, bag, config)
    if not found.cameras:
        return None
    cameras = {name: topics_of(source, config) for name, source in found.cameras.items()}
    reader = _read(findings, bag, cameras, config, seconds)
    transforms = reader.transforms
    usable = [camera for camera in cameras.values() if _check_camera(findings, camera)]
    rig = _check_mounts(findings, usable, transforms, config)
    names = rig.names if rig else ()
    anchor = config.anchor_camera or (config.cameras or tuple(cameras))[0]
    if len(names) < max(config.min_cameras, 1):
        text = f"{len(names)} can be used, parameter min_cameras is {config.min_cameras}"
        findings.fail("cameras", text, "mend what the lines above name")
    elif anchor not in names:
        remedy = f"mend it, or set anchor_camera, e.g. to {names[0]!r}"
        findings.fail("cameras", f"'{anchor}' cannot be used, and it is the anchor that every frame waits for", remedy)
    else:
        usable = [camera for camera in usable if camera.name in names]
        _check_ego_motion(findings, usable, reader, config)
        _check_matching(findings, usable, anchor, config)
    return rig


def _find_cameras(findings: Findings, bag: Bag, config: NodeConfig) -> FoundCameras:
    """The cameras the node would use. If there are none, a finding says so."""
    found = find_cameras(topic_types(bag.topics.values()), config)
    for name, why in found.missing.items():
        findings.warn(f"camera '{name}'", why, "correct the parameters cameras, image_topic and camera_info_topic")
    for name in found.uncalibrated.keys() - found.missing.keys():
        info = absolute(config.camera_info_topic_of(name))
        findings.warn(f"camera '{name}'", f"no calibration on {info}", "record camera_info, or set camera_info_topic")
    if found.note:
        findings.note("cameras", found.note)
    if found.cameras:
        findings.ok("cameras", f"{len(found.cameras)}: {', '.join(found.cameras)}")
    elif found.missing:
        names = ", ".join(found.missing)
        findings.fail("cameras", f"none of {names} has images and a calibration", "mend what is named above")
    else:
        findings.fail("cameras", no_cameras(bag.topics.values(), config, found))
    return found


def _read(
    findings: Findings, bag: Bag, cameras: Mapping[str, CameraTopics], config: NodeConfig, seconds: float
) -> TransformReader:
    """Read what the node would read: headers of all images, size of the first, calibrations, transforms."""
    reader = TransformReader(bag.topics, config, transforms=TransformBuffer(history=1e9, max_samples=1_000_000))
    bad: dict[str, str] = {}
    stop = bag.start_ns + round(seconds * 1e9)
    if reader.static in bag.topics:
        for topic, _, data in bag.messages([reader.static]):
            _take_transforms(reader, topic, data, bad)
    by_topic = {topic: camera for camera in cameras.values() for topic in (camera.image_topic, camera.info_topic)}
    for topic, recorded, data in bag.messages([*by_topic], None, stop):
        by_topic[topic].take(topic, recorded, data)
    moving = (reader.topics - {reader.static}) & set(bag.topics)
    if moving:
        for topic, _, data in bag.messages(moving, None, stop + round(_TF_MARGIN_S * 1e9)):
            _take_transforms(reader, topic, data, bad)
    reader.finish()
    for note in reader.notes:  # the node takes no topic that it is not told to take
        findings.warn("tf", f"{note} here", "set tf_topic, tf_static_topic or odom_topic for the node, or remap it")
    for text in reader.missing.values():
        findings.warn("tf", text)
    for text in bad.values():
        findings.warn("tf", text, "the node drops it and says so")
    for conflict in reader.transforms.conflicts:
        findings.warn("tf", str(conflict), "only one node may publish a frame's parent")
    return reader


def _take_transforms(reader: TransformReader, topic: str, data: bytes, bad: dict[str, str]) -> None:
    try:
        reader.take(topic, data)
    except ValueError as error:
        bad.setdefault(topic, f"{topic}: {error}")


def _check_camera(findings: Findings, camera: CameraTopics) -> bool:
    """Check calibration, sizes and stamps of one camera; True if the node can use it."""
    subject = f"camera '{camera.name}'"
    if camera.complaints:
        for complaint in camera.complaints:
            findings.warn(subject, f"{complaint.topic}: {complaint}")
        if not camera.stamps or not all(complaint.left_out for complaint in camera.complaints):
            return False
    if camera.model is None or camera.size is None:
        missing = "image" if camera.size is None else "calibration"
        findings.warn(subject, f"no {missing} in the checked part", "raise --seconds")
        return False
    if camera.size_mismatch():
        findings.warn(subject, camera.size_mismatch(), "publish a matching camera_info")
        return False
    for doubt in camera.doubts:
        findings.warn(subject, f"{camera.info_topic}: {doubt}", "publish the calibration of these images")
    if camera.pixels.warning:
        findings.warn(subject, camera.pixels.warning, "say it with the parameter 'bit_depth'")
    height, width = camera.size
    fov = np.degrees(sum(camera.model.horizontal_extent))
    stamps = np.array(camera.stamps)
    steps = np.diff(stamps) / 1e9
    rate = f", {1 / np.median(steps):.1f} Hz" if len(steps) and np.median(steps) > 0 else ""
    findings.ok(
        subject, f"{len(stamps)} images {width}x{height}{rate}, {camera.model.distortion_model}, {fov:.0f} degrees"
    )
    remedies = {"zero": "set header.stamp where the images are published", "back": "the node restarts there"}
    faults = stamp_faults(camera.stamps)
    for fault in faults:
        findings.warn(subject, fault.text, remedies.get(fault.kind, "images were lost"))
    if any(fault.kind == "zero" for fault in faults):
        return False
    if camera.recorded_later_s > _CLOCK_SLACK_S:
        text = f"stamps differ by up to {camera.recorded_later_s:.1f} s from when they were recorded"
        findings.warn(subject, text, "with --clock the node's clock follows the record times; check max_future")
    return True


def _check_mounts(
    findings: Findings, cameras: list[CameraTopics], transforms: TransformBuffer, config: NodeConfig
) -> Rig | None:
    """The pose of each camera on the vehicle, from the parameter `mounts` or TF."""
    try:
        fixed = camera_mounts(config.mounts, tuple(camera.name for camera in cameras))
    except ValueError as error:
        findings.fail("params", str(error))
        fixed = {}
    placed = []
    frames = {
        camera.name: config.optical_frame(camera.name, camera.frame_id, camera.info_frame_id) for camera in cameras
    }
    rectified = {camera.name: (frames[camera.name], camera.rectification) for camera in cameras}
    turned = frames_from_optical(rectified)
    for name, text in baseline_doubts(rectified).items():
        findings.warn(f"camera '{name}'", text, "look at its frame_id, or use the pair's first camera, too")
    for camera in cameras:
        frame = frames[camera.name]
        try:
            mount = (
                fixed[camera.name] if camera.name in fixed else transforms.lookup(config.base, frame, camera.stamps[0])
            )
        except TransformError as error:
            entry = f"'{camera.name}: x y z roll pitch yaw'"
            remedy = "record /tf_static from the start, set base_frame, frame_prefix or camera_frame, or mounts: "
            remedy += f"[{entry}]"
            findings.warn(
                f"camera '{camera.name}'",
                f"no transform from {config.base_frame} to its frame {frame!r}: {error}",
                remedy,
            )
            continue
        mount = mount @ turned.get(camera.name, np.eye(4))
        placed.append(Camera(camera.name, camera.model, mount, frame))
    mounts = {camera.name: camera.base_from_camera for camera in placed}
    wrong = {name: faults for name, mount in mounts.items() if (faults := mount_faults(mount))}
    for name, faults in wrong.items():
        given = "the entry of parameter mounts" if name in fixed else f"the transform to {config.base_frame}"
        for text in faults:
            findings.warn(f"camera '{name}'", text, f"correct {given}, or set camera_frame")
    for text in shared_mounts(mounts):
        findings.warn("mounts", text, "one of them probably has the other's transform")
    if placed and len(placed) == len(cameras) and not wrong:
        findings.ok("mounts", f"every camera has a transform to {config.base_frame}")
    return Rig(tuple(placed)) if placed else None


def _check_ego_motion(
    findings: Findings, cameras: list[CameraTopics], reader: TransformReader, config: NodeConfig
) -> None:
    """Check that the ego pose is known at the stamp of every image."""
    if not config.odom_frame:
        findings.ok("ego motion", "parameter odom_frame is empty: cameras are placed by their mounts alone")
        return
    transforms, fixed, base = reader.transforms, reader.fixed, config.base
    jumps = find_jumps(transforms, fixed, base, config.motion)
    for text in jumps.texts(lambda stamp_ns: f"{seconds_text(stamp_ns)} s"):
        remedy = "the node relates nothing across it; repair what publishes the pose"
        findings.warn("ego motion", f"{fixed} to {base}: {text}", remedy)
    heading = heading_fault(transforms, fixed, base, config.motion)
    if heading:
        findings.warn("ego motion", f"{fixed} to {base}: {heading}", "correct what publishes it, or set base_frame")
    stamps = sorted({stamp for camera in cameras for stamp in camera.stamps})
    missing: list[tuple[int, str]] = []
    for stamp in stamps:
        try:
            transforms.lookup(fixed, base, stamp)
        except TransformError as error:
            missing.append((stamp, str(error)))
    if not missing:
        findings.ok("ego motion", f"{base} has a pose in {fixed} at all {len(stamps)} image stamps")
        return
    first = (missing[0][0] - stamps[0]) / 1e9
    remedy = "the node then places cameras by their mounts alone; record /tf"
    roots = sorted({info.parent for info in transforms.frames().values()} - set(transforms.frames()))
    if len(missing) == len(stamps) and roots:
        remedy += f", or set odom_frame (frames without a parent: {', '.join(roots)})"
    findings.warn(
        "ego motion",
        f"missing at {len(missing)} of {len(stamps)} image stamps, first {first:.2f} s in: {missing[0][1]}",
        remedy,
    )


def _check_matching(findings: Findings, cameras: list[CameraTopics], anchor_name: str, config: NodeConfig) -> None:
    """Check how often all cameras have an image near the anchor's, and how far apart the stamps are."""
    anchor = next(camera for camera in cameras if camera.name == anchor_name)
    stamps = np.array(anchor.stamps)
    worst, complete = 0.0, np.ones(len(stamps), bool)
    for camera in cameras:
        others = np.sort(camera.stamps)
        index = np.clip(np.searchsorted(others, stamps), 1, max(len(others) - 1, 1))
        right = others[np.minimum(index, len(others) - 1)]
        apart = np.minimum(np.abs(stamps - others[index - 1]), np.abs(right - stamps)) / 1e9
        complete &= apart <= config.max_camera_time_diff
        worst = max(worst, float(np.median(apart)))
    share = complete.mean()
    limit = config.max_camera_time_diff
    text = f"{complete.sum()} of {len(stamps)} images of '{anchor.name}' have all other cameras within {limit:g} s"
    if share < 0.9:
        findings.warn(
            "matching",
            f"{text}; the median of the farthest is {worst * 1e3:.0f} ms",
            "raise max_camera_time_diff, or trigger the cameras together",
        )
    else:
        findings.ok("matching", f"{text}, the farthest {worst * 1e3:.0f} ms")
