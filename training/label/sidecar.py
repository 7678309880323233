"""Writes the sidecar bag: label images at the stamps of a recording's images, and a note about their sources."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.base.plain_yaml import yaml_text
from renderocc_model.field.classes import ClassTable
from renderocc_model.rosio import cdr
from training.recordings.notes import LABELS_NOTE
from training.recordings.recorder import offered_qos

__all__ = ["SidecarWriter", "write_note"]

_KIND = "sensor_msgs/msg/CompressedImage"
_FORMATS = {"semantic": "mono8; png compressed ", "depth": "16UC1; png compressed "}


class SidecarWriter:
    """Writes a sidecar bag; to be used as a context manager.

    Args:
        folder: the folder to write, see `training.recordings.new_bag.new_bag`.
        topics: (camera, "semantic" or "depth") of every topic.
        storage: "mcap" or "sqlite3".
    """

    def __init__(self, folder: Path, topics: list[tuple[str, str]], storage: str = "mcap") -> None:
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()])
        self._topics = topics
        self._connections: dict = {}

    def __enter__(self) -> SidecarWriter:
        self._writer.__enter__()
        store = get_typestore(Stores.ROS2_JAZZY)
        for camera, what in self._topics:
            topic = f"/{camera}/{what}/compressed"
            self._connections[camera, what] = self._writer.add_connection(
                topic, _KIND, typestore=store, offered_qos_profiles=offered_qos(QosDurability.VOLATILE, 10)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, camera: str, what: str, stamp_ns: int, frame_id: str, png: bytes) -> None:
        """Write a label image with the stamp and the optical frame of its image."""
        message = cdr.write_compressed_image(stamp_ns, frame_id, _FORMATS[what], png)
        self._writer.write(self._connections[camera, what], stamp_ns, message)


def write_note(folder: Path, classes: ClassTable, recording: Path, sources: dict[str, str]) -> None:
    """Write labels.yaml: the recording's name, the sources of the labels, and their class table."""
    document = {"recording": recording.name, **sources, "classes": classes.to_dict()}
    (folder / LABELS_NOTE).write_text(yaml_text(document), encoding="utf-8")
