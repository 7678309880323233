"""`renderocc bench loader`: the cost of a training sample from prepared tables, and from the recording itself.

Six images of 256x704 of the town are written as recordings and prepared, once with dense labels and once with as many
labels as a LiDAR gives. A sample is six views, and 38,400 of the labelled rays of seven frames. CPU time of one core is
measured.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from renderocc_model.geometry.rays import Rays
from renderocc_model.geometry.rig import Camera, Rig
from renderocc_model.geometry.transforms import invert, transform_from
from renderocc_model.images.decoding import decode_compressed
from renderocc_model.images.preprocessing import Preprocessor

from .data.dataset import RayDataset, SampleConfig
from .data.prepare import PrepareConfig, prepare_recording
from .data.prepare.tables import pixel_directions
from .data.sampling import balance_weights, frame_weights
from .recordings.frames import Recording
from .recordings.recorder import Recorder
from .simulate.record import Settings, record
from .simulate.sensors import town_rig
from .simulate.write import encode

__all__ = ["bench_loader"]

WIDTH, HEIGHT = 704, 256
LABELS = 5_000  # labelled pixels per camera and frame, as from a 32-beam LiDAR
SHORT, LONG = 10, 40  # frames of the recordings
_START_NS, _FRAME_NS = 1_700_000_000_000_000_000, 500_000_000

# {camera: (JPEG, class ids, z-depth in metres)}
Pictures = dict[str, tuple[bytes, np.ndarray, np.ndarray]]


def bench_loader(frames: int) -> tuple[dict, list[str]]:
    """Measure the CPU time and memory of a sample. Returns figures and a Markdown table.

    Args:
        frames: number of samples; medians are reported.
    """
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="renderocc_bench_") as folder:
            figures = measure(Path(folder), frames)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    return figures, table(figures, frames)


def measure(folder: Path, frames: int) -> dict:
    """Seconds, bytes and KiB of memory for each recording: 'sparse', 'long' (the same with more frames), 'dense'."""
    rig = town_rig(WIDTH, HEIGHT)
    pictures = town_pictures(folder / "town", rig)
    figures: dict = {"labels": LABELS, "rays": SampleConfig().rays}
    for kind, length, labels in (("sparse", SHORT, LABELS), ("long", LONG, LABELS), ("dense", SHORT, None)):
        bag = write_recording(folder / kind, rig, pictures, length, labels)
        start = time.process_time()
        tables = prepare_recording(bag, None, folder / "tables" / kind, PrepareConfig())
        preparing = (time.process_time() - start) / length
        config = SampleConfig(height=HEIGHT, width=WIDTH)
        whole, views = (
            RayDataset(tables.parent, one) for one in (config, SampleConfig(height=HEIGHT, width=WIDTH, rays=0))
        )
        whole.sample(0, 0)
        memory = _memory_kib()
        figures[kind] = {
            "sample": _seconds(lambda k: whole.sample(0, k % length), max(frames, length)),
            "memory_kib": _memory_kib() - memory,
            "views": _seconds(lambda k: views.sample(0, k % length), frames),
            "prepare_frame": preparing,
            "frame_bytes": sum(path.stat().st_size for path in tables.iterdir()) / length,
        }
        if kind != "long":
            with Recording(bag) as recording:
                loader = BagLoader(recording, config, whole)
                figures[kind]["from_bag"] = _seconds(lambda k: loader.sample(k % length), min(frames, 5))
    images = [np.frombuffer(jpeg, np.uint8) for jpeg, _, _ in pictures.values()]
    figures["decode"] = _seconds(lambda _: [decode_compressed(image) for image in images], frames)
    return figures


def table(figures: dict, frames: int) -> list[str]:
    """The figures as Markdown."""
    sparse, long, dense = (figures[kind] for kind in ("sparse", "long", "dense"))

    def row(what: str, one: str, other: str) -> str:
        return f"| {what} | {one} | {other} |"

    def times(what: str, seconds: Callable[[dict], float]) -> str:
        return row(what, f"{seconds(sparse) * 1e3:.1f} ms", f"{seconds(dense) * 1e3:.1f} ms")

    return [
        f"a training sample: six {WIDTH}x{HEIGHT} JPEGs, {figures['rays']:,} rays of seven frames; CPU time of one "
        f"core, median of {frames}",
        "",
        row("", f"{figures['labels']:,} labels a camera", "every pixel labelled"),
        "|---|---|---|",
        times("from prepared tables", lambda one: one["sample"]),
        times("of it images: decoded and undistorted", lambda one: one["views"]),
        row("of these JPEG decoding alone", *[f"{figures['decode'] * 1e3:.1f} ms"] * 2),
        times("of it rays", lambda one: max(one["sample"] - one["views"], 0.0)),
        times("from the recording itself", lambda one: one["from_bag"]),
        times("preparing a frame, once", lambda one: one["prepare_frame"]),
        row("on disk a frame", *(f"{one['frame_bytes'] / 1e6:.2f} MB" for one in (sparse, dense))),
        row(f"memory taken by going through {SHORT} frames", *(_mib(one["memory_kib"]) for one in (sparse, dense))),
        row(f"the same for {LONG} frames", _mib(long["memory_kib"]), ""),
    ]


def town_pictures(folder: Path, rig: Rig) -> Pictures:
    """One frame of the simulated town."""
    record(folder, rig, Settings(frames=1, lidar=False, truth=False))
    with Recording(folder) as recording:
        return {
            camera: (
                recording.image_message(camera, stamp).data.tobytes(),
                recording.semantic(camera, stamp),
                recording.depth(camera, stamp),
            )
            for camera in recording.cameras
            for stamp in recording.stamps[camera]
        }


def write_recording(folder: Path, rig: Rig, pictures: Pictures, frames: int, labels: int | None) -> Path:
    """A recording with the same images in every frame, but other labelled pixels.

    Args:
        labels: labelled pixels per camera; None for all that have a label.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with Recorder(folder, tuple(rig), "mcap", None, True) as recording:
        recording.write_static(_START_NS)
        for frame in range(frames):
            stamp = _START_NS + frame * _FRAME_NS
            recording.write_pose(stamp, transform_from(np.array([0.5 * frame, 0, 0]), np.array([0, 0, 0, 1])))
            for camera in rig:
                recording.write_camera(stamp, camera, _files(rng, camera, pictures[camera.name], labels))
    return folder


