"""`renderocc learn`: from recordings to a network and a report, with one command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.machine_errors import machine_error
from renderocc_model.rosio.vehicle_options import add_vehicle_options, vehicle_from

__all__ = ["main", "parser"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc learn",
        description="Train a network on recordings: check, label, make 3D truth where a LiDAR allows it, prepare, "
        "train and evaluate, then write a report. "
        "The plan is printed first. Recordings that have labels keep them. For the others depth comes from the LiDAR, "
        "else from motion; classes come from a network or label images if you name them, from recorded class images or "
        "the cloud's field 'label' if there are any, else ground and obstacles from the shape of the ground. Run the "
        "same command again to continue after an interruption: what is done is not done again.",
        epilog="examples: renderocc learn drives/monday drives/tuesday --out learned; "
        "renderocc learn drives/monday --out learned --dry-run",
    )
    made.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="recordings")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of everything that is made")
    made.add_argument("--dry-run", action="store_true", help="print the plan, and do and write nothing")
    labels = made.add_argument_group("labels; with any of these, recordings that have labels are labelled again")
    labels.add_argument(
        "--depth-from", choices=("recording", "motion"), help="source of depth (default: what the recording has)"
    )
    labels.add_argument("--depth-topic", metavar="TEMPLATE", help="depth images, such as /{camera}/depth/image_raw")
    source = labels.add_mutually_exclusive_group()
    source.add_argument("--classes-from", choices=("ground",), help="classify ground and obstacles by their shape")
    source.add_argument("--network", type=Path, metavar="MODEL", help="segmentation network, ONNX or TorchScript")
    source.add_argument("--semantic-topic", metavar="TEMPLATE", help="label images, such as /{camera}/segmentation")
    labels.add_argument("--network-config", type=Path, metavar="FILE", help="YAML file that describes the network")
    labels.add_argument("--mapping", metavar="FILE", help="maps ids or colours to classes, as in `renderocc label`")
    train = made.add_argument_group("training")
    train.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="optimiser steps (default 1000 from a trained network, 5600 from the image network's weights)",
    )
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of `renderocc train`, for example data.validation=[monday] batch=4",
    )
    made.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="processes, threads")
    add_vehicle_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc learn`.

    Returns:
        0: the network and the report are written. 2: something is wrong, and is named. 143: training was stopped by
        SIGTERM. Otherwise the status of the step that failed.
    """
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        print(f"renderocc learn: {machine_error(error, arguments.out) or error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    # Let waiting threads sleep, as `renderocc train` does. It is read when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from .plan import make_plan
    from .steps import carry_out

    if arguments.jobs < 1:
        raise ValueError(f"--jobs is {arguments.jobs}; expected at least 1")
    plan = make_plan(arguments, vehicle_from(arguments))
    print(plan.text(), flush=True)
    return 0 if arguments.dry_run else carry_out(plan, arguments.jobs)
