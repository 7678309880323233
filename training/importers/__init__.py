"""Importers: `renderocc import` turns the datasets of the paper into the recordings that all other commands read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from renderocc_model.base.machine_errors import machine_error

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc import",
        description="Turn a dataset into recordings: one rosbag2 for each scene or sequence, with its 3D truth as "
        "occupancy/<stamp>.npz in the same folder. Recordings that are complete are left alone, so that an import "
        "that was stopped goes on where it was.",
        epilog="example: renderocc import nuscenes /data/nuscenes --version v1.0-mini --out recordings/nuscenes",
    )
    kinds = made.add_subparsers(dest="kind", required=True, metavar="DATASET")
    nuscenes = kinds.add_parser(
        "nuscenes",
        help="devkit tables, images and LiDAR; lidarseg and Occ3D's gts where they are unpacked",
        epilog="example: renderocc import nuscenes /data/nuscenes --out recordings/nuscenes --scenes scene-0061",
    )
    nuscenes.add_argument("--version", help="folder of the tables (default: the one v1.0-* there is)")
    nuscenes.add_argument("--scenes", nargs="+", metavar="NAME", help="only these (default: all)")
    nuscenes.add_argument("--sweeps", action="store_true", help="also what lies between keyframes (12 Hz, 20 Hz LiDAR)")
    nuscenes.add_argument(
        "--occ3d", type=Path, metavar="GTS", help="Occ3D's label folder (default: ROOT/gts, if it is there)"
    )
    kitti = kinds.add_parser(
        "semantickitti",
        help="odometry images, poses and scans with SemanticKITTI's labels and voxels",
        epilog="example: renderocc import semantickitti /data/kitti/dataset --out recordings/kitti --sequences 00 08",
    )
    kitti.add_argument("--sequences", nargs="+", metavar="NN", help="only these (default: all there are)")
    for kind in (nuscenes, kitti):
        kind.add_argument("root", type=Path, metavar="ROOT", help="where the dataset's archives were unpacked")
        kind.add_argument("--out", type=Path, required=True, help="folder for the recordings, one folder each")
        kind.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc import`: exit status 0 when all recordings are complete, 2 where dataset or argument is wrong."""
    arguments = parser().parse_args(argv)
    from . import nuscenes, semantickitti

    try:
        if arguments.kind == "nuscenes":
            count = nuscenes.import_nuscenes(
                arguments.root,
                arguments.out,
                arguments.version,
                arguments.scenes,
                arguments.sweeps,
                arguments.occ3d,
                arguments.storage,
                _tell,
            )
        else:
            count = semantickitti.import_semantickitti(
                arguments.root, arguments.out, arguments.sequences, arguments.storage, _tell
            )
    except (ValueError, OSError) as error:
        print(f"renderocc import: {machine_error(error, arguments.out) or error}", file=sys.stderr)
        return 2
    print(f"wrote {count} recordings to {arguments.out}")
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
