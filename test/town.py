"""A small recording of the simulated town, made once for all tests, and copies of it with changes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
FRAMES, WIDTH, HEIGHT = 3, 352, 128


@pytest.fixture(scope="session")
def town_bag(tmp_path_factory):
    """Path of a recording of six cameras with LiDAR, labels and 3D truth. Tests must not write to it."""
    from training.simulate.record import Settings, record
    from training.simulate.sensors import town_rig

    folder = tmp_path_factory.mktemp("town") / "drive"
    record(folder, town_rig(WIDTH, HEIGHT), Settings(seed=5, frames=FRAMES, rate=2.0))
    return folder


def rewritten(bag, out, change=None, drop=lambda topic: False, truth=True, types=None):
    """Copy a recording with changes.

    Args:
        bag, out: folders; `out` must not exist.
        change: called with (topic, record time, bytes); returns a list of such triples to write. None copies all.
        drop: topics for which this is true are left out, with their connections.
        truth: whether to copy the 3D truth too.
        types: {topic: message type} of topics that `change` writes and the recording lacks.
    """
    with Reader(bag) as reader, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kept = [connection for connection in reader.connections if not drop(connection.topic)]
        out_of = {
            c.topic: writer.add_connection(
                c.topic, c.msgtype, typestore=STORE, offered_qos_profiles=c.ext.offered_qos_profiles
            )
            for c in kept
        }
        for topic, kind in (types or {}).items():
            out_of[topic] = writer.add_connection(topic, kind, typestore=STORE)
        for connection, stamp, data in reader.messages(kept):
            for topic, when, raw in (
                change(connection.topic, stamp, data) if change else [(connection.topic, stamp, data)]
            ):
                writer.write(out_of[topic], when, raw)
    if truth and (Path(bag) / "occupancy").is_dir():
        shutil.copytree(Path(bag) / "occupancy", Path(out) / "occupancy")
    return out


def restamped(data, by_ns):
    """A serialised message that begins with a header, with another stamp."""
    seconds, nanoseconds = np.frombuffer(data, "<u4", 2, 4).astype(np.int64)
    stamp = int(seconds) * 10**9 + int(nanoseconds) + by_ns
    return data[:4] + np.array(divmod(stamp, 10**9), "<u4").tobytes() + data[12:]


def stamp_of(data):
    """Header stamp in nanoseconds of a serialised message."""
    seconds, nanoseconds = np.frombuffer(data, "<u4", 2, 4).astype(np.int64)
    return int(seconds) * 10**9 + int(nanoseconds)
