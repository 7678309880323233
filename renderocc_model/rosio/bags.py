"""rosbag2 recordings as raw bytes, without ROS: what the player and the doctor share.

A recording is a folder with a metadata.yaml (MCAP or SQLite3 files, split or not, plain or zstd-compressed), or one
bare .mcap or .db3 file. Topics, counts and times come from the storage files themselves; metadata.yaml says which files
belong to the recording, how they are compressed, and the QoS where the files do not say.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rosbags.interfaces import ConnectionExtRosbag2, Qos

from renderocc_model.base.plain_yaml import read_yaml
from renderocc_model.rosio.bounds import StorageReader, bounded_qos, open_bounded, unpack_file, unpacked_message

__all__ = ["Bag", "BagError", "Topic"]

MAX_METADATA_BYTES = 16 << 20  # ten thousand files and topics are 4 MB


class BagError(ValueError):
    """A recording that cannot be read: names the file, what is wrong with it and what to do."""


@dataclass(frozen=True)
class Topic:
    """One recorded topic.

    Attributes:
        name: absolute topic name.
        type: message type, 'sensor_msgs/msg/Image'.
        count: messages in the recording.
        qos: what each recorded publisher offered; empty where the recorder did not write it.
    """

    name: str
    type: str
    count: int
    qos: tuple[Qos, ...]


class Bag:
    """An open recording; use as a context manager.

    Attributes:
        path: as given.
        topics: by name, in the order of the files.
        start_ns, end_ns: record times of the first and the last message, integer nanoseconds.
        message_count: over all topics.
        notes: what looks wrong but does not keep the recording from being read, one line each.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a recording.

        Raises:
            BagError: it is not a rosbag2 recording, is cut off or damaged, or uses a storage that is not supported.
        """
        self.path = Path(path)
        self.topics: dict[str, Topic] = {}
        self.notes: list[str] = []
        self._stack = contextlib.ExitStack()
        self._readers: list[tuple[Path, StorageReader]] = []
        self._metadata: dict = {}
        try:
            for file in self._storage_files():
                reader = open_storage(file)
                self._stack.callback(reader.close)
                self._readers.append((file, reader))
            self._collect_topics()
        except BaseException:
            self._stack.close()
            raise
        contents = [reader.metadata for _, reader in self._readers if reader.metadata.message_count]
        self.start_ns = min((content.start_time for content in contents), default=0)
        self.end_ns = max((content.end_time - 1 for content in contents), default=0)
        self.message_count = sum(content.message_count for content in contents)
        promised = self._metadata.get("message_count")
        if promised is not None and promised != self.message_count:
            self.notes.append(f"metadata.yaml promises {promised} messages, the files hold {self.message_count}")

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and remove what was unpacked; harmless when called twice."""
        self._readers.clear()
        self._stack.close()

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """Read messages in the order of their record times, a storage chunk at a time.

        Args:
            topics: names; None for all.
            start_ns, stop_ns: record times, from start_ns on and before stop_ns.
        Yields:
            (topic, record time in ns, the message's CDR bytes with their encapsulation header).
        Raises:
            BagError: the file is damaged at this place; or its index lists messages of a topic, and there are none.
        """
        unpack = unpacked_message if self._compression() == "message" else None
        for file, reader in self._readers:
            connections = [c for c in reader.connections if c.msgcount and (topics is None or c.topic in topics)]
            if not connections:
                continue
            unseen = {connection.topic for connection in connections}
            with damage_named(file):
                for connection, stamp_ns, data in reader.messages(connections, start_ns, stop_ns):
                    unseen.discard(connection.topic)
                    yield connection.topic, stamp_ns, unpack(data) if unpack else data
            if unseen and start_ns is None and stop_ns is None:
                remedy = "mcap recover IN -o OUT" if file.suffix == ".mcap" else "sqlite3 IN .recover | sqlite3 OUT"
                raise BagError(
                    f"{file}: its summary counts messages on {', '.join(sorted(unseen))}, but its index lists none; "
                    f"write the index again: {remedy}"
                )

    def _compression(self) -> str:
        mode = str(self._metadata.get("compression_mode") or "").lower()
        return "" if mode == "none" else mode

    def _storage_files(self) -> list[Path]:
        """The files to read, in order; unpacks file-compressed ones into a temporary folder."""
        path = self.path
        if not path.exists():
            raise BagError(f"{path}: there is no such file or folder")
        if path.is_file():
            return [path]
        metadata_path = path / "metadata.yaml"
        if not metadata_path.exists():
            loose = sorted(file.name for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
            remedy = "this folder is not a rosbag2 recording"
            if loose:
                remedy = f"the recorder was killed before writing it: ros2 bag reindex {path}"
                part = f"name {loose[0]} itself" if len(loose) == 1 else f"name one of its {len(loose)} files, which is"
                remedy += f", or {part}" + (" only a part of the recording" if len(loose) > 1 else "")
            raise BagError(f"{path}: no metadata.yaml in it; {remedy}")
        self._metadata = read_metadata(metadata_path)
        files = [path / PurePosixPath(name).name for name in self._metadata["relative_file_paths"]]
        for file in files:
            if not os.path.exists(file):  # `file.exists()` raises where it is no name that a file can have
                raise BagError(
                    f"{metadata_path}: {file.name:.200} is listed but not in the folder; copy the whole recording"
                )
        compression, form = self._compression(), self._metadata.get("compression_format")
        if compression and (compression not in ("file", "message") or form != "zstd"):
            raise BagError(f"{metadata_path}: compression {compression!r} by {form!r} is not supported; zstd is")
        return [self._unpacked(file) for file in files] if compression == "file" else files

    def _unpacked(self, file: Path) -> Path:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="renderocc_bag_")))
        target = folder / file.stem
        with damage_named(file), file.open("rb") as packed:
            unpack_file(packed, target)
        return target

    def _collect_topics(self) -> None:
        """Merge the connections of all files: counts add up, QoS profiles are collected once each."""
        try:
            entries = self._metadata.get("topics_with_message_count") or []
            described = [entry.get("topic_metadata") or {} for entry in entries]
            listed = {str(topic.get("name")): topic for topic in described}
        except (AttributeError, TypeError):
            raise BagError(
                f"{self.path / 'metadata.yaml'}: topics_with_message_count is no list of topics; ros2 bag reindex "
                f"{self.path}"
            ) from None
        for file, reader in self._readers:
            for connection in reader.connections:
                assert isinstance(connection.ext, ConnectionExtRosbag2)
                form = connection.ext.serialization_format
                if form not in ("cdr", ""):
                    raise BagError(
                        f"{file}: topic {connection.topic} is serialised as {form!r}; only 'cdr' is supported"
                    )
                known = self.topics.get(connection.topic)
                if known and known.type != connection.msgtype:
                    raise BagError(
                        f"{file}: topic {known.name} was recorded as {known.type} and as {connection.msgtype}"
                    )
                qos = list(known.qos) if known else []
                qos += [profile for profile in connection.ext.offered_qos_profiles if profile not in qos]
                count = connection.msgcount + (known.count if known else 0)
                self.topics[connection.topic] = Topic(connection.topic, connection.msgtype, count, tuple(qos))
        for name, entry in listed.items():
            topic = self.topics.get(name)
            if topic and not topic.qos:
                with damage_named(self.path / "metadata.yaml"):
                    described_qos = tuple(bounded_qos(entry.get("offered_qos_profiles") or []))
                self.topics[topic.name] = Topic(topic.name, topic.type, topic.count, described_qos)


