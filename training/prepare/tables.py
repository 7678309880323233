"""Prepared recordings on disk: labelled pixels, images and poses as memory-mapped tables, one folder per recording.

A folder is complete: it appears under its name only when all of it is written (see `prepare`). Its files:

    header.json            version, what it was made from and how, cameras, classes, counts
    stamps.npy             (F,) int64, the frames' moments
    image_stamps.npy       (F, N) int64, 0 where a camera has no image
    images.npy             (F, N, 3) int64: offset and length in images.bin, and which of header's `encodings`; -1 none
    base_from_camera.npy   (F, N, 4, 4) float64, base_link at the frame's moment from the camera at its image's stamp
    odom_from_base.npy     (F, 4, 4) float64 at the frame's moment
    starts.npy             (F, N, C + 2) int64: pixels of class c are rows starts[c] to starts[c + 1] of the two below;
                           those of unknown class come last, as if they were of a class C
    pixels.bin             (M, 2) uint16 (column, row) in the camera's own, distorted image
    distances.bin          (M,) float32 Euclidean metres; 0 where only the class is known
    truth.npy, truth.bin   (F, 2) int64 offset and length of each frame's Occ3D .npz; -1 none
    images.bin             the images as they were recorded

Beside the folders, `directions/<digest>.npy` holds each camera model's unit direction of every pixel, (H, W, 3)
float32, once for all recordings: the exact inverse of the distortion, so that a ray costs a look-up.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import operator
import tokenize
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from renderocc_model.base.arrays import read_npz
from renderocc_model.field.classes import ClassTable
from renderocc_model.geometry.camera_model import CameraModel

__all__ = ["ARRAYS", "VERSION", "CameraTable", "RawEncoding", "Tables", "TablesError", "list_tables", "model_digest"]

FORMAT, VERSION = "renderocc-tables", 2
HEADER = "header.json"
DIRECTIONS = "directions"
ARRAYS = ("stamps", "image_stamps", "images", "base_from_camera", "odom_from_base", "starts", "truth")
_KINDS = {"base_from_camera": np.float64, "odom_from_base": np.float64}  # of the arrays; the others are int64
COMPRESSED = "compressed"  # among a header's encodings: a JPEG or PNG file


class TablesError(ValueError):
    """Tables that cannot be used: names the folder, what is wrong and what to do."""


@dataclass(frozen=True)
class CameraTable:
    """A camera of a prepared recording: its optics and where it is bolted on (4, 4)."""

    name: str
    model: CameraModel
    mount: np.ndarray


@dataclass(frozen=True)
class RawEncoding:
    """How a raw image's bytes are to be read: the fields of sensor_msgs/Image."""

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: bool


