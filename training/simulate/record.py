"""Drive through the town and record: frames rendered by worker processes, written in order."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.rig import Rig

from .sensors import Lidar, Photographer, Sweep, camera_offsets
from .shapes import Mesh
from .town import Town, build_town
from .trace import Tracer
from .write import Recording, encode

__all__ = ["Settings", "record"]

START_NS = 1_700_000_000_000_000_000
_POSE_NS = 20_000_000  # 50 Hz
_BEFORE_S, _AFTER_S = 0.5, 0.2  # how far poses reach beyond the sensors' stamps


@dataclass(frozen=True)
class Settings:
    """What to record.

    Attributes:
        seed: which town, which weather, which noise.
        frames, rate: number of frames and frames a second.
        lidar, labels: whether to write the LiDAR's clouds and the 2D labels.
        storage: "mcap" or "sqlite3".
        jobs: worker processes; 1 renders in this process.
    Raises:
        ValueError: names the setting that is out of range.
    """

    seed: int = 0
    frames: int = 20
    rate: float = 2.0
    lidar: bool = True
    labels: bool = True
    storage: str = "mcap"
    jobs: int = 1

    def __post_init__(self) -> None:
        for name, value, good, wanted in (
            ("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2^63 - 1"),
            ("frames", self.frames, 1 <= self.frames <= 100_000, "1 to 100000"),
            ("rate", self.rate, 0.1 <= self.rate <= 100, "0.1 to 100 frames a second"),
            ("storage", self.storage, self.storage in ("mcap", "sqlite3"), "mcap or sqlite3"),
            ("jobs", self.jobs, 1 <= self.jobs <= 256, "1 to 256"),
        ):
            if not good:
                raise ValueError(f"{name} is {value!r}; expected {wanted}")

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return (self.frames - 1) / self.rate


def frame_ns(settings: Settings, frame: int) -> int:
    """Nominal time of a frame: integer nanoseconds after the recording's start."""
    return round(frame * 1e9 / settings.rate)


class Crew:
    """Everything that makes pictures of one town; lives in each worker."""

    def __init__(self, town: Town, rig: Rig, settings: Settings) -> None:
        self.town, self.settings = town, settings
        self.static = Tracer([town.static])
        self.cameras = [Photographer(camera) for camera in rig]
        self.offsets = camera_offsets(rig)
        self.lidar = Lidar() if settings.lidar else None

    def work(self, task: tuple[int, int]) -> dict[str, bytes] | Sweep:
        """One camera's files of one frame, or the LiDAR's sweep (sensor -1)."""
        frame, sensor = task
        rng = np.random.default_rng([self.settings.seed, 1000 + frame, sensor + 1])
        t = frame_ns(self.settings, frame) / 1e9
        if sensor < 0:
            return self.lidar.sweep(self.town, self.static, t, rng)
        photographer = self.cameras[sensor]
        picture = photographer.take(self.town, self.static, t + self.offsets[photographer.camera.name], rng)
        labels = (picture.semantic, picture.depth) if self.settings.labels else (None, None)
        return encode(picture.image, *labels)


_crew: Crew | None = None


def _start_worker(folder: str) -> None:
    """Load the town that the parent saved; its big arrays are mapped, so all workers share one copy."""
    global _crew
    cv2.setNumThreads(1)
    columns = {field.name: np.load(Path(folder) / f"{field.name}.npy", mmap_mode="r") for field in fields(Mesh)}
    town, rig, settings = pickle.loads((Path(folder) / "town.pickle").read_bytes())
    _crew = Crew(replace(town, static=Mesh(**columns)), rig, settings)


def _work(task: tuple[int, int]) -> dict[str, bytes] | Sweep:
    return _crew.work(task)


def render(
    town: Town, rig: Rig, settings: Settings, tasks: list[tuple[int, int]]
) -> Iterator[dict[str, bytes] | Sweep]:
    """The results of tasks, in their order, from as many processes as the settings say."""
    if settings.jobs == 1:
        crew = Crew(town, rig, settings)
        yield from map(crew.work, tasks)
        return
    # Fresh processes rather than forks: Embree's and OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    folder = tempfile.mkdtemp(prefix="renderocc_town_")
    try:
        for field in fields(Mesh):
            np.save(Path(folder) / f"{field.name}.npy", getattr(town.static, field.name))
        small = pickle.dumps((replace(town, static=Mesh.empty()), rig, settings))
        (Path(folder) / "town.pickle").write_bytes(small)
        with context.Pool(settings.jobs, _start_worker, (folder,)) as pool:
            yield from pool.imap(_work, tasks)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def record(folder: Path, rig: Rig, settings: Settings, on_frame=lambda count: None) -> int:
    """Record one drive into a rosbag2 folder, which appears only when it is complete.

    Args:
        folder: must not exist.
        rig: the cameras.
        on_frame: called with the number of frames written so far.
    Returns:
        the number of messages.
    Raises:
        ValueError: the folder exists or its parent cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists; name a folder that does not, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    town = build_town(settings.seed, settings.duration + 1.0)
    try:
        count = _write_all(partial, town, rig, settings, on_frame)
        _rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return count


def _write_all(folder: Path, town: Town, rig: Rig, settings: Settings, on_frame) -> int:
    sensors = ([-1] if settings.lidar else []) + list(range(len(rig)))
    offsets = camera_offsets(rig)
    when = lambda frame, sensor: (
        frame_ns(settings, frame) + (round(offsets[rig.names[sensor]] * 1e9) if sensor >= 0 else 0)
    )
    tasks = [
        (frame, sensor) for frame in range(settings.frames) for sensor in sorted(sensors, key=lambda s: (when(0, s), s))
    ]
    lidar = Lidar() if settings.lidar else None
    pose_ns, end_ns = -round(_BEFORE_S * 1e9), frame_ns(settings, settings.frames - 1) + round(_AFTER_S * 1e9)
    count = 1
    with Recording(folder, rig, settings.storage, lidar, settings.labels) as recording:
        recording.write_static(START_NS + pose_ns)
        for (frame, sensor), result in zip(tasks, render(town, rig, settings, tasks)):
            stamp = when(frame, sensor)
            while pose_ns <= stamp:
                recording.write_pose(START_NS + pose_ns, town.drive.odom_from_base(pose_ns / 1e9))
                pose_ns, count = pose_ns + _POSE_NS, count + 1
            if sensor < 0:
                recording.write_sweep(START_NS + stamp, result)
                count += 1
            else:
                recording.write_camera(START_NS + stamp, rig.cameras[sensor], result)
                count += len(result) + 1
            if (frame, sensor) == tasks[-1] or sensor == tasks[len(sensors) - 1][1]:
                on_frame(frame + 1)
        while pose_ns <= end_ns:
            recording.write_pose(START_NS + pose_ns, town.drive.odom_from_base(pose_ns / 1e9))
            pose_ns, count = pose_ns + _POSE_NS, count + 1
    return count


def _rename(partial: Path, folder: Path) -> None:
    """Give the recording its final name: the storage file is named after the folder, inside metadata.yaml too."""
    metadata = partial / "metadata.yaml"
    for file in list(partial.iterdir()):
        if file.suffix in (".mcap", ".db3"):
            name = f"{folder.name}{file.suffix}"
            metadata.write_text(metadata.read_text().replace(file.name, name))
            file.rename(partial / name)
    partial.rename(folder)
