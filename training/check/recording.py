"""Checks one recording."""

from __future__ import annotations

import math
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from renderocc_model.base.findings import Findings
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.truth import truth_files
from renderocc_model.rosio.bags import Bag, BagError
from renderocc_model.rosio.camera_search import no_cameras
from renderocc_model.rosio.camera_topics import CameraTopics, stamp_faults
from renderocc_model.rosio.vehicle import Vehicle, absolute
from training.recordings.notes import class_table, find_sidecar, truth_class_table

from .contents import Contents, read_contents
from .geometry import check_calibration, check_lidars, check_mounts, check_poses
from .labelling import check_labelling
from .labels import LabelReport, check_labels, check_truth
from .silent import check_silent_cameras
from .verdicts import as_json, conclude, judge

__all__ = ["check_recording"]

_MEND_INFO = "correct it where it is published and in the recording, or leave the camera out with --cameras"
_MEND_IMAGE = "cut the recording there, or leave the camera out with --cameras"
_CLOCK_SLACK_S = 5.0  # largest difference between an image's stamp and its record time


def check_recording(path: Path, labels: Path | None, vehicle: Vehicle, options: Namespace) -> dict:
    """Check a recording.

    Args:
        path: the recording.
        labels: its sidecar. None is <path>_labels if that exists.
        vehicle: its cameras, topics, frames and limits of motion.
        options: the options of `renderocc check`.
    Returns:
        a report for JSON: recording, labels, status (0, 1 or 2, as the exit status), topics, cameras,
        class_frequencies, truth, verdicts and findings.
    """
    findings = Findings()
    if labels is None and not options.no_labels:
        labels = find_sidecar(path)
    report: dict = {"recording": str(path), "labels": None if labels is None else str(labels)}
    try:
        with ExitStack() as stack:
            bag = stack.enter_context(Bag(path))
            sidecars = [stack.enter_context(Bag(labels))] if labels is not None and not options.no_labels else []
            report |= _examine(findings, bag, sidecars, vehicle, options)
            if bag.message_count:
                verdicts = judge(path, labels if sidecars else None, vehicle, options, report.pop("has_labels"))
                conclude(findings, verdicts)
                report["verdicts"] = as_json(verdicts)
            status = 0 if findings.could_run else 1
    except BagError as error:
        findings.fail("recording", str(error))
        status = 2
    except (OSError, MemoryError) as error:
        findings.fail("recording", f"{path}: {machine_error(error, less='fewer --cameras') or error}")
        status = 2
    return report | {"status": status, "findings": findings.as_dict()["findings"]}


def _examine(findings: Findings, bag: Bag, sidecars: list[Bag], vehicle: Vehicle, options: Namespace) -> dict:
    for opened in (bag, *sidecars):
        for note in opened.notes:
            findings.warn("recording", f"{opened.path}: {note}", f"ros2 bag reindex {opened.path}")
    if not bag.message_count:
        findings.fail("recording", f"{bag.path}: the recording holds no messages", "record again")
        return {}
    length = (bag.end_ns - bag.start_ns) / 1e9
    findings.ok("recording", f"{bag.message_count} messages, {length:.1f} s")
    for topic in bag.topics.values():
        rate = _rate(topic.count, length)
        text = f"{topic.type}, {topic.count} messages{f', {rate:.1f} Hz' if rate else ''}"
        (findings.ok if topic.count else findings.note)(f"topic {topic.name}", text)
    contents = read_contents(findings, bag, vehicle)
    _check_presence(findings, contents, bag, vehicle)
    check_silent_cameras(findings, contents.cameras, bag, vehicle)
    for camera in contents.cameras.values():
        _check_camera(findings, contents, camera)
    for cloud, (_, stamps) in contents.clouds.items():
        _check_stamps(findings, contents, f"cloud {cloud}", cloud, stamps, "cloud")
    mounts = check_mounts(findings, contents, vehicle)
    check_lidars(findings, contents, vehicle, needed=options.no_labels)
    check_poses(findings, contents, vehicle, options.max_pose_gap)
    for text in contents.reader.missing.values():
        if not any(text in item.remedy for item in findings.items):  # where it matters, a finding says so
            findings.note("topics", text)
    labelled, classes = LabelReport(), OCC3D_NUSCENES
    try:
        classes = class_table(options.classes, bag.path, sidecars[0].path if sidecars else None)
    except ValueError as error:
        findings.fail("classes", str(error))
    if options.no_labels:
        check_labelling(findings, contents, bag, vehicle.lidar_topics)
    else:
        labelled = check_labels(findings, contents, [*sidecars, bag], classes, options.samples)
    of_truth = classes
    try:
        if truth_files(bag.path):
            of_truth = truth_class_table(bag.path, wanted=options.truth_classes or "", otherwise=classes)
    except ValueError as error:
        findings.fail("truth", str(error))
    volumes = check_truth(findings, contents, bag.path, of_truth, options.max_time_diff)
    return {
        "seconds": length,
        "topics": {
            topic.name: {"type": topic.type, "messages": topic.count, "rate": _rate(topic.count, length)}
            for topic in bag.topics.values()
        },
        "cameras": {name: _describe(camera, mounts, labelled) for name, camera in contents.cameras.items()},
        "class_frequencies": {
            name: int(labelled.frequencies[index]) for index, name in enumerate(classes.names) if index != classes.free
        },
        "truth": volumes,
        "has_labels": labelled.class_topics or any(labelled.images.values()),
    }


