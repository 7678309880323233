"""`renderocc truth`: accumulate a recording's LiDAR sweeps into 3D truth beside it."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renderocc_model.base.machine_errors import machine_error
from renderocc_model.field.classes import TABLES, ClassTable
from renderocc_model.field.truth import truth_folder
from renderocc_model.rosio.vehicle_options import add_pose_gap_option, add_vehicle_options, vehicle_from
from training.recordings.many.options import add_recordings, add_sharing, workers_from

if TYPE_CHECKING:
    from training.recordings.frames import Recording
    from training.recordings.many.task import Workers

    from .joining import Footprint
    from .sweeps import Sweeps

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc truth",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Accumulate the LiDAR sweeps of recordings into 3D truth in Occ3D's layout:\n"
        "occupancy/<stamp>.npz beside its messages, for `renderocc prepare`, `eval` and `metrics`.\n"
        "Classes come from a field of the cloud, label files, the label bag beside the recording, or\n"
        "the shape of the ground. Run it again to go on where it stopped.\n"
        "Exit status 0: the truth of all recordings is complete. 2: something is wrong, and is named.\n"
        "3: nothing is wrong, but another process is working on some recordings.",
        epilog="examples: renderocc truth drives/monday\n"
        "          renderocc truth drives/monday --classes-from ground --rate 1\n"
        "          renderocc truth @drives.txt --jobs 4\n"
        "          renderocc truth drives/monday drives/tuesday --join --odom-frame map",
    )
    add_recordings(made)
    made.add_argument(
        "--out",
        type=Path,
        help="folder to write; of several recordings, to OUT/NAME (default: occupancy/ beside the messages)",
    )
    made.add_argument("--rate", type=float, default=2.0, metavar="HZ", help="volumes a second (default 2)")
    made.add_argument(
        "--spacing", type=float, default=0.5, metavar="M", help="metres of driving between two sweeps (default 0.5)"
    )
    made.add_argument(
        "--reach", type=float, default=40.0, metavar="M", help="metres to the farthest sweep that is used (default 40)"
    )
    made.add_argument(
        "--join",
        action="store_true",
        help="the recordings' ego poses are in one frame, such as a map's: where they come within --reach of each "
        "other, use the sweeps of all of them. Each recording still gets its own volumes",
    )
    made.add_argument("--no-deskew", action="store_true", help="for clouds that the driver has deskewed already")
    add_pose_gap_option(made)
    source = made.add_mutually_exclusive_group()
    source.add_argument(
        "--label-field", metavar="NAME", help="a field of the cloud (default: 'label', if there is one)"
    )
    source.add_argument("--label-files", type=Path, metavar="DIR", help="folder with one file for each cloud")
    source.add_argument(
        "--labels",
        type=Path,
        metavar="BAG",
        help="label bag, or a folder with NAME_labels for each recording (default: BAG_labels beside BAG)",
    )
    source.add_argument("--classes-from", choices=("ground",), help="classify points as ground or obstacle by shape")
    made.add_argument("--ground-method", choices=("auto", "patchwork", "plane"), default="auto", help="as for `label`")
    made.add_argument("--mapping", metavar="FILE", help="maps the ids of field or files to classes, as for `label`")
    made.add_argument("--classes", choices=tuple(TABLES), help="class table (default: that of the labels)")
    add_sharing(made)
    add_vehicle_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc truth`.

    Returns:
        0: all truth is complete. 2: something is wrong, and is named. 3: another process works on some recordings.
    """
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError, MemoryError) as error:
        print(f"renderocc truth: {machine_error(error, arguments.out or arguments.bags[0]) or error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from training.recordings.many.find import find_recordings, label_bags, outputs_of
    from training.recordings.many.lease import lease_of
    from training.recordings.many.share import conclude, share_out, show
    from training.recordings.many.task import Task

    for name in ("rate", "spacing", "reach"):
        if not 0 < getattr(arguments, name) < 1e6:
            raise ValueError(f"--{name} is {getattr(arguments, name)}; expected a positive number")
    bags = find_recordings(arguments.bags)
    if len(bags) > 1 and arguments.label_files:
        raise ValueError(f"--label-files belongs to one recording, not to {len(bags)}")
    outs = outputs_of(bags, arguments.out, truth_folder)
    workers = workers_from(arguments, len(bags))
    each = {}
    for bag, labels in zip(bags, label_bags(bags, [arguments.labels] if arguments.labels else [])):
        each[bag] = own = copy.copy(arguments)
        own.bag, own.out, own.labels, own.joined = bag, outs[bag], labels, []
    if arguments.join:
        near = _neighbours(each, arguments.reach, workers)
        for bag, others in near.items():
            each[bag].joined = [copy.copy(each[other]) for other in others]
    tasks = [Task(bag, (own,), own.out, lease_of(own.out)) for bag, own in each.items()]
    return conclude("truth", share_out(_accumulate, tasks, workers, show), "made the truth of")


def _neighbours(each: dict[Path, argparse.Namespace], reach: float, workers: Workers) -> dict[Path, list[Path]]:
    """{recording: those that come near it}, of all that can be joined. `_accumulate` names the faults of the others."""
    from training.recordings.many.share import share_out
    from training.recordings.many.task import DONE, Task

    from .joining import neighbours

    if len(each) < 2:
        raise ValueError("--join needs at least two recordings; name them all")
    outcomes = share_out(_footprint, [Task(bag, (own,)) for bag, own in each.items()], workers)
    found = {one.task.bag: one.result for one in outcomes if one.state == DONE}
    if len(found) < 2:
        raise ValueError("; ".join(one.error for one in outcomes if one.state != DONE))
    near, alone = neighbours(found, reach)
    for text in alone:
        print(f"renderocc truth: warning: {text}", file=sys.stderr)
    return near


def _footprint(arguments: argparse.Namespace) -> Footprint:
    from .joining import footprint

    with _opened(arguments) as recording:
        return footprint(recording)


def _opened(arguments: argparse.Namespace) -> Recording:
    """The recording `arguments.bag`, with its labels."""
    from training.recordings.frames import Recording
    from training.recordings.notes import find_sidecar

    labels = arguments.labels or find_sidecar(arguments.bag)
    return Recording(arguments.bag, labels, vehicle_from(arguments), arguments.max_pose_gap)


def _accumulate(arguments: argparse.Namespace) -> None:
    """Make the truth of one recording, `arguments.bag`, in `arguments.out`."""
    from tqdm import tqdm

    from training.recordings.sources import RecordingError

    from .joining import footprint
    from .setup import find_sweeps, moments
    from .write import TruthWriter

    bag, out = arguments.bag, arguments.out
    with ExitStack() as stack:
        recording = stack.enter_context(_opened(arguments))
        for text in recording.warnings():
            print(f"renderocc truth: warning: {text}", file=sys.stderr)
        sweeps, classes, notes = find_sweeps(recording, arguments)
        for key, value in notes.items():
            print(f"{key}: {value}", file=sys.stderr)
        if arguments.join:
            footprint(recording)  # refuses what cannot be joined
        for other in arguments.joined:
            _join(sweeps, classes, stack.enter_context(_opened(other)), other)
        settings: dict[str, Any] = {name: getattr(arguments, name) for name in ("rate", "spacing", "reach")}
        if arguments.join:
            settings["joined"] = sorted(str(other.bag) for other in arguments.joined)
        writer = TruthWriter(recording, sweeps, classes, out)
        writer.begin(json.dumps({**settings, "sources": notes, "classes": classes.to_dict()}, indent=1))
        wanted, left_out, first = moments(sweeps, arguments.rate), 0, ""
        for stamp_ns in tqdm(wanted, unit="volume", desc="accumulating", disable=not sys.stderr.isatty()):
            try:
                writer.write(stamp_ns)
            except RecordingError as error:
                left_out, first = left_out + 1, first or str(error)
        if left_out == len(wanted):
            raise ValueError(f"{bag}: not one of {len(wanted)} moments can be used: {first}")
        if left_out:
            print(f"renderocc truth: warning: {left_out} of {len(wanted)} moments left out; {first}", file=sys.stderr)
    print(f"{len(wanted) - left_out} volumes")
    print(f"wrote {out}")


def _join(sweeps: Sweeps, classes: ClassTable, recording: Recording, arguments: argparse.Namespace) -> None:
    """Let sweeps use those of another recording, too.

    Args:
        sweeps: of the recording whose truth is made.
        classes: the table of their classes.
        recording: the other one.
        arguments: its options.
    Raises:
        ValueError: its class table is another one, or its ego poses are not in the same frame.
    """
    from .agreement import refuse_apart
    from .setup import find_sweeps

    theirs, table, _ = find_sweeps(recording, arguments)
    if table != classes:
        kinds = [f"{', '.join(one.names[:4])}, ..." for one in (classes, table)]
        raise ValueError(
            f"--join: the classes of {sweeps.recording.path} are {kinds[0]}, those of {recording.path} {kinds[1]}; "
            "label both with one table"
        )
    for text in refuse_apart(sweeps, theirs, classes):
        print(f"renderocc truth: warning: {text}", file=sys.stderr)
    sweeps.joined.append(theirs)
