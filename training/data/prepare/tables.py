"""Reads prepared recordings: memory-mapped tables of labelled pixels, images and poses, one folder for each recording.

A folder appears under its name when all of it is written (see `prepare`). Its files, for F frames, N cameras, C classes
and M labelled pixels:

    header.json            version, plan (data and settings), cameras, classes, counts, `piece_starts`: numbers of the
                           frames before which the ego pose jumps (frames before and after are never related)
    stamps.npy             (F,) int64, the frames' moments
    image_stamps.npy       (F, N) int64, 0 if a camera has no image
    images.npy             (F, N, 3) int64: offset and length in images.bin, and index of the header's `encodings`;
                           -1 without an image
    base_from_camera.npy   (F, N, 4, 4) float64: the camera's pose at its image's stamp, in base_link at the frame's
                           moment
    odom_from_base.npy     (F, 4, 4) float64 at the frame's moment
    starts.npy             (F, N, C + 2) int64: pixels of class c are rows starts[c] to starts[c + 1] - 1 of pixels.bin
                           and distances.bin; pixels of unknown class come last, as class C
    pixels.bin             (M, 2) uint16 (column, row) in the camera's distorted image
    distances.bin          (M,) float32 Euclidean metres; 0 if only the class is known
    truth.npy, truth.bin   (F, 2) int64 offset and length of each frame's Occ3D .npz; -1 without truth
    images.bin             the images as they were recorded; pictures of videos as JPEG

Beside the folders, `directions/<digest>.npy` has the unit direction of every pixel of a camera model, (H, W, 3)
float32. It is the exact inverse of the distortion, so a ray's direction is a look-up. Recordings share these files.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import operator
import tokenize
from collections.abc import Iterable
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
_KINDS = {"base_from_camera": np.float64, "odom_from_base": np.float64}  # types of arrays; the others are int64
COMPRESSED = "compressed"  # the encoding of JPEG and PNG files


class TablesError(ValueError):
    """The tables cannot be used. The text names the folder, the fault and what to do."""


@dataclass(frozen=True)
class CameraTable:
    """A camera of a prepared recording: its model, and its pose on the vehicle (4, 4)."""

    name: str
    model: CameraModel
    mount: np.ndarray


@dataclass(frozen=True)
class RawEncoding:
    """The format of a raw image: fields of sensor_msgs/Image."""

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: bool


def model_digest(model: CameraModel) -> str:
    """The name of a camera model's table of directions. Equal models have equal names."""
    text = f"{model.width} {model.height} {model.distortion_model} {model.coefficients!r} {model.K.tolist()!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def list_tables(folder: str | Path) -> list[str]:
    """Names of the prepared recordings in a folder, sorted.

    Raises:
        TablesError: there is no such folder, or it has no complete recording.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TablesError(f"{folder}: there is no such folder; make it with `renderocc prepare BAG... --out {folder}`")
    names = sorted(path.parent.name for path in folder.glob(f"*/{HEADER}") if not path.parent.name.startswith("."))
    if not names:
        partial = any(folder.glob(".*.partial"))
        remedy = "run the same `renderocc prepare` again to continue" if partial else "run `renderocc prepare`"
        raise TablesError(f"{folder}: has no recording that is prepared{' to the end' if partial else ''}; {remedy}")
    return names


def read_header(folder: Path) -> dict:
    """Read the header of a prepared recording, and check its format and version."""
    path = folder / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TablesError(f"{path}: cannot be read ({error}); prepare the recording again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TablesError(f"{path}: is not the header of prepared tables; prepare the recording again")
    if header.get("version") != VERSION:
        raise TablesError(
            f"{path}: has version {header.get('version')}, but this program reads {VERSION}; remove {folder} and "
            "prepare the recording again"
        )
    return header


class Tables:
    """One prepared recording, read through memory maps.

    Attributes:
        name: name of the recording.
        header: header.json.
        cameras: the cameras in the order of the arrays' axis N.
        classes: the labels' class table.
        class_counts: (C,) labelled pixels of each class.
        unlabelled_count: number of pixels of known distance and unknown class.
        pieces: (F,) int64, the number of each frame's piece. The ego pose jumps between pieces, so that frames of
            different pieces must not be related.
        stamps, image_stamps, images, base_from_camera, odom_from_base, starts, truth, pixels, distances: see above.
    Raises:
        TablesError: it does not exist, has another version, or its files do not have the sizes in the header.
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
            self.pieces = _pieces([operator.index(start) for start in header.get("piece_starts", ())], frames)
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

    def in_piece(self, frame: int, others: Iterable[int]) -> list[int]:
        """Those of other frames, in their order, that exist and that no jump of the ego pose separates from a frame."""
        inside = (other for other in others if 0 <= other < len(self))
        return [other for other in inside if self.pieces[other] == self.pieces[frame]]

    def image(self, frame: int, camera: int) -> tuple[np.ndarray, RawEncoding | None] | None:
        """The bytes of an image, and its format if it is raw; None if the camera has no image."""
        offset, length, encoding = (int(value) for value in self.images[frame, camera])
        if encoding < 0:
            return None
        found = self.encodings[encoding]
        return self._images[offset : offset + length], None if found == COMPRESSED else found

    def truth_arrays(self, frame: int) -> dict[str, np.ndarray] | None:
        """A frame's 3D truth in Occ3D's layout (semantics, mask_camera, mask_lidar); None without truth."""
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
        """Unit directions of each camera's pixels in its optical frame, (H, W, 3) float32; NaN without direction."""
        return tuple(load_directions(self.folder.parent, camera.model) for camera in self.cameras)

    def release(self) -> None:
        """Release the memory of pages that were read. They stay in the system's cache."""
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
        """Check shapes, and that all indices point into their files: a damaged file must not be followed blindly."""
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
        """Check that parts of a file, (N, 2 or more) with offset and length, are within its size."""
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
            raise self._damaged(name, f"has {found} bytes, but the header says {wanted}")
        return self._mapped(path).view(kind) if count else np.empty(0, kind)

    def _damaged(self, name: str, why: str) -> TablesError:
        return TablesError(f"{self.folder / name}: {why}; the file is damaged; copy it again, or prepare it again")


