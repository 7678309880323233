"""Which topics are cameras. The node looks on its graph, the commands in a recording; both by this code.

A camera has images on the topic that the vehicle's template `image_topic` names, and a calibration on that of
`camera_info_topic`. If there is none at all and no other template was chosen, the images beside the calibrations count,
under whatever name they have (`image_rect_color`, `image`, `image_rect_compressed`). Depth images are no cameras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from renderocc_model.rosio.vehicle import CAMERA_MARK, Vehicle, absolute, is_camera_name
from renderocc_model.rosio.video_track import VIDEO_READERS, video_topic

if TYPE_CHECKING:  # the node needs no rosbags
    from renderocc_model.rosio.bags import Topic

__all__ = [
    "CAMERA_TYPES",
    "COMPRESSED",
    "IMAGE",
    "INFO",
    "CameraSource",
    "FoundCameras",
    "find_cameras",
    "is_depth_name",
    "no_cameras",
    "topic_types",
    "with_template",
]

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
_PICTURES = {IMAGE, COMPRESSED, *VIDEO_READERS}
CAMERA_TYPES = {INFO, *_PICTURES}
# Names of images beside a calibration, the most usual ones first; others come after them, by the alphabet.
_USUAL = ("image_raw", "image_color", "image", "image_rect_color", "image_rect", "image_mono", "image_rect_raw")
_NO_PICTURE = {"depth", "disparity", "semantic", "segmentation", "labels", "label", "mask", "confidence"}
_A_CAMERA = {"camera", "cam"}
_LISTED = 8

V = TypeVar("V", bound=Vehicle)


class CameraSource(NamedTuple):
    """A camera's topics, with their full names.

    Attributes:
        name: of the camera; it may contain slashes.
        image_topic: its images.
        kind: type of the image messages.
        info_topic: its calibration.
    """

    name: str
    image_topic: str
    kind: str
    info_topic: str

    @property
    def compressed(self) -> bool:
        return self.kind == COMPRESSED


@dataclass
class FoundCameras:
    """What `find_cameras` found.

    Attributes:
        cameras: {name: its topics}, sorted by name, or in the order of the vehicle's `cameras`.
        uncalibrated: {name: topic of its images}, of cameras without calibration.
        missing: {name: why}, of cameras that the vehicle's setting names and that cannot be used.
        image_topic: the template that fits the images; not the vehicle's where another one was found.
        note: a sentence where it is another one; else empty.
    """

    image_topic: str
    cameras: dict[str, CameraSource] = field(default_factory=dict)
    uncalibrated: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    note: str = ""


def with_template(vehicle: V, found: FoundCameras) -> V:
    """The vehicle with the template of images that was found."""
    return vehicle if found.image_topic == vehicle.image_topic else replace(vehicle, image_topic=found.image_topic)


def find_cameras(
    topics: Mapping[str, Collection[str]], vehicle: Vehicle, namespace: str = "/", prefer: str = IMAGE
) -> FoundCameras:
    """The cameras among topics.

    Args:
        topics: {full name: message types} of the topics that have messages or publishers.
        vehicle: its templates and names of cameras.
        namespace: of relative topics.
        prefer: type of the messages to take where a camera has raw and compressed images.
    """
    found = _matching(topics, vehicle, namespace, prefer)
    if found.cameras or not vehicle.any_image_topic:
        return found
    other = _beside_calibrations(topics, vehicle, namespace)
    if other is None:
        return found
    template, count = other
    found = _matching(topics, replace(vehicle, image_topic=template), namespace, prefer)
    found.note = f"no images on {vehicle.image_topic}; those on {template} are used, of {count} cameras"
    return found


def is_depth_name(camera: str) -> bool:
    """Whether a camera's name says that its images are depth or labels: `depth`, `aligned_depth_to_color`."""
    words = set(camera.rpartition("/")[2].lower().split("_"))
    return bool(words & _NO_PICTURE) and not words & _A_CAMERA


def _matching(topics: Mapping[str, Collection[str]], vehicle: Vehicle, namespace: str, prefer: str) -> FoundCameras:
    """The cameras whose topics fit the vehicle's templates."""
    found = FoundCameras(vehicle.image_topic)
    infos = dict(_calibrated(topics, vehicle, namespace))
    pictured = {name for name in _pictured(topics, vehicle, namespace) if not is_depth_name(name)}
    for name in vehicle.cameras or sorted(pictured):
        source = _image_of(topics, vehicle, namespace, name, prefer)
        image_topic = absolute(vehicle.image_topic_of(name), namespace)
        info_topic = absolute(vehicle.camera_info_topic_of(name), namespace)
        if source is None:
            if name in vehicle.cameras:
                transport = vehicle.image_transport
                kind = "" if transport == "auto" else f" of the image_transport {transport}"
                there = ", ".join(sorted(pictured)) or "none with images there"
                found.missing[name] = f"no images{kind} on {image_topic}; cameras are {there}"
        elif name not in infos:
            found.uncalibrated[name] = source[0]
            if name in vehicle.cameras:
                found.missing[name] = f"no camera_info on {info_topic}"
        else:
            found.cameras[name] = CameraSource(name, *source, infos[name])
    return found


