"""Targets: recordings and what lies beside them. Bags, notes, prepared tables, journals, other people's datasets."""

from __future__ import annotations

import functools
import io
import itertools
import json
import random
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag, BagError
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.shard import ShardWriter
from training.data.prepare.tables import ARRAYS, HEADER, Tables, TablesError
from training.recordings.importers.devkit import DevkitTables, records
from training.recordings.importers.importing import DatasetError
from training.recordings.importers.nuscenes import _check_truth, _Source
from training.recordings.importers.nuscenes_tables import lidarseg_files, scene_names
from training.recordings.importers.semantickitti import Sequence
from training.recordings.notes import noted_classes

from .files import _mutate_archive, _mutate_array, scratch
from .messages import tf_bytes
from .mutate import mutate_bytes, mutate_json, mutate_text, one_of_files, with_words
from .target import Target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny_bag import Plan, write_bag

__all__ = ["TARGETS"]

_STORE = get_typestore(Stores.ROS2_JAZZY)
_MOST_MESSAGES = 64
_QOS = "- history: 1\n  depth: 10\n  reliability: 1\n  durability: 2\n"


# ----------------------------------------------------------------------------------------------------------------- bags


def _small_bag(name: str, storage: StoragePlugin, mode: CompressionMode | None = None) -> Path:
    folder = scratch() / name
    shutil.rmtree(folder, ignore_errors=True)
    writer = Writer(folder, version=9, storage_plugin=storage)
    if mode:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        images = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=_STORE)
        tf = writer.add_connection("/tf", "tf2_msgs/msg/TFMessage", typestore=_STORE)
        for step in range(3):
            writer.write(images, step * 10, cdr.write_image(step, "front", np.zeros((2, 2), np.uint8), "mono8"))
            writer.write(tf, step * 10 + 1, tf_bytes([("a", "b", step, (0, 0, 0), (0, 0, 0, 1))]))
    return folder


def _storage(name: str, storage: StoragePlugin, suffix: str, *modes: CompressionMode) -> list[bytes]:
    folders = [_small_bag(f"{name}{index}", storage, mode) for index, mode in enumerate((None, *modes))]
    return [next(folder.glob(f"*{suffix}")).read_bytes() for folder in folders]


def _read_bag(path: Path) -> None:
    with Bag(path) as bag:
        assert isinstance(bag.message_count, int)
        for topic, stamp_ns, data in itertools.islice(bag.messages(), _MOST_MESSAGES):
            assert topic in bag.topics and isinstance(stamp_ns, int) and isinstance(data, bytes)


def _mcap(data: bytes) -> None:
    path = scratch() / "fuzz.mcap"
    path.write_bytes(data)
    _read_bag(path)


def _sqlite(data: bytes) -> None:
    path = scratch() / "fuzz.db3"
    path.write_bytes(data)
    _read_bag(path)


def _mutate_mcap(data: bytes, rng: random.Random) -> bytes:
    """A record's length or content changed; the checksums of MCAP are optional, and zero means that there is none."""
    if rng.random() < 0.5 or len(data) < 20:
        return mutate_bytes(data, rng)
    places, at = [], 8
    while at + 9 <= len(data) - 8:
        length = int.from_bytes(data[at + 1 : at + 9], "little")
        places.append((at, length))
        at += 9 + length
    at, length = rng.choice(places or [(0, 8)])
    end = min(at + 9 + length, len(data))
    record = data[at:end]
    way = rng.random()
    if way < 0.2:
        return data[:end] + record + data[end:]
    if way < 0.4:
        return data[:at] + data[end:]
    changed = mutate_bytes(record[9:], rng)
    return data[:at] + record[:1] + len(changed).to_bytes(8, "little") + changed + data[end:]


_PACKED = ("metadata.yaml", "packed.mcap.zstd", "packed.db3.zstd", "messages.db3")


@functools.cache
def _packed_files() -> dict[str, bytes]:
    by_file = _small_bag("packed", StoragePlugin.SQLITE3, CompressionMode.FILE)
    by_message = _small_bag("messages", StoragePlugin.SQLITE3, CompressionMode.MESSAGE)
    found = {path.name: path.read_bytes() for folder in (by_file, by_message) for path in folder.iterdir()}
    found["message_metadata.yaml"] = (by_message / "metadata.yaml").read_bytes()
    found["metadata.yaml"] = (by_file / "metadata.yaml").read_bytes()
    return found


