"""Records a drive through the town: worker processes render frames, which are written in order."""

from __future__ import annotations

import io
import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from renderocc_model.base.worker_processes import serve_parent
from renderocc_model.geometry.rig import Rig
from training.recordings.new_bag import new_bag
from training.recordings.recorder import Cloud, LidarMount, Recorder

from .cameras import draw_imaging
from .mesh import Mesh
from .noise import noise
from .rigs import Vehicle
from .sensors import CameraRenderer, Lidar, camera_offsets
from .town import Town, build_town
from .trace import Tracer
from .traffic import CRUISE
from .truth import LONGEST_MOVER, TruthVolumes, Voxeliser
from .variety import KINDS
from .write import JPEG_QUALITY, encode

__all__ = ["Settings", "record"]

START_NS = 1_700_000_000_000_000_000
_POSE_NS = 20_000_000  # 50 Hz
_LIDAR, _TRUTH = -1, -2  # sensor numbers of tasks other than cameras
_TURN_S, _TURN_PARTS = 0.1, 4  # longest turn of a LiDAR that scans, seconds; parts in which others stand still
_BEFORE_S, _AFTER_S = 0.5, 0.2  # how long poses begin before and end after the sensors' stamps


@dataclass(frozen=True)
class Settings:
    """What to record.

    Attributes:
        seed: seed of town, weather and noise.
        frames, rate: number of frames, and frames per second.
        lidar, labels, truth: whether to write the LiDAR's clouds, the 2D labels, and the 3D truth beside the bag.
        storage: "mcap" or "sqlite3".
        jobs: worker processes; 1 renders in this process.
        varied: keys of `variety.KINDS`: what else is random.
        speed: of the car on straight streets, m/s.
        scan: whether the LiDAR's points are seen one after the other while the car drives, each with its time; else its
            clouds are deskewed to the frames' stamps.
    Raises:
        ValueError: a setting is out of range.
    """

    seed: int = 0
    frames: int = 20
    rate: float = 2.0
    lidar: bool = True
    labels: bool = True
    truth: bool = True
    storage: str = "mcap"
    jobs: int = 1
    varied: frozenset[str] = frozenset()
    speed: float = CRUISE
    scan: bool = False

    def __post_init__(self) -> None:
        for name, value, good, wanted in (
            ("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2^63 - 1"),
            ("frames", self.frames, 1 <= self.frames <= 100_000, "1 to 100000"),
            ("rate", self.rate, 0.1 <= self.rate <= 100, "0.1 to 100 frames a second"),
            ("storage", self.storage, self.storage in ("mcap", "sqlite3"), "mcap or sqlite3"),
            ("jobs", self.jobs, 1 <= self.jobs <= 256, "1 to 256"),
            ("speed", self.speed, 1 <= self.speed <= 30, "1 to 30 m/s"),
            ("varied", sorted(self.varied), self.varied <= set(KINDS), f"some of {', '.join(KINDS)}"),
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


def _packed(occupancy: TruthVolumes) -> bytes:
    """The bytes of an .npz file in Occ3D's layout."""
    file = io.BytesIO()
    np.savez_compressed(
        file, semantics=occupancy.semantics, mask_lidar=occupancy.mask_lidar, mask_camera=occupancy.mask_camera
    )
    return file.getvalue()


class SensorSimulator:
    """Simulates all sensors of one town and its truth. Each worker process has a copy."""

    def __init__(self, town: Town, vehicle: Vehicle, settings: Settings) -> None:
        self.town, self.vehicle, self.settings = town, vehicle, settings
        self.static = Tracer([town.static])
        imaging = draw_imaging(settings.seed, settings.varied, town.weather.rain, len(vehicle.rig))
        self.cameras = [CameraRenderer(camera, vehicle.body, one) for camera, one in zip(vehicle.rig, imaging)]
        self.offsets = camera_offsets(vehicle.rig)
        self.lidar = Lidar() if settings.lidar else None
        self.voxeliser = None
        if settings.truth:
            cameras = [(camera, self.offsets[camera.camera.name]) for camera in self.cameras]
            self.voxeliser = Voxeliser(town, cameras, self.lidar)
            self.voxeliser.prepare(0.0)
        # Some code is compiled or read from disk at its first use. Do this before workers fork.
        up = np.array([[0.0, 0.0, 1.0]])
        self.static.trace(np.zeros(3), up)
        self.static.blocked(up, up[0])
        noise(np.ones(1), np.ones(1), 1.0, np.ones(1))

    def work(self, task: tuple[int, tuple[int, ...]]) -> list[Any]:
        """Simulate sensors in one frame. Yields a camera's files, the LiDAR's cloud, or the truth's .npz as bytes."""
        frame, sensors = task
        t = frame_ns(self.settings, frame) / 1e9
        around = self._all_around(t) if min(sensors) < 0 else None
        return [self._sensor(frame, sensor, t, around) for sensor in sensors]

    def _all_around(self, t: float) -> tuple[list[tuple[Mesh, np.ndarray]], Tracer]:
        """All moving models within the range of truth and LiDAR, and a tracer with them."""
        reach = max(self.voxeliser.reach if self.voxeliser else 0.0, self.lidar.reach if self.lidar else 0.0)
        moving = self.town.traffic.models(t, self.town.drive.odom_from_base(t)[:3, 3], reach=reach + LONGEST_MOVER)
        return moving, self.static.with_moved(Mesh.join([model.moved(pose) for model, pose in moving]))

    def _sensor(
        self, frame: int, sensor: int, t: float, around: tuple[list[tuple[Mesh, np.ndarray]], Tracer] | None
    ) -> dict[str, bytes] | Cloud | bytes:
        rng = np.random.default_rng([self.settings.seed, 1000 + frame, sensor - _TRUTH])
        if sensor == _TRUTH:
            lost = self.vehicle.lost(self.settings.seed, frame)
            assert self.voxeliser is not None and around is not None
            return _packed(self.voxeliser.voxelise(t, around[0], around[1], self.vehicle.body, lost))
        if sensor == _LIDAR:
            assert self.lidar is not None and around is not None
            if self.settings.scan:
                return self._scan(self.lidar, t, rng)
            return self.lidar.sweep(self.town.drive.odom_from_base(t), around[1], rng)
        renderer = self.cameras[sensor]
        picture = renderer.render(self.town, self.static, t + self.offsets[renderer.camera.name], rng)
        semantic, depth = (picture.semantic, picture.depth) if self.settings.labels else (None, None)
        return encode(picture.image, semantic, depth, renderer.imaging.quality if renderer.imaging else JPEG_QUALITY)

    def _scan(self, lidar: Lidar, t: float, rng: np.random.Generator) -> Cloud:
        """The cloud of a turn that begins at a time. What moves is moved on a few times in the turn."""
        seconds = min(_TURN_S, 1 / self.settings.rate)
        poses = [self.town.drive.odom_from_base(t + index * seconds / lidar.columns) for index in range(lidar.columns)]
        tracers = [self._all_around(t + (part + 0.5) * seconds / _TURN_PARTS)[1] for part in range(_TURN_PARTS)]
        return lidar.scan(np.stack(poses), tracers, seconds, rng)


_simulator: SensorSimulator | None = None  # set before the workers fork, so that they inherit it


def _work(task: tuple[int, tuple[int, ...]]) -> list[Any]:
    assert _simulator is not None
    return _simulator.work(task)


def _start_worker(parent: int, cpus: set[int]) -> None:
    serve_parent(parent)
    os.sched_setaffinity(0, cpus)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep libraries from starting threads, and stop OpenCV's threads, because threads do not survive a fork."""
    cpus, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {min(cpus)})  # Embree starts as many threads as there are CPUs when it is first used
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
        cv2.setNumThreads(threads)


