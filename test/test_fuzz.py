"""Bytes from outside: a short fuzzing of every target, and each input that fuzzing found to be handled wrongly.

`make fuzz` is the long form (docs/reliability.md). What it finds comes here as the smallest input that people can read.
"""

import contextlib
import io
import json
import random
import resource
import sqlite3
import struct
import time
import tracemalloc
import zipfile
import zlib

import cv2
import lz4.frame
import numpy as np
import pytest
from fuzz.messages import Writer, camera_info_bytes, tf_bytes
from fuzz.table import NAMES, find
from fuzz.target import examine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import metadata, storage_mcap, storage_sqlite3

from renderocc_model.base.arrays import read_npz
from renderocc_model.base.config import load_yaml
from renderocc_model.base.plain_yaml import read_yaml
from renderocc_model.export.file import read_description
from renderocc_model.field.classes import OCC3D_NUSCENES, ClassTable
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.images.decoding import decode_compressed
from renderocc_model.images.reduction import ImageError
from renderocc_model.network.checkpoint import CheckpointError
from renderocc_model.rosio import bounds, cdr
from renderocc_model.rosio.bags import Bag, BagError
from renderocc_model.rosio.bounds import zstd
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from training.data.prepare.shard import ShardWriter
from training.data.prepare.tables import ARRAYS, TablesError
from training.evaluate.volumes import read_origins, read_volume
from training.recordings.importers.devkit import DevkitTables, records
from training.recordings.importers.importing import DatasetError
from training.recordings.importers.nuscenes_tables import scene_names
from training.recordings.importers.semantickitti import Sequence
from training.recordings.label_images import LabelImageError, png_image
from training.recordings.notes import noted_classes

pytestmark = pytest.mark.slow

# Inputs of each target in the ordinary test run: about half a second each.
_FEW = {"camera_model": 30, "checkpoint": 2, "bag_packed": 10, "tables": 40, "occ3d_truth": 10, "bag_sqlite": 40}


@pytest.mark.parametrize("name", NAMES)
def test_changed_inputs_are_read_or_refused_in_bounded_time_and_memory(name):
    target = find(name)
    rng = random.Random(name)
    seeds = target.seeds()
    for data in seeds:
        assert examine(target, data) is None
    for number in range(_FEW.get(name, 150)):
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = target.mutate(data, rng)[: target.largest]
        finding = examine(target, data, weigh=number % 10 == 0)
        assert finding is None, f"{finding.key}\n{finding.text}\n{data[:2000]!r}"


_ANY = st.one_of(st.floats(), st.floats(-100, 100), st.sampled_from([0.0, 1.0, 1e154, -1.7e308]))
_STAMPS = st.one_of(st.integers(0, 20), st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
_FRAMES = st.sampled_from(["a", "b", "c", "/a", "ds", "", "\u00e9" * 40])
_LINKS = st.tuples(_FRAMES, _FRAMES, _STAMPS, st.tuples(*[_ANY] * 3), st.tuples(*[_ANY] * 4))
_WHOLE = st.one_of(st.integers(0, 3000), st.integers(0, 2**32 - 1))
_MODELS = st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "", "fisheye"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_LINKS, max_size=8))
def test_whatever_tf_says_transforms_are_finite_or_refused(links):
    assert examine(find("tf"), tf_bytes(links)) is None


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    _MODELS,
    st.lists(_ANY, max_size=15).map(tuple),
    st.tuples(_WHOLE, _WHOLE),
    st.tuples(*[_WHOLE] * 4),
    st.tuples(_WHOLE, _WHOLE),
    st.tuples(*[_ANY] * 4),
)
def test_whatever_a_camera_info_says_it_becomes_a_view_or_is_refused(model, D, size, roi, binning, numbers):
    fx, cx, fy, cy = numbers
    data = camera_info_bytes(model, D, size, roi, binning, (fx, 0, cx, 0, fy, cy, 0, 0, 1))
    assert examine(find("cdr_camera_info"), data) is None
    assert examine(find("camera_model"), data) is None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(["x", "y", "z", "rgb"]), st.integers(0, 9), _WHOLE), max_size=5),
    _WHOLE,
    _WHOLE,
    _WHOLE,
    st.binary(max_size=64),
)
def test_whatever_a_cloud_says_its_columns_are_as_long_or_it_is_refused(fields, height, width, point_step, data):
    assert examine(find("cdr_point_cloud"), cloud(fields, height, width, point_step, data)) is None