class BagLoader:
    """Makes samples directly from a recording: for each sample it decodes labels, moves them to 3D and draws rays.

    Rays are drawn with exponential keys for every labelled pixel (Efraimidis and Spirakis). The rest is as in
    `RayDataset`; as there, the pixels' directions are cached.
    """

    def __init__(self, recording: Recording, config: SampleConfig, dataset: RayDataset) -> None:
        self._recording, self._config = recording, config
        self._frames = recording.frames()
        self._rng = np.random.default_rng(0)
        dynamic = np.isin(np.arange(len(dataset.classes)), dataset.classes.dynamic)
        self._weights = frame_weights(dynamic) * balance_weights(dataset.class_counts)
        models = recording.models
        rig = Rig(tuple(Camera(name, models[name], recording.mount(name)) for name in recording.cameras))
        self._preprocessor = Preprocessor(rig, config.height, config.width)
        self._directions = {name: pixel_directions(models[name]) for name in recording.cameras}

    def sample(self, index: int) -> tuple[np.ndarray, Rays]:
        """The views (N, H, W, 3) and the rays of a frame."""
        recording, now = self._recording, self._frames[index]
        messages = recording.gather([("image", camera, stamp) for camera, stamp in now.images.items()])
        views = [
            self._preprocessor.from_compressed(camera, messages["image", camera, stamp].data)
            for camera, stamp in now.images.items()
        ]
        parts = []
        for offset in (0, *self._config.auxiliary_offsets):
            if 0 <= index + offset < len(self._frames):
                parts += self._labelled(index + offset, now.stamp_ns, offset)
        columns = [np.concatenate(column) for column in zip(*parts)]
        origins, directions, distances, classes, offsets, weights = columns
        with np.errstate(divide="ignore"):
            keys = self._rng.standard_exponential(len(weights)) / weights
        count = min(self._config.rays, int((weights > 0).sum()))
        chosen = np.argsort(keys)[:count] if count == len(keys) else np.argpartition(keys, count)[:count]
        rays = Rays(
            torch.from_numpy(origins[chosen]),
            torch.from_numpy(directions[chosen]),
            torch.from_numpy(distances[chosen]),
            torch.from_numpy(classes[chosen]),
            frame_offsets=torch.from_numpy(offsets[chosen]),
        )
        return np.stack(views), rays

    def _labelled(self, index: int, now_ns: int, offset: int) -> list[tuple[np.ndarray, ...]]:
        """All labelled pixels of a frame as columns, one tuple for each camera."""
        parts: list[tuple[np.ndarray, ...]] = []
        recording, frame = self._recording, self._frames[index]
        wanted = [(kind, camera, stamp) for kind in ("semantic", "depth") for camera, stamp in frame.images.items()]
        messages = recording.gather(wanted)
        base_from_other = invert(recording.odom_from_base(now_ns)) @ recording.odom_from_base(frame.stamp_ns)
        for camera, stamp in frame.images.items():
            semantic = recording.decode("semantic", camera, stamp, messages)
            depth = recording.decode("depth", camera, stamp, messages)
            known = np.flatnonzero((semantic != 255) & (depth > 0))
            classes = semantic.ravel()[known].astype(np.int64)
            directions = self._directions[camera].reshape(-1, 3)[known]
            pose = (base_from_other @ recording.base_from_camera(camera, stamp, frame.stamp_ns)).astype(np.float32)
            parts.append(
                (
                    np.broadcast_to(pose[:3, 3], directions.shape),
                    directions @ pose[:3, :3].T,
                    depth.ravel()[known] / directions[:, 2],
                    classes,
                    np.full(len(known), offset),
                    self._weights[int(offset != 0)][classes],
                )
            )
        return parts


def _files(rng: np.random.Generator, camera: Camera, picture: tuple, labels: int | None) -> dict[str, bytes]:
    jpeg, semantic, depth = picture
    if labels is not None:
        known = np.flatnonzero((semantic != 255) & (depth > 0))
        kept = np.zeros(semantic.size, bool)
        kept[rng.choice(known, min(labels, len(known)), replace=False)] = True
        semantic = np.where(kept.reshape(semantic.shape), semantic, np.uint8(255))
        depth = np.where(kept.reshape(depth.shape), depth, 0)
    empty = np.zeros((camera.model.height, camera.model.width, 3), np.uint8)
    return {**encode(empty, semantic, depth), "image_raw": jpeg}


def _seconds(work: Callable[[int], object], times: int) -> float:
    """Median CPU time of this process for one call; the first call is not counted."""
    work(0)
    durations = []
    for number in range(times):
        start = time.process_time()
        work(number)
        durations.append(time.process_time() - start)
    return statistics.median(durations)


def _memory_kib() -> int:
    """The memory of this process in KiB, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _mib(kib: float) -> str:
    return f"{kib / 1024:.0f} MiB"
