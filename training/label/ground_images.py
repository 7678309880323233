"""Classifies the pixels of depth images as ground or obstacle, by the plane of the road around the vehicle."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.transforms import transform_points
from training.label.ground.classify import classes_by_plane
from training.label.ground.level import GroundError, Level, fit_plane, level_of_planes
from training.recordings.frames import Recording
from training.recordings.sources import RecordingError

from .clouds import NoCloud
from .mapping import LabelError

__all__ = ["DepthOf", "GroundOfImage", "ImageGround", "find_image_ground"]

# (camera, stamp) -> pixels (N, 2) as (column, row) and z-depth (N,) metres of an image; raises NoCloud without depth
DepthOf = Callable[[str, int], tuple[np.ndarray, np.ndarray]]

_EVERY_NS = 1_000_000_000  # between the moments that a plane is fitted at
_WINDOW_NS = 1_500_000_000  # images this near to a moment are joined, nearest first
_TOGETHER_NS = 100_000_000  # images this near are always joined
_ENOUGH = 4000  # points, after which no more images are joined
_EACH = 3000  # points of an image that are used
_FAR = 25.0  # metres from the vehicle within which points are used


@dataclass(frozen=True)
class GroundOfImage:
    """The ground as one image sees it.

    Attributes:
        base_from_camera: (4, 4) the camera's pose on the vehicle.
        plane: (4,) unit normal and offset of the ground in base_link.
    """

    base_from_camera: np.ndarray
    plane: np.ndarray

    def classes(self, model: CameraModel, depth: np.ndarray) -> np.ndarray:
        """Class ids of GROUND_OBSTACLE, (H, W) uint8, of a depth image (H, W); 255 where the depth is unknown."""
        rows, columns = np.nonzero(depth)
        points = in_base(model, self.base_from_camera, np.column_stack([columns, rows]), depth[rows, columns])
        classes = np.full(depth.shape, UNLABELLED, np.uint8)
        classes[rows, columns] = classes_by_plane(points, self.plane)
        return classes


@dataclass(frozen=True)
class ImageGround:
    """The ground at moments of a recording.

    Attributes:
        recording: the recording.
        stamps: of the moments, ascending.
        planes: (4,) plane in base_link at each moment.
        level: the ground of the whole recording, where no plane is near.
    """

    recording: Recording
    stamps: list[int]
    planes: list[np.ndarray]
    level: Level

    def of(self, camera: str, stamp_ns: int) -> GroundOfImage:
        """The ground for an image: the plane of the nearest moment, if it is at most 1.5 s away."""
        place = bisect_left(self.stamps, stamp_ns)
        near = min(
            range(max(place - 1, 0), min(place + 1, len(self.stamps))), key=lambda k: abs(self.stamps[k] - stamp_ns)
        )
        usable = abs(self.stamps[near] - stamp_ns) <= _WINDOW_NS
        return GroundOfImage(self.recording.mount(camera, stamp_ns), self.planes[near] if usable else self.level.plane)


def in_base(model: CameraModel, base_from_camera: np.ndarray, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(N, 3) points in base_link of pixels (N, 2) with z-depth (N,); NaN where a pixel has no direction."""
    directions = model.unproject(pixels.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        points = directions * (depth / directions[:, 2])[:, None]
    return transform_points(base_from_camera, points)


def find_image_ground(recording: Recording, depth_of: DepthOf) -> tuple[ImageGround, str]:
    """Fit the ground once a second, and a line for people about what was found.

    The points of a moment are those of the images around it, moved by the ego poses.

    Args:
        recording: an open recording.
        depth_of: gives the depth of an image.
    Raises:
        LabelError: there is no ground in the depth images.
    """
    images = sorted((stamp, camera) for camera in recording.cameras for stamp in recording.stamps[camera])
    stamps: list[int] = []
    planes: list[np.ndarray] = []
    used = tried = 0
    for moment in range(images[0][0], images[-1][0] + 1, _EVERY_NS):
        points = _points_at(recording, depth_of, images, moment)
        plane = fit_plane(points, far=_FAR)
        used, tried = used + len(points), tried + 1
        if plane is not None:
            stamps.append(moment)
            planes.append(plane)
    try:
        level = level_of_planes(planes, "the depth images", used, tried)
    except GroundError as error:
        raise LabelError(f"{recording.path}: {error}") from None
    return ImageGround(recording, stamps, planes, level), level.text(recording.base_frame)


def _points_at(recording: Recording, depth_of: DepthOf, images: list[tuple[int, str]], moment: int) -> np.ndarray:
    """(N, 3) points around the vehicle in base_link at a moment."""
    first, last = (bisect_left(images, (moment + step, "")) for step in (-_WINDOW_NS, _WINDOW_NS))
    near = sorted(images[first:last], key=lambda image: (abs(image[0] - moment), image[1]))
    parts, count = [np.empty((0, 3))], 0
    for stamp_ns, camera in near:
        if count >= _ENOUGH and abs(stamp_ns - moment) > _TOGETHER_NS:
            break
        try:
            pixels, depth = depth_of(camera, stamp_ns)
            pose = recording.base_from_camera(camera, stamp_ns, moment)
        except (NoCloud, RecordingError):
            continue
        step = max(1, -(-len(depth) // _EACH))
        points = in_base(recording.models[camera], pose, pixels[::step], depth[::step])
        parts.append(points[np.isfinite(points).all(axis=1)])
        count += len(parts[-1])
    return np.concatenate(parts)