# ---------------------------------------------------------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    "text", ["a: !!timestamp x", 'a: !!int ""', "a: !!float ''", "!!int '': a", "a: 2001-13-45", "a: !!bool maybe"]
)
def test_yaml_tags_before_something_else_are_refused(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="a.yaml: is not readable YAML"):
        load_yaml(path)


@pytest.mark.parametrize("text", ["1" * 20_000 + "e", "1" * 20_000 + ".e", "1" + ":1" * 500_000, "0x" + "f" * 900_000])
def test_yaml_numbers_of_any_length_take_linear_time(tmp_path, text):
    """Backtracking took 3 s for the first of these, hours for a megabyte; the third took the square of its length."""
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {text}")
    begin = time.process_time()
    try:
        assert load_yaml(path) == {"a": text}
    except ValueError as error:
        assert "a.yaml: is not readable YAML: a number of more than 400 digits" in str(error)
    assert time.process_time() - begin < 2  # a hang, not a speed, is what this tells apart


def test_a_short_yaml_file_takes_little_memory_though_a_long_one_may_be_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")
    tracemalloc.start()
    assert read_yaml(path, 16 << 20) == {"a": 1}
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(ValueError, match="a.yaml: is larger than 3 bytes"):
        read_yaml(path, 3)


def test_a_word_in_place_of_a_number_that_has_choices_is_refused():
    from renderocc_model.base.config import from_mapping
    from renderocc_model.network.config import BackboneConfig

    with pytest.raises(ValueError, match="'stride' is 'eight'"):
        from_mapping(BackboneConfig, {"stride": "eight"})


# ------------------------------------------------------------------------------------------------------- plain numbers


@pytest.mark.parametrize("upper", [(10**400, 1, 1), (1e308, 1, 1), (float("inf"), 1, 1)])
def test_grids_beyond_all_measure_are_refused(upper):
    with pytest.raises(ValueError, match="grid: "):
        VoxelGrid((0, 0, 0), upper, 1e-3)


def test_a_voxel_size_that_is_no_number_is_refused():
    for size in (None, "wide", 10**400, [1]):
        with pytest.raises(ValueError, match="give a positive number of metres"):
            VoxelGrid((0, 0, 0), (1, 1, 1), size)


def test_class_tables_that_are_no_tables_are_refused(tmp_path):
    note = OCC3D_NUSCENES.to_dict()
    for broken in ([], None, {**note, "free": float("inf")}, {**note, "names": 3}, {**note, "dynamic": [[1]]}):
        with pytest.raises(ValueError, match="classes: "):
            ClassTable.from_dict(broken)


def test_a_note_nested_without_end_is_refused_by_name(tmp_path):
    (tmp_path / "import.json").write_text('{"classes": ' + "[" * 100_000)
    with pytest.raises(ValueError, match="import.json: the class table cannot be read"):
        noted_classes(tmp_path)


# ------------------------------------------------------------------------------------------------------- point clouds


def cloud(fields, height, width, point_step=4, data=bytes(8)):
    """A PointCloud2 of one or two fields (name, datatype, count); numbers as they are written in the message."""
    writer = Writer().header(1, "lidar").pack("I", height, width).pack("I", len(fields))
    for name, datatype, count in fields:
        writer.text(name).pack("I", 0).pack("B", datatype).pack("I", count)
    writer.pack("B", 0).pack("I", point_step, len(data)).pack("I", len(data)).data.extend(data + b"\x01")
    return bytes(writer.data)


def test_clouds_of_more_points_than_bytes_are_refused_when_they_are_read():
    most = 2**32 - 1
    for height, width in ((most, most), (3, 3), (1, most)):
        with pytest.raises(cdr.MessageError, match="points do not fit its 8 bytes"):
            cdr.read_point_cloud(cloud([("x", 7, 1)], height, width))


