"""Makes labels for every image of a recording, and writes them to a sidecar bag."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio import cdr
from training.label.structure.run import MotionLabels
from training.label.structure.window import ImageLabels
from training.recordings.camera_image import camera_image
from training.recordings.frames import Recording
from training.recordings.label_images import depth_png, semantic_png
from training.recordings.new_bag import new_bag
from training.recordings.raw_classes import NO_SURFACE
from training.recordings.sources import Message, RecordingError
from training.recordings.stamped_topic import StampedTopic

from .clouds import CloudSource, LabelledCloud, NoCloud
from .coverage import Coverage
from .from_clouds import Labels, labels_from_clouds
from .from_images import Segmenter, recorded_classes, recorded_depth
from .from_motion import standing_depth, triangulated_labels
from .ground_images import DepthOf, GroundOfImage, ImageGround
from .mapping import ClassMapping, LabelError
from .overlay import overlay
from .projection import Occlusion
from .sidecar import SidecarWriter, write_note

__all__ = ["Sources", "depth_of_images", "refuse_nothing", "try_labels", "write_labels"]

_SAME_NS = 1_000_000  # largest difference between the stamps of an image and its label image
_AHEAD = 3  # images in the queue for each thread


@dataclass(frozen=True)
class Sources:
    """The sources of labels.

    Attributes:
        classes: class table of the ids that are written.
        lidar: the clouds, or None.
        depth: {camera: topic of depth images}. These cameras do not take depth from the LiDAR.
        semantic: {camera: topic of label images}.
        mapping: maps the ids or colours of `semantic` to classes.
        network: a network that labels the images, or None.
        occlusion: how hidden points are found; None keeps them.
        min_depth: smallest z-depth of a LiDAR point, metres.
        masks: {camera: (H, W) bool}: pixels that show the vehicle itself and get no labels.
        motion: depth from motion, in place of LiDAR and depth images; or None.
        ground: classifies the pixels that have depth as ground or obstacle, where no LiDAR does; or None.
    """

    classes: ClassTable
    lidar: CloudSource | None = None
    depth: dict[str, StampedTopic] = field(default_factory=dict)
    semantic: dict[str, StampedTopic] = field(default_factory=dict)
    mapping: ClassMapping | None = None
    network: Segmenter | None = None
    occlusion: Occlusion | None = Occlusion()
    min_depth: float = 1.0
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    motion: MotionLabels | None = None
    ground: ImageGround | None = None

    @property
    def gives_classes(self) -> bool:
        """Whether a source gives classes, not only depth."""
        points = self.lidar is not None and self.lidar.classes is not None
        return points or bool(self.semantic) or self.network is not None or self.ground is not None


@dataclass(frozen=True)
class _Job:
    """One image, and the messages that its labels are made from."""

    camera: str
    stamp_ns: int
    model: CameraModel
    clouds: list[tuple[np.ndarray, LabelledCloud]]
    depth: Message | None
    semantic: Message | None
    image: Message | None
    where: str
    picture: Path | None
    triangulated: ImageLabels | None = None
    ground: GroundOfImage | None = None


def write_labels(
    recording: Recording,
    sources: Sources,
    out: Path,
    notes: dict[str, str],
    preview: Path | None = None,
    preview_count: int = 10,
    storage: str = "mcap",
    jobs: int = 2,
    on_image: Callable[[int], None] = lambda done: None,
    batch: int = 1,
) -> Coverage:
    """Label every image and write the sidecar bag. The bag appears when it is complete.

    Images that cannot be labelled, because no cloud is near or the ego pose is missing, are counted in
    `Coverage.skipped`.

    Args:
        recording: an open recording; it is not changed.
        sources: the sources of labels.
        out: folder to write; must not exist.
        notes: lines about the sources, for labels.yaml.
        preview: folder for images with their labels drawn over them.
        preview_count: largest number of previews of each camera, spread evenly over its images.
        storage: "mcap" or "sqlite3".
        jobs: number of threads.
        on_image: called with the number of images that are done.
        batch: number of images that a network takes at a time.
    Raises:
        ValueError: a source cannot be read, or no image or not one pixel can be labelled.
    """
    _check_outside(recording.path, out, preview)
    coverage = Coverage(images={camera: len(recording.stamps[camera]) for camera in recording.cameras})
    whats = ("semantic", "depth") if sources.gives_classes else ("depth",)
    topics = [(camera, what) for camera in recording.cameras for what in whats]
    if preview is not None:
        preview.mkdir(parents=True, exist_ok=True)
    with new_bag(out) as partial:
        with SidecarWriter(partial, topics, storage) as writer, ThreadPoolExecutor(jobs) as pool:
            jobs_to_do = _jobs(recording, sources, coverage, preview, preview_count)
            for done, (job, labels, files) in enumerate(_worked(pool, jobs, jobs_to_do, sources, batch), 1):
                coverage.add(job.camera, labels)
                for what in whats:
                    stamp_ns = recording.header_stamp(job.camera, job.stamp_ns)
                    writer.write(job.camera, what, stamp_ns, recording.optical_frames[job.camera], files[what])
                on_image(done + sum(entry[0] for entry in coverage.skipped.values()))
        refuse_nothing(recording, coverage)
        write_note(partial, sources.classes, recording.path, notes)
    return coverage


def try_labels(recording: Recording, sources: Sources, most: int = 0) -> Coverage:
    """Label images as `write_labels` does, and write nothing.

    Args:
        recording: an open recording.
        sources: the sources of labels.
        most: largest number of images of each camera, spread evenly; 0 for all.
    Returns:
        the counts of these images.
    Raises:
        ValueError: as `write_labels`; of these images, not one can be labelled.
    """
    stamps = {camera: _spread(recording.stamps[camera], most) for camera in recording.cameras}
    coverage = Coverage(images={camera: len(stamps[camera]) for camera in stamps})
    for job in _jobs(recording, sources, coverage, None, 1, stamps):
        coverage.add(job.camera, _work(job, sources)[0])
    refuse_nothing(recording, coverage)
    return coverage


def _spread(stamps: list[int], most: int) -> list[int]:
    if not most or len(stamps) <= most:
        return stamps
    return [stamps[index] for index in np.linspace(0, len(stamps) - 1, most).astype(int)]


def refuse_nothing(recording: Recording, coverage: Coverage) -> None:
    """Raise LabelError if no image, or not one pixel, was labelled."""
    if not coverage.labelled:
        count, first, reason = next(iter(coverage.skipped.values()), (0, "none", "there are none"))
        raise LabelError(f"{recording.path}: no image could be labelled; {count} images, first {first}: {reason}")
    if not any(coverage.depths.values()) and not any(coverage.classified.values()):
        raise LabelError(
            f"{recording.path}: {sum(coverage.labelled.values())} images, and not one pixel could be labelled: "
            "clouds or depth images are empty, or no point is in the view of a camera; look at the cameras' and "
            "the LiDAR's mounts on /tf_static (renderocc check), and at --min-depth"
        )


def _check_outside(bag: Path, out: Path, preview: Path | None) -> None:
    """Raise LabelError if an output path is inside the recording, which is never changed."""
    inside = bag.resolve()
    for path in (out, preview):
        if path is not None and (inside == path.resolve() or inside in path.resolve().parents):
            raise LabelError(f"{path} is inside the recording {bag}, which must not change; name another folder")


def _jobs(
    recording: Recording,
    sources: Sources,
    coverage: Coverage,
    preview: Path | None,
    preview_count: int,
    stamps: dict[str, list[int]] | None = None,
) -> Iterator[_Job]:
    """Yield a job for every image, or those of `stamps`, in their order. Images without labels are counted."""
    stamps = recording.stamps if stamps is None else stamps
    images = sorted((stamp, camera) for camera in recording.cameras for stamp in stamps[camera])
    shown = dict.fromkeys(recording.cameras, 0)
    for stamp_ns, camera in images:
        number, every = shown[camera], -(-len(recording.stamps[camera]) // max(preview_count, 1))
        shown[camera] += 1
        picture = None
        if preview is not None and number % every == 0:
            picture = preview / f"{camera.replace('/', '_')}_{stamp_ns}.jpg"
        try:
            yield _job(recording, sources, camera, stamp_ns, picture)
        except (RecordingError, NoCloud) as error:
            coverage.skip(str(error), f"{camera} at {recording.time_text(stamp_ns)}")


def _job(recording: Recording, sources: Sources, camera: str, stamp_ns: int, picture: Path | None) -> _Job:
    clouds = []
    if sources.lidar is not None and (camera not in sources.depth or sources.lidar.classes is not None):
        for cloud in sources.lidar.around(stamp_ns):
            clouds.append((sources.lidar.camera_from_cloud(camera, stamp_ns, cloud), cloud))
    elif camera not in sources.depth and sources.motion is None:
        raise NoCloud(f"camera '{camera}' has no depth topic")
    image = recording.image_message(camera, stamp_ns) if picture or sources.network else None
    return _Job(
        camera,
        stamp_ns,
        recording.models[camera],
        clouds,
        _beside(sources.depth.get(camera), stamp_ns),
        _beside(sources.semantic.get(camera), stamp_ns),
        image,
        f"{recording.path}: {camera} at {recording.time_text(stamp_ns)}",
        picture,
        None if sources.motion is None else triangulated_labels(sources.motion, camera, stamp_ns),
        None if sources.ground is None else sources.ground.of(camera, stamp_ns),
    )


def depth_of_images(recording: Recording, sources: Sources) -> DepthOf:
    """What gives the depth of an image: from motion, or from depth images."""

    def depth_of(camera: str, stamp_ns: int) -> tuple[np.ndarray, np.ndarray]:
        if sources.motion is not None:
            labels = triangulated_labels(sources.motion, camera, stamp_ns)
            return labels.pixels, labels.depth.astype(np.float64)
        message = _beside(sources.depth.get(camera), stamp_ns)
        if message is None:
            raise NoCloud(f"camera '{camera}' has no depth topic")
        model = recording.models[camera]
        try:
            depth = recorded_depth(message, model.height, model.width)
        except ValueError as error:
            where = f"{recording.path}: {camera} at {recording.time_text(stamp_ns)}"
            raise LabelError(f"{where}: {error}") from None
        rows, columns = np.nonzero(depth)
        return np.column_stack([columns, rows]), depth[rows, columns].astype(np.float64)

    return depth_of


def _beside(topic: StampedTopic | None, stamp_ns: int) -> Message | None:
    """The message of a label topic with the image's stamp."""
    if topic is None:
        return None
    near = topic.nearest(stamp_ns, _SAME_NS)
    if near is None:
        raise NoCloud(f"no image on {topic.topic} with the image's stamp")
    data = topic.read(near)
    return cdr.read_compressed_image(data) if topic.type.endswith("CompressedImage") else cdr.read_image(data)