def _packed_seeds() -> list[bytes]:
    files = _packed_files()
    packed = next(name for name in files if name.endswith(".zstd"))
    with_qos = files["metadata.yaml"].replace(
        b"offered_qos_profiles: []", b'offered_qos_profiles: "' + _QOS.replace("\n", "\\n").encode() + b'"'
    )
    return [
        b"\x00" + files["metadata.yaml"],
        b"\x00" + with_qos,
        b"\x01" + files["message_metadata.yaml"],
        b"\x02" + files[packed],
        b"\x03" + files["messages.db3"],
    ]


def _packed(data: bytes) -> None:
    """A compressed recording, one of its files replaced: metadata or storage, compressed by file or by message."""
    files = dict(_packed_files())
    packed = next(name for name in files if name.endswith(".zstd"))
    which = data[0] % 4 if data else 0
    by_message = which in (1, 3)
    metadata = files["message_metadata.yaml" if by_message else "metadata.yaml"]
    storage_name = "messages.db3" if by_message else packed
    storage = data[1:] if which in (2, 3) else files[storage_name]
    folder = scratch() / "fuzz_bag"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "metadata.yaml").write_bytes(data[1:] if which in (0, 1) else metadata)
    (folder / storage_name).write_bytes(storage)
    _read_bag(folder)


# ---------------------------------------------------------------------------------------------------- notes and tables


def _notes() -> list[bytes]:
    note = {"classes": OCC3D_NUSCENES.to_dict(), "made": "2026-01-01"}
    return [b"\x00" + json.dumps(note).encode(), b"\x01" + json.dumps(note).encode()]


def _note(data: bytes) -> None:
    folder = scratch() / "note"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / ("labels.yaml", "import.json")[data[0] % 2 if data else 0]).write_bytes(data[1:])
    table = noted_classes(folder)
    assert table is None or 2 <= len(table) <= 255


_TABLE_FILES = (HEADER, *(f"{name}.npy" for name in ARRAYS), "pixels.bin", "distances.bin", "images.bin", "truth.bin")


@functools.cache
def _prepared() -> Path:
    bag = scratch() / "tiny"
    if not bag.exists():
        write_bag(bag, Plan(frames=2))
        (bag / "occupancy").mkdir()
    return prepare_recording(bag, None, scratch() / "prepared", PrepareConfig())


def _tables_seeds() -> list[bytes]:
    small = [(i, name) for i, name in enumerate(_TABLE_FILES) if not name.endswith(".bin")]
    return [bytes([index]) + (_prepared() / name).read_bytes() for index, name in small]


def _tables(data: bytes) -> None:
    """Prepared tables with one file replaced, then everything that training reads of them."""
    source, folder = _prepared(), scratch() / "tables_fuzzed"
    folder.mkdir(exist_ok=True)
    which = data[0] % len(_TABLE_FILES) if data else 0
    for index, name in enumerate(_TABLE_FILES):
        path = folder / name
        path.unlink(missing_ok=True)
        if index == which:
            path.write_bytes(data[1:])
        else:
            path.hardlink_to(source / name)
    tables = Tables(folder)
    frames, cameras = len(tables), len(tables.cameras)
    assert tables.image_stamps.shape == (frames, cameras) and tables.base_from_camera.shape == (frames, cameras, 4, 4)
    assert tables.starts.shape == (frames, cameras, len(tables.classes) + 2)
    for frame, camera in itertools.islice(itertools.product(range(frames), range(cameras)), 8):
        image = tables.image(frame, camera)
        assert image is None or image[0].dtype == np.uint8
        first, last = int(tables.starts[frame, camera, 0]), int(tables.starts[frame, camera, -1])
        assert 0 <= first <= last <= len(tables.pixels)
    for frame in range(min(frames, 2)):
        tables.truth_arrays(frame)


_PLAN = {"bag": "x"}


def _journal_seeds() -> list[bytes]:
    row = {"stamp": 5, "images": [[0, 0, "compressed"], None], "ends": [0, 0, 0, 0], "truth": [-1, 0]}
    lines = [json.dumps({**row, "stamp": stamp}).encode() for stamp in (5, 6)]
    return [b"\n".join(lines) + b"\n", lines[0] + b"\n"]


