"""The node's parameters for playing a recording, found in the recording's metadata.yaml. The launch file uses it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renderocc_model.base.config import from_mapping, nested, settings_of
from renderocc_model.base.plain_yaml import read_yaml
from renderocc_model.rosio.camera_search import find_cameras
from renderocc_model.rosio.transform_topics import ODOMETRY, TRANSFORMS, other_topics
from renderocc_model.rosio.vehicle import Vehicle, absolute

__all__ = ["parameters_of_recording"]

_MOST_BYTES = 16 << 20  # of metadata.yaml


def parameters_of_recording(folder: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a recording needs beside those that its vehicle's file gives.

    Topics become absolute, so that the namespace of a node does not move those of a recording.

    Args:
        folder: what `ros2 bag record` wrote, with metadata.yaml.
        given: {name: value}, the node's parameters; names may be nested. Those of `Vehicle` count.
    Returns:
        cameras, image_topic and camera_info_topic, if it has cameras; tf_topic, tf_static_topic and odom_topic, if they
        have their defaults and the recording has them under another name, and under one only. Odometry counts where the
        recording has no moving transforms.
    Raises:
        ValueError: the metadata is missing or cannot be read, or a given value is wrong.
    """
    types = _topic_types(Path(folder))
    known = {one.name for one in settings_of(Vehicle)}
    chosen = {name: value for name, value in _flat(given) if name in known}
    vehicle = from_mapping(Vehicle, nested(chosen), where="parameters")
    parameters: dict[str, Any] = {}
    found = find_cameras(types, vehicle)
    if found.cameras:
        parameters["cameras"] = list(found.cameras)
        parameters["image_topic"] = absolute(found.image_topic)
        parameters["camera_info_topic"] = absolute(vehicle.camera_info_topic)
    transforms = [topic for topic, kinds in types.items() if TRANSFORMS in kinds]
    for name, usual in (("tf_topic", Vehicle.tf_topic), ("tf_static_topic", Vehicle.tf_static_topic)):
        others = other_topics(transforms, usual)
        if getattr(vehicle, name) == usual and usual not in transforms and len(others) == 1:
            parameters[name] = others[0]
    moving = absolute(parameters.get("tf_topic", vehicle.tf_topic)) in transforms
    odometry = [topic for topic, kinds in types.items() if ODOMETRY in kinds]
    if vehicle.odom_frame and not vehicle.odom_topic and not moving and len(odometry) == 1:
        parameters["odom_topic"] = odometry[0]
    return parameters


def _topic_types(folder: Path) -> dict[str, tuple[str, ...]]:
    """{name: message types} of the topics that have messages."""
    metadata = folder / "metadata.yaml"
    if not metadata.is_file():
        raise ValueError(f"{folder}: there is no {metadata}; give the folder that `ros2 bag record` wrote")
    try:
        entries = read_yaml(metadata, _MOST_BYTES)["rosbag2_bagfile_information"]["topics_with_message_count"]
        topics = [entry["topic_metadata"] for entry in entries if entry["message_count"]]
        return {str(topic["name"]): (str(topic["type"]),) for topic in topics}
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: {metadata} cannot be read: {error}; run `ros2 bag reindex`") from None


def _flat(given: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(name, value) of parameters, nested names joined by '.'; lists without their empty entries."""
    flat: list[tuple[str, Any]] = []
    for key, value in given.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            given_value = [item for item in value if item != ""] if isinstance(value, list) else value
            flat.append((f"{prefix}{key}", given_value))
    return flat