def _worked(
    pool: ThreadPoolExecutor, threads: int, jobs: Iterator[_Job], sources: Sources, batch: int
) -> Iterator[tuple[_Job, Labels, dict[str, bytes]]]:
    """Yield the jobs' results in order, while threads work on the next few."""
    waiting: deque = deque()
    while group := list(islice(jobs, batch)):
        waiting.append((group, pool.submit(_work_on, group, sources)))
        if len(waiting) >= _AHEAD * threads:
            yield from _results(*waiting.popleft())
    while waiting:
        yield from _results(*waiting.popleft())


def _results(group: list[_Job], future: Future) -> Iterator[tuple[_Job, Labels, dict[str, bytes]]]:
    for job, result in zip(group, future.result()):
        yield job, *result


def _work_on(group: list[_Job], sources: Sources) -> list[tuple[Labels, dict[str, bytes]]]:
    """The results of some jobs, whose images a network takes together."""
    if sources.network is None or len(group) == 1:
        return [_work(job, sources) for job in group]
    images = []
    for job in group:
        assert job.image is not None  # `_job` has the image where there is a network
        try:
            images.append(camera_image(job.image, job.model))
        except ValueError as error:
            raise LabelError(f"{job.where}: {error}") from None
    try:
        classes = sources.network.batch(images)
    except LabelError as error:
        raise LabelError(f"{group[0].where}: {error}") from None
    return [_work(job, sources, seen) for job, seen in zip(group, zip(images, classes))]


