"""/diagnostics: state and faults of the node, each camera, frames, latencies, network and TF."""

from __future__ import annotations

from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from renderocc_model.ops.left_out import GPU_PARTS, left_out
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_ros.frame.configured import ConfiguredNode
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog, printable

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
LIVE = 86_400.0  # seconds; images whose stamps are further from the clock come from a recording played without --clock
RECENT = 5.0  # seconds for which a fault in the log raises the level of its line
MOST_TEXT = 4000  # characters of a text or value: parts of them come from the network
FRAME_LIMIT = 5.0  # seconds after which the frame under way counts as stuck
MOST_CONFLICTS = 5  # most frames to name whose publishers contradict each other


@dataclass
class NodeReport:
    """What a report is made from.

    Attributes:
        state: of the lifecycle.
        error: why the node does not work; empty if it does.
        configured: the node's parts; None while it is unconfigured.
        log: the faults.
        times: durations of the stages.
        clock_ns: the node's clock, nanoseconds.
        simulated_time: whether that is the time of /clock.
        now: steady seconds.
    """

    state: str
    error: str
    configured: ConfiguredNode | None
    log: ThrottledLog
    times: StageTimes
    clock_ns: int
    simulated_time: bool
    now: float


@dataclass
class Line:
    """One DiagnosticStatus. `warn` and `fail` raise its level and add to its text."""

    name: str
    level: bytes = OK
    texts: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def warn(self, text: str) -> None:
        self.level = max(self.level, WARN)
        self.texts.append(text)

    def fail(self, text: str) -> None:
        self.level = max(self.level, ERROR)
        self.texts.append(text)


def diagnostics_message(report: NodeReport, node_name: str, stamp) -> DiagnosticArray:
    """The report as a message; `stamp` is a builtin_interfaces Time, names start with the node's."""
    lines = [_node_line(report)]
    if (parts := report.configured) is not None:
        lines += [_camera_line(report, parts, camera) for camera in parts.intake.cameras]
        lines += [
            _frames_line(report, parts),
            _latency_line(report),
            _network_line(report, parts),
            _tf_line(report, parts),
            _map_line(report, parts),
        ]
    message = DiagnosticArray()
    message.header.stamp = stamp
    hardware = node_name.strip("/")
    for line in lines:
        values = [KeyValue(key=key, value=printable(value, MOST_TEXT)) for key, value in line.values.items()]
        text = printable("; ".join(dict.fromkeys(line.texts)), MOST_TEXT) or "ok"
        message.status.append(
            DiagnosticStatus(
                level=line.level, name=f"{hardware}: {line.name}", message=text, hardware_id=hardware, values=values
            )
        )
    return message


def _recent(report: NodeReport, line: Line, subject: str) -> None:
    for about, _, entry in report.log.current(report.now, RECENT):
        if about == subject:
            line.warn(entry.text)


def _node_line(report: NodeReport) -> Line:
    line = Line("node", values={"state": report.state})
    if report.error:
        line.fail(report.error)
    elif report.state != "active":
        line.warn(report.state)
    if report.simulated_time and report.clock_ns == 0:
        line.fail(
            "use_sim_time is true but nothing is published on /clock; "
            "play a bag with --clock, or set use_sim_time:=false"
        )
    for subject in ("parameters", "cameras", "lifecycle", "node"):
        _recent(report, line, subject)
    return line


def _camera_line(report: NodeReport, parts: ConfiguredNode, camera: str) -> Line:
    line = Line(f"camera {camera}")
    statistics = parts.intake.statistics()[camera]
    calibration = parts.intake.calibrations.get(camera)
    line.values = {
        "rate": f"{statistics.rate:.2f} Hz",
        "age": "never received" if statistics.age is None else f"{statistics.age:.3f} s",
        "received": str(statistics.received),
        "matched": str(statistics.matched),
        **{f"dropped, {reason}": str(count) for reason, count in statistics.dropped.items() if count},
        "calibration": "none"
        if calibration is None
        else f"{calibration.model.width}x{calibration.model.height} {calibration.model.distortion_model}",
    }
    absent = line.fail if parts.intake.past_start or report.state != "active" else line.warn
    if report.state != "active":
        pass  # images are not taken in, whether the camera sends any or not
    elif statistics.age is None:
        absent(f"no image yet on {parts.config.image_topic_of(camera)}; its view is unknown")
    elif statistics.silent:
        line.fail(f"silent for {statistics.age:.1f} s; its view is unknown")
    if calibration is None:
        absent(f"no usable camera_info on {parts.config.camera_info_topic_of(camera)}; its view is unknown")
    elif camera in parts.worker.awaited:
        line.warn(
            "cannot be placed yet: its mount is not on /tf_static or /tf; the first images wait for it, "
            f"at most {parts.worker.startup_grace:g} s (startup_grace)"
        )
    frame = parts.worker.last_frame
    if frame is not None and camera in frame.missing:
        line.warn(frame.missing[camera])
    _recent(report, line, f"camera '{camera}'")
    return line


