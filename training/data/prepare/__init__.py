"""`renderocc prepare`: turn recordings and their 2D labels into tables for training (see `tables`)."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from renderocc_model.base.config import configuration, setting, to_mapping
from renderocc_model.base.config_arguments import add_arguments, from_arguments
from renderocc_model.base.machine_errors import machine_error
from renderocc_model.field.classes import TABLES, ClassTable
from renderocc_model.field.conversion import converted_ids
from renderocc_model.rosio.parameter_file import vehicle_of_file
from renderocc_model.rosio.vehicle import Vehicle
from renderocc_model.rosio.vehicle_options import add_params_option
from training.recordings.frames import FrameIndex, Recording
from training.recordings.many.find import find_recordings, label_bags, refuse_same_output
from training.recordings.many.lease import lease_of
from training.recordings.many.options import add_recordings, add_sharing, workers_from
from training.recordings.many.share import conclude, share_out, show
from training.recordings.many.task import DONE, Outcome, Task, Workers
from training.recordings.notes import class_table, find_sidecar, recording_name, truth_class_table
from training.recordings.sources import RecordingError

from .extract import Extractor
from .pieces import piece_starts, related_images
from .shard import ShardWriter, is_prepared
from .tables import HEADER, TablesError, describe_camera, read_header

__all__ = ["PrepareConfig", "main", "prepare_recording", "prepare_recordings", "recording_name"]

_BLOCK = 8  # frames whose messages are read in one pass and held in memory


@configuration
class PrepareConfig:
    """How recordings become tables. Each table's header has these settings, so that training can compare them."""

    classes: str = setting(
        "",
        "class table of the labels; when empty, the one that sidecar or import name, else occ3d_nuscenes",
        choices=("", *TABLES),
    )
    truth_classes: str = setting(
        "",
        "class table of the 3D truth, when neither truth.json nor import names it and it is not that of the labels; "
        "truth of another table than the labels is converted to ground_obstacle",
        choices=("", *TABLES),
    )
    truth: str = setting(
        "", "folder with 3D truth, of each recording in a folder NAME; where that is missing, occupancy/ beside it"
    )
    anchor: str = setting(
        "", "camera whose images are the frames; when empty, the moments of the 3D truth, else the first camera"
    )
    max_time_diff: float = setting(0.1, "largest difference in time between a frame and its images [s]", minimum=0.0)
    max_pose_gap: float = setting(0.5, "largest time between a stamp and the ego poses around it [s]", minimum=0.0)
    without_depth: bool = setting(False, "also keep pixels of known class and unknown depth")
    pixels_per_image: int = setting(
        0,
        "labelled pixels to keep of each image, drawn at random; 0 keeps all (dense labels take 8 bytes a pixel)",
        minimum=0,
    )
    skip_unposed: bool = setting(False, "leave out frames that have no ego pose, instead of refusing the recording")
    vehicle: Vehicle = setting(Vehicle(), "the vehicle's cameras, topics, frames and clocks")

    def truth_table(self, recording: Recording, labels: ClassTable) -> ClassTable:
        """The class table of a recording's 3D truth, whose labels are of a table; `labels` if it has no truth.

        Raises:
            ValueError: a note cannot be read or contradicts `truth_classes`, or the truth cannot become of the labels'
                table.
        """
        if not recording.truth_stamps():
            return labels
        bag = recording.path
        found = truth_class_table(bag, self.truth_folder(recording_name(bag)), self.truth_classes, labels)
        try:
            converted_ids(found, labels)
        except ValueError:
            kinds = [f"{', '.join(table.names[:4])}, ..." for table in (found, labels)]
            raise ValueError(
                f"{bag}: the 3D truth has the classes {kinds[0]}, and the labels {kinds[1]}; only truth of built-in "
                "tables becomes ground_obstacle; name the folder of other truth with --truth, or take this away"
            ) from None
        return found

    def truth_folder(self, name: str) -> Path | None:
        """The folder with the 3D truth of the recording `name`; None for occupancy/ beside the recording."""
        folder = Path(self.truth) / name
        return folder if self.truth and folder.is_dir() else None

    def identity(self) -> dict[str, object]:
        """What must be the same when tables are continued. Without `truth` it is as it was before that setting."""
        return {key: value for key, value in to_mapping(self).items() if key != "truth" or value}