def render(
    town: Town, vehicle: Vehicle, settings: Settings, tasks: list[tuple[int, tuple[int, ...]]]
) -> Iterator[list[dict[str, bytes] | Cloud | bytes]]:
    """Yield the results of tasks in order, computed by `settings.jobs` processes."""
    with _one_thread():
        simulator = SensorSimulator(town, vehicle, settings)
    if settings.jobs == 1:
        yield from map(simulator.work, tasks)
        return
    # Workers are forked, so that they share the town and its tree: hundreds of megabytes that take seconds to make.
    global _simulator
    _simulator = simulator
    # They are forked while this process may use only one CPU; let them use all.
    start = (_start_worker, (os.getpid(), os.sched_getaffinity(0)))
    executor = ProcessPoolExecutor(settings.jobs, multiprocessing.get_context("fork"), *start)
    try:
        ahead = iter(tasks)
        waiting = _fork(executor, list(islice(ahead, 3 * settings.jobs)))
        while waiting:
            yield waiting.popleft().result()
            for task in islice(ahead, 1):
                waiting.append(executor.submit(_work, task))
    except BrokenProcessPool:
        raise MemoryError(
            f"a worker process died, probably out of memory; use fewer than {settings.jobs} --jobs"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        _simulator = None


def _fork(executor: ProcessPoolExecutor, tasks: list[tuple[int, tuple[int, ...]]]) -> deque:
    """Submit the first tasks. This forks the workers."""
    with _one_thread(), warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads. The threads here are harmless: a progress bar's and BLAS's.
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        return deque(executor.submit(_work, task) for task in tasks)


def record(folder: Path, vehicle: Rig | Vehicle, settings: Settings, on_frame=lambda count: None) -> int:
    """Record one drive into a rosbag2 folder. The folder appears when it is complete.

    Args:
        folder: path of the folder; must not exist.
        vehicle: the recording car, or only its cameras.
        settings: what to record.
        on_frame: called with the number of frames that are written.
    Returns:
        the number of messages.
    Raises:
        ValueError: the folder exists or its parent cannot be written.
    """
    vehicle = vehicle if isinstance(vehicle, Vehicle) else Vehicle(vehicle)
    with new_bag(folder) as partial:
        town = build_town(settings.seed, settings.duration + 1.0, settings.varied, settings.speed)
        count = _write_all(partial, town, vehicle, settings, on_frame)
        if vehicle.random:
            vehicle.rig.save(partial / "rig.yaml")
        return count


def _in_order_of_stamps(results, tasks, sensors) -> Iterator[tuple]:
    """Yield (frame, sensor, result), within a frame in the order of `sensors`."""
    for frame, of_frame in groupby(tasks, key=itemgetter(0)):
        by_sensor: dict[int, Any] = {}
        for _, group in of_frame:
            by_sensor |= dict(zip(group, next(results)))
        yield from ((frame, sensor, by_sensor[sensor]) for sensor in sensors if sensor in by_sensor)
        yield frame, None, None


def _tasks(vehicle: Vehicle, sensors: list[int], settings: Settings) -> list[tuple[int, tuple[int, ...]]]:
    """The tasks of all frames, frame by frame."""
    # Truth and LiDAR have the same time, so they are made together.
    groups = [tuple(sensor for sensor in sensors if sensor < 0)] + [(sensor,) for sensor in sensors if sensor >= 0]
    groups = [group for group in groups if group]
    lost = [vehicle.lost(settings.seed, frame) for frame in range(settings.frames)]
    return [(frame, group) for frame in range(settings.frames) for group in groups if group[0] not in lost[frame]]


def _write_all(folder: Path, town: Town, vehicle: Vehicle, settings: Settings, on_frame) -> int:
    rig = vehicle.rig
    offsets = camera_offsets(rig)
    after = {index: round(offsets[name] * 1e9) for index, name in enumerate(rig.names)}
    after |= {_TRUTH: 0} if settings.truth else {}
    after |= {_LIDAR: 0} if settings.lidar else {}
    sensors = sorted(after, key=lambda sensor: (after[sensor], sensor))
    tasks = _tasks(vehicle, sensors, settings)
    pose_ns, end_ns = -round(_BEFORE_S * 1e9), frame_ns(settings, settings.frames - 1) + round(_AFTER_S * 1e9)
    lidar = LidarMount(Lidar.frame_id, Lidar().base_from_lidar) if settings.lidar else None
    with Recorder(folder, rig, settings.storage, lidar, settings.labels) as recorder:
        if settings.truth:
            (folder / "occupancy").mkdir()
        recorder.write_static(START_NS + pose_ns)
        results = render(town, vehicle, settings, tasks)
        for frame, sensor, result in _in_order_of_stamps(results, tasks, sensors):
            if sensor is None:
                on_frame(frame + 1)
                continue
            stamp = frame_ns(settings, frame) + after[sensor]
            while pose_ns <= stamp:
                recorder.write_pose(START_NS + pose_ns, town.drive.odom_from_base(pose_ns / 1e9))
                pose_ns += _POSE_NS
            if sensor == _TRUTH:
                (folder / "occupancy" / f"{START_NS + stamp}.npz").write_bytes(result)
            elif sensor == _LIDAR:
                recorder.write_sweep(START_NS + stamp, result)
            else:
                recorder.write_camera(START_NS + stamp, rig.cameras[sensor], result)
        while pose_ns <= end_ns:
            recorder.write_pose(START_NS + pose_ns, town.drive.odom_from_base(pose_ns / 1e9))
            pose_ns += _POSE_NS
    return recorder.count
