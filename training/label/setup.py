"""From what was asked for and what a recording holds to where its labels come from."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.classes import OCC3D_NUSCENES, ClassTable, by_name
from renderocc_model.messages import cdr
from training.frames import Recording, seconds_text
from training.notes import class_table

from .clouds import POINT_CLOUD, LabelField, LabelFiles, Lidar
from .make import Sources
from .mapping import BUILT_IN, ClassMapping, LabelError, load_mapping
from .pictures import Segmenter
from .projection import Occlusion
from .topics import StampedTopic, find_topic

__all__ = ["find_sources"]

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_OWN_MAPPING = {".label": "semantic_kitti", ".bin": "lidarseg"}


def find_sources(recording: Recording, wanted: Namespace) -> tuple[Sources, dict[str, str]]:
    """The sources, and a word about each for people and for labels.yaml.

    Args:
        recording: open.
        wanted: the options of `renderocc label`.
    Raises:
        LabelError: something asked for is not there, or there is nothing to make labels from.
    """
    table = by_name(wanted.classes) if wanted.classes else None
    notes: dict[str, str] = {}
    depth = _per_camera(recording, wanted.depth_topic, "--depth-topic") if wanted.depth_topic else {}
    needs_cloud = not depth or wanted.label_field or wanted.label_files
    cloud_topic = (
        find_topic(recording.bag, POINT_CLOUD, wanted.lidar, "--lidar") if needs_cloud or wanted.lidar else None
    )
    if cloud_topic is None and needs_cloud:
        raise LabelError(
            f"{recording.path}: no PointCloud2 topic to take depth from; record the LiDAR, or name depth images with "
            "--depth-topic"
        )
    clouds = StampedTopic(recording.bag, cloud_topic) if cloud_topic else None
    notes["depth"] = wanted.depth_topic if depth else f"{cloud_topic}, {wanted.sweeps} cloud(s) an image"

    network, semantic, mapping, points = None, {}, None, None
    if wanted.network:
        network = Segmenter(wanted.network, wanted.network_config)
        table = _agreed(table, network.mapping.classes)
        notes["semantics"] = f"network {wanted.network.name}"
    elif wanted.semantic_topic:
        mapping = _mapping(wanted.mapping, table)
        semantic = _per_camera(recording, wanted.semantic_topic, "--semantic-topic")
        notes["semantics"] = wanted.semantic_topic
    elif clouds is not None:
        points = _points(clouds, wanted, table, recording.path)
        if points is not None:
            mapping = points.mapping
            named = wanted.label_files or f"field '{points.name}' of {cloud_topic}"
            notes["semantics"] = str(named)
    if wanted.mapping and mapping is None:
        raise LabelError(
            "--mapping was given, but there are no ids to map; name --label-field, --label-files or --semantic-topic"
        )
    notes.setdefault(
        "semantics", "none; give --label-field, --label-files, --semantic-topic or --network to have classes"
    )
    table = table or (mapping.classes if mapping else OCC3D_NUSCENES)
    lidar = None
    if clouds is not None:
        lidar = Lidar(recording, clouds, points, wanted.sweeps, wanted.max_time_diff)
    occlusion = None if wanted.keep_hidden else Occlusion()
    masks = {} if wanted.masks is None else _masks(recording, wanted.masks)
    if wanted.sweeps > 1 and not (points or semantic or network):
        notes["caution"] = "several clouds an image without classes: what moves is smeared, as nothing tells it apart"
    return Sources(table, lidar, depth, semantic, mapping, network, occlusion, wanted.min_depth, masks), notes


def _masks(recording: Recording, folder: Path) -> dict[str, np.ndarray]:
    """<camera>.png of each camera that sees the vehicle itself: pixels other than 0 show it."""
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
                f"{file}: is {size} but the camera is {model.width}x{model.height}; paint it on an image of it"
            )
        masks[camera] = image > 0
    if not masks:
        raise LabelError(f"{folder}: no <camera>.png in it of {', '.join(recording.cameras)}")
    return masks


def _points(
    clouds: StampedTopic, wanted: Namespace, table: ClassTable | None, bag: Path
) -> LabelField | LabelFiles | None:
    """Where the classes of points come from; None where nothing says."""
    if wanted.label_files:
        suffixes = {file.suffix for file in Path(wanted.label_files).glob("*")} & set(_OWN_MAPPING)
        own = _OWN_MAPPING[suffixes.pop()] if len(suffixes) == 1 else None
        if wanted.mapping is None and own is None:
            raise LabelError(
                f"{wanted.label_files}: expected files of one kind, .label or .bin; name the folder that holds them"
            )
        return LabelFiles(wanted.label_files, clouds.stamps, _mapping(wanted.mapping or own, table))
    try:
        message = cdr.read_point_cloud(clouds.read(clouds.stamps[0]))
    except cdr.MessageError as error:
        raise LabelError(f"{clouds.bag.path}: {clouds.topic} at {seconds_text(clouds.stamps[0])} s: {error}") from None
    fields = [field.name for field in message.fields]
    if wanted.label_field is None and "label" not in fields:
        return None
    name = wanted.label_field or "label"
    if name not in fields:
        raise LabelError(f"{clouds.bag.path}: {clouds.topic} has no field '{name}'; it has {', '.join(fields)}")
    if wanted.mapping is None:
        table = class_table(wanted.classes, bag)  # an imported recording knows what the ids in its clouds mean
    return LabelField(name, _mapping(wanted.mapping, table))


def _mapping(name: str | None, table: ClassTable | None) -> ClassMapping:
    if name is None:
        return ClassMapping.identity(table or OCC3D_NUSCENES)
    if name not in BUILT_IN and not Path(name).is_file():
        raise LabelError(f"--mapping {name}: there is no such file, and the built-in ones are {', '.join(BUILT_IN)}")
    return load_mapping(name, table)


def _agreed(table: ClassTable | None, other: ClassTable) -> ClassTable:
    if table is not None and table != other:
        raise LabelError("--classes names another table than the network's description; leave it out")
    return other


def _per_camera(recording: Recording, template: str, option: str) -> dict[str, StampedTopic]:
    """{camera: topic} of the cameras that have one; raw, or compressed in one of ROS's ways."""
    if "{camera}" not in template:
        raise LabelError(f"{option} is {template!r}; write {{camera}} where the camera's name stands")
    found = {}
    for camera in recording.cameras:
        name = template.replace("{camera}", camera)
        name = name if name.startswith("/") else f"/{name}"
        for topic in (name, f"{name}/compressed", f"{name}/compressedDepth"):
            there = recording.bag.topics.get(topic)
            if there is not None and there.count and there.type in _IMAGES:
                found[camera] = StampedTopic(recording.bag, topic)
                break
    if not found:
        raise LabelError(
            f"{recording.path}: no images on {template} of any camera ({', '.join(recording.cameras)}); see {option}"
        )
    return found