def _journal(data: bytes) -> None:
    """Lines get the checksum that a whole journal has, except where the input begins with an exclamation mark."""
    out = scratch() / "journals"
    shutil.rmtree(out, ignore_errors=True)
    folder = out / ".x.partial"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(_PLAN, sort_keys=True))
    lines = data.split(b"\n")[:-1] if not data.startswith(b"!") else []
    text = b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)
    (folder / "journal").write_bytes(text or data)
    with ShardWriter(out, "x", _PLAN) as writer:
        assert writer.done >= 0


# --------------------------------------------------------------------------------------------------- importers' parsing


def _devkit_seeds() -> list[bytes]:
    return [b'[{"token": "a", "name": "b", "n": [1, 2.5, null]},\n {"token": "c", "name": "d", "n": {}}]\n', b"[]"]


def _devkit(data: bytes) -> None:
    path = scratch() / "v1.0-mini" / "scene.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    assert all(isinstance(record, dict) for record in records(path))


_NUSCENES = ("scene", "sample", "sensor", "calibrated_sensor", "sample_data", "ego_pose", "category", "lidarseg")


def _nuscenes_table(name: str) -> list[dict]:
    unit = {"translation": [1, 2, 3], "rotation": [1, 0, 0, 0]}
    data = {"sample_token": "s", "ego_pose_token": "e", "timestamp": 5, "is_key_frame": True}
    camera = {**data, "token": "d1", "calibrated_sensor_token": "c1", "width": 32, "height": 16, "filename": "a.jpg"}
    lidar = {**data, "token": "d2", "calibrated_sensor_token": "c2", "width": 0, "height": 0, "filename": "a.bin"}
    return {
        "scene": [{"token": "x", "name": "scene-1"}],
        "sample": [{"token": "s", "scene_token": "x"}],
        "sensor": [
            {"token": "f", "channel": "CAM_FRONT", "modality": "camera"},
            {"token": "l", "channel": "LIDAR_TOP", "modality": "lidar"},
        ],
        "calibrated_sensor": [
            {"token": "c1", "sensor_token": "f", "camera_intrinsic": [[30, 0, 16], [0, 30, 8], [0, 0, 1]], **unit},
            {"token": "c2", "sensor_token": "l", "camera_intrinsic": [], **unit},
        ],
        "sample_data": [camera, lidar],
        "ego_pose": [{"token": "e", **unit}],
        "category": [{"name": "noise", "index": 0}, {"name": "animal", "index": 1}],
        "lidarseg": [{"sample_data_token": "d2", "filename": "b.bin"}],
    }[name]


def _nuscenes_seeds() -> list[bytes]:
    return [bytes([i]) + json.dumps(_nuscenes_table(name)).encode() for i, name in enumerate(_NUSCENES)]


def _nuscenes(data: bytes) -> None:
    """The tables of one scene with one of them replaced, as far as an import goes before it opens pictures."""
    tables = DevkitTables(scratch() / "nuscenes", "v1.0-mini")
    tables.folder.mkdir(parents=True, exist_ok=True)
    which = data[0] % len(_NUSCENES) if data else 0
    for index, name in enumerate(_NUSCENES):
        content = data[1:] if index == which else json.dumps(_nuscenes_table(name)).encode()
        tables.path(name).write_bytes(content)
    names = scene_names(tables, None)
    source = _Source(tables, names, lidarseg_files(tables), None, False, "mcap", lambda _: None)
    source._read_tables()
    for scene in source._scenes.values():
        for channel in source._channels(scene):
            assert source._camera(scene, channel).model.width > 0
        source._lidar(scene)


_KITTI = ("calib.txt", "times.txt", "poses.txt", "velodyne/000000.bin", "labels/000000.label")


def _kitti_file(name: str) -> bytes:
    P = b"700 0 600 %d 0 700 180 0 0 0 1 0\n"
    return {
        "calib.txt": b"".join(b"P%d: " % i + P % i for i in range(4)) + b"Tr: 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.3\n",
        "times.txt": b"0.0\n1.036e-01\n",
        "poses.txt": b"1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0.1 0 1 0 0 0 0 1 1.3\n",
        "velodyne/000000.bin": np.linspace(-5, 5, 12).astype("<f4").tobytes(),
        "labels/000000.label": np.array([40, 10, 1 << 16 | 252], "<u4").tobytes(),
    }[name]


