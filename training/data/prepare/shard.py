"""Writes one recording's tables. If the process is killed, at most one frame must be done again.

A frame is appended to the data files of a hidden folder `.<name>.partial`. Then a line is appended to the journal: a
checksum, and the frame's row with the lengths of the data files. To continue, the journal is read up to its last whole
line, and the data files are cut to the lengths in that line. At the end the rows become arrays, all files are flushed
to the disk, and the folder is renamed. So the result does not depend on interruptions.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel

from .tables import (
    DIRECTIONS,
    FORMAT,
    HEADER,
    VERSION,
    TablesError,
    load_directions,
    model_digest,
    pixel_directions,
    read_header,
    refuse_nothing,
)

__all__ = ["FrameRow", "ShardWriter", "is_prepared"]

_BLOBS = ("pixels.bin", "distances.bin", "images.bin", "truth.bin")
_JOURNAL, _PLAN = "journal", "plan.json"


@dataclass(frozen=True)
class FrameRow:
    """One frame's data.

    Attributes:
        stamp_ns: the frame's moment.
        odom_from_base: (4, 4).
        image_stamps: one for each camera; 0 without an image.
        images: for each camera (bytes, encoding as the header names it), or None.
        base_from_camera: (4, 4) for each camera; zeros without an image.
        pixels: (M, 2) uint16, sorted by camera, then by class; pixels without class come last.
        distances: (M,) float32, in the same order.
        counts: (N, C + 1) pixels of each camera and class; the last column is of pixels without class.
        truth: bytes of the .npz, or None.
    """

    stamp_ns: int
    odom_from_base: np.ndarray
    image_stamps: list[int]
    images: list
    base_from_camera: np.ndarray
    pixels: np.ndarray
    distances: np.ndarray
    counts: np.ndarray
    truth: bytes | None


def is_prepared(folder: Path, plan: dict) -> bool:
    """Whether a recording's tables exist and were made by the same plan.

    Args:
        folder: the recording's folder.
        plan: the data and settings that tables are made from.
    Raises:
        TablesError: they exist, but were made from other data, with other settings or by another version.
    """
    if not folder.exists():
        return False
    for leftover in (_PLAN, _JOURNAL):  # if the process was killed between the last two lines of `seal`
        (folder / leftover).unlink(missing_ok=True)
    found = read_header(folder)["plan"]
    if found != plan:
        raise TablesError(
            f"{folder}: was prepared differently ({_difference(found, plan)}); remove it to prepare again, or choose "
            "another --out"
        )
    return True


class ShardWriter:
    """Writes the hidden folder of a recording that is being prepared; to be used as a context manager.

    Args:
        out: folder of all tables.
        name: name of the recording.
        plan: the data and settings that tables are made from. Incomplete tables of another plan are removed.
    Attributes:
        done: number of frames that are written.
    Raises:
        TablesError: another process is preparing the same recording.
    """

    def __init__(self, out: Path, name: str, plan: dict) -> None:
        self.out, self.name, self.plan = out, name, plan
        self.folder = out / f".{name}.partial"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise TablesError(f"{self.folder}: another process is preparing this recording; wait for it") from None
        self.done = 0
        self._files: dict = {}
        try:
            self._resume()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def append(self, row: FrameRow) -> None:
        """Write one frame. After this call it is not lost if the process is killed."""
        files = self._files
        entry = {
            "stamp": row.stamp_ns,
            "odom_from_base": row.odom_from_base.tolist(),
            "image_stamps": row.image_stamps,
            "images": [],
            "base_from_camera": row.base_from_camera.tolist(),
            "first_pixel": files["distances.bin"].tell() // 4,
            "counts": row.counts.tolist(),
            "truth": [-1, 0],
        }
        for image in row.images:
            entry["images"].append(None if image is None else [files["images.bin"].tell(), len(image[0]), image[1]])
            if image is not None:
                files["images.bin"].write(image[0])
        files["pixels.bin"].write(np.ascontiguousarray(row.pixels, np.uint16).tobytes())
        files["distances.bin"].write(np.ascontiguousarray(row.distances, np.float32).tobytes())
        if row.truth is not None:
            entry["truth"] = [files["truth.bin"].tell(), len(row.truth)]
            files["truth.bin"].write(row.truth)
        for name in _BLOBS:
            files[name].flush()
        entry["ends"] = [files[name].tell() for name in _BLOBS]
        text = json.dumps(entry).encode()
        files[_JOURNAL].write(b"%08x %s\n" % (zlib.crc32(text), text))
        files[_JOURNAL].flush()
        self.done += 1

    def directions(self, model: CameraModel) -> np.ndarray:
        """The table of directions of a camera model. It is written beside the recordings if it does not exist."""
        path = self.out / DIRECTIONS / f"{model_digest(model)}.npy"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            # `files.replacing` would leave its temporary file among the tables if the process is killed. This one is
            # removed with the hidden folder.
            partial = self.folder / "directions.npy"
            with partial.open("wb") as file:
                np.save(file, pixel_directions(model))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        return load_directions(self.out, model)

    def seal(
        self,
        cameras: list[dict],
        classes: dict,
        class_count: int,
        piece_starts: Sequence[int] = (),
        warnings: Sequence[str] = (),
    ) -> Path:
        """Write arrays and header from the journal, and rename the folder.

        Args:
            cameras: entries of the header.
            classes: the labels' class table, for the header.
            class_count: number of its classes.
            piece_starts: numbers of the frames before which the ego pose jumps, ascending.
            warnings: lines about the recording, for people.
        Raises:
            TablesError: not one pixel is labelled.
        """
        columns, encodings = self._columns()
        counts = np.array(columns["counts"], np.int64).reshape(self.done, len(cameras), class_count + 1)
        ends = np.cumsum(counts.reshape(self.done, -1), axis=1).reshape(counts.shape)
        firsts = np.array(columns["first_pixel"], np.int64)
        arrays = {
            "stamps": np.array(columns["stamp"], np.int64),
            "image_stamps": np.array(columns["image_stamps"], np.int64),
            "images": np.array(columns["images"], np.int64),
            "base_from_camera": np.array(columns["base_from_camera"], np.float64),
            "odom_from_base": np.array(columns["odom_from_base"], np.float64),
            "starts": np.concatenate([ends[..., :1] - counts[..., :1], ends], axis=2) + firsts[:, None, None],
            "truth": np.array(columns["truth"], np.int64),
        }
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)
        totals = counts.sum(axis=(0, 1))
        refuse_nothing(self.name, self.done, int(totals.sum()))
        header = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "plan": self.plan,
            "cameras": cameras,
            "classes": classes,
            "encodings": encodings,
            "frames": self.done,
            "pixels": int(totals.sum()),
            "class_counts": totals[:-1].tolist(),
            "unlabelled": int(totals[-1]),
            "image_bytes": self._files["images.bin"].tell(),
            "truth_bytes": self._files["truth.bin"].tell(),
            "piece_starts": list(piece_starts),
            "warnings": list(warnings),
        }
        (self.folder / HEADER).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        for file in self._files.values():
            file.close()
        (self.folder / "directions.npy").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            _flush_to_disk(path)
        final = self.out / self.name
        os.rename(self.folder, final)
        _flush_to_disk(self.out)
        for leftover in (_PLAN, _JOURNAL):
            (final / leftover).unlink()
        return final

    def _columns(self) -> tuple[dict[str, list], list]:
        """The journal's rows by column, and the list of encodings, whose indices are in the column `images`."""
        columns: dict[str, list] = {}
        encodings: list = []
        with (self.folder / _JOURNAL).open("rb") as journal:
            for line in journal:
                row = _checked(line)
                row["images"] = [
                    [image[0], image[1], _number(encodings, image[2])] if image else [0, 0, -1]
                    for image in row["images"]
                ]
                for name, value in row.items():
                    columns.setdefault(name, []).append(np.array(value))
        return columns, encodings

    def _resume(self) -> None:
        plan_path = self.folder / _PLAN
        plan = json.dumps(self.plan, sort_keys=True)
        if not plan_path.exists() or plan_path.read_text(encoding="utf-8") != plan:
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            plan_path.write_text(plan, encoding="utf-8")  # an incomplete file counts as another plan
        journal = self.folder / _JOURNAL
        journal.touch()
        end, lengths = 0, [0] * len(_BLOBS)
        with journal.open("rb") as lines:
            for line in lines:
                entry = _checked(line)
                if entry is None:
                    break
                end, lengths = end + len(line), self._ends(entry)
                self.done += 1
        for name, length in [*zip(_BLOBS, lengths), (_JOURNAL, end)]:
            file = (self.folder / name).open("ab")
            self._files[name] = file
            if file.tell() < length:
                raise TablesError(f"{self.folder / name}: is shorter than its journal says; remove {self.folder}")
            file.truncate(length)
            file.seek(0, os.SEEK_END)

    def _ends(self, entry: object) -> list[int]:
        """The lengths of the data files in a row of the journal. TablesError: another program wrote the row."""
        ends = entry.get("ends") if isinstance(entry, dict) else None
        if not isinstance(ends, list) or len(ends) != len(_BLOBS) or not all(type(n) is int and n >= 0 for n in ends):
            raise TablesError(f"{self.folder / _JOURNAL}: has a row of another program; remove {self.folder}")
        return ends

    def _close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # `append` has reported a full disk
                file.close()
        os.close(self._lock)


def _checked(line: bytes) -> Any:
    """Decode a line of the journal; None if it is cut off or is not JSON."""
    text = line[9:-1]
    if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(text):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number(found: list, value) -> int:
    """The index of a value in a list. A missing value is appended."""
    if value not in found:
        found.append(value)
    return found.index(value)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _difference(found: dict, wanted: dict) -> str:
    """The first entry in which two plans differ, as text."""
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            if isinstance(found.get(name), dict) and isinstance(wanted.get(name), dict):
                return f"{name}.{_difference(found[name], wanted[name])}"
            return f"{name} was {found.get(name)!r} and is now {wanted.get(name)!r}"
    return "nothing"
