"""`renderocc label`: 2D labels for a recorded bag, in a sidecar bag beside it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.machine_errors import machine_error

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc label",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Label the images of a recording in 2D: depth from its LiDAR (or a depth topic), classes from\n"
        "labelled points, label images or a segmentation network. Writes a sidecar bag with <camera>/depth and\n"
        "<camera>/semantic at the images' stamps; the recording itself is only read.",
        epilog="examples: renderocc label drives/monday --preview look\n"
        "          renderocc label drives/monday --network segformer.onnx --sweeps 3\n"
        "          renderocc label drives/kitti_00 --label-files kitti/00/labels",
    )
    made.add_argument("bag", type=Path, help="the recording")
    made.add_argument("--out", type=Path, help="sidecar bag to write; must not exist (default: BAG_labels beside it)")
    made.add_argument("--cameras", nargs="+", metavar="NAME", help="label these only (default: all)")
    depth = made.add_argument_group("depth")
    depth.add_argument("--lidar", metavar="TOPIC", help="PointCloud2 topic (default: the only one there is)")
    depth.add_argument(
        "--sweeps", type=int, default=1, metavar="K", help="clouds, nearest in time, for each image (default 1)"
    )
    depth.add_argument(
        "--max-time-diff", type=float, default=0.1, metavar="S", help="to the nearest cloud, seconds (default 0.1)"
    )
    depth.add_argument("--min-depth", type=float, default=1.0, metavar="M", help="of LiDAR points, metres (default 1)")
    depth.add_argument("--keep-hidden", action="store_true", help="keep points that a nearer surface hides")
    depth.add_argument("--depth-topic", metavar="TEMPLATE", help="depth images instead, e.g. /{camera}/depth/image_raw")
    made.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="<camera>.png where pixels other than 0 show the vehicle itself and get no labels: the LiDAR on its roof "
        "sees the road behind its bonnet, the camera sees the bonnet",
    )
    classes = made.add_argument_group("classes, from one of these")
    source = classes.add_mutually_exclusive_group()
    source.add_argument(
        "--label-field", metavar="NAME", help="a field of the cloud (default: 'label', where there is one)"
    )
    source.add_argument("--label-files", type=Path, metavar="DIR", help="a .label or .bin file for each cloud")
    source.add_argument("--semantic-topic", metavar="TEMPLATE", help="label images, e.g. /{camera}/segmentation")
    source.add_argument("--network", type=Path, metavar="MODEL", help="segmentation network, .onnx or TorchScript")
    classes.add_argument(
        "--mapping", metavar="FILE", help="YAML: source id or colour to class name; or lidarseg, semantic_kitti"
    )
    classes.add_argument("--network-config", type=Path, metavar="FILE", help="default: MODEL with .yaml")
    classes.add_argument(
        "--classes",
        metavar="TABLE",
        help="occ3d_nuscenes or semantic_kitti (default: what the recording was imported with, else occ3d_nuscenes)",
    )
    made.add_argument("--base-frame", default="base_link")
    made.add_argument("--odom-frame", default="odom", help="empty: the vehicle stands still")
    made.add_argument("--preview", type=Path, metavar="DIR", help="write pictures of the labels over the images")
    made.add_argument("--preview-count", type=int, default=10, metavar="N", help="pictures of each camera (default 10)")
    made.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap")
    made.add_argument("--jobs", type=int, default=min(8, len(os.sched_getaffinity(0))), help="threads")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc label`: exit status 0 when the sidecar is complete, 2 where something is wrong, which is named."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        print(f"renderocc label: {machine_error(error, arguments.out or arguments.bag) or error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from training.recordings.frames import Recording
    from training.recordings.notes import sidecar_of

    from .coverage import coverage_table
    from .make import write_labels
    from .setup import find_sources

    for name, value, least in (
        ("sweeps", arguments.sweeps, 1),
        ("jobs", arguments.jobs, 1),
        ("preview-count", arguments.preview_count, 1),
    ):
        if value < least:
            raise ValueError(f"--{name} is {value}; expected at least {least}")
    bag = arguments.bag
    out = arguments.out or sidecar_of(bag)
    if out.exists():
        raise ValueError(f"{out} exists; name another folder with --out, or remove it")
    with Recording(bag, None, arguments.base_frame, arguments.odom_frame, arguments.cameras) as recording:
        for note in recording.notes:
            print(f"renderocc label: {note}", file=sys.stderr)
        sources, notes = find_sources(recording, arguments)
        for key, value in notes.items():
            print(f"{key}: {value}", file=sys.stderr)
        total = sum(len(recording.stamps[camera]) for camera in recording.cameras)
        with tqdm(total=total, unit="image", desc="labelling", disable=not sys.stderr.isatty()) as bar:
            coverage = write_labels(
                recording,
                sources,
                out,
                notes,
                arguments.preview,
                arguments.preview_count,
                arguments.storage,
                arguments.jobs,
                lambda done: bar.update(done - bar.n),
            )
        print(coverage_table(coverage, sources.classes))
    if arguments.preview:
        print(f"wrote pictures to {arguments.preview}")
    print(f"wrote {out}")
    return 0
