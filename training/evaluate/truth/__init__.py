"""`renderocc truth`: accumulate a recording's LiDAR sweeps into 3D truth beside it."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.machine_errors import machine_error
from renderocc_model.field.classes import TABLES
from renderocc_model.field.truth import truth_folder
from renderocc_model.rosio.vehicle_options import add_pose_gap_option, add_vehicle_options, vehicle_from
from training.recordings.many.options import add_recordings, add_sharing, workers_from

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
        "          renderocc truth @drives.txt --jobs 4",
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
    tasks = []
    for bag, labels in zip(bags, label_bags(bags, [arguments.labels] if arguments.labels else [])):
        own = copy.copy(arguments)
        own.bag, own.out, own.labels = bag, outs[bag], labels
        tasks.append(Task(bag, (own,), own.out, lease_of(own.out)))
    return conclude(
        "truth", share_out(_accumulate, tasks, workers_from(arguments, len(bags)), show), "made the truth of"
    )


def _accumulate(arguments: argparse.Namespace) -> None:
    """Make the truth of one recording, `arguments.bag`, in `arguments.out`."""
    from tqdm import tqdm

    from training.recordings.frames import Recording
    from training.recordings.notes import find_sidecar
    from training.recordings.sources import RecordingError

    from .setup import find_sweeps, moments
    from .write import TruthWriter

    bag, out = arguments.bag, arguments.out
    labels = arguments.labels or find_sidecar(bag)
    with Recording(bag, labels, vehicle_from(arguments), arguments.max_pose_gap) as recording:
        for text in recording.warnings():
            print(f"renderocc truth: warning: {text}", file=sys.stderr)
        sweeps, classes, notes = find_sweeps(recording, arguments, labels)
        for key, value in notes.items():
            print(f"{key}: {value}", file=sys.stderr)
        settings = {name: getattr(arguments, name) for name in ("rate", "spacing", "reach")}
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
