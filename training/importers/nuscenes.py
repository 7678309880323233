"""Turns nuScenes into recordings: one rosbag2 for each scene, from the devkit's tables, lidarseg and Occ3D's labels.

`base_link` is nuScenes' ego frame, on the ground under the rear axle, with x forward, y left and z up. `odom` is the
global frame of nuScenes. /tf has the ego pose of every sensor reading of the scene, at its own stamp. Stamps are the
dataset's microseconds. Images are copied unchanged; nuScenes publishes them without distortion.

Clouds are those of LIDAR_TOP with the classes of lidarseg. Only keyframes have classes; points of other sweeps are
unlabelled. Noise and the vehicle itself get 254, no surface. The truth of a keyframe is Occ3D's file, which is made for
the ego pose of the keyframe's LiDAR sweep, and is named after that sweep's stamp.
"""

from __future__ import annotations

import difflib
import io
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renderocc_model.base.arrays import read_npz
from renderocc_model.field.classes import OCC3D_NUSCENES, UNLABELLED
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rig import Camera
from renderocc_model.geometry.transforms import transform_from
from training.recordings.raw_classes import LIDARSEG
from training.recordings.recorder import Cloud, LidarMount, Recorder

from .devkit import DevkitTables, records
from .importing import DatasetError, import_all, read_file, read_picture

__all__ = ["import_nuscenes"]

# Order of the cameras, as in the rigs of this project; other cameras follow by name.
_CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
_LIDAR = "LIDAR_TOP"
_LATEST_US = 2**31 * 1_000_000  # ROS's stamps have 32 bits of seconds
_POINT_FLOATS = 5  # x, y, z, intensity, ring

# Names of lidarseg's ids. A category table with other ids is refused.
_CATEGORIES = (
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
)


class _Reading(NamedTuple):
    """One row of sample_data."""

    stamp_ns: int
    token: str
    sample: str
    pose: str
    calibration: str
    key: bool
    width: int
    height: int
    file: str


@dataclass
class _Scene:
    """One scene's name and sensor readings."""

    name: str
    readings: dict[str, list[_Reading]] = field(default_factory=lambda: defaultdict(list))  # by channel


def import_nuscenes(
    root: Path,
    out: Path,
    version: str | None = None,
    scenes: list[str] | None = None,
    sweeps: bool = False,
    occ3d: Path | None = None,
    storage: str = "mcap",
    tell: Callable[[str], None] = print,
) -> int:
    """Import scenes that are not in `out` yet.

    Args:
        root: contains samples/ and the version's tables, and sweeps/, lidarseg/ and gts/ if they are unpacked.
        out: folder for the recordings.
        version: name of the tables' folder; None when there is only one.
        scenes: names of scenes; None for all.
        sweeps: whether to import the readings between keyframes, too.
        occ3d: Occ3D's folder of scenes; None for root/gts if it exists.
        storage: "mcap" or "sqlite3".
        tell: called with each line of progress.
    Returns:
        the number of recordings written.
    Raises:
        DatasetError: the dataset cannot be imported. The text names the table, file or record and what to do.
    """
    tables = DevkitTables(root, version or _only_version(root))
    names = _scene_names(tables, scenes)
    if occ3d is not None and not occ3d.is_dir():
        raise DatasetError(f"{occ3d}: there is no such folder; unpack Occ3D's gts and name it with --occ3d")
    occ3d = occ3d or (root / "gts" if (root / "gts").is_dir() else None)
    labels = _lidarseg(tables)

    def note_of(name: str) -> dict:
        return {
            "dataset": "nuscenes",
            "version": tables.version,
            "scene": name,
            "sweeps": sweeps,
            "lidarseg": labels is not None,
            "truth": occ3d is not None and (occ3d / name).is_dir(),
            "storage": storage,
            "grid": OCC3D_GRID.to_dict(),
            "classes": OCC3D_NUSCENES.to_dict(),
        }

    source = _Source(tables, names, labels, occ3d, sweeps, storage, tell)
    return import_all(out, sorted(names.values()), note_of, source.write, tell)


