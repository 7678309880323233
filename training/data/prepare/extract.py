"""Turns a recording's frames into rows of the tables: labelled pixels with their distances, images, poses and truth."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.conversion import converted_ids
from renderocc_model.field.truth import check_truth_file, converted_truth
from renderocc_model.images.decoding import compressed_size, decode_compressed
from renderocc_model.images.encodings import check_raw
from renderocc_model.images.reduction import ImageError
from renderocc_model.rosio.cdr import CompressedImageMessage, ImageMessage
from training.recordings.frames import FrameIndex, Recording
from training.recordings.sources import RecordingError

from .shard import FrameRow
from .subset import choose
from .tables import COMPRESSED

__all__ = ["Extractor"]

_FORWARD = 1e-3  # smallest z of a pixel's unit direction; with less, a z-depth does not give a distance

_REDUCED = 8  # images are decoded once, that much smaller, to find those that training could not decode


_JPEG_QUALITY = 95  # of the pictures of videos, which have lost more than that before


def _as_jpeg(message: ImageMessage) -> CompressedImageMessage:
    """A picture of a video as a JPEG: raw ones would take ten times the room in the tables."""
    picture = message.data.reshape(message.height, message.width, 3)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return CompressedImageMessage(message.stamp_ns, message.frame_id, "rgb8; jpeg compressed bgr8", jpeg.reshape(-1))


class Extractor:
    """Turns frames into rows of the tables.

    Args:
        recording: an open recording with its labels.
        table: the labels' class table.
        directions: {camera: (H, W, 3) unit direction of every pixel in its optical frame, NaN without direction}.
        without_depth: whether to keep pixels of known class and unknown distance, too.
        pixels_per_image: largest number of labelled pixels to keep of an image; 0 keeps all.
        truth_table: the class table of the 3D truth, which is converted to `table`; None if it is the same.
    Raises:
        ValueError: ids of `truth_table` cannot be converted to `table`.
    """

    def __init__(
        self,
        recording: Recording,
        table: ClassTable,
        directions: dict[str, np.ndarray],
        without_depth: bool = False,
        pixels_per_image: int = 0,
        truth_table: ClassTable | None = None,
    ) -> None:
        self.recording, self.table, self.directions = recording, table, directions
        self.without_depth, self.pixels_per_image = without_depth, pixels_per_image
        self.truth_table = truth_table or table
        self._converted = converted_ids(self.truth_table, table) if self.truth_table != table else None
        self.truth_shape: tuple[int, ...] = ()

    def wanted(self, frames: Sequence[FrameIndex]) -> list[tuple[str, str, int]]:
        """The images and labels of these frames, for `Recording.gather`."""
        wanted = []
        for frame in frames:
            for camera, stamp_ns in frame.images.items():
                wanted.append(("image", camera, stamp_ns))
                kinds = (kind for kind in ("semantic", "depth") if self.recording.has_labels(camera, stamp_ns, (kind,)))
                wanted += [(kind, camera, stamp_ns) for kind in kinds]
        return wanted

    def row(self, frame: FrameIndex, messages: dict) -> FrameRow:
        """The row of one frame.

        Args:
            frame: the frame.
            messages: what `Recording.gather` gave for `wanted`.
        Raises:
            RecordingError: a message cannot be used. The text names it.
        """
        recording = self.recording
        count = len(recording.cameras)
        poses = np.zeros((count, 4, 4))
        images: list[tuple[bytes, object] | None] = [None] * count
        stamps = [0] * count
        counts = np.zeros((count, len(self.table) + 1), np.int64)
        pixels, distances = [np.empty((0, 2), np.uint16)], [np.empty(0, np.float32)]
        for index, camera in enumerate(recording.cameras):
            if camera not in frame.images:
                continue
            stamps[index] = stamp_ns = frame.images[camera]
            poses[index] = recording.base_from_camera(camera, stamp_ns, frame.stamp_ns)
            images[index] = self._image(camera, stamp_ns, messages["image", camera, stamp_ns])
            labelled = self._labelled(camera, stamp_ns, messages)
            pixels.append(labelled[0])
            distances.append(labelled[1])
            counts[index] = labelled[2]
        return FrameRow(
            frame.stamp_ns,
            recording.odom_from_base(frame.stamp_ns),
            stamps,
            images,
            poses,
            np.concatenate(pixels),
            np.concatenate(distances),
            counts,
            self._truth(frame.stamp_ns),
        )

    def _truth(self, stamp_ns: int) -> bytes | None:
        """The file of a moment's 3D truth; None if there is none."""
        file = self.recording.truth_path(stamp_ns)
        if file is None:
            return None
        try:
            shape = check_truth_file(file, self.truth_table)
        except ValueError as error:
            remedy = "write this 3D truth again, remove it, or name its class table with --truth-classes"
            raise RecordingError(f"{file}: {error}; {remedy}") from None
        self.truth_shape = self.truth_shape or shape
        if shape != self.truth_shape:
            raise RecordingError(
                f"{file}: its 3D truth has the shape {shape}, that of earlier frames {self.truth_shape}; keep the "
                "truth of one grid"
            )
        return file.read_bytes() if self._converted is None else converted_truth(file, self._converted)

    def _image(self, camera: str, stamp_ns: int, message) -> tuple[bytes, object]:
        model = self.recording.models[camera]
        where = f"{self.recording.topic('image', camera)} at {self.recording.time_text(stamp_ns)}"
        if self.recording.is_video(camera):
            message = _as_jpeg(message)
        if isinstance(message, CompressedImageMessage):
            size = self._checked(where, lambda: compressed_size(message.data))
            self._checked(where, lambda: decode_compressed(message.data, _REDUCED if min(size) >= 8 * _REDUCED else 1))
            encoding: object = COMPRESSED
        else:
            size = (message.height, message.width)
            layout = (message.height, message.width, message.step, message.encoding)
            self._checked(where, lambda: check_raw(message.data, *layout))
            names = ("encoding", "height", "width", "step", "is_bigendian")
            encoding = {name: getattr(message, name) for name in names}
        if size != (model.height, model.width):
            raise RecordingError(
                f"{where}: image is {size[1]}x{size[0]} but camera_info says {model.width}x{model.height}; record a "
                "matching camera_info"
            )
        return message.data.tobytes(), encoding

    @staticmethod
    def _checked(where: str, read):
        """What `read` returns. RecordingError: the image is one that training cannot decode."""
        try:
            return read()
        except ImageError as error:
            raise RecordingError(f"{where}: {error}; cut the recording there, or record again") from None

    def _labelled(self, camera: str, stamp_ns: int, messages: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels (M, 2) and distances (M,) by class, and counts (C + 1,) by class; pixels without class come last."""
        model, groups = self.recording.models[camera], len(self.table)
        depth = np.zeros((model.height, model.width), np.float32)
        if ("depth", camera, stamp_ns) in messages:
            depth = self.recording.decode("depth", camera, stamp_ns, messages)
        semantic = self._classes(camera, stamp_ns, messages, depth.shape)
        kept = depth > 0
        if self.without_depth:
            kept |= semantic != groups
        flat = np.flatnonzero(kept & (semantic != self.table.free))
        forward = self.directions[camera].reshape(-1, 3)[flat, 2]
        flat = flat[forward > _FORWARD]  # False for NaN, where the lens maps no direction to the pixel
        flat = self._thinned(flat, camera, stamp_ns)
        ids = semantic.ravel()[flat]
        flat = flat[np.argsort(ids, kind="stable")]
        rows, columns = np.divmod(flat, model.width)
        distances = depth.ravel()[flat] / self.directions[camera].reshape(-1, 3)[flat, 2]  # |d| is 1
        return (
            np.stack([columns, rows], axis=1).astype(np.uint16),
            distances.astype(np.float32),
            np.bincount(ids, minlength=groups + 1),
        )

    def _classes(self, camera: str, stamp_ns: int, messages: dict, shape: tuple[int, int]) -> np.ndarray:
        """Class ids (H, W) uint8; pixels of unknown class have the number of classes as their id."""
        groups = len(self.table)
        if ("semantic", camera, stamp_ns) not in messages:
            return np.full(shape, groups, np.uint8)
        semantic = self.recording.decode("semantic", camera, stamp_ns, messages)
        known = semantic != UNLABELLED
        highest = int(semantic[known].max(initial=0))
        if highest >= groups:
            raise RecordingError(
                f"{self.recording.topic('semantic', camera)} at {self.recording.time_text(stamp_ns)}: class id "
                f"{highest} is not in the table of {groups} classes (255 is unlabelled); choose --classes, "
                "or map the ids when labelling"
            )
        return np.where(known, semantic, np.uint8(groups))

    def _thinned(self, flat: np.ndarray, camera: str, stamp_ns: int) -> np.ndarray:
        """A random subset of `pixels_per_image` pixels of an image, the same on every run."""
        limit = self.pixels_per_image
        if not limit or len(flat) <= limit:
            return flat
        rng = np.random.default_rng([stamp_ns, self.recording.cameras.index(camera)])
        return flat[np.sort(choose(rng, len(flat), limit))]
