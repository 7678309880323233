"""The invariants: what must hold in every run, judged from outside the node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from system import Program

from campaign.faults.fault import Injection
from campaign.observer import Output
from campaign.stage import CAMERA_TIMEOUT, Stage

__all__ = ["Promises", "already_named", "must_be_named", "judge", "judge_saved", "named_at", "stalled"]

FAILURES = r"Traceback|frame failed|Exception ignored|[Ss]egmentation|terminate called|callback .*failed"
LATE = 0.3  # seconds the cameras may be late; beyond it the machine stalled, and nothing that is timed is judged


@dataclass(frozen=True)
class Promises:
    """What the node promises, seconds.

    report: within which the right camera is named, from the fault's beginning: the watchdog's limit and one second.
    recovery: within which outputs return after the fault's end.
    """

    report: float = CAMERA_TIMEOUT + 1.0
    recovery: float = 2.0


def stalled(record: dict) -> bool:
    """Whether the cameras themselves were late."""
    return record["late"] > LATE


def judge(stage: Stage, injections: list[Injection], record: dict, promises: Promises, processes: set[Program]) -> None:
    """Complete the record with what was observed, and with `broken`: a line for each invariant that did not hold.

    Args:
        processes: all that ran during the run.
    """
    broken = list(stage.broken)
    check_alive(stage, injections, record, broken)
    check_stamps(stage, injections, record, broken)
    check_reported(stage, injections, record, promises, broken)
    check_recovered(stage, record, promises, broken)
    check_blame(stage, injections, record, broken)
    check_log(processes, injections, record, broken)
    record["broken"] = broken
    for name in ("began", "injected", "ending", "ended"):
        record[name] = round(record[name], 3)


def check_alive(stage: Stage, injections: list[Injection], record: dict, broken: list[str]) -> None:
    """The node runs, or its exit status or last line says why it ended."""
    status = record["exit"]
    if status is None:
        return
    ends = [injection.fault for injection in injections if injection.fault.ends_node]
    last = " ".join(record["last_line"])
    if not ends:
        broken.append(f"alive: the node ended with status {status}: {last}")
    elif status != 0 and not any(fault.exits and re.search(fault.exits, last) or fault.exits == "." for fault in ends):
        broken.append(f"exit: status {status} and no reason in the last line: {last}")


def check_stamps(stage: Stage, injections: list[Injection], record: dict, broken: list[str]) -> None:
    """Stamps of outputs go back only when time itself does, and each is the stamp of an image that was sent."""
    back = any(injection.fault.back for injection in injections)
    outputs = [output for output in list(stage.observer.outputs) if output.at >= record["began"]]
    sent = {image.stamp for images in stage.player.sent.values() for image in list(images)}
    newest: dict[str, int] = {}
    for output in outputs:
        before = newest.get(output.topic)
        if before is not None and output.stamp < before and not back:
            broken.append(f"stamps: {output.topic} went back by {(before - output.stamp) * 1e-9:.3f} s")
            break
        newest[output.topic] = output.stamp
    strange = [output for output in outputs if output.stamp not in sent]
    if strange:
        broken.append(f"stamps: {len(strange)} outputs with stamps of no image, the first {strange[0].stamp}")
    check_seen(outputs, broken)
    during = [o for o in outputs if o.topic == "grid" and record["injected"] <= o.at < record["ending"]]
    record["outputs"] = len(during)
    record["grids"] = sum(output.topic == "grid" for output in outputs)
    record["maps"] = sum(output.topic == "map" for output in outputs)
    record["moving"] = sum(output.moving for output in outputs)
    record["free_judged"] = stage.observer.judge_free


def check_seen(outputs: list[Output], broken: list[str]) -> None:
    """Grids and maps say of nothing that it is free, and maps keep nothing that moves, that no camera can have seen."""
    for topic, name in (("grid", "free"), ("map", "map")):
        free = [output for output in outputs if output.topic == topic and output.free]
        if free:
            what = f"{len(free)} of ~/{'map/' * (topic == 'map')}grid have free cells no camera can have seen"
            broken.append(f"{name}: {what}, {free[0].free} in the first")
    kept = [output for output in outputs if output.kept]
    if kept:
        what = "keep voxels of what moves that no camera can have seen for longer than map.dynamic_decay"
        broken.append(f"decay: {len(kept)} of ~/map/points {what}, {kept[0].kept} in the first")


def must_be_named(injections: list[Injection]) -> list[Injection]:
    """The faults that the node has to name; a fault that stops all outputs may hide the others."""
    stopping = [injection for injection in injections if injection.fault.stops]
    return [i for i in injections if (i.fault.named or i.fault.said) and (not stopping or stopping == [i])]


def line_of(injection: Injection) -> str:
    return injection.fault.line.format(camera=injection.camera, anchor=injection.player.scene.cameras[0])


def already_named(stage: Stage, injection: Injection) -> bool:
    """Whether the node still names an earlier fault in the words that are expected of this one."""
    status = stage.observer.status(line_of(injection))
    return bool(injection.fault.named and status and re.search(injection.fault.named, status.text))


def named_at(stage: Stage, injection: Injection) -> float | None:
    """When the node named the fault, seconds of the monotonic clock; None: not yet."""
    since = injection.state["began"]
    if injection.fault.said:
        return stage.node.said(injection.fault.said, since)
    return stage.observer.named(line_of(injection), injection.fault.named, since, injection.fault.level)


def check_reported(
    stage: Stage, injections: list[Injection], record: dict, promises: Promises, broken: list[str]
) -> None:
    """The node named each fault that it has to name, on the line of the right camera, in time."""
    record["report"] = []
    must = must_be_named(injections)
    for injection in injections:
        if injection not in must:
            record["report"].append(None)
            continue
        fault, since = injection.fault, record["injected"]
        at, limit = named_at(stage, injection), promises.report + fault.within
        record["report"].append(None if at is None else round(max(0.0, at - since), 3))
        where = "the log" if fault.said else f"'{line_of(injection)}'"
        if at is None:
            broken.append(f"report: {where} never said {fault.named or fault.said!r}: {text_of(stage, injection)}")
        elif at - since > limit:
            broken.append(f"report: {where} was named after {at - since:.2f} s, promised within {limit:g} s")


def text_of(stage: Stage, injection: Injection) -> str:
    status = stage.observer.status(line_of(injection))
    return "nothing came" if status is None else status.text[:200]


def check_recovered(stage: Stage, record: dict, promises: Promises, broken: list[str]) -> None:
    """After the fault, outputs of new images came in time, and later one of all cameras."""
    ended = record["ended"]
    first, all_used = stage.first_fresh(ended), stage.all_cameras_used(ended)
    record["recovery"] = None if first is None else round(first.at - ended, 3)
    record["all_used"] = None if all_used is None else round(all_used - ended, 3)
    if not stage.node.alive:
        broken.append(f"alive: the node ended after the fault: {stage.node.tail(3)}")
    elif first is None:
        broken.append("recovery: no output returned")
    elif record["recovery"] > promises.recovery:
        broken.append(f"recovery: outputs returned after {record['recovery']} s, promised {promises.recovery:g} s")
    if first is not None and all_used is None:
        broken.append(f"recovery: not all cameras were used again: {frames_text(stage)}")


def frames_text(stage: Stage) -> str:
    frames = stage.observer.status("frames")
    return "no report" if frames is None else frames.values.get("cameras in the last one", "") + "; " + frames.text


def check_blame(stage: Stage, injections: list[Injection], record: dict, broken: list[str]) -> None:
    """The node reported no error of a camera that no fault struck."""
    if record["late"] > LATE or any(i.fault.stops or not i.camera for i in injections):
        return
    struck = {camera for injection in injections for camera in injection.affected}
    for at, lines in list(stage.observer.reports):
        if not record["injected"] <= at < record["ending"]:
            continue
        for camera in stage.scene.cameras:
            status = lines.get(f"camera {camera}")
            if camera not in struck and status is not None and status.level >= 2:
                broken.append(f"blame: camera {camera}, which was well, was called: {status.text[:160]}")
                return


def check_log(processes: set[Program], injections: list[Injection], record: dict, broken: list[str]) -> None:
    """The log has no line about a failure that does not belong to a fault of this run."""
    allowed = [injection.fault.errors for injection in injections if injection.fault.errors]
    said = [line for process in processes for line in process.lines_since(record["began"])]
    lines = [line for line in said if re.search(FAILURES, line)]
    for line in lines:
        if not any(re.search(pattern, line) for pattern in allowed):
            broken.append(f"unexpected: {line[-300:]}")
            return


def judge_saved(stage: Stage, injections: list[Injection]) -> bool:
    """Call ~/save while the faults are on: a camera can have seen every voxel that is not unknown.

    Returns:
        whether the volume was judged.
    """
    if any(i.fault.stops or i.fault.ends_node or i.fault.group == "files" for i in injections):
        return False
    answer = stage.save()
    if answer is None or not answer.success:
        stage.add_broken(f"save: {answer.message if answer else 'no answer'}")
        return False
    try:
        path = Path(answer.message.split()[0])
        unseen = stage.observer.unseen_voxels(path) if stage.observer.judge_free else 0
        for written in answer.message.split():
            Path(written).unlink()
    except (OSError, ValueError, KeyError) as error:
        stage.add_broken(f"save: what it wrote cannot be read: {type(error).__name__}: {error}")
        return False
    if unseen:
        stage.add_broken(f"free: {unseen} voxels of ~/save are known that no camera can have seen")
    return stage.observer.judge_free