def test_clouds_without_points_have_empty_columns_whatever_else_they_claim():
    message = cdr.read_point_cloud(cloud([("x", 7, 2**32 - 1), ("y", 8, 1)], 0, 2**32 - 1))
    assert len(message) == 0 and message.column("x").shape == (0, 2**32 - 1) and message.column("y").shape == (0,)


def test_coordinates_of_several_values_are_refused():
    fields = [("x", 2, 2), ("y", 2, 1), ("z", 2, 1)]
    with pytest.raises(cdr.MessageError, match="field 'x' has 2 values a point; expected one"):
        cdr.read_point_cloud(cloud(fields, 1, 2)).xyz()


# --------------------------------------------------------------------------------------------------------------- images


def png_chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 20_000_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5_000_000,
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", bytes([0, 0, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0, 0]))
        + png_chunk(b"teSt") * 2_000_000,
    ],
    ids=["fill bytes", "empty segments", "empty chunks"],
)
def test_headers_without_end_are_given_up_soon(data):
    """Walking all of these took 2 to 8 s, in the thread that decodes for the node."""
    array = np.frombuffer(data, np.uint8)
    begin = time.process_time()
    with pytest.raises(ImageError, match="truncated"):
        decode_compressed(array)
    assert time.process_time() - begin < 1


def test_label_images_whose_chunks_claim_gigabytes_are_refused_before_opencv_takes_them():
    """OpenCV took and cleared 764 MB, half a second, for 150 bytes."""
    whole = cv2.imencode(".png", np.zeros((8, 12), np.uint8))[1].tobytes()
    assert png_image(np.frombuffer(whole, np.uint8), 8, 12).shape == (8, 12)
    place = whole.index(b"IDAT") - 4
    data = whole[:place] + struct.pack(">I", 764_346_460) + whole[place + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LabelImageError, match="cannot be decoded: PNG of .* is truncated"):
        png_image(np.frombuffer(data, np.uint8), 8, 12)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_progressive_images_of_endless_scans_are_refused():
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert decode_compressed(np.frombuffer(data, np.uint8)).shape == (64, 64, 3)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="has 10[0-9] scans; expected at most 64"):
        decode_compressed(np.frombuffer(data[:-2] + 100 * last + data[-2:], np.uint8))


# ----------------------------------------------------------------------------------------------------------- transforms


