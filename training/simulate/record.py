"""Drive through the town and record: frames rendered by worker processes, written in order."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.rig import Rig
from training.new_bag import new_bag
from training.recorder import Recorder

from .sensors import Lidar, Photographer, Sweep, camera_offsets
from .shapes import Mesh
from .town import Town, build_town
from .trace import Tracer
from .truth import Occupancy, Surveyor
from .write import encode

__all__ = ["Settings", "record"]

START_NS = 1_700_000_000_000_000_000
_POSE_NS = 20_000_000  # 50 Hz
_LIDAR, _TRUTH = -1, -2  # tasks that are no camera's
_BEFORE_S, _AFTER_S = 0.5, 0.2  # how far poses reach beyond the sensors' stamps


@dataclass(frozen=True)
class Settings:
    """What to record.

    Attributes:
        seed: which town, which weather, which noise.
        frames, rate: number of frames and frames a second.
        lidar, labels, truth: whether to write the LiDAR's clouds, the 2D labels, and the 3D truth beside the bag.
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
    truth: bool = True
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


def _packed(occupancy: Occupancy) -> bytes:
    """The bytes of an .npz file in Occ3D's layout."""
    file = io.BytesIO()
    np.savez_compressed(
        file, semantics=occupancy.semantics, mask_lidar=occupancy.mask_lidar, mask_camera=occupancy.mask_camera
    )
    return file.getvalue()


class Crew:
    """Everything that makes pictures of one town; lives in each worker."""

    def __init__(self, town: Town, rig: Rig, settings: Settings) -> None:
        self.town, self.settings = town, settings
        self.static = Tracer([town.static])
        self.cameras = [Photographer(camera) for camera in rig]
        self.offsets = camera_offsets(rig)
        self.lidar = Lidar() if settings.lidar else None
        self.surveyor = None
        if settings.truth:
            cameras = [(camera, self.offsets[camera.camera.name]) for camera in self.cameras]
            self.surveyor = Surveyor(town, self.static, cameras, self.lidar)

    def work(self, task: tuple[int, int]) -> dict[str, bytes] | Sweep | bytes:
        """One camera's files of one frame, the LiDAR's sweep, or the truth as the bytes of an .npz file."""
        frame, sensor = task
        rng = np.random.default_rng([self.settings.seed, 1000 + frame, sensor - _TRUTH])
        t = frame_ns(self.settings, frame) / 1e9
        if sensor == _TRUTH:
            return _packed(self.surveyor.survey(t))
        if sensor == _LIDAR:
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


def _work(task: tuple[int, int]) -> dict[str, bytes] | Sweep | bytes:
    return _crew.work(task)


def render(
    town: Town, rig: Rig, settings: Settings, tasks: list[tuple[int, int]]
) -> Iterator[dict[str, bytes] | Sweep | bytes]:
    """The results of tasks, in their order, from as many processes as the settings say."""
    if settings.jobs == 1:
        yield from map(Crew(town, rig, settings).work, tasks)
        return
    # Fresh processes rather than forks: Embree's and OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    folder = tempfile.mkdtemp(prefix="renderocc_town_")
    executor = ProcessPoolExecutor(settings.jobs, context, _start_worker, (folder,))
    try:
        for field in fields(Mesh):
            np.save(Path(folder) / f"{field.name}.npy", getattr(town.static, field.name))
        small = pickle.dumps((replace(town, static=Mesh.empty()), rig, settings))
        (Path(folder) / "town.pickle").write_bytes(small)
        waiting, ahead = deque(), iter(tasks)
        for task in islice(ahead, 3 * settings.jobs):
            waiting.append(executor.submit(_work, task))
        while waiting:
            yield waiting.popleft().result()
            for task in islice(ahead, 1):
                waiting.append(executor.submit(_work, task))
    except BrokenProcessPool:
        raise MemoryError(
            f"a worker process died, probably out of memory; use fewer than {settings.jobs} jobs"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
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
    with new_bag(folder) as partial:
        town = build_town(settings.seed, settings.duration + 1.0)
        return _write_all(partial, town, rig, settings, on_frame)


def _write_all(folder: Path, town: Town, rig: Rig, settings: Settings, on_frame) -> int:
    offsets = camera_offsets(rig)
    after = {index: round(offsets[name] * 1e9) for index, name in enumerate(rig.names)}
    after |= {_TRUTH: 0} if settings.truth else {}
    after |= {_LIDAR: 0} if settings.lidar else {}
    sensors = sorted(after, key=lambda sensor: (after[sensor], sensor))
    tasks = [(frame, sensor) for frame in range(settings.frames) for sensor in sensors]
    pose_ns, end_ns = -round(_BEFORE_S * 1e9), frame_ns(settings, settings.frames - 1) + round(_AFTER_S * 1e9)
    lidar = Lidar() if settings.lidar else None
    with Recorder(folder, rig, settings.storage, lidar, settings.labels) as recorder:
        if settings.truth:
            (folder / "occupancy").mkdir()
        recorder.write_static(START_NS + pose_ns)
        for (frame, sensor), result in zip(tasks, render(town, rig, settings, tasks)):
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
            if sensor == sensors[-1]:
                on_frame(frame + 1)
        while pose_ns <= end_ns:
            recorder.write_pose(START_NS + pose_ns, town.drive.odom_from_base(pose_ns / 1e9))
            pose_ns += _POSE_NS
    return recorder.count