def _kitti(data: bytes) -> None:
    folder = scratch() / "kitti"
    which = data[0] % len(_KITTI) if data else 0
    for index, name in enumerate(_KITTI):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[1:] if index == which else _kitti_file(name))
    sequence = Sequence(folder)
    assert len(sequence.poses) == len(sequence.stamps) and all(np.isfinite(pose).all() for pose in sequence.poses)
    assert all(isinstance(stamp, int) for stamp in sequence.stamps)
    cloud = sequence.cloud(0)
    assert len(cloud.points) == len(cloud.intensity) == len(cloud.label)


def _occ3d_seeds() -> list[bytes]:
    """The real shape is 200 x 200 x 16; of another shape all else is checked as well."""
    made = []
    for shape in ((200, 200, 16), (2, 3, 4)):
        buffer, ones = io.BytesIO(), np.ones(shape, np.uint8)
        np.savez_compressed(buffer, semantics=ones, mask_lidar=ones, mask_camera=ones)
        made.append(buffer.getvalue())
    return made


def _occ3d(data: bytes) -> None:
    _check_truth(Path("labels.npz"), data)


_MCAP_LIB = ("renderocc_model/rosio/bags.py",)
_TABLES = ("training/data/prepare/tables.py",)
_yaml_metadata = with_words("&a ", "*a", "zstd", "file", "message", "none", "- ", "[]", "{}", "../", "!!timestamp x")
_table_mutators = [mutate_json] + [_mutate_array] * len(ARRAYS) + [mutate_bytes] * 4

_ALL = (
    Target(
        "bag_mcap",
        _mcap,
        lambda: _storage("mcap", StoragePlugin.MCAP, ".mcap", CompressionMode.STORAGE),
        (BagError,),
        _MCAP_LIB,
        _mutate_mcap,
        16 << 20,
        16384,
    ),
    Target(
        "bag_sqlite",
        _sqlite,
        lambda: _storage("sqlite", StoragePlugin.SQLITE3, ".db3"),
        (BagError,),
        _MCAP_LIB,
        memory=16 << 20,
        largest=1 << 16,
    ),
    Target(
        "bag_packed",
        _packed,
        _packed_seeds,
        (BagError,),
        _MCAP_LIB,
        one_of_files([_yaml_metadata, _yaml_metadata, mutate_bytes, mutate_bytes]),
        16 << 20,
        1 << 16,
    ),
    Target(
        "note",
        _note,
        _notes,
        (ValueError,),
        ("training/recordings/notes.py",),
        one_of_files([with_words("&a ", "*a", ".inf", "!!set "), mutate_json]),
    ),
    Target("tables", _tables, _tables_seeds, (TablesError,), _TABLES, one_of_files(_table_mutators), 16 << 20),
    Target("journal", _journal, _journal_seeds, (TablesError,), ("training/data/prepare/shard.py",), mutate_json),
    Target(
        "devkit_table",
        _devkit,
        _devkit_seeds,
        (DatasetError,),
        ("training/recordings/importers/devkit.py",),
        mutate_json,
        8 << 20,
    ),
    Target(
        "nuscenes",
        _nuscenes,
        _nuscenes_seeds,
        (DatasetError,),
        ("training/recordings/importers/nuscenes.py", "training/recordings/importers/nuscenes_tables.py"),
        one_of_files([mutate_json] * len(_NUSCENES)),
        32 << 20,
    ),
    Target(
        "kitti",
        _kitti,
        lambda: [bytes([i]) + _kitti_file(name) for i, name in enumerate(_KITTI)],
        (DatasetError,),
        ("training/recordings/importers/semantickitti.py",),
        one_of_files([mutate_text] * 3 + [mutate_bytes] * 2),
    ),
    Target(
        "occ3d_truth",
        _occ3d,
        _occ3d_seeds,
        (DatasetError,),
        ("training/recordings/importers/nuscenes.py", "training/recordings/importers/nuscenes_tables.py"),
        _mutate_archive,
        16 << 20,
    ),
)
TARGETS = {target.name: target for target in _ALL}
