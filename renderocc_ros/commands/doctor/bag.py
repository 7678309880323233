"""The doctor's checks of a recording: everything that the node needs, checked beforehand and without ROS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from renderocc_model.base.findings import Findings
from renderocc_model.geometry.mounts import mount_faults, shared_mounts
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag, BagError, Topic
from renderocc_model.rosio.camera_topics import CameraTopics, stamp_faults
from renderocc_model.rosio.motion import find_jumps
from renderocc_model.rosio.pixel_format import PixelFormat
from renderocc_model.rosio.rectification import baseline_doubts, frames_from_optical
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_model.rosio.video_track import VIDEO_READERS, video_topic
from renderocc_ros.frame.mounts import parse_mounts
from renderocc_ros.input.discovery import cameras_on_graph
from renderocc_ros.parameters import NodeConfig

__all__ = ["check_bag"]

_IMAGE, _COMPRESSED, _INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
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
    cameras = _find_cameras(findings, bag, config)
    if not cameras:
        return None
    transforms = _read(findings, bag, cameras, seconds)
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
        _check_ego_motion(findings, usable, transforms, config)
        _check_matching(findings, usable, anchor, config)
    return rig


def _holds(bag: Bag, topic: str, kind: str) -> bool:
    """Whether a recording has messages of this type on this topic."""
    return topic in bag.topics and bag.topics[topic].type == kind and bag.topics[topic].count > 0


def _find_cameras(findings: Findings, bag: Bag, config: NodeConfig) -> dict[str, CameraTopics]:
    """The cameras the node would use: those of its parameter, or those whose topics fit the templates.

    If there are none, a finding says so.
    """
    types = [(topic.name, [topic.type]) for topic in bag.topics.values() if topic.count]
    found = config.cameras or cameras_on_graph(types, config, "/")
    if not found:
        findings.fail("cameras", f"no topics fit {config.image_topic} with {config.camera_info_topic}", _suggest(bag))
        return {}
    cameras = {}
    for name in found:
        raw, info = _absolute(config.image_topic_of(name)), _absolute(config.camera_info_topic_of(name))
        topic, kind = _images_of(bag, raw, config.image_transport)
        if not topic:
            findings.warn(
                f"camera '{name}'",
                f"no images on {raw} (parameter image_transport: {config.image_transport})",
                _suggest(bag),
            )
        elif not _holds(bag, info, _INFO):
            findings.warn(
                f"camera '{name}'", f"no calibration on {info}", "record camera_info, or set camera_info_topic"
            )
        else:
            pixels = PixelFormat(config.bit_depth, config.mosaic)
            video = kind if kind in VIDEO_READERS else ""
            cameras[name] = CameraTopics(
                name, topic, info, kind == _COMPRESSED, pixels=pixels, rectified=config.rectified, video=video
            )
    if cameras:
        findings.ok("cameras", f"{len(cameras)}: {', '.join(cameras)}")
    else:
        findings.fail("cameras", f"none of {', '.join(found)} has images and a calibration", "mend what is named above")
    return cameras


def _images_of(bag: Bag, raw: str, transport: str) -> tuple[str, str]:
    """The topic of a camera's images that the node would take, and its message type; empty without one."""
    if _holds(bag, raw, _IMAGE) and transport in ("auto", "raw"):
        return raw, _IMAGE
    if _holds(bag, f"{raw}/compressed", _COMPRESSED) and transport in ("auto", "compressed"):
        return f"{raw}/compressed", _COMPRESSED
    topics = {topic.name: (topic.type,) for topic in bag.topics.values() if topic.count}
    video = video_topic(topics, raw) if transport in ("auto", "video") else None
    return video or ("", "")


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


def _suggest(bag: Bag) -> str:
    """Templates that would fit: an image topic and a camera_info topic under the same name."""
    infos = {topic.name.rpartition("/")[0] for topic in bag.topics.values() if topic.type == _INFO}
    images = [topic for topic in bag.topics.values() if topic.type in (_IMAGE, _COMPRESSED)]
    usable = [topic.name for topic in images if topic.type == _IMAGE]
    usable += [topic.name.removesuffix("/compressed") for topic in images if _is_beside_raw(topic)]
    for name in usable:
        parent, _, last = name.rpartition("/")
        if parent in infos:
            return f"set image_topic: '{{camera}}/{last}'"
    if not images:
        return "the recording has no image topics; record them"
    if not infos:
        return "the recording has no camera_info; record it, or publish the calibration while replaying"
    names = ", ".join(topic.name for topic in images[:4])
    if not usable:
        return f"its compressed images are on {names}, but their topics must end in /compressed; remap them"
    return f"set image_topic and camera_info_topic; its images are on {names}"