def model_digest(model: CameraModel) -> str:
    """Name of a camera model's table of directions: equal models, equal names."""
    text = f"{model.width} {model.height} {model.distortion_model} {model.coefficients!r} {model.K.tolist()!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def list_tables(folder: str | Path) -> list[str]:
    """Names of the prepared recordings in a folder, sorted.

    Raises:
        TablesError: there is no such folder, or nothing in it is complete.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TablesError(f"{folder}: there is no such folder; make it with `renderocc prepare BAG... --out {folder}`")
    names = sorted(path.parent.name for path in folder.glob(f"*/{HEADER}") if not path.parent.name.startswith("."))
    if not names:
        partial = any(folder.glob(".*.partial"))
        remedy = "run the same `renderocc prepare` again, it goes on" if partial else "run `renderocc prepare`"
        raise TablesError(f"{folder}: no recording in it is prepared{' to the end' if partial else ''}; {remedy}")
    return names


def read_header(folder: Path) -> dict:
    """The header of one prepared recording, its format and version checked."""
    path = folder / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TablesError(f"{path}: cannot be read ({error}); prepare the recording again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TablesError(f"{path}: is not the header of prepared tables; prepare the recording again")
    if header.get("version") != VERSION:
        raise TablesError(
            f"{path}: is of version {header.get('version')}, this program reads {VERSION}; remove {folder} and prepare "
            "the recording again"
        )
    return header


class Tables:
    """One prepared recording, read through memory maps.

    Attributes:
        name: of the recording.
        header: header.json.
        cameras: in the order of the arrays' axis N.
        classes: the table its labels are of.
        class_counts: (C,) labelled pixels of each class.
        unlabelled_count: pixels of known distance and unknown class.
        stamps, image_stamps, images, base_from_camera, odom_from_base, starts, truth, pixels, distances: see above.
    Raises:
        TablesError: not there, of another version, or its files do not have the sizes that the header says.
    """

    stamps: np.ndarray
    image_stamps: np.ndarray
    images: np.ndarray
    base_from_camera: np.ndarray
    odom_from_base: np.ndarray
    starts: np.ndarray
    truth: np.ndarray

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self.header = header = read_header(self.folder)
        try:
            self.classes = ClassTable.from_dict(header["classes"])
            self.class_counts = np.array(header["class_counts"], np.int64)
            self.unlabelled_count = int(header["unlabelled"])
            self.cameras = tuple(_camera(entry) for entry in header["cameras"])
            self.encodings = tuple(
                entry if entry == COMPRESSED else RawEncoding(**entry) for entry in header["encodings"]
            )
            frames, count, image_bytes, truth_bytes = (
                operator.index(header[name]) for name in ("frames", "pixels", "image_bytes", "truth_bytes")
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._damaged(HEADER, f"is not what `renderocc prepare` writes ({error!r})") from None
        self._maps: list[mmap.mmap] = []
        for name in ARRAYS:
            setattr(self, name, self._array(name))
        self.pixels = self._blob("pixels.bin", np.uint16, 2 * count).reshape(count, 2)
        self.distances = self._blob("distances.bin", np.float32, count)
        self._images = self._blob("images.bin", np.uint8, image_bytes)
        self._truth = self._blob("truth.bin", np.uint8, truth_bytes)
        self._check_shapes(frames, count)

    def __len__(self) -> int:
        return len(self.stamps)

    def __reduce__(self) -> tuple:
        return Tables, (self.folder,)  # a worker maps the files itself; pickling maps would copy them

    def image(self, frame: int, camera: int) -> tuple[np.ndarray, RawEncoding | None] | None:
        """The bytes of an image and, where it is raw, how to read them; None where the camera has none."""
        offset, length, encoding = (int(value) for value in self.images[frame, camera])
        if encoding < 0:
            return None
        found = self.encodings[encoding]
        return self._images[offset : offset + length], None if found == COMPRESSED else found

    def truth_arrays(self, frame: int) -> dict[str, np.ndarray] | None:
        """3D truth of a frame in Occ3D's layout (semantics, mask_camera, mask_lidar); None where there is none."""
        offset, length = (int(value) for value in self.truth[frame])
        if offset < 0:
            return None
        try:
            packed = io.BytesIO(self._truth[offset : offset + length].tobytes())
            return read_npz(packed, (), ("semantics", "mask_camera", "mask_lidar"))
        except ValueError as error:
            raise self._damaged("truth.bin", f"frame {frame}: {error}") from None

    @cached_property
    def directions(self) -> tuple[np.ndarray, ...]:
        """Of each camera, (H, W, 3) float32 unit directions in its optical frame; NaN where the lens has none."""
        return tuple(load_directions(self.folder.parent, camera.model) for camera in self.cameras)

    def release(self) -> None:
        """Let go of the pages that were looked at: they stay cached by the system, but not counted to this process."""
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, by_columns, kind = np.lib.format.read_array_header_1_0(file)
                if kind != _KINDS.get(name, np.int64):
                    raise ValueError(f"holds {kind}, not {np.dtype(_KINDS.get(name, np.int64))}")
                values = self._mapped(path)[file.tell() :].view(kind)
            return values.reshape(shape, order="F" if by_columns else "C")
        except (OSError, ValueError, tokenize.TokenError, SyntaxError) as error:  # what NumPy's header parser raises
            raise self._damaged(path.name, str(error)) from None

    def _check_shapes(self, frames: int, count: int) -> None:
        """The arrays' shapes, and that what they point at is there: indices from a file are not followed unseen."""
        cameras, classes = len(self.cameras), len(self.classes)
        wanted = {
            "stamps": (frames,),
            "image_stamps": (frames, cameras),
            "images": (frames, cameras, 3),
            "base_from_camera": (frames, cameras, 4, 4),
            "odom_from_base": (frames, 4, 4),
            "starts": (frames, cameras, classes + 2),
            "truth": (frames, 2),
        }
        for name, shape in wanted.items():
            found = getattr(self, name).shape
            if found != shape:
                raise self._damaged(f"{name}.npy", f"has shape {found}, expected {shape} by the header")
        if self.class_counts.shape != (classes,):
            raise self._damaged(HEADER, f"counts {len(self.class_counts)} classes of {classes}")
        if self.starts.size and (
            self.starts.min() < 0 or self.starts.max() > count or (np.diff(self.starts, axis=-1) < 0).any()
        ):
            raise self._damaged("starts.npy", f"points outside of the {count} pixels")
        used = self.images[self.images[..., 2] >= 0]
        self._check_spans("images.npy", used, len(self._images))
        if len(used) and used[:, 2].max() >= len(self.encodings):
            raise self._damaged("images.npy", f"names an encoding beyond the {len(self.encodings)} of the header")
        self._check_spans("truth.npy", self.truth[self.truth[:, 0] >= 0], len(self._truth))

    def _check_spans(self, name: str, spans: np.ndarray, size: int) -> None:
        """(N, 2 or more) offset and length of parts of a file of this size."""
        offsets, lengths = spans[:, 0], spans[:, 1]
        if len(spans) and (min(offsets.min(), lengths.min()) < 0 or (offsets > size - lengths).any()):
            raise self._damaged(name, f"points outside of the file's {size} bytes")

    def _mapped(self, path: Path) -> np.ndarray:
        with path.open("rb") as file:
            self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return np.frombuffer(self._maps[-1], np.uint8)

    def _blob(self, name: str, kind: type, count: int) -> np.ndarray:
        path, wanted = self.folder / name, count * np.dtype(kind).itemsize
        found = path.stat().st_size if path.exists() else 0
        if found != wanted:
            raise self._damaged(name, f"has {found} bytes, the header says {wanted}")
        return self._mapped(path).view(kind) if count else np.empty(0, kind)

    def _damaged(self, name: str, why: str) -> TablesError:
        return TablesError(f"{self.folder / name}: {why}; the copy is incomplete, copy it again or prepare it again")


