"""Turns SemanticKITTI into recordings: one rosbag2 for each sequence, from KITTI odometry's images, poses and scans.

`base_link` is the Velodyne's frame: x forward, y left, z up, 1.73 m above the ground, so the road is near z = -1.73.
The scene-completion volumes are given in this frame, and published figures refer to it. `odom` is the Velodyne's frame
at the sequence's first scan. KITTI's times begin at 0 in every sequence; stamps are these seconds after
1,700,000,000 s. All sensors of a frame have the frame's time, and clouds are deskewed to it. Images are copied
unchanged; they are rectified.

Truth: `semantics` has the classes of voxels/*.label on `SEMANTIC_KITTI_GRID`. Empty voxels are free; voxels that are
invalid, or of a class that is not evaluated, are 255. `mask_camera` is 1 for all voxels that are not 255, because the
benchmark evaluates all of them, not only those that the cameras see. So the mIoU under this mask is the benchmark's.
`mask_lidar` is `mask_camera` without the voxels that a single scan cannot see, by voxels/*.occluded if it exists.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from renderocc_model.field.classes import SEMANTIC_KITTI, UNLABELLED
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.grid import SEMANTIC_KITTI_GRID
from renderocc_model.geometry.rig import Camera
from renderocc_model.geometry.transforms import invert
from renderocc_model.images.decoding import compressed_size
from renderocc_model.images.reduction import ImageError
from training.recordings.raw_classes import NO_SURFACE, SEMANTIC_KITTI_RAW, lookup_table
from training.recordings.recorder import Cloud, LidarMount, Recorder

from .importing import DatasetError, import_all, read_file, read_picture

__all__ = ["import_semantickitti"]

_START_NS = 1_700_000_000_000_000_000
_PROJECTIONS = {"image_2": "P2", "image_3": "P3"}  # the two colour cameras and their entries in calib.txt
_LONGEST = 1e6  # seconds of a sequence; larger numbers are damaged
_ROUNDED = 1e-3  # largest difference between a printed matrix and a rotation
_LOOKUP = lookup_table(SEMANTIC_KITTI_RAW)


def import_semantickitti(
    root: Path,
    out: Path,
    sequences: list[str] | None = None,
    storage: str = "mcap",
    tell: Callable[[str], None] = print,
) -> int:
    """Import sequences that are not in `out` yet, as OUT/<number>.

    Args:
        root: contains sequences/NN or dataset/sequences/NN.
        out: folder for the recordings.
        sequences: names such as "08"; None for all.
        storage: "mcap" or "sqlite3".
        tell: called with each line of progress.
    Returns:
        the number of recordings written.
    Raises:
        DatasetError: the dataset cannot be imported. The text names the file and what to do.
    """
    folder = next((root / name for name in ("sequences", "dataset/sequences") if (root / name).is_dir()), None)
    if folder is None:
        raise DatasetError(
            f"{root} has no sequences/; name the folder into which KITTI's odometry archives were unpacked"
        )
    found = sorted(path.name for path in folder.iterdir() if (path / "calib.txt").is_file())
    for name in sequences or ():
        if name not in found:
            near = difflib.get_close_matches(name, found, 1)
            raise DatasetError(
                f"{folder}: there is no sequence '{name}' with a calib.txt; "
                f"{f'did you mean {near[0]}?' if near else f'there are {found}'}"
            )
    opened = {name: Sequence(folder / name) for name in (sequences or found)}
    if not opened:
        raise DatasetError(f"{folder} has no sequence with a calib.txt; unpack data_odometry_calib.zip")

    def note_of(name: str) -> dict:
        sequence = opened[name]
        return {
            "dataset": "semantickitti",
            "sequence": name,
            "cameras": sequence.image_folders,
            "storage": storage,
            "lidar": sequence.has("velodyne"),
            "labels": sequence.has("labels"),
            "truth": sequence.has("voxels"),
            "grid": SEMANTIC_KITTI_GRID.to_dict(),
            "classes": SEMANTIC_KITTI.to_dict(),
        }

    def write(name: str, bag: Path, on_frame: Callable[[], object]) -> int:
        return opened[name].write(bag, storage, on_frame)

    return import_all(out, sorted(opened), note_of, write, tell)


@dataclass
class Sequence:
    """The folder of one sequence. Files are read when they are needed."""

    folder: Path

    def has(self, name: str) -> bool:
        return (self.folder / name).is_dir()

    @property
    def image_folders(self) -> list[str]:
        return [name for name in _PROJECTIONS if self.has(name)]

    @cached_property
    def calibration(self) -> dict[str, np.ndarray]:
        """The (3, 4) matrices of calib.txt. P0 to P3 project points of cam0; Tr is cam0_from_velodyne."""
        path = self.folder / "calib.txt"
        matrices = {}
        for line in _text(path).splitlines():
            name, _, numbers = line.partition(":")
            if numbers.strip():
                matrices[name.strip()] = _numbers(path, f"{name.strip()}:", numbers, 12).reshape(3, 4)
        missing = {"Tr", *(_PROJECTIONS[name] for name in self.image_folders)} - set(matrices)
        if missing:
            raise DatasetError(f"{path}: has no {', '.join(sorted(missing))}; unpack data_odometry_calib.zip over it")
        return matrices

    @cached_property
    def stamps(self) -> list[int]:
        """Stamps of all frames in nanoseconds, ascending."""
        path = self.folder / "times.txt"
        seconds = np.array([_numbers(path, f"line {k}", line, 1)[0] for k, line in _lines(path)])
        if not len(seconds):
            raise DatasetError(f"{path}: is empty; unpack data_odometry_calib.zip again")
        back = np.flatnonzero(np.diff(seconds) <= 0)
        if len(back):
            raise DatasetError(f"{path}: line {back[0] + 2} is {seconds[back[0] + 1]} s, not after the line before it")
        if not 0 <= seconds[0] <= seconds[-1] <= _LONGEST:
            raise DatasetError(f"{path}: reaches from {seconds[0]} to {seconds[-1]} s; expected seconds from the start")
        return [_START_NS + round(t * 1e9) for t in seconds]

    @cached_property
    def poses(self) -> list[np.ndarray]:
        """odom_from_base of all frames. poses.txt has the poses of cam0 in its first frame."""
        path = self.folder / "poses.txt"
        cam0_from_base = _rigid(self.calibration["Tr"], f"{self.folder / 'calib.txt'}: Tr")
        poses = []
        for number, line in _lines(path):
            start_from_cam0 = _rigid(_numbers(path, f"line {number}", line, 12).reshape(3, 4), f"{path}: line {number}")
            poses.append(invert(cam0_from_base) @ start_from_cam0 @ cam0_from_base)
        if len(poses) != len(self.stamps):
            raise DatasetError(
                f"{path}: {len(poses)} poses for {len(self.stamps)} times in times.txt; unpack both of one release"
            )
        return poses

    def file(self, kind: str, frame: int, suffix: str) -> Path:
        return self.folder / kind / f"{frame:06d}.{suffix}"

    def cameras(self) -> list[Camera]:
        """The colour cameras in base_link. A camera's size is that of its first image."""
        cam0_from_base = _rigid(self.calibration["Tr"], f"{self.folder / 'calib.txt'}: Tr")
        cameras = []
        for name in self.image_folders:
            P = self.calibration[_PROJECTIONS[name]]
            path = self.file(name, 0, "png")
            try:
                height, width = compressed_size(np.frombuffer(read_file(path, "times.txt"), np.uint8))
            except ImageError as error:
                raise DatasetError(f"{path}: {error}; unpack data_odometry_color.zip again") from None
            try:
                model = CameraModel(width, height, P[:, :3], "plumb_bob", (0.0,) * 5)
                camera_from_cam0 = np.eye(4)
                camera_from_cam0[:3, 3] = np.linalg.solve(P[:, :3], P[:, 3])
                mount = invert(camera_from_cam0 @ cam0_from_base)
                cameras.append(Camera(name, model, mount, f"{name}_optical"))
            except (ValueError, np.linalg.LinAlgError) as error:
                raise DatasetError(f"{self.folder / 'calib.txt'}: {_PROJECTIONS[name]}: {error}") from None
        if not cameras:
            raise DatasetError(f"{self.folder} has neither image_2 nor image_3; unpack data_odometry_color.zip")
        return cameras

    def write(self, bag: Path, storage: str, on_frame: Callable[[], object]) -> int:
        """Write the recording and its truth. Returns the number of messages."""
        cameras, poses = self.cameras(), self.poses
        lidar = LidarMount("velodyne", np.eye(4)) if self.has("velodyne") else None
        with Recorder(bag, cameras, storage, lidar, False) as recorder:
            recorder.write_static(self.stamps[0])
            if self.has("voxels"):
                (bag / "occupancy").mkdir()
            for frame, (stamp_ns, pose) in enumerate(zip(self.stamps, poses)):
                recorder.write_pose(stamp_ns, pose)
                for camera in cameras:
                    path = self.file(camera.name, frame, "png")
                    picture = read_picture(path, camera, f"line {frame + 1} of times.txt and image 000000")
                    recorder.write_camera(stamp_ns, camera, {"image_raw": picture})
                if lidar:
                    recorder.write_sweep(stamp_ns, self.cloud(frame))
                truth = self.truth(frame)
                if truth is not None:
                    np.savez_compressed(bag / "occupancy" / f"{stamp_ns}.npz", **truth)
                on_frame()
        return recorder.count

    def cloud(self, frame: int) -> Cloud:
        """One scan. Intensity is the remission, 0 to 1. Classes are of `SEMANTIC_KITTI`; 254 marks outliers."""
        path = self.file("velodyne", frame, "bin")
        data = read_file(path, f"line {frame + 1} of times.txt")
        if len(data) % 16:
            raise DatasetError(
                f"{path}: has {len(data)} bytes, not a multiple of the 16 bytes of a point; unpack the archive again"
            )
        points = np.frombuffer(data, "<f4").reshape(-1, 4)
        if not self.has("labels"):
            return Cloud(points[:, :3], points[:, 3], None)
        path = self.file("labels", frame, "label")
        data = read_file(path, f"scan {frame:06d}.bin")
        if len(data) != 4 * len(points):
            raise DatasetError(
                f"{path}: {len(data) / 4:g} labels for {len(points)} points of the scan; unpack both of one release"
            )
        raw = (np.frombuffer(data, "<u4") & 0xFFFF).astype(np.uint16)  # the upper half numbers instances
        return Cloud(points[:, :3], points[:, 3], _classes(path, raw))

    def truth(self, frame: int) -> dict[str, Any] | None:
        """One frame's truth in Occ3D's layout; None for frames without a volume, which are four of five."""
        path = self.file("voxels", frame, "label")
        if not path.is_file():
            return None
        data, size = path.read_bytes(), SEMANTIC_KITTI_GRID.size
        if len(data) != 2 * size:
            raise DatasetError(f"{path}: has {len(data)} bytes; a volume of 256x256x32 uint16 has {2 * size}")
        raw = np.frombuffer(data, "<u2")
        semantics = np.where(raw == 0, SEMANTIC_KITTI.free, _classes(path, raw)).astype(np.uint8)
        semantics[self._bits(frame, "invalid") | (semantics == NO_SURFACE)] = UNLABELLED
        evaluated = semantics != UNLABELLED
        seen = evaluated.copy()
        if self.file("voxels", frame, "occluded").is_file():
            seen &= ~self._bits(frame, "occluded")
        arrays = {
            "semantics": semantics,
            "mask_lidar": seen.astype(np.uint8),
            "mask_camera": evaluated.astype(np.uint8),
        }
        return {name: array.reshape(SEMANTIC_KITTI_GRID.shape) for name, array in arrays.items()}

    def _bits(self, frame: int, kind: str) -> np.ndarray:
        """Read a file of one bit for each voxel, (size,) bool. The highest bit of a byte comes first."""
        path = self.file("voxels", frame, kind)
        data, size = read_file(path, f"voxels/{frame:06d}.label"), SEMANTIC_KITTI_GRID.size
        if len(data) != size // 8:
            raise DatasetError(
                f"{path}: has {len(data)} bytes; a volume of 256x256x32 bits has {size // 8}; unpack the voxels again"
            )
        return np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool)


