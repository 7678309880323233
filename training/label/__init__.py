"""`renderocc label`: make 2D labels for a recording, and write them to a sidecar bag beside it."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renderocc_model.base.config_arguments import add_arguments
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.rosio.vehicle_options import add_pose_gap_option, add_vehicle_options, vehicle_from
from training.label.structure.settings import MotionDepth
from training.recordings.many.options import add_recordings, add_sharing, workers_from

from .depth_fit import DenseDepth
from .mapping import mapping_names
from .network_backends import PROVIDERS

__all__ = ["main"]

_GPU_PROVIDERS = ("cuda", "tensorrt")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc label",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Label the images of recordings in 2D. Depth comes from the LiDAR, from depth images, or\n"
        "from motion; classes come from labelled points, label images, a segmentation network, or the shape of\n"
        "the ground. The labels are written to a sidecar bag with <camera>/depth and <camera>/semantic at the images'\n"
        "stamps. The recordings are not changed. Of several recordings those that have a sidecar are done already.\n"
        "Exit status 0: all sidecars are complete. 2: something is wrong, and is named. 3: nothing is wrong, but\n"
        "another process is working on some recordings.",
        epilog="examples: renderocc label drives/monday --preview look\n"
        "          renderocc label drives/monday --network segformer.onnx --sweeps 3\n"
        "          renderocc label drives/kitti_00 --label-files kitti/00/labels\n"
        "          renderocc label drives/no_lidar --depth-from motion --preview look\n"
        "          renderocc label drives/monday --classes-from ground\n"
        "          renderocc label 'drives/**' @more.txt --jobs 8",
    )
    add_recordings(made)
    made.add_argument(
        "--out",
        type=Path,
        help="sidecar bag to write, which must not exist; for several recordings, a folder of sidecars NAME_labels "
        "(default: BAG_labels beside BAG)",
    )
    depth = made.add_argument_group("depth")
    depth.add_argument(
        "--depth-from",
        choices=("recording", "motion"),
        default="recording",
        help="recording: its LiDAR or depth images; motion: triangulated from the images of a vehicle that drives, "
        "with its odometry (default recording)",
    )
    depth.add_argument(
        "--sweeps", type=int, default=1, metavar="K", help="use the K clouds nearest in time to an image (default 1)"
    )
    depth.add_argument(
        "--max-time-diff",
        type=float,
        default=0.1,
        metavar="S",
        help="largest time in seconds between an image and its nearest cloud (default 0.1)",
    )
    depth.add_argument(
        "--min-depth",
        type=float,
        default=1.0,
        metavar="M",
        help="ignore LiDAR points nearer to the camera than M metres (default 1)",
    )
    depth.add_argument(
        "--no-deskew",
        action="store_true",
        help="leave the points of a scan where the LiDAR saw them, also if the clouds have the time of each point and "
        "the vehicle moves: for clouds that the driver has deskewed already",
    )
    depth.add_argument("--keep-hidden", action="store_true", help="keep points that a nearer surface hides")
    depth.add_argument(
        "--depth-topic",
        metavar="TEMPLATE",
        help="use depth images instead of the LiDAR, for example /{camera}/depth/image_raw",
    )
    motion = made.add_argument_group("depth from motion")
    add_arguments(motion, MotionDepth)
    motion.add_argument(
        "--densify",
        type=Path,
        metavar="MODEL",
        help="fill the images between the points: a network for depth from one image, ONNX or TorchScript, whose scale "
        "and shift are fitted to the points of each image",
    )
    motion.add_argument(
        "--densify-config",
        type=Path,
        metavar="FILE",
        help="YAML file that describes this network (default: MODEL with the ending .yaml, if there is one)",
    )
    add_arguments(motion, DenseDepth)
    made.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder of <camera>.png, whose pixels other than 0 show the vehicle itself and get no labels; without it "
        "the bonnet gets labels of the road behind it, which the LiDAR sees from the roof",
    )
    classes = made.add_argument_group("classes, from one of these sources")
    source = classes.add_mutually_exclusive_group()
    source.add_argument(
        "--label-field", metavar="NAME", help="a field of the cloud (default: 'label', if the cloud has it)"
    )
    source.add_argument(
        "--label-files", type=Path, metavar="DIR", help="folder with a .label or .bin file for each cloud"
    )
    source.add_argument("--semantic-topic", metavar="TEMPLATE", help="label images, for example /{camera}/segmentation")
    source.add_argument("--network", type=Path, metavar="MODEL", help="segmentation network, ONNX or TorchScript")
    source.add_argument(
        "--classes-from",
        choices=("ground",),
        help="ground: classify points as ground or obstacle by their shape, without annotation and without a network",
    )
    classes.add_argument(
        "--ground-method",
        choices=("auto", "patchwork", "plane"),
        default="auto",
        help="for --classes-from ground: Patchwork++ (pip install pypatchworkpp; for clouds), or the plane of the road "
        "(default auto: patchwork for clouds, else plane)",
    )
    classes.add_argument(
        "--ground-sweeps",
        type=int,
        default=3,
        metavar="K",
        help="for --classes-from ground: join the K clouds nearest in time to judge the points of one (default 3)",
    )
    classes.add_argument(
        "--mapping",
        metavar="FILE",
        help="YAML file that maps the source's ids or colours to class names, or one of " + ", ".join(mapping_names()),
    )
    classes.add_argument(
        "--network-config",
        type=Path,
        metavar="FILE",
        help="YAML file that describes the network (default: MODEL with the ending .yaml)",
    )
    classes.add_argument(
        "--provider",
        choices=("auto", *PROVIDERS),
        default="auto",
        help="device of the networks (default auto: cuda if there is one, else cpu)",
    )
    classes.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images that the network takes at a time (default 1)"
    )
    classes.add_argument(
        "--classes",
        metavar="TABLE",
        help="class table: occ3d_nuscenes, semantic_kitti or ground_obstacle (default: that of the import, else "
        "occ3d_nuscenes; with --classes-from ground, ground_obstacle)",
    )
    add_pose_gap_option(made)
    made.add_argument(
        "--preview",
        type=Path,
        metavar="DIR",
        help="write images with their labels drawn over them; for several recordings, to DIR/NAME",
    )
    made.add_argument("--preview-count", type=int, default=10, metavar="N", help="previews of each camera (default 10)")
    made.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format of the sidecar (default mcap)"
    )
    add_sharing(made, "; of one recording, threads, and processes for depth from motion")
    add_vehicle_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc label`.

    Returns:
        0: all sidecars are complete. 2: something is wrong, and is named. 3: another process works on some recordings.
    """
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except (ValueError, OSError) as error:
        print(f"renderocc label: {machine_error(error, arguments.out or arguments.bags[0]) or error}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    from training.recordings.many.find import find_recordings, outputs_of
    from training.recordings.many.lease import lease_of
    from training.recordings.many.share import conclude, share_out, show
    from training.recordings.many.task import Task
    from training.recordings.notes import recording_name, sidecar_of

    for name, value, least in (
        ("sweeps", arguments.sweeps, 1),
        ("ground-sweeps", arguments.ground_sweeps, 1),
        ("batch", arguments.batch, 1),
        ("preview-count", arguments.preview_count, 1),
    ):
        if value < least:
            raise ValueError(f"--{name} is {value}; expected at least {least}")
    bags = find_recordings(arguments.bags)
    several = len(bags) > 1
    if several and arguments.label_files:
        raise ValueError(f"--label-files belongs to one recording, not to {len(bags)}")
    workers = workers_from(arguments, len(bags), gpus=int(arguments.provider in _GPU_PROVIDERS))
    tasks = []
    for bag, out in outputs_of(bags, arguments.out, sidecar_of, lambda bag: sidecar_of(bag).name).items():
        own = copy.copy(arguments)
        own.bag, own.out, own.jobs = bag, out, workers.threads
        own.preview = arguments.preview / recording_name(bag) if arguments.preview and several else arguments.preview
        tasks.append(Task(bag, (own, several), out, lease_of(out)))
    return conclude("label", share_out(_label, tasks, workers, show), "labelled")


def _label(arguments: argparse.Namespace, several: bool) -> None:
    """Label one recording, `arguments.bag`, to `arguments.out`."""
    from tqdm import tqdm

    from training.recordings.frames import Recording

    from .coverage import coverage_table, source_table
    from .from_motion import motion_labels
    from .ground_images import find_image_ground
    from .image_job import depth_of_images
    from .make import write_labels
    from .setup import find_sources
    from .structure.judgement import remarks

    bag, out = arguments.bag, arguments.out
    if several and (out / "metadata.yaml").is_file():
        print(f"{out} is complete already")
        return
    if out.exists():
        raise ValueError(f"{out} exists; name another folder with --out, or remove it")
    with Recording(bag, None, vehicle_from(arguments), arguments.max_pose_gap) as recording:
        for text in recording.warnings():
            print(f"renderocc label: warning: {text}", file=sys.stderr)
        sources, notes = find_sources(recording, arguments)
        for key, value in notes.items():
            print(f"{key}: {value}", file=sys.stderr)
        if arguments.depth_from == "motion":
            sources = replace(sources, motion=motion_labels(recording, arguments, out))
        if arguments.classes_from and sources.lidar is None:
            ground, notes["ground"] = find_image_ground(recording, depth_of_images(recording, sources))
            print(f"ground: {notes['ground']}", file=sys.stderr)
            sources = replace(sources, ground=ground)
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
                arguments.batch,
            )
        if sources.motion is not None:
            for text in remarks(sources.motion.reports):
                print(f"renderocc label: warning: {bag}: {text}", file=sys.stderr)
            sources.motion.remove_store()
        if sources.densifier is not None:
            print(f"densify: {sources.densifier.text()}", file=sys.stderr)
        print(coverage_table(coverage, sources.classes))
        if arguments.preview and sources.network is not None:
            shares = source_table(sources.network.counts, sources.network.mapping)
            (arguments.preview / "labels.txt").write_text(f"{shares}\n", encoding="utf-8")
            print(f"\n{shares}")
        empty = [name for name in coverage.labelled if not coverage.depths[name] and not coverage.classified.get(name)]
        for camera in empty:
            text = f"camera '{camera}': not one pixel of its images could be labelled; look at its mount on /tf_static"
            print(f"renderocc label: warning: {bag}: {text}", file=sys.stderr)
    if arguments.preview:
        print(f"wrote previews to {arguments.preview}")
    print(f"wrote {out}")
