"""Reads the stamps, the calibrations and the transforms of a recording, in one pass over each bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.camera_topics import Complaint, add_complaint
from renderocc_model.rosio.pixel_format import MosaicError
from renderocc_model.rosio.rectification import (
    Rectification,
    baseline_doubts,
    calibration_doubts,
    frames_from_optical,
    is_rectified,
    rectification_from_info,
)
from renderocc_model.rosio.stamp_text import seconds_text
from renderocc_model.rosio.transform_topics import TransformReader
from renderocc_model.rosio.vehicle import Vehicle

from .sources import ImageSource, RecordingError, read_message

__all__ = ["RecordingIndex", "read_index"]

_MAX_NOTES = 20


@dataclass
class RecordingIndex:
    """What one pass over a recording finds, beside the stamps of its images.

    Attributes:
        models: {camera: CameraModel}.
        rectifications: {camera: of its images if they are rectified, else None}.
        optical_frames: {camera: name in TF}.
        info_frames: {camera: frame_id of its calibration}.
        frames_from_optical: {camera: (4, 4)} of cameras with rectified images: their optical axes in their frames.
        reader: the transforms and the odometry.
        notes: faults that do not prevent reading.
    """

    reader: TransformReader
    models: dict[str, CameraModel] = field(default_factory=dict)
    optical_frames: dict[str, str] = field(default_factory=dict)
    info_frames: dict[str, str] = field(default_factory=dict)
    rectifications: dict[str, Rectification | None] = field(default_factory=dict)
    frames_from_optical: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_index(
    bag: Bag,
    images: Mapping[str, ImageSource],
    infos: Mapping[str, str],
    labels: Mapping[str, Mapping[str, ImageSource]],
    vehicle: Vehicle,
) -> RecordingIndex:
    """Read the stamps of images and labels into their sources, and all else into an index.

    Args:
        bag: the recording, which has the images, the calibrations and the transforms.
        images: {camera: source of its images}.
        infos: {topic of calibrations: its camera}.
        labels: {kind: {camera: source of its labels}}, in the recording or in another bag.
        vehicle: its topics and frames, and which of its images are rectified.
    Raises:
        RecordingError: a message cannot be read, a calibration cannot be used or changes, or an image has stamp 0.
    """
    reader = TransformReader(bag.topics, vehicle)
    index = RecordingIndex(reader)
    sources = {(id(source.bag), source.topic): source for source in images.values()}
    for by_camera in labels.values():
        sources |= {(id(source.bag), source.topic): source for source in by_camera.values()}
    last_infos: dict[str, bytes] = {}
    frames = {source.topic: camera for camera, source in images.items()}
    left_out: dict[str, list[Complaint]] = {camera: [] for camera in images}
    for one in {id(source.bag): source.bag for source in sources.values()}.values():
        topics = {source.topic for source in sources.values() if source.bag is one}
        extra = {*reader.topics, *infos} if one is bag else set()
        for topic, recorded_ns, data in one.messages(topics | extra):
            source = sources.get((id(one), topic))
            if source is not None:
                camera = frames.get(topic) if one is bag else None
                _take_image(index, source, camera, recorded_ns, data, left_out)
            elif topic in infos:
                # Without the encapsulation and the stamp, which change from message to message.
                if last_infos.get(infos[topic]) != data[12:]:
                    rectified = is_rectified(images[infos[topic]].topic, vehicle.rectified)
                    _take_info(index, infos[topic], rectified, f"{bag.path}: {topic}", recorded_ns, data)
                    last_infos[infos[topic]] = data[12:]
            else:
                _take_transforms(index, bag, topic, recorded_ns, data)
    reader.finish()
    index.notes += [f"{bag.path}: {note}" for note in reader.notes]
    for camera in images:
        of_image, of_info = index.optical_frames.get(camera, ""), index.info_frames.get(camera, "")
        index.optical_frames[camera] = vehicle.optical_frame(camera, of_image, of_info)
    _name_left_out(index, bag, images, left_out)
    index.notes += [f"{one}: {one.pixels.warning}" for one in images.values() if one.pixels.warning]
    rectified_in = {name: (index.optical_frames.get(name, ""), one) for name, one in index.rectifications.items()}
    index.frames_from_optical = frames_from_optical(rectified_in)
    index.notes += [f"{bag.path}: camera '{name}': {text}" for name, text in baseline_doubts(rectified_in).items()]
    index.notes += [f"{bag.path}: {conflict}" for conflict in reader.transforms.conflicts]
    for source in images.values():
        if 0 in source.recorded:
            raise RecordingError(f"{source}: an image has stamp 0; the driver must stamp images")
    return index


def _take_image(
    index: RecordingIndex,
    source: ImageSource,
    camera: str | None,
    recorded_ns: int,
    data: bytes,
    left_out: dict[str, list[Complaint]],
) -> None:
    """Note the stamp of an image, and of a camera's image (not a label) its frame and its format, too."""
    stamp_ns, frame_id = read_message(source, recorded_ns, cdr.read_header, data)
    if camera is not None:
        index.optical_frames[camera] = index.optical_frames.get(camera) or frame_id
        try:
            source.take(data, recorded_ns)
        except MosaicError as error:
            raise RecordingError(f"{source}: {error}") from None
        except RecordingError:
            raise
        except ValueError as error:
            add_complaint(left_out[camera], source.topic, recorded_ns, str(error))
            return
    source.recorded.setdefault(stamp_ns + source.offset_ns if stamp_ns else 0, recorded_ns)


def _name_left_out(
    index: RecordingIndex, bag: Bag, images: Mapping[str, ImageSource], left_out: Mapping[str, list[Complaint]]
) -> None:
    """Note the images that cannot be used. RecordingError: a camera has no others."""
    for camera, complaints in left_out.items():
        for complaint in complaints:
            where = f"{bag.path}: {complaint.topic}, message recorded at {seconds_text(complaint.recorded_ns)} s"
            if not images[camera].recorded:
                raise RecordingError(f"{where}: {complaint}")
            index.notes.append(f"{where}: {complaint}; left out")


def _take_info(index: RecordingIndex, camera: str, rectified: bool, topic: str, recorded_ns: int, data: bytes) -> None:
    where = f"{topic}, message recorded at {seconds_text(recorded_ns)} s"
    try:
        message = cdr.read_camera_info(data)
        model = camera_model_from_info(message, rectified)
        rectification = rectification_from_info(message) if rectified else None
    except ValueError as error:
        raise RecordingError(f"{where}: {error}") from None
    index.info_frames.setdefault(camera, message.frame_id)
    if camera not in index.models:
        index.notes += [f"{topic}: {doubt}" for doubt in calibration_doubts(message, rectified)]
    same = index.rectifications.setdefault(camera, rectification) == rectification
    if index.models.setdefault(camera, model) != model or not same:
        raise RecordingError(f"{where}: the calibration changes; record with one calibration, or cut the bag there")


def _take_transforms(index: RecordingIndex, bag: Bag, topic: str, recorded_ns: int, data: bytes) -> None:
    try:
        index.reader.take(topic, data)
    except ValueError as error:
        if len(index.notes) < _MAX_NOTES:
            index.notes.append(f"{bag.path}: {topic} at {seconds_text(recorded_ns)} s: {error}")