def _image_of(
    topics: Mapping[str, Collection[str]], vehicle: Vehicle, namespace: str, camera: str, prefer: str
) -> tuple[str, str] | None:
    """(topic, type) of a camera's images; None if there are none."""
    base, transport = absolute(vehicle.image_topic_of(camera), namespace), vehicle.image_transport
    there: dict[str, str] = {}
    for topic, kind in ((base, IMAGE), (f"{base}/compressed", COMPRESSED), (base, COMPRESSED)):
        if kind in topics.get(topic, ()):
            there.setdefault(kind, topic)
    wanted = {"raw": (IMAGE,), "compressed": (COMPRESSED,), "video": ()}.get(transport, (prefer, IMAGE, COMPRESSED))
    for kind in wanted:
        if kind in there:
            return there[kind], kind
    return video_topic(topics, base) if transport in ("auto", "video") else None


def _calibrated(topics: Mapping[str, Collection[str]], vehicle: Vehicle, namespace: str) -> Iterator[tuple[str, str]]:
    """(camera, topic) of the calibrations that fit the template."""
    template = absolute(vehicle.camera_info_topic_of(CAMERA_MARK), namespace)
    for topic, kinds in topics.items():
        if INFO in kinds and (name := _name_in(topic, template)):
            yield name, topic


def _pictured(topics: Mapping[str, Collection[str]], vehicle: Vehicle, namespace: str) -> Iterator[str]:
    """Names of the cameras with images that fit the template; a name may come twice."""
    template = absolute(vehicle.image_topic_of(CAMERA_MARK), namespace)
    for base in _bases(topics):
        if name := _name_in(base, template):
            yield name


def _bases(topics: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The names of image topics, and those above them where a transport adds a part (`/compressed`, `/ffmpeg`)."""
    for topic, kinds in topics.items():
        if not _PICTURES.isdisjoint(kinds):
            parent, _, last = topic.rpartition("/")
            if last == "compressed" or not VIDEO_READERS.keys().isdisjoint(kinds):
                yield parent
            if last != "compressed":
                yield topic


def _name_in(topic: str, template: str) -> str:
    """The camera's name in a topic that fits a template; empty if it does not fit."""
    before, after = template.split(CAMERA_MARK, 1)
    name = topic[len(before) : len(topic) - len(after)]
    return name if topic == f"{before}{name}{after}" and is_camera_name(name) else ""


def _beside_calibrations(
    topics: Mapping[str, Collection[str]], vehicle: Vehicle, namespace: str
) -> tuple[str, int] | None:
    """The template of images that most cameras with a calibration have beside it, and of how many; None without any."""
    counts: Counter[str] = Counter()
    infos = dict(_calibrated(topics, vehicle, namespace))
    for name in infos:
        if is_depth_name(name) or (vehicle.cameras and name not in vehicle.cameras):
            continue
        folder = infos[name].rpartition("/")[0]
        words = {base.rpartition("/")[2] for base in _bases(topics) if base.rpartition("/")[0] == folder}
        counts.update(word for word in words if not is_depth_name(word))
    if not counts:
        return None
    word = min(counts, key=lambda word: (-counts[word], _rank(word), word))
    folder = vehicle.camera_info_topic_of(CAMERA_MARK).rpartition("/")[0]
    return f"{folder}/{word}", counts[word]


def _rank(word: str) -> int:
    return _USUAL.index(word) if word in _USUAL else len(_USUAL)


def no_cameras(topics: Iterable[Topic], vehicle: Vehicle, found: FoundCameras) -> str:
    """Why a recording has no camera that can be used, and what to do."""
    if found.uncalibrated:
        lacking = ", ".join(absolute(vehicle.camera_info_topic_of(name)) for name in found.uncalibrated)
        return f"its images lack {lacking}; record it, or set --camera-info-topic"
    there = [topic for topic in topics if topic.count]
    images = sorted(topic.name for topic in there if topic.type in _PICTURES)
    infos = sorted(topic.name for topic in there if topic.type == INFO)
    where = f"on {vehicle.image_topic} with {vehicle.camera_info_topic}"
    if not images:
        return f"it has no images, neither {where} nor on another topic; record them"
    if not infos:
        return f"it has images on {_listed(images)}, but no camera_info; record it"
    return (
        f"it has no images {where}; its images are on {_listed(images)}, its calibrations on {_listed(infos)}: set "
        "--image-topic and --camera-info-topic (parameters image_topic, camera_info_topic)"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def topic_types(topics: Iterable[Topic]) -> dict[str, tuple[str, ...]]:
    """{name: message types} of a recording's topics that have messages."""
    return {topic.name: (topic.type,) for topic in topics if topic.count}
