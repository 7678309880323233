"""Finds the sources of labels in a recording, by the options of `renderocc label`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, ClassTable, by_name
from renderocc_model.rosio import cdr
from renderocc_model.rosio.stamp_text import seconds_text
from training.recordings.frames import Recording
from training.recordings.lidar_topics import CLOUD_TYPES, other_lidars, read_cloud
from training.recordings.notes import class_table
from training.recordings.stamped_topic import StampedTopic, find_topic

from .clouds import CloudSource, LabelField, LabelFiles, LidarClouds, LidarGroup
from .densify import densifier_of
from .from_images import Segmenter
from .ground_clouds import ground_clouds
from .mapping import ClassMapping, LabelError, NeedsOption, load_mapping, mapping_names
from .projection import Occlusion
from .scans import scan_times
from .sources import Sources

__all__ = ["find_sources"]

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_OWN_MAPPING = {".label": "semantic_kitti", ".bin": "lidarseg"}


def find_sources(recording: Recording, wanted: Namespace) -> tuple[Sources, dict[str, str]]:
    """The sources, and notes about them for the terminal and for labels.yaml.

    Args:
        recording: an open recording.
        wanted: the options of `renderocc label`.
    Raises:
        LabelError: a source that the options name does not exist, or there is no source at all.
    """
    depth = _per_camera(recording, wanted.depth_topic, "--depth-topic") if wanted.depth_topic else {}
    from_motion = wanted.depth_from == "motion"
    if from_motion:
        _refuse_other_depth(wanted)
    from_clouds = not depth or wanted.label_field or wanted.label_files
    clouds = [] if from_motion else _clouds(recording, wanted, needed=from_clouds)
    classes = _classes(recording, clouds[0] if clouds else None, wanted)
    if wanted.mapping and classes.mapping is None and classes.network is None:
        raise LabelError(
            "--mapping was given, but no ids to map; also give --label-field, --label-files, --semantic-topic or "
            "--network"
        )
    lidars: list[LidarClouds] = []
    motion: dict[str, str] = {}
    for one in clouds:
        times, told = scan_times(recording, one, wanted.no_deskew)
        motion = {key: "; ".join(filter(None, (motion.get(key), told.get(key)))) for key in {**motion, **told}}
        lidars.append(LidarClouds(recording, one, classes.points, wanted.sweeps, wanted.max_time_diff, times))
    lidar: CloudSource | None
    if wanted.classes_from and not lidars:
        if wanted.ground_method == "patchwork":
            raise LabelError(
                "--ground-method patchwork is for the clouds of a LiDAR; leave it out: the plane is fitted"
            )
        classes = replace(classes, note="ground and obstacle by the plane of the road")
    if wanted.classes_from and lidars:
        method = "patchwork" if wanted.ground_method == "auto" else wanted.ground_method
        lidar, motion["ground"] = ground_clouds(lidars, wanted.ground_sweeps, method)
        classes = replace(classes, note=f"ground and obstacle by {method}, {wanted.ground_sweeps} cloud(s) joined")
    else:
        lidar = LidarGroup(lidars) if len(lidars) > 1 else next(iter(lidars), None)
    sources = Sources(
        classes.table,
        lidar,
        depth,
        classes.topics,
        classes.mapping,
        classes.network,
        None if wanted.keep_hidden else Occlusion(),
        wanted.min_depth,
        {} if wanted.masks is None else _masks(recording, wanted.masks),
        densifier=densifier_of(wanted),
    )
    none = "none; for classes give --label-field, --label-files, --semantic-topic, --network or --classes-from ground"
    notes = {
        "depth": _depth_note(wanted, clouds, depth),
        "semantics": classes.note or none,
        **motion,
    }
    if wanted.sweeps > 1 and not sources.gives_classes:
        notes["caution"] = "several clouds for each image and no classes: moving objects are smeared"
    return sources, notes


def _refuse_other_depth(wanted: Namespace) -> None:
    for option in ("depth_topic", "label_field", "label_files"):
        if getattr(wanted, option):
            raise LabelError(
                f"--depth-from motion was given, and --{option.replace('_', '-')} too; leave one of them out (classes "
                "can come from --semantic-topic or --network)"
            )


def _depth_note(wanted: Namespace, clouds: list[StampedTopic], depth: dict[str, StampedTopic]) -> str:
    if wanted.depth_from == "motion":
        filled = f", filled by {wanted.densify.name}" if wanted.densify else ""
        return f"motion: triangulated from the cameras' images and the ego poses{filled}"
    topics = ", ".join(one.topic for one in clouds)
    return f"{topics}, {wanted.sweeps} cloud(s) an image" if clouds and not depth else wanted.depth_topic


@dataclass(frozen=True)
class _Classes:
    """The source of classes: the table of the ids that are written, a note, and at most one of the three sources."""

    table: ClassTable
    note: str = ""
    network: Segmenter | None = None
    topics: dict[str, StampedTopic] = field(default_factory=dict)
    points: LabelField | LabelFiles | None = None
    mapping: ClassMapping | None = None


def _clouds(recording: Recording, wanted: Namespace, needed: bool) -> list[StampedTopic]:
    """The topics of clouds; none if they are not needed."""
    chosen = recording.vehicle.lidar_topics
    if not needed and not chosen:
        return []
    found = [find_topic(recording.bag, CLOUD_TYPES, name, "--lidar") for name in chosen or (None,)]
    topics = [name for name in found if name is not None]
    if len(topics) > 1 and wanted.label_files:
        raise LabelError(f"--label-files has classes of one LiDAR, but --lidar names {len(topics)}; name one")
    if not topics:
        others = other_lidars(recording.bag)
        text = f"{recording.path}: there is no PointCloud2 topic for depth"
        if others:
            raise LabelError(f"{text}; {others}")
        raise NeedsOption(f"{text}; record the LiDAR, name depth images with --depth-topic, or use --depth-from motion")
    offset_ns = recording.vehicle.offset_ns
    return [StampedTopic(recording.bag, name, tolerant=True, offset_ns=offset_ns(name)) for name in topics]


def _classes(recording: Recording, clouds: StampedTopic | None, wanted: Namespace) -> _Classes:
    table = by_name(wanted.classes) if wanted.classes else None
    if wanted.classes_from:
        if table not in (None, GROUND_OBSTACLE):
            raise LabelError(
                f"--classes-from ground gives the classes of ground_obstacle, not of {wanted.classes}; leave out "
                "--classes"
            )
        return _Classes(GROUND_OBSTACLE, "ground")
    if wanted.network:
        network = Segmenter(wanted.network, wanted.network_config, wanted.mapping, table, wanted.provider)
        table = _agreed(table, network.mapping.classes)
        return _Classes(table, f"network {wanted.network.name}, {network.mapping.source}", network)
    if wanted.semantic_topic:
        mapping = _mapping(wanted.mapping, table)
        topics = _per_camera(recording, wanted.semantic_topic, "--semantic-topic")
        return _Classes(mapping.classes, wanted.semantic_topic, topics=topics, mapping=mapping)
    points = None if clouds is None else _points(clouds, wanted, table, recording.path)
    if clouds is None or points is None:
        return _Classes(table or OCC3D_NUSCENES)
    note = f"field '{points.name}' of {clouds.topic}" if isinstance(points, LabelField) else str(wanted.label_files)
    return _Classes(points.mapping.classes, note, points=points, mapping=points.mapping)


def _masks(recording: Recording, folder: Path) -> dict[str, np.ndarray]:
    """Read the masks <camera>.png, (H, W) bool. Pixels other than 0 show the vehicle itself."""
    masks = {}
    for camera in recording.cameras:
        file = folder / f"{camera.replace('/', '_')}.png"
        if not file.is_file():
            continue
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise LabelError(f"{file}: not a PNG; paint the vehicle's own pixels white on black")
        model = recording.models[camera]
        if image.shape != (model.height, model.width):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise LabelError(
                f"{file}: is {size} but the camera is {model.width}x{model.height}; draw the mask on one of its images"
            )
        masks[camera] = image > 0
    if not masks:
        raise LabelError(f"{folder}: has no <camera>.png of {', '.join(recording.cameras)}; add one")
    return masks


def _points(
    clouds: StampedTopic, wanted: Namespace, table: ClassTable | None, bag: Path
) -> LabelField | LabelFiles | None:
    """The source of the points' classes; None if there is none."""
    if wanted.label_files:
        suffixes = {file.suffix for file in Path(wanted.label_files).glob("*")} & set(_OWN_MAPPING)
        own = _OWN_MAPPING[suffixes.pop()] if len(suffixes) == 1 else None
        if wanted.mapping is None and own is None:
            raise LabelError(
                f"{wanted.label_files}: expected files of one kind, .label or .bin; name the folder that contains them"
            )
        return LabelFiles(wanted.label_files, clouds.stamps, _mapping(wanted.mapping or own, table))
    there = [column.name for column in _first_cloud(clouds).fields]
    if wanted.label_field is None and "label" not in there:
        return None
    name = wanted.label_field or "label"
    if name not in there:
        raise LabelError(f"{clouds.bag.path}: {clouds.topic} has no field '{name}'; it has {', '.join(there)}")
    if wanted.mapping is None:
        table = class_table(wanted.classes, bag)  # an imported recording has a note of its clouds' class table
    return LabelField(name, _mapping(wanted.mapping, table))


