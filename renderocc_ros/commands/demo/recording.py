"""The demo as a recording: what was played and what the node published for it, one MCAP for RViz and Foxglove."""

from __future__ import annotations

import contextlib
import heapq
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.rosio.bags import Bag, Topic

__all__ = ["Outputs", "write_recording"]

_UNLIMITED = QosTime(9223372036, 854775807)
_ROOM = 1.5  # times the recording's size that must be free on the disk


class Outputs:
    """Messages as bytes, written to a bag of their own as they come; a context manager.

    Args:
        folder: of the bag; it does not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()
        self._open = False

    def __enter__(self) -> Outputs:
        self._writer.open()
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open = False
            self._writer.close()

    def add(self, topic: str, kind: str, stamp_ns: int, data: bytes, latched: bool = False) -> None:
        """Append a message of the type `kind`, received at `stamp_ns`; after the end it is dropped."""
        with self._lock:
            if not self._open:
                return
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, kind, typestore=self._store, offered_qos_profiles=[reliable(latched)]
                )
            self._writer.write(self._connections[topic], stamp_ns, data)


def reliable(latched: bool, depth: int = 10) -> Qos:
    """Of a reliable publisher; latched: transient local."""
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _UNLIMITED,
        _UNLIMITED,
        QosLiveliness.AUTOMATIC,
        _UNLIMITED,
        False,
    )


def write_recording(inputs: Path, outputs: Path, folder: Path) -> str:
    """Merge two bags, by their record times, into an MCAP at `folder`, which replaces an earlier one.

    Topics whose type no ROS distribution has are left out; so is everything where the disk has no room for it.

    Returns:
        What to tell the user, one line.
    """
    size = sum(path.stat().st_size for path in ([inputs] if inputs.is_file() else inputs.rglob("*")) if path.is_file())
    if shutil.disk_usage(folder.parent).free < _ROOM * size:
        return f"no room on the disk for a copy of {inputs} with the node's outputs; none was written"
    partial = folder.with_name(f".{folder.name}.partial")
    for old in (partial, folder):
        if (old / "metadata.yaml").exists() or old.name == partial.name:  # ours
            shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        return f"{folder} is in the way and no recording; no recording of inputs and outputs was written"
    with contextlib.ExitStack() as stack:
        bags = [stack.enter_context(Bag(path)) for path in (inputs, outputs)]
        left_out = copy(bags, stack.enter_context(Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP)))
    partial.rename(folder)
    without = f", without {', '.join(left_out)}" if left_out else ""
    return f"wrote {folder}: inputs and outputs in one MCAP, for RViz and Foxglove{without}"


def copy(bags: Iterable[Bag], writer: Writer) -> list[str]:
    """Copy the messages of bags by their record times; the names of topics whose types are not known."""
    store = get_typestore(Stores.ROS2_JAZZY)
    connections: dict[str, Connection] = {}
    topics: dict[str, Topic] = {}
    for bag in bags:
        topics.update({name: topic for name, topic in bag.topics.items() if topic.count and name != "/clock"})
    for name, topic in topics.items():
        if topic.type in store.types:
            qos = list(topic.qos) or [reliable(name == "/tf_static")]
            connections[name] = writer.add_connection(name, topic.type, typestore=store, offered_qos_profiles=qos)
    streams = [bag.messages(set(connections)) for bag in bags]
    for name, stamp_ns, data in heapq.merge(*streams, key=lambda message: message[1]):
        writer.write(connections[name], stamp_ns, data)
    return sorted(set(topics) - set(connections))