def _pieces(starts: list[int], frames: int) -> np.ndarray:
    if starts != sorted(set(starts)) or not all(0 < start < frames for start in starts):
        raise ValueError(f"piece_starts is {starts} for {frames} frames")
    return np.searchsorted(np.array(starts, np.int64), np.arange(frames), side="right").astype(np.int64)


def load_directions(root: Path, model: CameraModel) -> np.ndarray:
    """Unit directions of a camera model's pixels, (H, W, 3) float32, memory-mapped.

    Raises:
        TablesError: the file does not exist, is damaged, or is of another camera.
    """
    path = root / DIRECTIONS / f"{model_digest(model)}.npy"
    try:
        directions = np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise TablesError(f"{path}: {error}; copy the folder {DIRECTIONS} too, or prepare again") from None
    if directions.shape != (model.height, model.width, 3) or directions.dtype != np.float32:
        raise TablesError(
            f"{path}: is {directions.dtype} of shape {directions.shape}, but the camera is {model.width}x"
            f"{model.height}; prepare again"
        )
    return directions


def refuse_nothing(name: str, frames: int, pixels: int) -> None:
    """Raise TablesError if the labels of a recording have no pixel to learn from."""
    if not pixels:
        raise TablesError(
            f"{name}: {frames} frames, and not one pixel of their labels has a distance to something other than free "
            "space; training would have nothing to learn, look at the labels with renderocc label --preview"
        )


def pixel_directions(model: CameraModel) -> np.ndarray:
    """Compute the unit direction of every pixel of a distorted image, (H, W, 3) float32."""
    directions = np.empty((model.height, model.width, 3), np.float32)
    columns = np.arange(model.width, dtype=np.float64)
    for first in range(0, model.height, 64):
        rows = np.arange(first, min(first + 64, model.height), dtype=np.float64)
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        directions[first : first + len(rows)] = model.unproject(pixels).reshape(len(rows), model.width, 3)
    return directions


def describe_camera(name: str, model: CameraModel, mount: np.ndarray) -> dict:
    """A camera as an entry of the header. JSON keeps every bit of a float64."""
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