def _first_cloud(clouds: StampedTopic) -> cdr.PointCloudMessage:
    """The first cloud that can be read."""
    first = ""
    for stamp_ns in clouds.stamps:
        try:
            return read_cloud(clouds.type, clouds.read(stamp_ns))
        except cdr.MessageError as error:
            first = first or f"{clouds.bag.path}: {clouds.topic} at {seconds_text(stamp_ns)} s: {error}"
    raise LabelError(first)


def _mapping(name: str | None, table: ClassTable | None) -> ClassMapping:
    if name is None:
        return ClassMapping.identity(table or OCC3D_NUSCENES)
    if name not in mapping_names() and not Path(name).is_file():
        known = ", ".join(mapping_names())
        raise LabelError(f"--mapping {name}: there is no such file; the built-in mappings are {known}")
    return load_mapping(name, table)


def _agreed(table: ClassTable | None, other: ClassTable) -> ClassTable:
    if table is not None and table != other:
        raise LabelError("--classes names another table than the network's description; leave it out")
    return other


def _per_camera(recording: Recording, template: str, option: str) -> dict[str, StampedTopic]:
    """The cameras' topics for a template, as {camera: topic}. They may be raw, compressed or compressedDepth."""
    if "{camera}" not in template:
        raise LabelError(f"{option} is {template!r}; write {{camera}} in place of the camera's name")
    found = {}
    for camera in recording.cameras:
        name = template.replace("{camera}", camera)
        name = name if name.startswith("/") else f"/{name}"
        for topic in (name, f"{name}/compressed", f"{name}/compressedDepth"):
            there = recording.bag.topics.get(topic)
            if there is not None and there.count and there.type in _IMAGES:
                found[camera] = StampedTopic(recording.bag, topic, offset_ns=recording.vehicle.offset_ns(camera))
                break
    if not found:
        raise LabelError(
            f"{recording.path}: no camera ({', '.join(recording.cameras)}) has images on {template}; correct {option}"
        )
    return found