def prepare_recording(
    bag: Path, labels: Path | None, out: Path, config: PrepareConfig, on_frame: Callable[[int, int], None] | None = None
) -> Path:
    """Write one recording's tables. An interrupted run is continued.

    Args:
        bag: the recording.
        labels: its sidecar of labels. When None, labels are searched in BAG_labels, then in the recording.
        out: folder of all tables. The recording's folder in it appears when it is complete.
        config: the settings.
        on_frame: called with the number of frames that are done, and of all frames.
    Returns:
        the recording's folder.
    Raises:
        ValueError: the recording cannot be used for training (RecordingError, BagError), or it was prepared before
            with other settings (TablesError).
        OSError: the disk is full or cannot be written.
    """
    name, out, labels = recording_name(bag), Path(out), labels or find_sidecar(bag)
    if name == "directions" or name.startswith("."):
        raise TablesError(f"{bag}: tables cannot be called {name!r}; rename the recording")
    plan = {
        "config": config.identity(),
        "recording": _identity(Path(bag)),
        "labels": None if labels is None else _identity(Path(labels)),
    }
    if is_prepared(out / name, plan):
        return out / name
    table = class_table(config.classes, bag, labels)
    with Recording(bag, labels, config.vehicle, config.max_pose_gap, config.truth_folder(name)) as recording:
        frames = usable_frames(recording, config)
        with ShardWriter(out, name, plan) as writer:
            directions = {camera: writer.directions(recording.models[camera]) for camera in recording.cameras}
            of_truth = config.truth_table(recording, table)
            extract = Extractor(recording, table, directions, config.without_depth, config.pixels_per_image, of_truth)
            for first in range(writer.done, len(frames), _BLOCK):
                block = frames[first : first + _BLOCK]
                messages = recording.gather(extract.wanted(block))
                for frame in block:
                    writer.append(extract.row(frame, messages))
                    if on_frame:
                        on_frame(writer.done, len(frames))
            cameras = [
                describe_camera(camera, recording.models[camera], recording.mount(camera))
                for camera in recording.cameras
            ]
            starts = piece_starts(recording, frames)
            return writer.seal(cameras, table.to_dict(), len(table), starts, recording.warnings())


def usable_frames(recording: Recording, config: PrepareConfig, labelled: bool = True) -> list[FrameIndex]:
    """The frames that become rows of the tables: those with images, an ego pose, and a mount for each image.

    Args:
        recording: an open recording with its labels.
        config: the settings.
        labelled: whether labels are needed; False for a recording that is to be labelled first.
    Raises:
        RecordingError: a camera lacks its camera_info, no image has labels, a frame has no pose, or none is left.
    """
    _refuse_uncalibrated(recording, config)
    if labelled:
        _refuse_unlabelled(recording, config)
    moments = recording.frames(config.anchor or None, config.max_time_diff)
    frames = [frame for frame in moments if frame.images]
    if not frames:
        raise RecordingError(
            f"{recording.path}: no camera has an image within {config.max_time_diff:g} s of any of the {len(moments)} "
            f"moments, of which the first is {recording.time_text(moments[0].stamp_ns)}; is the 3D truth in occupancy/ "
            "that of this recording?"
        )
    return _posed(recording, related_images(recording, frames), config.skip_unposed)


def _refuse_uncalibrated(recording: Recording, config: PrepareConfig) -> None:
    if recording.uncalibrated and not config.vehicle.cameras:
        lacking = ", ".join(f"/{camera}/camera_info" for camera in recording.uncalibrated)
        raise RecordingError(
            f"{recording.path}: {lacking} missing for recorded images; record it, or leave these cameras out with "
            f"--cameras {' '.join(recording.cameras)}"
        )


def _refuse_unlabelled(recording: Recording, config: PrepareConfig) -> None:
    images = [(camera, stamp) for camera in recording.cameras for stamp in recording.stamps[camera]]
    there = {kind for kind in ("semantic", "depth") for image in images if recording.has_labels(*image, (kind,))}
    if "depth" not in there and not (config.without_depth and there):
        remedy = "make them with `renderocc label`, and name the sidecar with --labels"
        if there:
            remedy = f"{remedy}; or train on classes alone (--without-depth)"
        raise RecordingError(
            f"{recording.labels_path or recording.path}: no image of {', '.join(recording.cameras)} has labels on "
            f"/<camera>/depth at its stamp; {remedy}"
        )


def _posed(recording: Recording, frames: list[FrameIndex], skip: bool) -> list[FrameIndex]:
    """The frames with an ego pose and a mount for all their images. Another frame is an error, unless `skip` is set."""
    posed = []
    for frame in frames:
        try:
            for stamp_ns in {frame.stamp_ns, *frame.images.values()}:
                recording.odom_from_base(stamp_ns)
            for camera, stamp_ns in frame.images.items():
                recording.mount(camera, stamp_ns)
        except RecordingError as error:
            if not skip:
                raise RecordingError(f"{error}; --skip-unposed leaves such frames out") from None
            continue
        posed.append(frame)
    if not posed:
        raise RecordingError(f"{recording.path}: none of {len(frames)} frames has ego poses; record /tf and /tf_static")
    return posed