def _frames_line(report: NodeReport, parts: ConfiguredNode) -> Line:
    worker = parts.worker
    counters, frame, begun = worker.counters, worker.last_frame, worker.begun
    line = Line("frames")
    line.values = {
        "published": str(counters.published),
        "skipped, a newer one was there": str(counters.skipped + parts.intake.skipped),
        "withheld, too few cameras": str(counters.withheld + parts.intake.too_few[0]),
        "failed": str(counters.failed),
        "anchor camera": frame.anchor if frame is not None else parts.intake.anchor,
        "cameras in the last one": ", ".join(frame.used) if frame is not None else "",
    }
    if counters.views or counters.views_skipped:
        line.values["rendered views drawn"] = str(counters.views)
        line.values["rendered views skipped, the next frame was there"] = str(counters.views_skipped)
    if frame is not None and report.clock_ns:
        age = (report.clock_ns - frame.stamp_ns) * 1e-9
        recorded = abs(age) > LIVE
        line.values["age of the last image"] = "unknown, its stamp is of another day" if recorded else f"{age:.3f} s"
    if begun is not None and report.now - begun > FRAME_LIMIT:
        taken = report.now - begun
        line.fail(
            f"nothing published: the frame under way began {taken:.1f} s ago; if it does not end, start the node again"
        )
    elif report.state == "active" and worker.ended:
        line.fail("nothing published: the worker's thread has ended; deactivate the node and activate it again")
    if report.state == "active" and worker.failed_in_row > 1:
        line.fail(f"nothing published: the last {worker.failed_in_row} frames failed")
    if frame is not None and frame.occupancy is None:
        line.fail(f"nothing published: {len(frame.used)} usable cameras, min_cameras is {parts.config.min_cameras}")
    if frame is not None and frame.anchor != parts.intake.anchor:
        line.warn(f"'{frame.anchor}' stands in for the anchor camera '{parts.intake.anchor}'")
    _recent(report, line, "frame")
    return line


def _latency_line(report: NodeReport) -> Line:
    line = Line("latency")
    for stage, (p50, p99, count) in report.times.percentiles().items():
        line.values[stage] = f"{p50 * 1e3:.1f} ms, {p99 * 1e3:.1f} ms ({count} frames)"
    line.texts.append("p50, p99 by stage; total is from the arrival of the last image to publication")
    return line


def _network_line(report: NodeReport, parts: ConfiguredNode) -> Line:
    line = Line("network")
    predictor = parts.predictor
    line.values = {
        "preset": predictor.config.name,
        "device": str(predictor.device),
        "backend": predictor.backend,
        "precision": predictor.precision,
        "threshold": f"{predictor.threshold:.3g}",
    }
    untrained = bool(predictor.provenance.get("untrained"))
    packaged = "none" if untrained else f"{parts.config.preset}, in the package"
    line.values["checkpoint"] = parts.config.checkpoint or packaged
    if untrained:
        line.warn("UNTRAINED: its output means nothing; set the parameter 'checkpoint'")
    for part, reason in left_out().items():
        line.warn(f"{part} is left out, it {reason}: {GPU_PARTS[part][1]} does its work, more slowly")
    line.values["left out of the GPU path"] = ", ".join(left_out()) or "nothing"
    _recent(report, line, "checkpoint")
    return line


def _tf_line(report: NodeReport, parts: ConfiguredNode) -> Line:
    line = Line("tf")
    frame = parts.worker.last_frame
    if frame is not None and frame.ego_motion_missing:
        line.warn(f"static mounts are used: {frame.ego_motion_missing}")
    if parts.transforms.full:
        line.warn(
            "the memory for /tf is full: a publisher floods it or invents frames; stop it, then call ~/reset, or clean "
            "up and configure the node if static mounts are missing"
        )
    conflicts = parts.transforms.conflicts
    for conflict in conflicts[:MOST_CONFLICTS]:
        line.warn(str(conflict))
    if len(conflicts) > MOST_CONFLICTS:
        line.warn(f"{len(conflicts) - MOST_CONFLICTS} more frames are published in contradicting ways")
    line.values = {
        "frames": str(len(parts.transforms.frames())),
        "ignored, too old": str(parts.transforms.ignored_old),
        "jumps of the ego pose": str(parts.pipeline.jumps.count),
    }
    if (last := parts.pipeline.jumps.last) is not None:
        line.values["last jump"] = f"at {seconds_text(last.after_ns)} s {last}"
    for subject in ("TF", "ego pose"):
        _recent(report, line, subject)
    return line


def _map_line(report: NodeReport, parts: ConfiguredNode) -> Line:
    line = Line("map")
    vehicle_map = parts.vehicle_map
    line.values = {"frames": str(vehicle_map.frames), "extent": vehicle_map.extent}
    if vehicle_map.missing:
        line.texts.append(vehicle_map.missing)  # why is a warning of the line "tf", or a choice
    _recent(report, line, "map")
    return line