def _work(
    job: _Job, sources: Sources, seen: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Labels, dict[str, bytes]]:
    try:
        labels, image = _label(job, sources, seen)
    except ValueError as error:
        raise LabelError(f"{job.where}: {error}") from None
    if job.picture is not None:
        assert image is not None  # a job with a picture has its image
        picture = overlay(image, labels.depth, labels.semantic, sources.classes)
        jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        job.picture.write_bytes(jpeg.tobytes())
    files = {"depth": depth_png(labels.depth)}
    if labels.semantic is not None and sources.gives_classes:
        files["semantic"] = semantic_png(labels.semantic)
    return labels, files


def _label(job: _Job, sources: Sources, seen: tuple[np.ndarray, np.ndarray] | None) -> tuple[Labels, np.ndarray | None]:
    """The labels of an image, and the image if it was needed; `seen` are image and classes, if they are known."""
    model, image, dense = job.model, None, None
    if seen is not None:
        image, dense = seen
    elif job.image is not None:
        image = camera_image(job.image, model)
    if job.semantic is not None:
        assert sources.mapping is not None  # comes with the topics of classes
        dense = recorded_classes(job.semantic, model.height, model.width, sources.mapping)
    elif sources.network is not None and dense is None:
        assert image is not None  # `_job` has the image where there is a network
        dense = sources.network(image)
    labels = Labels(np.zeros((model.height, model.width), np.float32), dense)
    if job.clouds:
        labels = labels_from_clouds(model, job.clouds, sources.classes, dense, sources.occlusion, sources.min_depth)
    if job.depth is not None:
        labels = Labels(recorded_depth(job.depth, model.height, model.width), labels.semantic)
    if job.triangulated is not None:
        labels = Labels(standing_depth(job.triangulated, model, labels.semantic, sources.classes), labels.semantic)
    if job.ground is not None:
        labels = Labels(labels.depth, job.ground.classes(model, labels.depth))
    if labels.semantic is None and sources.gives_classes:
        labels = Labels(labels.depth, np.full(labels.depth.shape, UNLABELLED, np.uint8))
    return _without_nothing(labels, sources.masks.get(job.camera)), image


def _without_nothing(labels: Labels, mask: np.ndarray | None) -> Labels:
    """Remove depth and class where the image shows the vehicle itself (mask) or no surface."""
    nothing = np.zeros(labels.depth.shape, bool) if mask is None else mask
    if labels.semantic is None:
        return Labels(np.where(nothing, np.float32(0), labels.depth), None)
    nothing = nothing | (labels.semantic == NO_SURFACE)
    return Labels(
        np.where(nothing, np.float32(0), labels.depth), np.where(nothing, np.uint8(UNLABELLED), labels.semantic)
    )