def _identity(path: Path) -> dict:
    """A recording's identity, independent of its path: its name, and a digest of its files' sizes and ends."""
    if not path.exists():
        raise RecordingError(f"{path}: there is no such file or folder; name a recording")
    files = [path] if path.is_file() else sorted(path.iterdir())
    files = [file for file in files if file.suffix in (".mcap", ".db3", ".zstd") or file.name == "metadata.yaml"]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as data:
            digest.update(data.read(1 << 16))
            data.seek(max(size - (1 << 16), 0))
            digest.update(data.read(1 << 16))
    return {"name": recording_name(path), "digest": digest.hexdigest()[:32]}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="renderocc prepare",
        description="Turn recordings and their 2D labels into memory-mapped tables for training, one folder for each "
        "recording. The command may be interrupted at any time; run it again to continue. Recordings are independent, "
        "so several machines can prepare recordings into the same folder. Exit status 0: every recording is complete. "
        "2: a recording cannot be prepared. 3: nothing is wrong, but another process is working on some recordings.",
        epilog="example: renderocc prepare drives/monday drives/tuesday --out tables",
    )
    add_recordings(made)
    made.add_argument("--out", type=Path, required=True, help="folder of the tables")
    made.add_argument(
        "--labels",
        nargs="+",
        type=Path,
        default=[],
        metavar="SIDECAR",
        help="label bags, one for each BAG, in the same order, or a folder with NAME_labels for each (default: "
        "BAG_labels if it exists, and BAG)",
    )
    add_sharing(made)
    add_params_option(made)
    add_arguments(made, PrepareConfig)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`renderocc prepare`.

    Returns:
        0: every recording is complete. 2: a recording cannot be prepared. 3: another process works on some recordings.
    """
    arguments = parser().parse_args(argv)
    try:
        bags = find_recordings(arguments.bags)
        sidecars = label_bags(bags, arguments.labels)
        folders = {bag: arguments.out / recording_name(bag) for bag in bags}
        refuse_same_output(folders)
        vehicle = Vehicle() if arguments.params is None else vehicle_of_file(arguments.params)
        config = from_arguments(arguments, PrepareConfig, PrepareConfig(vehicle=vehicle))
        workers = workers_from(arguments, len(bags))
        arguments.out.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        outcomes = _prepare([(bag, labels, arguments.out, config) for bag, labels in zip(bags, sidecars)], workers)
    except (ValueError, OSError) as error:
        print(f"renderocc prepare: {error}", file=sys.stderr)
        return 2
    count = sum(outcome.state == DONE for outcome in outcomes)
    print(f"prepared {count} of {len(outcomes)} recordings in {time.monotonic() - start:.1f} s")
    status = conclude("prepare", outcomes)
    made = [folder for folder in folders.values() if folder.is_dir()]
    for folder in made:
        for text in read_header(folder).get("warnings", ()):
            print(f"renderocc prepare: warning: {text}", file=sys.stderr)
    if made:
        print(_summary(made))
        print(f"wrote {arguments.out.resolve()}")
    apart = _class_tables_apart(arguments.out)
    if apart:
        print(f"renderocc prepare: {apart}", file=sys.stderr)
    return 2 if apart else status


def _class_tables_apart(out: Path) -> str:
    """The recordings in a folder whose class tables differ, which training refuses, as text; empty if all are alike."""
    headers = {folder.parent.name: read_header(folder.parent) for folder in sorted(out.glob(f"[!.]*/{HEADER}"))}
    first = next(iter(headers), "")
    others = [name for name, header in headers.items() if header["classes"] != headers[first]["classes"]]
    if not others:
        return ""
    return (
        f"{out}: the labels of {', '.join(others)} have another class table than those of {first}; training refuses to "
        "mix them, prepare them into separate folders, or label them again with one table (renderocc label --classes)"
    )


def _summary(folders: Sequence[Path]) -> str:
    """A line about the contents of the tables that are complete."""
    headers = [read_header(folder) for folder in folders]
    frames, pixels, unlabelled = (sum(header[key] for header in headers) for key in ("frames", "pixels", "unlabelled"))
    text = f"{frames} frames, {pixels:,} labelled pixels"
    if unlabelled == pixels:
        return f"{text}, none with a class: training learns only depth"
    return f"{text}, {unlabelled / pixels:.1%} of them without a class" if unlabelled else text


def prepare_recordings(tasks: list[tuple[Path, Path | None, Path, PrepareConfig]], jobs: int) -> list[str]:
    """Prepare each recording, in this process or in several. Returns an error text for each that failed."""
    return [outcome.error for outcome in _prepare(tasks, Workers(jobs)) if outcome.error]


def _prepare(tasks: list[tuple[Path, Path | None, Path, PrepareConfig]], workers: Workers) -> list[Outcome]:
    shared = [Task(task[0], task, task[2], lease_of(task[2] / recording_name(task[0]))) for task in tasks]
    return share_out(_prepare_one, shared, workers, show)


def _prepare_one(bag: Path, labels: Path | None, out: Path, config: PrepareConfig) -> None:
    """Prepare one recording, with a bar of its frames on a terminal. Errors say that work can go on."""
    from tqdm import tqdm

    with tqdm(desc=recording_name(bag), unit="frame", disable=not sys.stderr.isatty()) as bar:

        def on_frame(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            prepare_recording(bag, labels, out, config, on_frame)
        except OSError as error:
            why = machine_error(error, out) or f"{error.filename or out}: {error.strerror or error}; run again to go on"
            raise ValueError(f"{bag}: {why}; what was written is kept, hidden in {out}") from None
        except MemoryError as error:
            raise ValueError(f"{bag}: {machine_error(error)}") from None