def test_translations_whose_sum_is_infinite_are_refused():
    buffer = TransformBuffer()
    for parent, child in (("a", "b"), ("b", "c")):
        buffer.set(parent, child, 5, (1.7e308, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    with pytest.raises(TransformError, match="from frame .c. to frame .a. is not finite"):
        buffer.lookup("a", "c", 5)
    buffer.set("a", "d", 0, (-1.7e308, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    buffer.set("a", "d", 10, (1.7e308, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    with pytest.raises(TransformError, match="is not finite"):  # between two samples
        buffer.lookup("a", "d", 5)


# ----------------------------------------------------------------------------------------------------------------- bags


def taken(function, match):
    """Bytes that a function takes before it refuses as `match` says."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def opened(path):
    with Bag(path) as bag:
        return list(bag.messages())


@pytest.mark.parametrize("pack", [zstd.compress, lz4.frame.compress], ids=["zstd", "lz4"])
def test_chunks_are_unpacked_to_the_size_they_say_and_no_further(pack):
    kind = "zstd" if pack is zstd.compress else "lz4"
    bomb = pack(bytes(1 << 26))
    unpack = bounds.DECOMPRESSORS[kind]
    assert taken(lambda: unpack(bomb, 1000), "unpacks to more than 1000 bytes") < 1 << 23
    for content in (b"", b"some messages" * 100, bytes(1 << 20)):
        assert unpack(pack(content), len(content)) == content
    with pytest.raises(ValueError, match="cut off"):
        unpack(pack(b"some messages" * 100)[:-9], 1300)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_recording_whose_chunk_unpacks_to_more_than_it_says_is_refused(tmp_path, kind):
    packed = {"zstd": zstd.compress, "lz4": lz4.frame.compress}[kind](bytes(1 << 26))
    chunk = struct.pack("<QQQI", 0, 0, 1000, 0) + struct.pack("<I", len(kind)) + kind.encode()
    chunk += struct.pack("<Q", len(packed)) + packed
    records = ((1, struct.pack("<I", 4) + b"ros2" + bytes(4)), (6, chunk), (2, bytes(20)))
    magic, path = b"\x89MCAP0\r\n", tmp_path / "a.mcap"
    path.write_bytes(magic + b"".join(struct.pack("<BQ", op, len(body)) + body for op, body in records) + magic)
    assert taken(lambda: opened(path), "a.mcap: .*unpacks to more than 1000 bytes") < 1 << 23


def test_reading_recordings_leaves_rosbags_as_it_is_for_others(tmp_path):
    """Other code in the process once got our bounds, too: its functions were replaced when a module was imported."""
    assert storage_mcap.parse_qos is storage_sqlite3.parse_qos is metadata.parse_qos
    assert metadata.parse_qos is not bounds.bounded_qos
    assert {function.__module__ for function in storage_mcap.DECOMPRESSORS.values()} == {"rosbags.rosbag2.storage_mcap"}


def test_compressed_messages_are_unpacked_within_bounds(monkeypatch):
    assert bounds.unpacked_message(zstd.compress(b"one") + zstd.compress(b"two")) == b"onetwo"
    monkeypatch.setattr(bounds, "MAX_UNPACKED_BYTES", 1 << 16)
    bomb = zstd.compress(bytes(1 << 26))
    assert taken(lambda: bounds.unpacked_message(bomb), "unpacks to more than 65536 bytes") < 1 << 23


def test_records_that_claim_terabytes_take_no_memory(tmp_path):
    path = tmp_path / "a.mcap"
    path.write_bytes(b"\x89MCAP0\r\n\x01" + struct.pack("<Q", 1 << 40) + bytes(100))
    assert taken(lambda: opened(path), "a.mcap: the file is ") < 1 << 20


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE VIEW schema AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT x FROM n",
        "CREATE TABLE more (a INTEGER, data BLOB GENERATED ALWAYS AS (zeroblob(1000000000)))",
        "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM topics; END",
    ],
    ids=["endless view", "computed column", "trigger"],
)
def test_databases_that_compute_what_they_hold_are_refused(tmp_path, definition):
    path = tmp_path / "a.db3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute("CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB)")
        database.commit()
        assert opened(path) == []
        database.execute(definition)
        database.commit()
    with pytest.raises(BagError, match="a.db3: .*which no recorder"):
        opened(path)


@pytest.mark.parametrize("topics", ["5", "[5]", "[{topic_metadata: 5}]", "[null]", "{a: b}"])
def test_metadata_whose_topics_are_none_is_refused_by_name(tmp_path, topics):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db3")) as database:
        database.execute("CREATE TABLE topics (id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
        database.execute("CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB)")
    text = f"rosbag2_bagfile_information: {{relative_file_paths: [a.db3], topics_with_message_count: {topics}}}"
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(BagError, match="metadata.yaml: topics_with_message_count is no list of topics"):
        opened(tmp_path)


def test_endless_qos_texts_are_refused(tmp_path):
    path = tmp_path / "a.db3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        names = "id INTEGER, name TEXT, type TEXT, serialization_format TEXT, offered_qos_profiles TEXT"
        database.execute(f"CREATE TABLE topics ({names})")
        database.execute("CREATE TABLE messages (id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB)")
        database.execute("INSERT INTO topics VALUES (1, '/a', 'b', 'cdr', ?)", ("- {depth: 1}\n" * 100_000,))
        database.commit()
    with pytest.raises(BagError, match="a.db3: .*the QoS of a topic is 1300000 characters"):
        opened(path)


def test_a_compressed_recording_does_not_fill_the_disk(tmp_path, monkeypatch):
    packed = tmp_path / "a.zstd"
    packed.write_bytes(zstd.compress(bytes(1 << 22)))
    with packed.open("rb") as file:
        bounds.unpack_file(file, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 1 << 22
    monkeypatch.setattr(bounds, "_SPARE_DISK", 1 << 62)
    with packed.open("rb") as file, pytest.raises(ValueError, match="unpacking it fills the disk"):
        bounds.unpack_file(file, tmp_path / "b")


# -------------------------------------------------------------------------------------------------------------- volumes


def npz(path, header, content=b"", method=zipfile.ZIP_STORED, **more):
    """An .npz with one member, semantics.npy, whose header is given as text."""
    text = header.encode() + b"\n"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("semantics.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
    return path


def test_volumes_that_claim_terabytes_take_no_memory(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 4)}"
    path = npz(tmp_path / "a.npz", header, bytes(9))
    tracemalloc.start()
    with pytest.raises(ValueError, match="a.npz: cannot be read .*has 9 bytes; expected as many as its shape says"):
        read_volume(path, ("semantics",))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_volumes_that_unpack_to_more_than_they_say_are_cut_short(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2)}"
    path = npz(tmp_path / "a.npz", header, bytes(1 << 26), zipfile.ZIP_DEFLATED)  # 64 MB of zeros in 65 kB
    data = bytearray(path.read_bytes())
    size = struct.pack("<I", (1 << 26) + 10 + len(header) + 1)
    assert data.count(size) == 2  # the member's size, before it and in the directory
    for _ in range(2):
        data[data.index(size) : data.index(size) + 4] = struct.pack("<I", 8 + 10 + len(header) + 1)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError, match="a.npz"):
        read_volume(path, ("semantics",))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -4, 1)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (9999999999, 1, 1)}",
        "(" * 5000,
    ],
    ids=["objects", "negative", "open", "nothing, often", "nested"],
)
def test_impossible_arrays_are_refused(tmp_path, header):
    with pytest.raises(ValueError, match="a.npz"):
        read_volume(npz(tmp_path / "a.npz", header, bytes(8)), ("semantics",))


def test_arrays_packed_in_ways_that_unpack_without_bound_are_refused(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1)}"
    with pytest.raises(ValueError, match="method 12"):  # bzip2
        read_npz(npz(tmp_path / "a.npz", header, b"\x01", zipfile.ZIP_BZIP2), ("semantics",))


def test_arrays_come_back_as_numpy_wrote_them(tmp_path):
    arrays = {
        "a": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        "b": np.array("text"),
        "c": np.zeros((0, 3)),
        "d": np.array(["x", "yy"]),
        "e": np.array([True, False]),
        "f": np.arange(3, dtype=">f4"),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz", tuple("abc"), tuple("defg"))
        assert list(found) == list("abcdef")
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
        found["a"][0] = 1  # their own memory, to be written to


def test_a_saved_volume_whose_grid_is_no_grid_is_refused_by_name(tmp_path):
    one = np.zeros((1, 1, 1), np.uint8)
    for grid in (np.zeros(3), np.zeros(7), np.array(["a"] * 7)):
        np.savez(
            tmp_path / "a.npz",
            semantics=one,
            confidence=one.astype(np.float32),
            visible=one.astype(bool),
            grid=grid,
            frame=np.array("base_link"),
            class_names=np.array(OCC3D_NUSCENES.names),
        )
        with pytest.raises(ValueError, match="a.npz: "):
            Occupancy.load_npz(tmp_path / "a.npz", OCC3D_NUSCENES)


def test_origins_of_rays_nested_or_huge_are_refused(tmp_path):
    for text in ("[" * 100_000, '{"a": [[1' + "0" * 400 + ", 2, 3]]}"):
        (tmp_path / "origins.json").write_text(text)
        with pytest.raises(ValueError, match="origins.json"):
            read_origins(tmp_path / "origins.json")


# ---------------------------------------------------------------------------------------------------- exported networks


def test_damage_inside_an_exported_archive_is_named(tmp_path):
    text = json.dumps({"filler": list(range(3000))})
    path = tmp_path / "a.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("network/extra/renderocc", text)
    whole = path.read_bytes()
    for number in range(40, 240):
        path.write_bytes(whole[:number] + bytes([whole[number] ^ 0x55]) + whole[number + 1 :])
        with pytest.raises(CheckpointError, match="a.pt2: "):
            read_description(path)


def test_an_exported_archive_that_claims_more_than_its_file_has_takes_no_memory(tmp_path):
    path = tmp_path / "a.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("network/extra/renderocc", bytes(1000))
    data, size = bytearray(path.read_bytes()), zipfile.ZipFile(path).infolist()[0].compress_size
    place = data.rindex(struct.pack("<II", size, 1000))
    data[place : place + 4] = struct.pack("<I", 16 << 20)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="a.pt2: "):
        read_description(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_an_exported_archive_that_unpacks_to_more_than_it_says_is_cut_short(tmp_path, method):
    path, size = tmp_path / "a.pt2", 1 << 26
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("network/extra/renderocc", "w") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    data = bytearray(path.read_bytes())
    place = data.rindex(struct.pack("<I", size))  # in the directory, which is what counts
    data[place : place + 4] = struct.pack("<I", 100)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="a.pt2: "):
        read_description(path)
    assert tracemalloc.get_traced_memory()[1] < 48 << 20  # the limit of metadata is 16 MB, as bytes and as text
    tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------- prepared tables


@pytest.mark.parametrize(
    "row", [b"{", b"[]", b"5", b"{}", b'{"ends": 3}', b'{"ends": [0, 0, 0]}', b'{"ends": [0, 0, 0, -1]}', b"[" * 99999]
)
def test_journals_that_another_program_wrote_are_refused_or_begun_anew(tmp_path, row):
    folder = tmp_path / ".x.partial"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    (folder / "journal").write_bytes(b"%08x %s\n" % (zlib.crc32(row), row))
    try:
        with ShardWriter(tmp_path, "x", {}) as writer:
            assert writer.done == 0
    except TablesError as error:
        assert "journal: has a row of another program" in str(error)


@pytest.mark.parametrize("which", range(len(ARRAYS)), ids=ARRAYS)
def test_tables_of_other_types_or_cut_off_are_refused(which):
    target = find("tables")
    data = next(seed for seed in target.seeds() if seed[0] == which + 1)  # the header comes first
    with pytest.raises(TablesError, match="holds float32"):
        target.run(data.replace(b"'<i8'", b"'<f4'").replace(b"'<f8'", b"'<f4'"))
    with pytest.raises(TablesError, match=ARRAYS[which]):
        target.run(data.replace(b")", b" "))  # NumPy's header parser ends in a TokenError


@pytest.mark.parametrize("name", ["images", "starts"])
def test_offsets_beyond_the_tables_are_not_followed(name):
    target = find("tables")
    data = next(seed for seed in target.seeds() if seed[0] == ARRAYS.index(name) + 1)
    with pytest.raises(TablesError, match=f"{name}.npy: points outside of"):
        target.run(data[:129] + struct.pack("<q", 1 << 62) + data[137:])  # 128 bytes of header after the first


# --------------------------------------------------------------------------------------------------------- importers


@pytest.mark.parametrize("content", [b"\xff[", b'[{"a": "\xff"}]', b"[" * 100_000, b'[{"a": ' + b"[" * 100_000])
def test_devkit_tables_of_other_bytes_are_refused_by_name(tmp_path, content):
    path = tmp_path / "scene.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="scene.json"):
        list(records(path))


@pytest.mark.parametrize("name", ["../outside", "/root/x", "", ".", "a\x00b", ".hidden", ["a"], None, 5])
def test_scenes_cannot_be_named_after_other_folders(tmp_path, name):
    tables = DevkitTables(tmp_path, "v1.0-mini")
    tables.folder.mkdir()
    tables.path("scene").write_text(json.dumps([{"token": "t", "name": name}]))
    with pytest.raises(DatasetError, match="scene.json"):
        scene_names(tables, None)


@pytest.mark.parametrize("times", ["1e300\n", "-5\n", "0\n1e12\n"])
def test_times_beyond_all_drives_are_refused(tmp_path, times):
    (tmp_path / "times.txt").write_text(times)
    with pytest.raises(DatasetError, match="times.txt"):
        Sequence(tmp_path).stamps


def test_read_npz_takes_open_files():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(3))
    np.testing.assert_array_equal(read_npz(buffer, ("a",))["a"], [0, 1, 2])
