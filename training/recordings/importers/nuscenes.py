"""Turns nuScenes into recordings: one rosbag2 for each scene, from the devkit's tables, lidarseg and Occ3D's labels.

`base_link` is nuScenes' ego frame, on the ground under the rear axle, with x forward, y left and z up. `odom` is the
global frame of nuScenes. /tf has the ego pose of every sensor reading of the scene, at its own stamp. Stamps are the
dataset's microseconds. Images are copied unchanged; nuScenes publishes them without distortion.

Clouds are those of LIDAR_TOP with the classes of lidarseg. Only keyframes have classes; points of other sweeps are
unlabelled. Noise and the vehicle itself get 254, no surface. The truth of a keyframe is Occ3D's file, which is made for
the ego pose of the keyframe's LiDAR sweep, and is named after that sweep's stamp.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from renderocc_model.base.arrays import read_npz
from renderocc_model.field.classes import OCC3D_NUSCENES, UNLABELLED
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.grid import OCC3D_GRID
from renderocc_model.geometry.rig import Camera
from training.recordings.raw_classes import LIDARSEG
from training.recordings.recorder import Cloud, LidarMount, Recorder

from .devkit import DevkitTables
from .importing import DatasetError, import_all, read_file, read_picture
from .nuscenes_tables import (
    CATEGORIES,
    LATEST_US,
    Reading,
    Scene,
    lidarseg_files,
    only_version,
    pose_matrix,
    scene_names,
)

__all__ = ["import_nuscenes"]

# Order of the cameras, as in the rigs of this project; other cameras follow by name.
_CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
_LIDAR = "LIDAR_TOP"
_POINT_FLOATS = 5  # x, y, z, intensity, ring


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
    tables = DevkitTables(root, version or only_version(root))
    names = scene_names(tables, scenes)
    if occ3d is not None and not occ3d.is_dir():
        raise DatasetError(f"{occ3d}: there is no such folder; unpack Occ3D's gts and name it with --occ3d")
    occ3d = occ3d or (root / "gts" if (root / "gts").is_dir() else None)
    labels = lidarseg_files(tables)

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
        self._scenes: dict[str, Scene] = {}

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
        self._scenes = {name: Scene(name) for name in self._names.values()}
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
            if type(stamp) is not int or not 0 <= stamp < LATEST_US:
                raise DatasetError(f"{tables.path('sample_data')}: record {row[0]} has timestamp {stamp!r:.40}")
            reading = Reading(stamp * 1000, *row)
            if reading.calibration not in self._calibrations:
                raise DatasetError(
                    f"{tables.path('calibrated_sensor')}: there is no record {reading.calibration}, which sample_data "
                    f"{reading.token} names; unpack all tables from one archive"
                )
            self._scenes[scene_of[reading.sample]].readings[self._calibrations[reading.calibration][0]].append(reading)
            poses.add(reading.pose)
        self._poses = tables.chosen("ego_pose", poses, "translation", "rotation")

    def _channels(self, scene: Scene) -> list[str]:
        found = {
            channel
            for channel, rows in scene.readings.items()
            if self._calibrations[rows[0].calibration][1] == "camera"
        }
        return [c for c in _CAMERAS if c in found] + sorted(found - set(_CAMERAS))

    def _calibration(self, scene: Scene, channel: str) -> tuple:
        tokens = {reading.calibration for reading in scene.readings[channel]}
        if len(tokens) > 1:
            raise DatasetError(
                f"{self._tables.path('sample_data')}: {channel} changes its calibration within {scene.name} "
                f"({', '.join(sorted(tokens))}); a recording can only have one calibration"
            )
        return self._calibrations[tokens.pop()]

    def _camera(self, scene: Scene, channel: str) -> Camera:
        _, _, translation, rotation, K = self._calibration(scene, channel)
        first = scene.readings[channel][0]
        name = channel.lower()
        try:
            model = CameraModel(first.width, first.height, np.array(K, float), "plumb_bob", (0.0,) * 5)
            return Camera(name, model, pose_matrix(translation, rotation), f"{name}_optical")
        except (ValueError, TypeError, OverflowError) as error:
            raise DatasetError(
                f"{self._tables.path('calibrated_sensor')}: record {first.calibration} ({channel}): {error}"
            ) from None

    def _lidar(self, scene: Scene) -> LidarMount | None:
        if not scene.readings.get(_LIDAR):
            return None
        _, _, translation, rotation, _ = self._calibration(scene, _LIDAR)
        try:
            return LidarMount(_LIDAR.lower(), pose_matrix(translation, rotation))
        except ValueError as error:
            calibration = scene.readings[_LIDAR][0].calibration
            raise DatasetError(
                f"{self._tables.path('calibrated_sensor')}: record {calibration} ({_LIDAR}): {error}"
            ) from None

    def _write_messages(
        self, scene: Scene, recorder: Recorder, cameras: dict[str, Camera], on_frame: Callable[[], object]
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
                    recorder.write_pose(stamp_ns, pose_matrix(*self._poses[reading.pose]))
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

    def _cloud(self, reading: Reading) -> Cloud:
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

    def _copy_truth(self, scene: Scene, folder: Path) -> None:
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


_TO_OCC3D = np.array([LIDARSEG[raw] for raw in range(len(CATEGORIES))], np.uint8)


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