def _only_version(root: Path) -> str:
    found = sorted(path.parent.name for path in root.glob("*/sample_data.json"))
    if len(found) != 1:
        told = (
            f"has {', '.join(found)}; choose one with --version"
            if found
            else "has no v1.0-*/sample_data.json; name the folder that contains the tables' folder and samples/"
        )
        raise DatasetError(f"{root} {told}")
    return found[0]


def _scene_names(tables: DevkitTables, wanted: list[str] | None) -> dict[str, str]:
    """The wanted scenes, as {token: name}."""
    names = dict(tables.rows("scene", "token", "name"))
    for name in names.values():  # recordings get these names, in the folder that was asked for and nowhere else
        if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
            raise DatasetError(f"{tables.path('scene')}: scene {name!r:.60} cannot be the name of a recording")
    for name in wanted or ():
        if name not in names.values():
            near = difflib.get_close_matches(name, names.values(), 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {len(names)} scenes"
            raise DatasetError(f"{tables.path('scene')}: there is no scene '{name}'; {hint}")
    return {token: name for token, name in names.items() if wanted is None or name in wanted}


def _lidarseg(tables: DevkitTables) -> dict[str, str] | None:
    """Label files, as {sample_data token: file}; None when lidarseg is not unpacked."""
    if not tables.has("lidarseg"):
        return None
    path = tables.path("category")
    for name, index in ((r["name"], r["index"]) for r in records(path) if "name" in r and "index" in r):
        if type(index) is not int or not 0 <= index < len(_CATEGORIES) or _CATEGORIES[index] != name:
            raise DatasetError(
                f"{path}: {name!r:.60} has index {index!r:.60}, which is not lidarseg's; "
                f"unpack nuScenes-lidarseg-all-v1.0"
            )
    return dict(tables.rows("lidarseg", "sample_data_token", "filename"))


class _Source:
    """Reads the tables once for all scenes, and writes one recording at a time."""

    def __init__(
        self,
        tables: DevkitTables,
        names: dict[str, str],
        labels: dict[str, str] | None,
        occ3d: Path | None,
        sweeps: bool,
        storage: str,
        tell: Callable[[str], None],
    ) -> None:
        self._tables, self._names, self._labels = tables, names, labels
        self._occ3d, self._sweeps, self._storage, self._tell = occ3d, sweeps, storage, tell
        self._scenes: dict[str, _Scene] = {}

    def write(self, name: str, folder: Path, on_frame: Callable[[], object]) -> int:
        """Write the recording of one scene; returns the number of messages."""
        if not self._scenes:
            self._read_tables()
        scene = self._scenes[name]
        cameras = {channel: self._camera(scene, channel) for channel in self._channels(scene)}
        if not cameras:
            raise DatasetError(
                f"{self._tables.path('sample_data')}: scene {name} has no camera readings; unpack the tables again"
            )
        with Recorder(folder, cameras.values(), self._storage, self._lidar(scene), False) as recorder:
            self._write_messages(scene, recorder, cameras, on_frame)
        self._copy_truth(scene, folder)
        return recorder.count

    def _read_tables(self) -> None:
        """Read the rows of sample_data by scene and channel, and the poses and calibrations that they name."""
        tables = self._tables
        scene_of = {
            token: self._names[scene]
            for token, scene in tables.rows("sample", "token", "scene_token")
            if scene in self._names
        }
        sensors = {
            token: (channel, kind) for token, channel, kind in tables.rows("sensor", "token", "channel", "modality")
        }
        self._calibrations = {
            token: (*sensors.get(sensor, ("?", "?")), translation, rotation, K)
            for token, sensor, translation, rotation, K in tables.rows(
                "calibrated_sensor", "token", "sensor_token", "translation", "rotation", "camera_intrinsic"
            )
        }
        self._scenes = {name: _Scene(name) for name in self._names.values()}
        columns = (
            "timestamp",
            "token",
            "sample_token",
            "ego_pose_token",
            "calibrated_sensor_token",
            "is_key_frame",
            "width",
            "height",
            "filename",
        )
        poses = set()
        for stamp, *row in tables.rows("sample_data", *columns):
            if row[1] not in scene_of:
                continue
            if type(stamp) is not int or not 0 <= stamp < _LATEST_US:
                raise DatasetError(f"{tables.path('sample_data')}: record {row[0]} has timestamp {stamp!r:.40}")
            reading = _Reading(stamp * 1000, *row)
            if reading.calibration not in self._calibrations:
                raise DatasetError(
                    f"{tables.path('calibrated_sensor')}: there is no record {reading.calibration}, which sample_data "
                    f"{reading.token} names; unpack all tables from one archive"
                )
            self._scenes[scene_of[reading.sample]].readings[self._calibrations[reading.calibration][0]].append(reading)
            poses.add(reading.pose)
        self._poses = tables.chosen("ego_pose", poses, "translation", "rotation")

    def _channels(self, scene: _Scene) -> list[str]:
        found = {
            channel
            for channel, rows in scene.readings.items()
            if self._calibrations[rows[0].calibration][1] == "camera"
        }
        return [c for c in _CAMERAS if c in found] + sorted(found - set(_CAMERAS))

    def _calibration(self, scene: _Scene, channel: str) -> tuple:
        tokens = {reading.calibration for reading in scene.readings[channel]}
        if len(tokens) > 1:
            raise DatasetError(
                f"{self._tables.path('sample_data')}: {channel} changes its calibration within {scene.name} "
                f"({', '.join(sorted(tokens))}); a recording can only have one calibration"
            )
        return self._calibrations[tokens.pop()]

    def _camera(self, scene: _Scene, channel: str) -> Camera:
        _, _, translation, rotation, K = self._calibration(scene, channel)
        first = scene.readings[channel][0]
        name = channel.lower()
        try:
            model = CameraModel(first.width, first.height, np.array(K, float), "plumb_bob", (0.0,) * 5)
            return Camera(name, model, _matrix(translation, rotation), f"{name}_optical")
        except (ValueError, TypeError, OverflowError) as error:
            raise DatasetError(
                f"{self._tables.path('calibrated_sensor')}: record {first.calibration} ({channel}): {error}"
            ) from None

    def _lidar(self, scene: _Scene) -> LidarMount | None:
        if not scene.readings.get(_LIDAR):
            return None
        _, _, translation, rotation, _ = self._calibration(scene, _LIDAR)
        try:
            return LidarMount(_LIDAR.lower(), _matrix(translation, rotation))
        except ValueError as error:
            calibration = scene.readings[_LIDAR][0].calibration
            raise DatasetError(
                f"{self._tables.path('calibrated_sensor')}: record {calibration} ({_LIDAR}): {error}"
            ) from None

    def _write_messages(
        self, scene: _Scene, recorder: Recorder, cameras: dict[str, Camera], on_frame: Callable[[], object]
    ) -> None:
        """Write poses, images and clouds in the order of their stamps."""
        chosen = {channel: rows for channel, rows in scene.readings.items() if channel in cameras or channel == _LIDAR}
        poses = {r.stamp_ns: r for rows in scene.readings.values() for r in rows}
        events = [(stamp_ns, "", reading) for stamp_ns, reading in poses.items()]
        events += [(r.stamp_ns, channel, r) for channel, rows in chosen.items() for r in rows if r.key or self._sweeps]
        events.sort(key=lambda event: event[:2])
        recorder.write_static(events[0][0])
        path = self._tables.path("ego_pose")
        for stamp_ns, channel, reading in events:
            if not channel:
                try:
                    recorder.write_pose(stamp_ns, _matrix(*self._poses[reading.pose]))
                except ValueError as error:
                    raise DatasetError(f"{path}: record {reading.pose}: {error}; unpack the tables again") from None
            elif channel in cameras:
                camera, named_by = cameras[channel], f"sample_data {reading.token}"
                picture = read_picture(self._tables.root / reading.file, camera, named_by)
                recorder.write_camera(stamp_ns, camera, {"image_raw": picture})
            else:
                recorder.write_sweep(stamp_ns, self._cloud(reading))
                if reading.key:
                    on_frame()

    def _cloud(self, reading: _Reading) -> Cloud:
        path = self._tables.root / reading.file
        data = read_file(path, f"sample_data {reading.token}")
        if len(data) % (4 * _POINT_FLOATS):
            raise DatasetError(
                f"{path}: has {len(data)} bytes, not a multiple of the 20 bytes of a point; unpack the archive again"
            )
        points = np.frombuffer(data, "<f4").reshape(-1, _POINT_FLOATS)
        if self._labels is None:
            return Cloud(points[:, :3], points[:, 3], None)
        if reading.token not in self._labels:
            if reading.key:
                raise DatasetError(
                    f"{self._tables.path('lidarseg')}: keyframe sweep {reading.token} has no labels; unpack lidarseg "
                    f"of {self._tables.version}, or remove lidarseg.json to import without labels"
                )
            return Cloud(points[:, :3], points[:, 3], np.full(len(points), UNLABELLED, np.uint8))
        path = self._tables.root / self._labels[reading.token]
        raw = np.frombuffer(read_file(path, f"lidarseg of sample_data {reading.token}"), np.uint8)
        if len(raw) != len(points):
            raise DatasetError(
                f"{path}: {len(raw)} labels for {len(points)} points of {reading.file}; unpack both of one release"
            )
        if len(raw) and raw.max() >= len(_TO_OCC3D):
            raise DatasetError(f"{path}: contains id {raw.max()}; expected lidarseg's 0 to 31, not a panoptic file")
        return Cloud(points[:, :3], points[:, 3], _TO_OCC3D[raw])

    def _copy_truth(self, scene: _Scene, folder: Path) -> None:
        """Copy Occ3D's file of every keyframe, and name it after the stamp of the keyframe's LiDAR sweep."""
        if self._occ3d is None or not (self._occ3d / scene.name).is_dir():
            return
        keys = [r for r in scene.readings.get(_LIDAR, ()) if r.key]
        (folder / "occupancy").mkdir()
        missing = 0
        for reading in keys:
            path = self._occ3d / scene.name / reading.sample / "labels.npz"
            if not path.is_file():
                missing += 1
                continue
            data = path.read_bytes()
            _check_truth(path, data)
            (folder / "occupancy" / f"{reading.stamp_ns}.npz").write_bytes(data)
        if missing:
            self._tell(f"{self._occ3d / scene.name}: no truth for {missing} of {len(keys)} keyframes")


_TO_OCC3D = np.array([LIDARSEG[raw] for raw in range(len(_CATEGORIES))], np.uint8)


def _matrix(translation: list[float], rotation: list[float]) -> np.ndarray:
    """parent_from_child (4, 4) of a devkit record. The devkit's quaternions begin with w."""
    try:
        x, y, z = (float(value) for value in translation)
        qw, qx, qy, qz = (float(value) for value in rotation)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"pose is {translation!r:.60}, {rotation!r:.60}; expected 3 and 4 numbers") from None
    return transform_from(np.array([x, y, z]), np.array([qx, qy, qz, qw]))


def _check_truth(path: Path, data: bytes) -> None:
    """Raise DatasetError unless the file is a label file of Occ3D-nuScenes."""
    try:
        arrays = read_npz(io.BytesIO(data), ("semantics", "mask_lidar", "mask_camera"))
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path}: not a label file of Occ3D ({error}); unpack gts again") from None
    for name, array in arrays.items():
        highest = OCC3D_NUSCENES.free if name == "semantics" else 1
        if array.shape != OCC3D_GRID.shape or array.dtype.kind not in "uib":
            raise DatasetError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}; expected integers of {OCC3D_GRID.shape}"
            )
        if array.max() > highest:
            raise DatasetError(f"{path}: {name} reaches {array.max()}; expected at most {highest}")
