"""An image to be labelled, and the messages that its labels are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio import cdr
from training.label.structure.window import ImageLabels
from training.recordings.frames import Recording
from training.recordings.sources import Message
from training.recordings.stamped_topic import StampedTopic

from .clouds import LabelledCloud, NoCloud
from .from_images import recorded_depth
from .from_motion import triangulated_labels
from .ground_images import DepthOf, GroundOfImage
from .mapping import LabelError
from .sources import Sources

__all__ = ["ImageJob", "depth_of_images", "job_of_image"]

_SAME_NS = 1_000_000  # largest difference between the stamps of an image and its label image


@dataclass(frozen=True)
class ImageJob:
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


def job_of_image(recording: Recording, sources: Sources, camera: str, stamp_ns: int, picture: Path | None) -> ImageJob:
    """Read what the labels of an image are made from.

    Args:
        picture: path for a preview, or None.
    Raises:
        NoCloud: a source has nothing for this image.
        RecordingError: the recording has no image or no ego pose there.
    """
    clouds = []
    if sources.lidar is not None and (camera not in sources.depth or sources.lidar.classes is not None):
        for cloud in sources.lidar.around(stamp_ns):
            clouds.append((sources.lidar.camera_from_cloud(camera, stamp_ns, cloud), cloud))
    elif camera not in sources.depth and sources.motion is None:
        raise NoCloud(f"camera '{camera}' has no depth topic")
    seen = picture or sources.network or sources.densifier
    image = recording.image_message(camera, stamp_ns) if seen else None
    return ImageJob(
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