def open_storage(file: Path) -> StorageReader:
    """Open one .mcap or .db3 file; the caller closes it.

    Raises:
        BagError: what is wrong with the file and what to do about it.
    """
    if file.suffix == ".bag":
        raise BagError(
            f"{file}: this is a ROS 1 bag; convert it: rosbags-convert --src {file} --dst {file.with_suffix('')}"
        )
    if file.suffix not in (".mcap", ".db3"):
        raise BagError(
            f"{file}: not a rosbag2 storage file; expected .mcap or .db3, or the folder that holds metadata.yaml"
        )
    if file.stat().st_size == 0:
        raise BagError(f"{file}: the file is empty; nothing was recorded or the copy failed")
    journal = file.with_name(file.name + "-wal")
    if journal.exists() and journal.stat().st_size:
        raise BagError(
            f"{file}: the recorder was killed, {journal.name} still holds messages; ros2 bag reindex {file.parent}"
        )
    with damage_named(file):
        return open_bounded(file)


def read_metadata(path: Path) -> dict:
    """The `rosbag2_bagfile_information` of a metadata.yaml, checked for what is used here.

    Raises:
        BagError: it is not YAML, or not the metadata of a recording.
    """
    try:
        metadata = read_yaml(path, MAX_METADATA_BYTES)["rosbag2_bagfile_information"]
        names = metadata["relative_file_paths"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise BagError(
                f"{path}: relative_file_paths is {names!r}, expected file names; ros2 bag reindex {path.parent}"
            )
    except BagError:
        raise
    except (OSError, ValueError) as error:
        raise BagError(f"{path}: cannot be read: {one_line(error)}; ros2 bag reindex {path.parent}") from None
    except (KeyError, TypeError) as error:
        raise BagError(
            f"{path}: not the metadata of a rosbag2 recording ({one_line(error)}); ros2 bag reindex {path.parent}"
        ) from None
    return metadata


@contextlib.contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """Turn whatever the storage parsers raise on damaged bytes into one BagError that names the file."""
    try:
        yield
    except (BagError, GeneratorExit, KeyboardInterrupt):
        raise
    except PermissionError:
        raise BagError(f"{file}: no permission to read it") from None
    except (
        Exception
    ) as error:  # struct.error, zstd and SQLite errors, TypeError of ord(b''): anything, on arbitrary bytes
        raise BagError(f"{file}: {explain(file, error)}") from error


def explain(file: Path, error: Exception) -> str:
    """Why a storage file could not be read and what to do, in one line."""
    text = one_line(error)
    if isinstance(error, MemoryError):  # a damaged length asks for more than there is, too
        return "out of memory while reading it; close other programs and try again, or else the file is damaged"
    if file.suffix == ".mcap":
        if "File magic" in text:
            return "this is not an MCAP file"
        if "not ros2" in text:
            return "this MCAP file was not recorded by ROS 2 (its profile is another)"
        if "timestamp order" in text:
            return "the file has no index and its messages are out of order; write the index: mcap recover IN -o OUT"
        if "end magic" in text or "footer" in text or "Truncated" in text:
            return "the file is cut off, its end is missing; save what is there: mcap recover IN -o OUT"
        return f"the file is damaged ({text}); save what is there: mcap recover IN -o OUT"
    if "missing tables" in text or "not a database" in text:
        return "this is not a rosbag2 SQLite recording"
    return f"the file is damaged ({text}); save what is there: sqlite3 IN .recover | sqlite3 OUT"


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()) if str(error) else type(error).__name__
