"""Makes the labels of images from what was read for them, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np

from renderocc_model.field.classes import UNLABELLED
from training.recordings.camera_image import camera_image
from training.recordings.label_images import depth_png, semantic_png
from training.recordings.raw_classes import NO_SURFACE

from .from_clouds import Labels, labels_from_clouds
from .from_images import recorded_classes, recorded_depth
from .from_motion import standing_depth
from .image_job import ImageJob
from .mapping import LabelError
from .overlay import overlay
from .sources import Sources

__all__ = ["label_image", "label_images"]

_AHEAD = 3  # images in the queue for each thread


def label_images(
    pool: ThreadPoolExecutor, threads: int, jobs: Iterator[ImageJob], sources: Sources, batch: int
) -> Iterator[tuple[ImageJob, Labels, dict[str, bytes]]]:
    """Yield the jobs' results in order, while threads work on the next few."""
    waiting: deque = deque()
    while group := list(islice(jobs, batch)):
        waiting.append((group, pool.submit(_work_on, group, sources)))
        if len(waiting) >= _AHEAD * threads:
            yield from _results(*waiting.popleft())
    while waiting:
        yield from _results(*waiting.popleft())


def _results(group: list[ImageJob], future: Future) -> Iterator[tuple[ImageJob, Labels, dict[str, bytes]]]:
    for job, result in zip(group, future.result()):
        yield job, *result


def _work_on(group: list[ImageJob], sources: Sources) -> list[tuple[Labels, dict[str, bytes]]]:
    """The results of some jobs, whose images a network takes together."""
    if sources.network is None or len(group) == 1:
        return [label_image(job, sources) for job in group]
    images = []
    for job in group:
        assert job.image is not None  # `job_of_image` reads it where there is a network
        try:
            images.append(camera_image(job.image, job.model))
        except ValueError as error:
            raise LabelError(f"{job.where}: {error}") from None
    try:
        classes = sources.network.batch(images)
    except LabelError as error:
        raise LabelError(f"{group[0].where}: {error}") from None
    return [label_image(job, sources, seen) for job, seen in zip(group, zip(images, classes))]


def label_image(
    job: ImageJob, sources: Sources, seen: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[Labels, dict[str, bytes]]:
    """The labels of an image, and as the PNG files of label topics. A preview is written if the job has a path for it.

    Args:
        job: the image and its messages.
        sources: the sources of labels.
        seen: the image and the classes of a network, if they are known.
    Raises:
        LabelError: a message cannot be used. The text names the image.
    """
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


def _label(
    job: ImageJob, sources: Sources, seen: tuple[np.ndarray, np.ndarray] | None
) -> tuple[Labels, np.ndarray | None]:
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
        assert image is not None  # `job_of_image` reads it where there is a network
        dense = sources.network(image)
    labels = Labels(np.zeros((model.height, model.width), np.float32), dense)
    if job.clouds:
        labels = labels_from_clouds(model, job.clouds, sources.classes, dense, sources.occlusion, sources.min_depth)
    if job.depth is not None:
        labels = Labels(recorded_depth(job.depth, model.height, model.width), labels.semantic)
    if job.triangulated is not None:
        labels = Labels(standing_depth(job.triangulated, model, labels.semantic, sources.classes), labels.semantic)
    if sources.densifier is not None:
        assert image is not None  # `job_of_image` reads it where images are filled
        labels = Labels(sources.densifier.fill(image, labels.depth), labels.semantic)
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
