"""`renderocc simulate`: record drives through procedurally generated towns, with exact truth."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .variety import KINDS

if TYPE_CHECKING:
    from .rigs import Vehicle

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc simulate",
        description="Record a drive through a simulated town: images, camera_info, TF, LiDAR and 2D labels as a "
        "rosbag2, with 3D truth in its folder. The same seed gives the same bytes.",
        epilog="example: renderocc simulate recordings/town_7 --seed 7 --frames 40 --rate 2",
    )
    made.add_argument("out", type=Path, help="folder to write; must not exist")
    made.add_argument("--seed", type=int, default=0, help="seed of town, weather and noise (default 0)")
    made.add_argument("--frames", type=int, default=20, help="number of frames (default 20)")
    made.add_argument("--rate", type=float, default=2.0, metavar="HZ", help="frames a second (default 2)")
    made.add_argument(
        "--rig", type=Path, help="rig file, pinhole or fisheye (default: config/rigs/town_6cam.yaml's six)"
    )
    made.add_argument("--width", type=int, help="image width of the default rig, about that of a random one (704)")
    made.add_argument("--height", type=int, help="image height of the default rig (default 256)")
    made.add_argument(
        "--random-rig",
        action="store_true",
        help="draw the cameras from the seed: 4 to 7, pinholes and fisheyes of 50 to 190 degrees, 0.5 to 2.2 m high, "
        "some images lost, the car's own body in view; rig.yaml in the recording's folder says which they are",
    )
    for kind, what in KINDS.items():
        if kind != "rig":
            made.add_argument(f"--random-{kind}", action="append_const", dest="varied", const=kind, help=f"draw {what}")
    made.add_argument(
        "--random-all", action="store_true", help="draw everything that the --random-... options draw, the rig included"
    )
    made.add_argument(
        "--speed", type=float, default=8.0, metavar="M/S", help="speed of the car on straight streets (default 8)"
    )
    made.add_argument(
        "--scan",
        action="store_true",
        help="record the LiDAR's points as it sees them while the car drives, each with its time (field 'time'), one "
        "turn in each frame of at most 0.1 s; without it, clouds are deskewed to the frames' stamps",
    )
    made.add_argument("--no-lidar", action="store_true", help="record no clouds")
    made.add_argument("--no-labels", action="store_true", help="record no 2D labels")
    made.add_argument("--no-truth", action="store_true", help="write no 3D truth (occupancy/<stamp>.npz)")
    made.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format of the bag (default mcap)"
    )
    made.add_argument(
        "--jobs", type=int, default=min(8, len(os.sched_getaffinity(0))), metavar="N", help="number of processes"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc simulate`. Exit status 0: the recording is complete. 2: an argument is wrong, or writing failed."""
    arguments = parser().parse_args(argv)
    from renderocc_model.base.machine_errors import machine_error

    from .record import Settings, record

    try:
        vehicle = _vehicle(arguments)
        settings = Settings(
            arguments.seed,
            arguments.frames,
            arguments.rate,
            not arguments.no_lidar,
            not arguments.no_labels,
            not arguments.no_truth,
            arguments.storage,
            arguments.jobs,
            frozenset(KINDS if arguments.random_all else arguments.varied or ()),
            arguments.speed,
            arguments.scan,
        )
        count, seconds = _record(arguments.out, vehicle, settings, record)
    except (ValueError, OSError, MemoryError) as error:
        print(f"renderocc simulate: {machine_error(error, arguments.out) or error}", file=sys.stderr)
        return 2
    rate = f"{settings.frames / seconds:.2f} frames/s"
    print(f"{settings.frames} frames of {len(vehicle.rig)} cameras in {seconds:.1f} s ({rate})", file=sys.stderr)
    print(f"wrote {count} messages to {arguments.out}")
    return 0


def _vehicle(arguments: argparse.Namespace) -> Vehicle:
    """The recording car that the arguments ask for."""
    from renderocc_model.geometry.rig import Rig

    from .rigs import Vehicle, random_vehicle
    from .sensors import town_rig

    width, height = arguments.width, arguments.height
    if arguments.random_rig or arguments.random_all:
        if arguments.rig or height is not None:
            raise ValueError("--random-rig draws the cameras and their image heights; leave --rig and --height out")
        return random_vehicle(arguments.seed, width)
    if arguments.rig and (width is not None or height is not None):
        raise ValueError("--width and --height size the default rig; edit the rig file instead")
    if arguments.rig:
        return Vehicle(Rig.load(arguments.rig))
    return Vehicle(town_rig(704 if width is None else width, 256 if height is None else height))


def _record(out: Path, vehicle: Vehicle, settings, record) -> tuple[int, float]:
    """Record with a progress bar. Returns the number of messages, and the seconds after the town was built."""
    from tqdm import tqdm

    began = None
    with tqdm(total=settings.frames, unit="frame", desc="building the town", disable=not sys.stderr.isatty()) as bar:

        def on_frame(done: int) -> None:
            nonlocal began
            began = began or time.monotonic()
            bar.set_description("recording")
            bar.update(done - bar.n)

        start = time.monotonic()
        count = record(out, vehicle, settings, on_frame)
    first = began or start
    # The first frame includes the start of the workers, so it is left out of the rate.
    seconds = (
        (time.monotonic() - first) * settings.frames / max(settings.frames - 1, 1)
        if settings.frames > 1
        else time.monotonic() - start
    )
    return count, max(seconds, 1e-6)