def _check_presence(findings: Findings, contents: Contents, bag: Bag, vehicle: Vehicle) -> None:
    found = contents.found
    uncalibrated = sorted(found.uncalibrated.keys() - found.missing.keys())
    if uncalibrated:
        findings.fail(
            f"camera {_quoted(uncalibrated)}",
            "images but no camera_info",
            "record it, set --camera-info-topic, or leave the camera out with --cameras",
            ", ".join(absolute(vehicle.camera_info_topic_of(name)) for name in uncalibrated),
        )
    for name, why in found.missing.items():
        findings.fail(f"camera '{name}'", why, "take a name from `ros2 bag info`")
    if not contents.cameras and not uncalibrated:
        findings.fail("cameras", no_cameras(bag.topics.values(), vehicle, found))
    elif contents.cameras:
        findings.ok("cameras", f"{len(contents.cameras)}: {', '.join(contents.cameras)}")


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _check_camera(findings: Findings, contents: Contents, camera: CameraTopics) -> None:
    subject = f"camera '{camera.name}'"
    for complaint in camera.complaints:
        of_info = complaint.topic == camera.info_topic
        remedy = _MEND_INFO if of_info else _MEND_IMAGE
        time = contents.time_text(complaint.recorded_ns)
        if complaint.left_out and camera.stamps:
            findings.warn(subject, str(complaint), "it is left out; the others are used", complaint.topic, time)
        else:
            findings.fail(subject, str(complaint), remedy, complaint.topic, time)
    if camera.pixels.warning:
        remedy = "say it with the parameter 'bit_depth', so that dark and bright recordings are decoded alike"
        findings.warn(subject, camera.pixels.warning, remedy, camera.image_topic)
    if camera.model is not None:
        check_calibration(findings, camera)
    if camera.size_mismatch():
        findings.fail(
            subject,
            camera.size_mismatch(),
            "record a matching camera_info",
            camera.info_topic,
            contents.time_text(camera.stamps[0]),
        )
    if camera.model is not None and camera.size is not None:
        height, width = camera.size
        view = math.degrees(sum(camera.model.horizontal_extent))
        rate = _median_rate(camera.stamps)
        text = f"{len(camera.stamps)} images {width}x{height}{f', {rate:.1f} Hz' if rate else ''}, "
        findings.ok(subject, f"{text}{camera.model.distortion_model}, {view:.0f} degrees")
    _check_stamps(findings, contents, subject, camera.image_topic, camera.stamps, "image")
    if camera.recorded_later_s > _CLOCK_SLACK_S:
        text = f"stamps and record times differ by up to {camera.recorded_later_s:.1f} s"
        findings.warn(
            subject, text, "the camera may have another clock than the computer; compare with /tf", camera.image_topic
        )


def _check_stamps(
    findings: Findings, contents: Contents, subject: str, topic: str, stamps: list[int], what: str
) -> None:
    remedies = {
        "zero": "set header.stamp where they are published",
        "back": f"of {what}s with equal stamps only the first is used; cut the recording where the clock jumps",
        "gap": f"{what}s were lost, or the recording was paused",
    }
    for fault in stamp_faults(stamps, what):
        report = findings.fail if fault.kind == "zero" else findings.warn
        report(subject, fault.text, remedies[fault.kind], topic, contents.time_text(fault.stamp_ns))


def _describe(camera: CameraTopics, mounts: dict[str, np.ndarray], labelled: LabelReport) -> dict:
    mount = mounts.get(camera.name)
    return {
        "images": len(camera.stamps),
        "rate": _median_rate(camera.stamps),
        "size": None if camera.size is None else [camera.size[1], camera.size[0]],
        "distortion_model": None if camera.model is None else camera.model.distortion_model,
        "height": None if mount is None else round(float(mount[2, 3]), 4),
        "labelled_images": labelled.images.get(camera.name, 0),
        "label_coverage": labelled.coverage.get(camera.name, 0.0),
        "classified": labelled.classified.get(camera.name, 0.0),
    }


def _rate(count: int, length: float) -> float | None:
    return round((count - 1) / length, 3) if count > 1 and length > 0 else None


def _median_rate(stamps: list[int]) -> float | None:
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    return round(1e9 / float(np.median(steps)), 3) if steps.size else None
