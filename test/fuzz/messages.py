"""Targets: what comes in over ROS topics. CDR, camera_info, transforms, raw and compressed images, label images."""

from __future__ import annotations

import math
import random
import struct

import cv2
import numpy as np
from videos import encoded, moving_pictures

from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.decoding import compressed_size, decode_compressed
from renderocc_model.images.encodings import ENCODINGS, decode_raw
from renderocc_model.images.reduction import ImageError
from renderocc_model.images.video import VideoDecoder
from renderocc_model.images.video_packets import H264, H265, FrameNumbers, VideoError, codec_of, read_packet
from renderocc_model.rosio import cdr
from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from training.recordings.label_images import LabelImageError, depth_image, semantic_image

from .mutate import mutate_bytes, mutate_png
from .target import Target

__all__ = ["TARGETS", "camera_info_bytes", "tf_bytes"]

_STAMP = 1_700_000_000_123_456_789
_CDR = ("renderocc_model/rosio/cdr_reader.py", "renderocc_model/rosio/cdr_messages.py")
_MAX_PIXELS = 1 << 16  # small, so that a picture's size stays in proportion to the input's


class Writer:
    """Little-endian CDR of the messages that the package itself only reads."""

    def __init__(self) -> None:
        self.data = bytearray(b"\x00\x01\x00\x00")

    def pack(self, code: str, *values: float) -> Writer:
        size = struct.calcsize("<" + code)
        self.data += bytes((4 - len(self.data)) % size) + struct.pack(f"<{len(values)}{code}", *values)
        return self

    def text(self, text: str) -> Writer:
        raw = text.encode() + b"\x00"
        self.pack("I", len(raw)).data.extend(raw)
        return self

    def header(self, stamp_ns: int, frame: str) -> Writer:
        return self.pack("i", stamp_ns // 10**9).pack("I", stamp_ns % 10**9).text(frame)


def camera_info_bytes(
    model: str = "plumb_bob",
    D: tuple = (0.1, -0.2, 0.001, 0.002, 0.3),
    size: tuple = (64, 48),
    roi: tuple = (0,) * 4,
    binning: tuple = (0, 0),
    K: tuple = (40.0, 0, 31.5, 0, 40, 23.5, 0, 0, 1),
) -> bytes:
    """A sensor_msgs/CameraInfo."""
    writer = Writer().header(_STAMP, "front_optical").pack("I", size[1], size[0]).text(model).pack("I", len(D))
    if D:
        writer.pack("d", *D)
    writer.pack("d", *K, *np.eye(3).ravel(), *np.eye(3, 4).ravel())
    return bytes(writer.pack("I", *binning, *roi).pack("B", 0).data)


def tf_bytes(links: list[tuple[str, str, int, tuple, tuple]]) -> bytes:
    """A tf2_msgs/TFMessage of (parent, child, stamp_ns, translation, quaternion)."""
    writer = Writer().pack("I", len(links))
    for parent, child, stamp_ns, translation, quaternion in links:
        writer.header(stamp_ns, parent).text(child).pack("d", *translation, *quaternion)
    return bytes(writer.data)


# ------------------------------------------------------------------------------------------------------ single messages


def _camera_infos() -> list[bytes]:
    return [
        camera_info_bytes(),
        camera_info_bytes("equidistant", (0.02, 0.0, 0.001, 0.0), roi=(8, 4, 32, 48), binning=(2, 2)),
        camera_info_bytes("rational_polynomial", (0.1, 0.01, 0.001, 0.0, 0.02, 0.3, 0.1, 0.02)),
        camera_info_bytes("rational_polynomial", (0.1, 0.01, 0, 0, 0.02, 0.3, 0.1, 0.02, 0, 0, 0, 0, 0.01, 0.02)),
        camera_info_bytes("plumb_bob", (), (1600, 900), K=(1200.0, 0, 800, 0, 1200, 450, 0, 0, 1)),
        camera_info_bytes("equidistant", (-0.4, 0.3, -0.2, 0.1), (640, 480), K=(200.0, 0, 320, 0, 200, 240, 0, 0, 1)),
    ]


def _tfs() -> list[bytes]:
    unit, turned = (0.0, 0.0, 0.0, 1.0), (0.1, -0.2, 0.3, 0.9)
    return [
        tf_bytes([]),
        tf_bytes([("base_link", "front", _STAMP, (1.0, 2.0, 3.0), turned)]),
        tf_bytes(
            [
                ("odom", "base_link", _STAMP, (0.0, 0.0, 0.0), unit),
                ("odom", "base_link", _STAMP + 10**8, (1.0, 0.0, 0.0), turned),
                ("base_link", "front", _STAMP, (1.0, 0.5, 1.5), turned),
                ("/base_link", "back", _STAMP, (-1.0, 0.0, 1.5), (0.0, 0.0, 1.0, 0.0)),
            ]
        ),
        tf_bytes([("a", "b", 5, (0, 0, 0), unit), ("b", "a", 6, (0, 0, 0), unit), ("c", "b", 7, (0, 0, 0), unit)]),
    ]


def _clouds() -> list[bytes]:
    points = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    labels = np.arange(4, dtype=np.uint32)
    own = cdr.write_point_cloud(_STAMP, "lidar", points, np.zeros((4, 3), np.uint8), np.ones(4, np.float32), labels)
    rows = Writer().header(_STAMP, "lidar").pack("I", 2, 3).pack("I", 2)
    rows.text("x").pack("I", 0).pack("B", 8).pack("I", 1).text("label").pack("I", 8).pack("B", 4).pack("I", 2)
    rows.pack("B", 1).pack("I", 12).pack("I", 40).pack("I", 80).data.extend(bytes(range(80)) + b"\x01")
    return [own, bytes(rows.data)]


def _livox_clouds() -> list[bytes]:
    made = []
    for count in (0, 1, 3):
        cloud = (
            Writer().header(_STAMP, "livox").pack("Q", _STAMP).pack("I", count).pack("B", 0, 0, 0, 0).pack("I", count)
        )
        for index in range(count):
            cloud.pack("I", 1000 * index).pack("f", 1.0, 2.0, 3.0).pack("B", 9, 0, index)
        made.append(bytes(cloud.data))
    return made


def _raw_images() -> list[bytes]:
    rgb = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    wide = np.arange(24, dtype=np.uint16).reshape(4, 6)
    made = [cdr.write_image(_STAMP, "front", rgb, "rgb8"), cdr.write_image(_STAMP, "front", wide, "mono16")]
    for encoding in ENCODINGS:
        image = Writer().header(_STAMP, "front").pack("I", 16, 16).text(encoding).pack("B", 1)
        step = 16 * {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "nv12": 1}.get(encoding, 2)
        step = 16 if encoding.startswith("bayer") else step
        count = step * (24 if encoding == "nv12" else 16)
        made.append(bytes(image.pack("I", step).pack("I", count).data) + bytes(count))
    return made


def _header(data: bytes) -> None:
    stamp_ns, frame = cdr.read_header(data)
    assert isinstance(frame, str) and len(frame) <= len(data) and abs(stamp_ns) < 2**63


def _image(data: bytes) -> None:
    message = cdr.read_image(data)
    assert message.data.size <= len(data)
    if message.height * message.width > _MAX_PIXELS or message.encoding not in ENCODINGS:
        return
    factor = 1 << (message.step + message.width) % 4
    picture = decode_raw(
        message.data, message.height, message.width, message.step, message.encoding, message.is_bigendian, factor
    )
    assert picture.shape == (message.height // factor, message.width // factor, 3) and picture.dtype == np.uint8


def _compressed_image(data: bytes) -> None:
    assert cdr.read_compressed_image(data).data.size <= len(data)


def _camera_info(data: bytes) -> None:
    message = cdr.read_camera_info(data)
    assert message.K.shape == message.R.shape == (3, 3) and message.P.shape == (3, 4)
    assert 8 * message.D.size <= len(data)


def _camera_model(data: bytes) -> None:
    """Everything the node does with a camera_info when it comes: the model, the network's view, its maps."""
    model = camera_model_from_info(cdr.read_camera_info(data))
    corners = np.array([[0.0, 0.0], [model.width - 1.0, model.height - 1.0], [model.K[0, 2], model.K[1, 2]]])
    directions = model.unproject(corners)
    lengths = np.linalg.norm(directions, axis=1)
    assert (np.isnan(lengths) | (np.abs(lengths - 1) < 1e-6)).all()
    pixels, inside = model.project(np.array([[0.1, 0.2, 1.0], [0.0, 0.0, -1.0], [3.0, 1.0, 0.0]]))
    assert np.isfinite(pixels[inside]).all()
    view = network_view(model, 8, 16)
    assert np.isfinite(view.K).all()
    table = UndistortTable(model, view)
    assert table.valid.shape == (8, 16)
    rows, columns = table.reduced_shape
    assert 0 <= rows <= model.height and 0 <= columns <= model.width


def _tf(data: bytes) -> None:
    transforms = cdr.read_tf(data)
    buffer = TransformBuffer(max_samples=20, max_frames=20)
    frames = []
    for one in transforms:
        static = one.child.endswith("s")
        buffer.set(one.parent, one.child, one.stamp_ns, one.translation, one.quaternion, static)
        frames += [one.parent, one.child]
    for target, source, transform in zip(frames, reversed(frames), transforms * 2):
        for stamp_ns in (transform.stamp_ns, transform.stamp_ns + 5 * 10**7):
            try:
                answer = buffer.lookup(target, source, stamp_ns)
                buffer.latest(target, source)
            except TransformError as refusal:
                assert refusal.kind and str(refusal)
                continue
            assert np.isfinite(answer).all(), answer
            assert math.isclose(np.linalg.det(answer[:3, :3]), 1.0, abs_tol=1e-6)


def _cloud(data: bytes) -> None:
    message = cdr.read_point_cloud(data)
    assert message.data.size <= len(data)
    for field in message.fields:
        column = message.column(field.name)
        assert len(column) == len(message) and column.dtype.isnative
    assert message.xyz().shape == (len(message), 3)


def _livox(data: bytes) -> None:
    message = cdr.read_livox(data)
    assert message.data.size <= len(data) + 1 and message.xyz().shape == (len(message), 3)
    assert len(message.column("offset_time")) == len(message)


# ---------------------------------------------------------------------------------------------------------- image files


def _pictures() -> list[bytes]:
    """Small JPEG and PNG files of the kinds that cameras and label makers write."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (48, 20, 3), dtype=np.uint8)
    made = [cv2.imencode(".jpg", colours)[1], cv2.imencode(".jpg", colours[..., 0])[1]]
    made.append(cv2.imencode(".jpg", colours, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    made.append(cv2.imencode(".jpg", colours, [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1])
    deep = rng.integers(0, 65536, (8, 12), dtype=np.uint16)
    for image in (colours, colours[..., 0], deep, colours.repeat(2, 2)[..., :4]):
        made.append(cv2.imencode(".png", image)[1])
    return [one.tobytes() for one in made]


def _compressed(data: bytes) -> None:
    array = np.frombuffer(data, np.uint8)
    height, width = compressed_size(array)
    factor = 1 << len(data) % 4
    picture = decode_compressed(array, factor, max_pixels=_MAX_PIXELS)
    assert picture.shape == (height // factor, width // factor, 3) and picture.dtype == np.uint8
    rows = slice(0, height // 2 // (2 * factor) * 2 * factor)  # the upper half: the rest of a JPEG is not decoded
    if rows.stop:
        upper = decode_compressed(array, factor, _MAX_PIXELS, (rows, slice(0, width)))
        assert upper.shape == (rows.stop // factor, width // factor, 3)


def _videos() -> list[bytes]:
    made = [Writer().header(_STAMP, "front").pack("I", 9).data + b"\x00\x00\x01\x65\x88\x84\x00\x33\xff"]
    made[0] = bytes(made[0]) + bytes(Writer().text("h264").data[4:])
    packet = Writer().header(_STAMP, "front").pack("i", 64, 48).text("hevc;yuv420p;bgr8;bgr8").pack("Q", 7)
    return [*made, bytes(packet.pack("B", 1, 0).pack("I", 4).data) + b"\x00\x00\x01\x46"]


def _video_message(data: bytes) -> None:
    for read in (cdr.read_compressed_video, cdr.read_ffmpeg_packet):
        try:
            message = read(data)
        except cdr.MessageError:
            continue
        assert message.data.dtype == np.uint8 and message.data.size <= len(data)
        codec_of(message.format)


def _packets() -> list[bytes]:
    """Packets of small videos, of H.264 after a first byte of 0, of H.265 after 1."""
    pictures = moving_pictures(3, 48, 32)
    return [bytes([k]) + data for k, codec in enumerate(("h264", "h265")) for _, data in encoded(pictures, codec)]


def _packet(data: bytes) -> None:
    codec = (H264, H265)[data[0] & 1] if data else H264
    contents = read_packet(codec, data[1:])
    assert sum(map(len, contents.parameters.values())) <= len(data)
    numbers = FrameNumbers()
    numbers.follows(contents)
    numbers.follows(contents)


def _video(data: bytes) -> None:
    decoder = VideoDecoder((H264, H265)[data[0] & 1] if data else H264)
    for number in range(3):
        decoder.feed(number, data[1:])
    decoder.flush()
    for number in range(3):
        if decoder.has(number):
            picture = decoder.picture(number)
            assert picture.dtype == np.uint8 and picture.ndim == 3


def _labels() -> list[bytes]:
    rng = np.random.default_rng(1)
    classes, depth = rng.integers(0, 18, (8, 12), dtype=np.uint8), rng.integers(0, 65536, (8, 12), dtype=np.uint16)
    return [cv2.imencode(".png", image)[1].tobytes() for image in (classes, depth)]


def _label_png(data: bytes) -> None:
    message = cdr.CompressedImageMessage(0, "", "png", np.frombuffer(data, np.uint8))
    try:
        classes = semantic_image(message, 8, 12)
        assert classes.shape == (8, 12) and classes.dtype == np.uint8
    except LabelImageError:
        depth = depth_image(message, 8, 12)
        assert depth.shape == (8, 12) and np.isfinite(depth).all() and (depth >= 0).all()


def _raw_labels() -> list[bytes]:
    images = (np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint16), np.ones((2, 3), np.float32))
    return [cdr.write_image(_STAMP, "f", one, code) for one, code in zip(images, ("mono8", "16UC1", "32FC1"))]


def _raw_label(data: bytes) -> None:
    message = cdr.read_image(data)
    try:
        assert semantic_image(message, 2, 3).shape == (2, 3)
    except LabelImageError:
        depth = depth_image(message, 2, 3)
        assert depth.shape == (2, 3) and np.isfinite(depth).all() and (depth >= 0).all()


def _mutate_picture(data: bytes, rng: random.Random) -> bytes:
    return mutate_png(data, rng) if data.startswith(b"\x89PNG") else mutate_bytes(data, rng)


_CAMERA = tuple(f"renderocc_model/{name}.py" for name in ("messages/camera_info", "camera_model", "distortion"))
_TF = tuple(f"renderocc_model/messages/tf_{name}.py" for name in ("buffer", "history", "link"))
_READ = (cdr.MessageError,)

_ALL = (
    Target("cdr_header", _header, lambda: [camera_info_bytes()[:40]], _READ, _CDR, largest=256),
    Target(
        "cdr_image", _image, _raw_images, (cdr.MessageError, ImageError), (*_CDR, "renderocc_model/images/encodings.py")
    ),
    Target(
        "cdr_compressed_image",
        _compressed_image,
        lambda: [cdr.write_compressed_image(_STAMP, "front", "jpeg", bytes(32))],
        _READ,
        _CDR,
        largest=256,
    ),
    Target("cdr_camera_info", _camera_info, _camera_infos, _READ, _CDR, largest=1024),
    Target("cdr_point_cloud", _cloud, _clouds, _READ, _CDR, largest=1024),
    Target("cdr_livox", _livox, _livox_clouds, _READ, _CDR, largest=1024),
    Target(
        "cdr_video",
        _video_message,
        _videos,
        (cdr.MessageError, VideoError),
        (*_CDR, "renderocc_model/images/video_packets.py"),
        largest=256,
    ),
    Target(
        "video_packet", _packet, _packets, (VideoError,), ("renderocc_model/images/video_packets.py",), largest=1024
    ),
    Target("video", _video, _packets, (VideoError,), ("renderocc_model/images/video.py",), memory=256 << 20),
    Target("tf", _tf, _tfs, (cdr.MessageError, TransformError), (*_CDR, *_TF), largest=2048),
    Target("camera_model", _camera_model, _camera_infos, (ValueError,), _CAMERA, memory=32 << 20, largest=1024),
    Target("pictures", _compressed, _pictures, (ImageError,), ("renderocc_model/images/decoding.py",), _mutate_picture),
    Target("label_png", _label_png, _labels, (LabelImageError,), ("training/recordings/label_images.py",), mutate_png),
    Target(
        "label_raw",
        _raw_label,
        _raw_labels,
        (cdr.MessageError, LabelImageError),
        ("training/recordings/label_images.py",),
        largest=512,
    ),
)
TARGETS = {target.name: target for target in _ALL}
