"""Targets: files that people pass around. YAML, rigs, settings, checkpoints, exported networks, volumes."""

from __future__ import annotations

import functools
import io
import json
import random
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
import yaml

from renderocc_model.base.config import from_mapping, load_yaml, to_mapping
from renderocc_model.export.file import read_description
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.rig import Rig
from renderocc_model.network.checkpoint import (
    METADATA_KEY,
    CheckpointError,
    checkpoint_metadata,
    load_checkpoint,
    read_checkpoint_metadata,
    save_checkpoint,
)
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.network import build_network
from training.evaluate.volumes import read_origins, read_volume, saved_grid
from training.label.mapping import load_mapping

from .mutate import mutate_bytes, mutate_json, mutate_text, with_words
from .target import Target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from small_models import small_config
from tiny_bag import RIG

__all__ = ["TARGETS", "scratch"]


@functools.cache
def scratch() -> Path:
    """A folder of this process, which goes with the TMPDIR that the command made."""
    return Path(tempfile.mkdtemp(prefix="renderocc_fuzz_"))


def _written(name: str, data: bytes) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------------------------------------------------------- YAML

_YAML_WORDS = (
    "&a ",
    "*a",
    "&b ",
    "*b",
    "<<: *a",
    "<<: [*a, *b]",
    "!!int ",
    "!!float ",
    "!!timestamp ",
    "!!binary ",
    "!!set ",
    "!!omap ",
    "!!pairs ",
    "!!merge ",
    "!!python/object/apply:os.system [true]",
    "? ",
    "- ",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "[",
    "{",
    "|\n",
    ">\n",
    "'",
    '"',
    "\\u0000",
    "0b",
    "0x",
    "1:2:3",
    "2001-02-30",
    ".inf",
    ".nan",
    "\t",
    "\n  ",
    ": ",
)
_mutate_yaml = with_words(*_YAML_WORDS)


def _yamls() -> list[bytes]:
    return [
        b"",
        b"a: 1\nb: [1, 2.5, 1e-4]\nc: {d: true, e: null, f: text}\n",
        b"base: &a {x: 1, y: [1, 2]}\nother:\n  <<: *a\n  y: 3\nlist:\n  - *a\n  - |\n    text\n",
        b"when: 2001-12-14t21:59:43.10-05:00\nn: 0x1F\nm: 190:20:30\nbin: !!binary aGVsbG8=\nset: !!set {a, b}\n",
    ]


def _yaml(data: bytes) -> None:
    assert isinstance(load_yaml(_written("a.yaml", data)), dict)


def _rigs() -> list[bytes]:
    path = scratch() / "seed.yaml"
    RIG.save(path)
    return [path.read_bytes()]


def _rig(data: bytes) -> None:
    rig = Rig.load(_written("rig.yaml", data))
    assert len(rig) and all(np.isfinite(camera.base_from_camera).all() for camera in rig)
    json.dumps(rig.summary(), allow_nan=False)


def _configs() -> list[bytes]:
    return [yaml.safe_dump(to_mapping(small_config(name))).encode() for name in ("tiny", "paper")]


def _config(data: bytes) -> None:
    config = from_mapping(ModelConfig, load_yaml(_written("model.yaml", data)))
    assert from_mapping(ModelConfig, to_mapping(config)) == config


def _mappings() -> list[bytes]:
    return [
        b"classes: occ3d_nuscenes\nids: {1: car, 7: driveable_surface}\nothers: unlabelled\n",
        b'colours: {"128,64,128": sidewalk, "#4682b4": no surface}\n',
    ]


def _mapping(data: bytes) -> None:
    mapping = load_mapping(_written("mapping.yaml", data))
    if mapping.ids:
        values = np.array(sorted(mapping.ids), np.uint16)
        assert mapping.of_ids(values).shape == values.shape
    if mapping.colours:
        assert mapping.of_colours(np.array([list(mapping.colours)], np.uint8)).shape == (1, len(mapping.colours))


# --------------------------------------------------------------------------------------------------------- checkpoints


