"""Makes labels for every image of a recording, and writes them to a sidecar bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from training.recordings.frames import Recording
from training.recordings.new_bag import new_bag
from training.recordings.sources import RecordingError
from training.recordings.spread import evenly_spread

from .clouds import NoCloud
from .coverage import Coverage
from .image_job import ImageJob, job_of_image
from .labelling import label_image, label_images
from .mapping import LabelError
from .sidecar import SidecarWriter, write_note
from .sources import Sources

__all__ = ["refuse_nothing", "try_labels", "write_labels"]


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
            for done, (job, labels, files) in enumerate(label_images(pool, jobs, jobs_to_do, sources, batch), 1):
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
    stamps = {camera: evenly_spread(recording.stamps[camera], most) for camera in recording.cameras}
    coverage = Coverage(images={camera: len(stamps[camera]) for camera in stamps})
    for job in _jobs(recording, sources, coverage, None, 1, stamps):
        coverage.add(job.camera, label_image(job, sources)[0])
    refuse_nothing(recording, coverage)
    return coverage


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
) -> Iterator[ImageJob]:
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
            yield job_of_image(recording, sources, camera, stamp_ns, picture)
        except (RecordingError, NoCloud) as error:
            coverage.skip(str(error), f"{camera} at {recording.time_text(stamp_ns)}")
