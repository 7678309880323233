"""`renderocc import`: turn nuScenes or SemanticKITTI into recordings, which all other commands read."""

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
        "occupancy/<stamp>.npz in the same folder. Recordings that are complete are not written again, so an import "
        "that was stopped can be continued with the same command.",
        epilog="example: renderocc import nuscenes /data/nuscenes --version v1.0-mini --out recordings/nuscenes",
    )
    kinds = made.add_subparsers(dest="kind", required=True, metavar="DATASET")
    nuscenes = kinds.add_parser(
        "nuscenes",
        help="the devkit's tables, images and LiDAR; also lidarseg and Occ3D's gts if they are unpacked",
        epilog="example: renderocc import nuscenes /data/nuscenes --out recordings/nuscenes --scenes scene-0061",
    )
    nuscenes.add_argument("--version", help="folder of the tables (default: the only folder v1.0-*)")
    nuscenes.add_argument("--scenes", nargs="+", metavar="NAME", help="import only these scenes (default: all)")
    nuscenes.add_argument(
        "--sweeps", action="store_true", help="also import images (12 Hz) and clouds (20 Hz) between keyframes"
    )
    nuscenes.add_argument(
        "--occ3d", type=Path, metavar="GTS", help="Occ3D's label folder (default: ROOT/gts if it exists)"
    )
    kitti = kinds.add_parser(
        "semantickitti",
        help="images, poses and scans of KITTI odometry, with SemanticKITTI's labels and voxels",
        epilog="example: renderocc import semantickitti /data/kitti/dataset --out recordings/kitti --sequences 00 08",
    )
    kitti.add_argument("--sequences", nargs="+", metavar="NN", help="import only these sequences (default: all)")
    for kind in (nuscenes, kitti):
        kind.add_argument("root", type=Path, metavar="ROOT", help="folder into which the archives were unpacked")
        kind.add_argument("--out", type=Path, required=True, help="folder to write the recordings to")
        kind.add_argument(
            "--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format of the bags (default mcap)"
        )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc import`. Exit status 0: all recordings are complete. 2: the dataset or an argument is wrong."""
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
