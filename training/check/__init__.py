"""`renderocc check`: look for faults in recordings that would make training fail."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from renderocc_model.base.findings import Finding
from renderocc_model.rosio.vehicle_options import add_pose_gap_option, add_vehicle_options, vehicle_from
from training.recordings.many.options import add_recordings, add_sharing, workers_from

if TYPE_CHECKING:
    from training.recordings.many.task import Outcome

__all__ = ["main"]

_CONCLUSIONS = ("", "training would fail", "cannot be read")  # by the status of a report


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc check",
        description="Check recordings before training: topics, rates, gaps, TF at every image, calibrations, labels "
        "and 3D truth. Then say what label, prepare and train will do with them. Exit status 0: they will take all "
        "recordings. 1: one of them will refuse one. 2: a recording cannot be read.",
        epilog="example: renderocc check drives/monday --labels drives/monday_labels",
    )
    add_recordings(made)
    made.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        metavar="SIDECAR",
        help="label bags, one for each recording, in the same order, or a folder with NAME_labels for each (default: "
        "BAG_labels if it exists, and BAG)",
    )
    made.add_argument("--no-labels", action="store_true", help="do not look for labels: for use before labelling")
    made.add_argument(
        "--classes",
        metavar="TABLE",
        help="class table of the labels (default: the one that sidecar or import name, else occ3d_nuscenes)",
    )
    made.add_argument(
        "--truth-classes",
        metavar="TABLE",
        help="class table of the 3D truth, if nothing beside it names one and it is not that of the labels, which are "
        "ground_obstacle",
    )
    add_pose_gap_option(made)
    made.add_argument(
        "--max-time-diff",
        type=float,
        default=0.1,
        metavar="S",
        help="largest time in seconds between a frame and its images (default 0.1)",
    )
    made.add_argument(
        "--samples",
        type=int,
        default=50,
        metavar="N",
        help="try N images and their labels of each camera (default 50; 0: all)",
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of lines")
    add_sharing(made)
    add_vehicle_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc check`: see `parser` for the exit status."""
    from training.recordings.many.find import find_recordings, label_bags
    from training.recordings.many.share import share_out, show
    from training.recordings.many.task import Task

    from .recording import check_recording

    arguments = parser().parse_args(argv)
    good = "can be labelled" if arguments.no_labels else "can be trained on"

    def say(outcome: Outcome) -> None:
        show(outcome)
        if not arguments.json:
            _print(_report(outcome), good)

    try:
        vehicle = vehicle_from(arguments)
        bags = find_recordings(arguments.bags)
        sidecars = label_bags(bags, arguments.labels or [])
        tasks = [Task(bag, (bag, labels, vehicle, arguments)) for bag, labels in zip(bags, sidecars)]
        reports = list(map(_report, share_out(check_recording, tasks, workers_from(arguments, len(bags)), say)))
    except ValueError as error:
        print(f"renderocc check: {error}", file=sys.stderr)
        return 2
    status = max(report["status"] for report in reports)
    if arguments.json:
        print(json.dumps({"status": status, "can_train": status == 0, "recordings": reports}, indent=2))
    elif len(reports) > 1:
        _summarise(reports)
    return status


def _report(outcome: Outcome) -> dict:
    """The report of a recording, also where the check itself failed."""
    if not outcome.error:
        return outcome.result
    finding = Finding("FAIL", "recording", outcome.error)
    return {"recording": str(outcome.task.bag), "status": 2, "findings": [asdict(finding)]}


def _summarise(reports: Sequence[dict]) -> None:
    for report in reports:
        if report["status"]:
            print(f"{report['recording']}: {_CONCLUSIONS[report['status']]}")
    sound = sum(report["status"] == 0 for report in reports)
    print(f"{sound} of {len(reports)} recordings have no fault that would make training fail")


def _print(report: dict, good: str) -> None:
    from .verdicts import Verdict

    print(f"{report['recording']}")
    for item in report["findings"]:
        print(Finding(**item).line())
    verdicts = [Verdict(command, **verdict) for command, verdict in report.get("verdicts", {}).items()]
    for verdict in verdicts:
        print(verdict.line())
    if any(verdict.needs_option for verdict in verdicts):
        good = f"{good} with the options that the warnings name"
    failures, warnings = (sum(item["level"] == level for item in report["findings"]) for level in ("FAIL", "warn"))
    conclusion = (good, *_CONCLUSIONS[1:])[report["status"]]
    print(f"{report['recording']}: {conclusion}: {failures} failures, {warnings} warnings")