def _classes(path: Path, raw: np.ndarray) -> np.ndarray:
    """Class ids of raw labels (N,) uint16. Labels that are not evaluated become 255, outliers 254."""
    classes = _LOOKUP[raw]
    if (classes < 0).any():
        raise DatasetError(
            f"{path}: contains label {raw[classes < 0][0]}, which is not in semantic-kitti.yaml; unpack it again"
        )
    return classes.astype(np.uint8)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise DatasetError(
            f"{path} is missing; unpack SemanticKITTI's data_odometry_labels.zip and KITTI's calib archive"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); unpack the archive again") from None


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not empty, as (number from 1, text)."""
    return [(number, line) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]


def _numbers(path: Path, where: str, text: str, count: int) -> np.ndarray:
    try:
        numbers = np.array(text.split(), float)
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DatasetError(f"{path}: {where} is {text.strip()[:60]!r}; expected {count} finite numbers")
    return numbers


def _rigid(matrix: np.ndarray, where: str) -> np.ndarray:
    """The rigid transform (4, 4) nearest to a printed (3, 4) matrix, whose digits are rounded."""
    u, _, vt = np.linalg.svd(matrix[:, :3])
    rotation = u @ vt
    if np.abs(rotation - matrix[:, :3]).max() > _ROUNDED or np.linalg.det(rotation) < 0:
        raise DatasetError(
            f"{where} is not a rotation and translation: {matrix[:, :3].tolist()}; unpack the archive again"
        )
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, matrix[:, 3]
    return transform