def load_directions(root: Path, model: CameraModel) -> np.ndarray:
    """(H, W, 3) float32 unit directions of a camera model's pixels, memory-mapped.

    Raises:
        TablesError: they are not there, damaged, or another camera's.
    """
    path = root / DIRECTIONS / f"{model_digest(model)}.npy"
    try:
        directions = np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise TablesError(f"{path}: {error}; copy the folder {DIRECTIONS} along, or prepare again") from None
    if directions.shape != (model.height, model.width, 3) or directions.dtype != np.float32:
        raise TablesError(
            f"{path}: holds {directions.dtype} of shape {directions.shape}, the camera is {model.width}x{model.height};"
            f" prepare again"
        )
    return directions


def pixel_directions(model: CameraModel) -> np.ndarray:
    """(H, W, 3) float32 unit directions of every pixel of a distorted image, a band of rows at a time."""
    directions = np.empty((model.height, model.width, 3), np.float32)
    columns = np.arange(model.width, dtype=np.float64)
    for first in range(0, model.height, 64):
        rows = np.arange(first, min(first + 64, model.height), dtype=np.float64)
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        directions[first : first + len(rows)] = model.unproject(pixels).reshape(len(rows), model.width, 3)
    return directions


def describe_camera(name: str, model: CameraModel, mount: np.ndarray) -> dict:
    """A camera for the header; JSON keeps every bit of a float64."""
    return {
        "name": name,
        "width": model.width,
        "height": model.height,
        "K": model.K.tolist(),
        "distortion_model": model.distortion_model,
        "coefficients": list(model.coefficients),
        "mount": np.asarray(mount).tolist(),
    }


def _camera(entry: dict) -> CameraTable:
    model = CameraModel(
        entry["width"], entry["height"], np.array(entry["K"]), entry["distortion_model"], tuple(entry["coefficients"])
    )
    return CameraTable(entry["name"], model, np.array(entry["mount"]))