def _safetensors(header: bytes, content: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + content


@functools.cache
def _network_bytes() -> bytes:
    torch.manual_seed(0)
    path = scratch() / "seed.safetensors"
    save_checkpoint(path, build_network(small_config()), OCC3D_NUSCENES, 0.3, RIG.summary(), {"seed": 0})
    return path.read_bytes()


def _metadata_text() -> str:
    return json.dumps(checkpoint_metadata(build_network(small_config()), OCC3D_NUSCENES, 0.3, RIG.summary(), {}))


def _headers() -> list[bytes]:
    """Checkpoints of three tensors: enough for the reader of headers, which builds no network."""
    table = {
        "__metadata__": {METADATA_KEY: _metadata_text()},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
    }
    return [_safetensors(json.dumps(table).encode(), bytes(40))]


def _mutate_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """Changes in the table, in the metadata that is JSON within it, or in bytes; the header's length is mended."""
    length = int.from_bytes(data[:8], "little")
    header, content = data[8 : 8 + length], data[8 + length :]
    way = rng.random()
    if way < 0.1:
        return mutate_bytes(data[:64], rng) + data[64:]
    if way < 0.5:
        try:
            table = json.loads(header)
            text = table["__metadata__"][METADATA_KEY]
            table["__metadata__"][METADATA_KEY] = mutate_json(text.encode(), rng).decode(errors="replace")
            return _safetensors(json.dumps(table).encode(), content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
    if way < 0.95:
        return _safetensors(mutate_json(header, rng), content)
    return _safetensors(header, mutate_bytes(content, rng))


def _checkpoint_header(data: bytes) -> None:
    content = read_checkpoint_metadata(_written("a.safetensors", data))
    assert content["format_version"] == 1


def _checkpoint(data: bytes) -> None:
    checkpoint = load_checkpoint(_written("b.safetensors", data))
    assert all(torch.isfinite(t).all() for t in checkpoint.network.state_dict().values() if t.is_floating_point())


def _onnx(text: bytes) -> bytes:
    """The least of an ONNX file that its description is read from: a few fields, and metadata_props."""

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), bytearray()
        while True:
            length.append(size & 127 | (128 if size > 127 else 0))
            size >>= 7
            if not size:
                return bytes([number << 3 | 2]) + bytes(length) + content

    entry = field(1, METADATA_KEY.encode()) + field(2, text)
    return b"\x08\x08" + field(2, b"renderocc") + field(7, bytes(20)) + field(14, field(1, b"other")) + field(14, entry)


def _archive(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("network/version", "1")
        archive.writestr(f"network/extra/{METADATA_KEY}", text)
    return buffer.getvalue()


def _onnx_description(data: bytes) -> None:
    read_description(_written("a.onnx", data))


def _archive_description(data: bytes) -> None:
    read_description(_written("a.pt2", data))


def _mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """Members changed and packed again, or the bytes of the archive itself."""
    if rng.random() < 0.4:
        return mutate_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {entry.filename: archive.read(entry) for entry in archive.infolist() if entry.file_size < 1 << 20}
    except Exception:  # what was damaged before is not taken apart again
        return mutate_bytes(data, rng)
    if not members:
        return mutate_bytes(data, rng)
    name = rng.choice(list(members))
    way = rng.random()
    if way < 0.1:
        del members[name]
    elif way < 0.2:
        members[rng.choice(("y", "semantics.npy", "x", "a/b", name + "2"))] = members.pop(name)
    elif members[name].startswith(b"\x93NUMPY"):
        members[name] = _mutate_array(members[name], rng)
    else:
        members[name] = mutate_json(members[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


_TYPES = (b"|u1", b"<u2", b"<f8", b"|O", b"|b1", b"<U9", b"|V8", b"<M8[ns]", b">i4", b"[('a', '<f4')]", b"|S0", b"<c16")


def _mutate_array(data: bytes, rng: random.Random) -> bytes:
    """A .npy whose header says another type, shape or order; its length is mended."""
    length = int.from_bytes(data[8:10], "little")
    header, content = data[10 : 10 + length].rstrip(), data[10 + length :]
    way = rng.random()
    if way < 0.3:
        header = header.replace(header[11:16], b"'" + rng.choice(_TYPES) + b"',", 1)
    elif way < 0.8:
        begin, end = header.find(b"("), header.rfind(b")")
        header = header[: begin + 1] + mutate_text(header[begin + 1 : end] or b"1", rng) + header[max(end, 0) :]
    elif way < 0.9:
        header = mutate_text(header, rng)
    else:
        content = mutate_bytes(content, rng)
    return data[:8] + struct.pack("<H", len(header) & 0xFFFF) + header + content


# -------------------------------------------------------------------------------------------------------------- volumes


def _volumes() -> list[bytes]:
    semantics = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 18
    arrays = {"semantics": semantics, "mask_camera": np.ones_like(semantics), "mask_lidar": np.ones_like(semantics)}
    own = {
        "semantics": semantics,
        "confidence": np.ones((2, 3, 4), np.float32),
        "visible": np.ones((2, 3, 4), bool),
        "grid": np.array([0, 0, 0, 2, 3, 4, 1.0]),
        "frame": np.array("base_link"),
        "class_names": np.array(OCC3D_NUSCENES.names),
    }
    made = []
    for content in (arrays, own):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **content)
        made.append(buffer.getvalue())
    return made


def _volume(data: bytes) -> None:
    path = _written("a.npz", data)
    saved_grid(path)
    volume = read_volume(path, ("semantics", "mask_camera"))
    assert volume["semantics"].ndim == 3


def _saved_volume(data: bytes) -> None:
    occupancy = Occupancy.load_npz(_written("b.npz", data), OCC3D_NUSCENES)
    assert occupancy.semantics.shape == occupancy.confidence.shape == occupancy.visible.shape == occupancy.grid.shape
    assert occupancy.surface().shape == occupancy.grid.shape


def _origins(data: bytes) -> None:
    for points in read_origins(_written("origins.json", data)).values():
        assert points.ndim == 2 and np.isfinite(points).all()


_CONFIG, _CHECKPOINT = ("renderocc_model/base/config.py",), ("renderocc_model/network/checkpoint.py",)
_VALUE, _REFUSED = (ValueError,), (CheckpointError,)

_ALL = (
    Target("yaml", _yaml, _yamls, _VALUE, _CONFIG, _mutate_yaml),
    Target("rig", _rig, _rigs, _VALUE, ("renderocc_model/geometry/rig.py",), _mutate_yaml, 32 << 20),
    Target("model_settings", _config, _configs, _VALUE, _CONFIG, _mutate_yaml),
    Target("class_mapping", _mapping, _mappings, _VALUE, ("training/label/mapping.py",), _mutate_yaml, 8 << 20),
    Target("checkpoint_header", _checkpoint_header, _headers, _REFUSED, _CHECKPOINT, _mutate_checkpoint, largest=16384),
    Target(
        "checkpoint",
        _checkpoint,
        lambda: [_network_bytes()],
        _REFUSED,
        _CHECKPOINT,
        _mutate_checkpoint,
        64 << 20,
        1 << 20,
    ),
    Target(
        "exported_onnx",
        _onnx_description,
        lambda: [_onnx(_metadata_text().encode())],
        _REFUSED,
        ("renderocc_model/export/file.py",),
        largest=8192,
    ),
    Target(
        "exported_pt2",
        _archive_description,
        lambda: [_archive(_metadata_text().encode())],
        _REFUSED,
        ("renderocc_model/export/file.py",),
        _mutate_archive,
        largest=8192,
    ),
    Target("volume", _volume, lambda: _volumes()[:2], _VALUE, ("training/evaluate/volumes.py",), _mutate_archive),
    Target(
        "saved_volume",
        _saved_volume,
        lambda: _volumes()[1:],
        _VALUE,
        ("renderocc_model/field/occupancy.py",),
        _mutate_archive,
    ),
    Target(
        "ray_origins",
        _origins,
        lambda: [b'{"a/b": [[0, 0, 1.5], [1, 2, 3]], "c": [[1e3, 0, -1]]}'],
        _VALUE,
        ("training/evaluate/volumes.py",),
        mutate_json,
    ),
)
TARGETS = {target.name: target for target in _ALL}
