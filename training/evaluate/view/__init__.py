"""`renderocc view`: write a recording, and what a network or the node makes of it, for the Rerun viewer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from renderocc_model.base.machine_errors import machine_error
from renderocc_model.rosio.vehicle_options import add_pose_gap_option, add_vehicle_options, vehicle_from

if TYPE_CHECKING:
    from training.recordings.frames import FrameIndex, Recording

    from .show import Outputs

__all__ = ["main"]

_NO_NETWORK = "none"  # as --checkpoint
_SECONDS = 60.0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc view",
        description="Write a recording for the Rerun viewer (python3 -m pip install rerun-sdk): cameras, images, "
        "voxels, the map that remembers, views of the volume from each camera, 3D truth and the vehicle's way, on a "
        "time line. "
        "Volumes are those of the node if the recording has them; else a network predicts them.",
        epilog="example: renderocc view drives/monday --seconds 20, then: rerun drives/monday.rrd",
    )
    made.add_argument("bag", type=Path, metavar="BAG", help="a recording")
    made.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="network that predicts the volumes, also if the recording has some; "
        f"'{_NO_NETWORK}': no volumes (default: those in the recording, else the network in the package)",
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="Rerun recording to write (default: BAG.rrd)")
    made.add_argument(
        "--truth", type=Path, metavar="BAG", help="recording whose folder has the 3D truth (default: BAG)"
    )
    made.add_argument(
        "--grid",
        type=float,
        nargs=7,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1", "VOXEL"),
        help="grid of the 3D truth, where its shape does not say it",
    )
    made.add_argument("--start", type=float, default=0.0, metavar="S", help="leave out the first S seconds")
    made.add_argument(
        "--seconds", type=float, default=_SECONDS, metavar="S", help=f"length in seconds (default {_SECONDS:g}; 0: all)"
    )
    made.add_argument("--every", type=int, default=1, metavar="N", help="show every N-th frame (default 1)")
    made.add_argument("--stride", type=int, default=2, metavar="N", help="pixels of the network's view for one ray")
    made.add_argument("--device", default="auto", help="where the network runs: auto, cpu, cuda (default auto)")
    add_pose_gap_option(made)
    add_vehicle_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc view`. Exit status 0: the file is written. 2: something is wrong, and is named."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        text = machine_error(error, arguments.out or arguments.bag, less="fewer --seconds") or error
        print(f"renderocc view: {text}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    import rerun  # noqa: F401  (first: a missing one is reported before the recording is read)
    from tqdm import tqdm

    from renderocc_model.base.files import replacing
    from renderocc_model.geometry.grid import VoxelGrid
    from training.recordings.frames import Recording
    from training.recordings.notes import recording_name

    from .scene import SceneWriter
    from .show import show
    from .truth import Truth

    for name, value, least in (("every", arguments.every, 1), ("stride", arguments.stride, 1)):
        if value < least:
            raise ValueError(f"--{name} is {value}; expected at least {least}")
    for name, number in (("start", arguments.start), ("seconds", arguments.seconds)):
        if not 0 <= number < float("inf"):
            raise ValueError(f"--{name} is {number}; expected seconds, 0 or more")
    bag: Path = arguments.bag
    name = recording_name(bag)
    out = arguments.out or bag.resolve().with_name(f"{name}.rrd")
    grid = arguments.grid and VoxelGrid(tuple(arguments.grid[:3]), tuple(arguments.grid[3:6]), arguments.grid[6])
    with Recording(bag, None, vehicle_from(arguments), arguments.max_pose_gap) as recording:
        outputs, moments = _outputs(recording, arguments)
        truth = Truth(arguments.truth or bag, outputs.classes, grid)
        for text in (*recording.warnings(), *outputs.notes, *filter(None, [truth.note])):
            print(f"renderocc view: warning: {text}", file=sys.stderr)
        frames = _chosen(recording, moments, arguments)
        with tqdm(total=len(frames), unit="frame", desc="viewing", disable=not sys.stderr.isatty()) as bar:
            with replacing(out) as partial, SceneWriter(partial, name, outputs.classes, recording.cameras) as scene:
                problems = show(recording, frames, outputs, truth, scene, lambda: bar.update())
                if not scene.counts["frames"]:
                    raise ValueError("; ".join([f"{bag}: no frame can be shown", *problems.texts()]))
    for text in problems.texts():
        print(f"renderocc view: warning: {text}", file=sys.stderr)
    counts = {kind: scene.counts[kind] for kind in ("images", "voxels", "map", "rendered", "truth")}
    print(f"{scene.counts['frames']} frames: {', '.join(f'{kind} {count}' for kind, count in counts.items())}")
    print(f"wrote {out}; open it with `rerun {out}`, or in a browser with `rerun --web-viewer {out}`")
    return 0


def _outputs(recording: Recording, arguments: argparse.Namespace) -> tuple[Outputs, list[int] | None]:
    """Where the volumes come from, and their moments; None for those of the recording's frames."""
    from training.recordings.notes import class_table

    from .published import PublishedOutputs, node_of
    from .show import NoOutputs

    if arguments.checkpoint == _NO_NETWORK:
        return NoOutputs(class_table(None, arguments.truth or arguments.bag)), None
    node = node_of(recording.bag) if arguments.checkpoint is None else None
    if node is not None:
        print(f"showing the volumes that {node} published")
        published = PublishedOutputs(recording, node)
        return published, published.stamps
    from .predicted import PredictedOutputs

    checkpoint = arguments.checkpoint or "tiny"
    print(f"predicting the volumes with {checkpoint}")
    return PredictedOutputs(recording, checkpoint, arguments.device, arguments.stride), None


def _chosen(recording: Recording, moments: list[int] | None, arguments: argparse.Namespace) -> list[FrameIndex]:
    """The frames in the part of the recording that the options name.

    Raises:
        ValueError: there is none.
    """
    frames = recording.frames() if moments is None else recording.frames_at(moments)
    first = frames[0].stamp_ns if frames else 0
    start_ns = first + round(arguments.start * 1e9)
    stop_ns = start_ns + round(arguments.seconds * 1e9) if arguments.seconds else None
    inside = [frame for frame in frames if start_ns <= frame.stamp_ns and (stop_ns is None or frame.stamp_ns < stop_ns)]
    if not inside:
        length = (frames[-1].stamp_ns - first) / 1e9 if frames else 0.0
        raise ValueError(
            f"{recording.path}: no frame after --start {arguments.start:g}; "
            f"its {len(frames)} frames last {length:.1f} s"
        )
    if len(inside) < len(frames):
        print(f"{len(inside)} of {len(frames)} frames lie in the chosen time (--start, --seconds)")
    return inside[:: arguments.every]