def _is_beside_raw(topic: Topic) -> bool:
    """Whether the node can find these images: compressed ones are on TOPIC/compressed."""
    return topic.type == _COMPRESSED and topic.name.endswith("/compressed")


def _read(findings: Findings, bag: Bag, cameras: Mapping[str, CameraTopics], seconds: float) -> TransformBuffer:
    """Read what the node would read: headers of all images, size of the first, calibrations, transforms."""
    transforms = TransformBuffer(history=1e9, max_samples=1_000_000)
    bad: dict[str, str] = {}
    stop = bag.start_ns + round(seconds * 1e9)
    for topic, _, data in bag.messages(["/tf_static"] if "/tf_static" in bag.topics else []):
        _take_transforms(transforms, topic, data, bad)
    by_topic = {topic: camera for camera in cameras.values() for topic in (camera.image_topic, camera.info_topic)}
    for topic, recorded, data in bag.messages([*by_topic], None, stop):
        by_topic[topic].take(topic, recorded, data)
    if "/tf" in bag.topics:
        for topic, _, data in bag.messages(["/tf"], None, stop + round(_TF_MARGIN_S * 1e9)):
            _take_transforms(transforms, topic, data, bad)
    for text in bad.values():
        findings.warn("tf", text, "the node drops it and says so")
    for conflict in transforms.conflicts:
        findings.warn("tf", str(conflict), "only one node may publish a frame's parent")
    return transforms


def _take_transforms(transforms: TransformBuffer, topic: str, data: bytes, bad: dict[str, str]) -> None:
    try:
        for item in cdr.read_tf(data):
            transforms.set(
                item.parent, item.child, item.stamp_ns, item.translation, item.quaternion, topic == "/tf_static"
            )
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
        fixed = parse_mounts(config.mounts, tuple(camera.name for camera in cameras))
    except ValueError as error:
        findings.fail("params", str(error))
        fixed = {}
    placed = []
    frames = {camera.name: config.camera_frame_of(camera.name) or camera.frame_id for camera in cameras}
    rectified = {camera.name: (frames[camera.name], camera.rectification) for camera in cameras}
    turned = frames_from_optical(rectified)
    for name, text in baseline_doubts(rectified).items():
        findings.warn(f"camera '{name}'", text, "look at its frame_id, or use the pair's first camera, too")
    for camera in cameras:
        frame = frames[camera.name]
        try:
            mount = (
                fixed[camera.name]
                if camera.name in fixed
                else transforms.lookup(config.base_frame, frame, camera.stamps[0])
            )
        except TransformError as error:
            entry = f"'{camera.name}: x y z roll pitch yaw'"
            remedy = f"record /tf_static from the start, set base_frame or camera_frame, or mounts: [{entry}]"
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
    findings: Findings, cameras: list[CameraTopics], transforms: TransformBuffer, config: NodeConfig
) -> None:
    """Check that the ego pose is known at the stamp of every image."""
    if not config.odom_frame:
        findings.ok("ego motion", "parameter odom_frame is empty: cameras are placed by their mounts alone")
        return
    jumps = find_jumps(transforms, config.odom_frame, config.base_frame, config.motion)
    for text in jumps.texts(lambda stamp_ns: f"{seconds_text(stamp_ns)} s"):
        remedy = "the node relates nothing across it; repair what publishes the pose"
        findings.warn("ego motion", f"{config.odom_frame} to {config.base_frame}: {text}", remedy)
    stamps = sorted({stamp for camera in cameras for stamp in camera.stamps})
    missing: list[tuple[int, str]] = []
    for stamp in stamps:
        try:
            transforms.lookup(config.odom_frame, config.base_frame, stamp)
        except TransformError as error:
            missing.append((stamp, str(error)))
    if not missing:
        findings.ok(
            "ego motion", f"{config.base_frame} has a pose in {config.odom_frame} at all {len(stamps)} image stamps"
        )
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
