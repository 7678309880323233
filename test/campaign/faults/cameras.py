"""Faults of cameras: images that do not come, come wrong, or cannot be read; calibrations that change."""

from __future__ import annotations

import math

import cv2
import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from system import SECOND, as_raw, pixels_of

from campaign.faults.fault import Fault, Injection
from campaign.player import Message

__all__ = ["CAMERA_FAULTS"]

SILENT = r"silent for|no image yet"


def images(change):
    """Change images only."""
    return lambda injection, message: change(injection, message) if message.kind == "image" else (message,)


def infos(change):
    """Change camera_infos only."""
    return lambda injection, message: change(injection, message) if message.kind == "camera_info" else (message,)


def edited(message: Message, usable: bool = True, **fields) -> Message:
    """The message with other values in its fields."""
    new = message.copy(usable=usable)
    for name, value in fields.items():
        setattr(new.ros, name, value)
    return new


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """(height, width, 3) RGB as a file of this kind."""
    return cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes()


def bent_bytes(bend):
    """Change the serialised message by `bend(random, bytes)`."""

    def change(injection: Injection, message: Message):
        data = bend(injection.random, serialize_message(message.ros))
        return (message.copy(data=data, usable=False),)

    return change


def cut(random, data: bytes) -> bytes:
    """Cut off at least four bytes: RTPS pads messages to multiples of four, so one missing byte comes as a zero."""
    return data[: random.randrange(4, max(5, len(data) - 3))]


def noise(random, data: bytes) -> bytes:
    return data[:4] + random.randbytes(max(8, len(data) - 4))


def flipped(random, data: bytes) -> bytes:
    """A few bytes of the first 200 changed: lengths, sizes, names."""
    bent = bytearray(data)
    for _ in range(random.randint(1, 12)):
        bent[random.randrange(4, min(len(bent), 200))] = random.randrange(256)
    return bytes(bent)


def flicker(injection: Injection, message: Message):
    """On and off for 0.2 to 0.7 seconds each."""
    state = injection.state
    if injection.elapsed >= state.get("until", 0.0):
        state["off"] = not state.get("off", False)
        state["until"] = injection.elapsed + injection.random.uniform(0.2, 0.7)
    return () if state["off"] else (message,)


def twice_as_often(injection: Injection, message: Message):
    half = round(0.5 / injection.player.rate * SECOND)
    later = message.restamped(message.stamp + half)
    return message, later.copy(delay=message.delay + half / SECOND)


def shuffled(injection: Injection, message: Message):
    return (message.copy(delay=message.delay + injection.random.choice((0.0, 0.25, 0.45))),)


def smaller(injection: Injection, message: Message):
    """A good image of half the size, as after a change of the driver's mode."""
    pixels = pixels_of(message.ros)[::2, ::2]
    if message.compressed:
        return (edited(message, False, data=encoded(".jpg", pixels)),)
    height, width = pixels.shape[:2]
    return (edited(message, False, height=height, width=width, step=3 * width, data=pixels.tobytes()),)


def other_encoding(injection: Injection, message: Message):
    """A good image of another encoding: PNG for JPEG; bgr8 or mono8 for rgb8."""
    pixels = pixels_of(message.ros)
    if message.compressed:
        return (edited(message, format="png", data=encoded(".png", pixels)),)
    if injection.random.random() < 0.5:
        return (edited(message, encoding="bgr8"),)
    grey = pixels.mean(axis=2).astype(np.uint8)
    return (edited(message, encoding="mono8", step=grey.shape[1], data=grey.tobytes()),)


def unknown_encoding(injection: Injection, message: Message):
    if message.compressed:
        return (edited(message, False, format="magic", data=b"magic" + injection.random.randbytes(2000)),)
    return (edited(message, False, encoding="magic8"),)


def other_transport(injection: Injection, message: Message):
    """Compressed in place of raw, or the other way round; the earlier publisher is destroyed."""
    injection.player.unplug(message.publisher_kind, message.camera)
    if message.compressed:
        new = as_raw(message.ros)
    else:
        new = CompressedImage(format="jpeg", data=encoded(".jpg", pixels_of(message.ros)))
    new.header = message.ros.header
    return (Message("image", message.camera, new, delay=message.delay),)


def transport_back(injection: Injection) -> None:
    usual = injection.player.scene.frames[0].images[injection.camera]
    injection.player.unplug("compressed" if isinstance(usual, Image) else "raw", injection.camera)


def half_a_picture(injection: Injection, message: Message):
    data = bytes(message.ros.data)
    return (edited(message, False, data=data[: injection.random.randrange(0, len(data) * 3 // 4)]),)


def empty_picture(injection: Injection, message: Message):
    size = {} if message.compressed else {"height": 0, "width": 0, "step": 0}
    return (edited(message, False, data=b"", **size),)


def claims_to_be_huge(injection: Injection, message: Message):
    if message.compressed:  # the size in a JPEG's frame header
        data = bytearray(message.ros.data)
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
        return (edited(message, False, data=bytes(data)),)
    return (edited(message, False, height=2**31, width=2**31, step=2**32 - 1),)


def unplugged(injection: Injection) -> None:
    for kind in ("raw", "compressed", "camera_info"):
        injection.player.unplug(kind, injection.camera)


def silent(injection: Injection, message: Message):
    return ()


def never_there(injection: Injection) -> None:
    """Configure the node again while the camera is not there."""
    unplugged(injection)
    injection.stage.cycle()


def with_k(change):
    def changed(injection: Injection, message: Message):
        k = list(message.ros.k)
        change(injection, k)
        return (edited(message, k=k),)

    return infos(changed)


def zoom(injection: Injection, k: list) -> None:
    factor = injection.state.setdefault("factor", injection.random.uniform(0.7, 1.4))
    k[0], k[4] = k[0] * factor, k[4] * factor


def zeros(injection: Injection, k: list) -> None:
    k[:] = [0.0] * 9


def not_numbers(injection: Injection, k: list) -> None:
    k[injection.random.choice((0, 2, 4, 5))] = injection.random.choice((math.nan, math.inf))


def another_size(injection: Injection, message: Message):
    info = message.ros
    k = [value * 2 for value in info.k[:8]] + [1.0]
    return (edited(message, width=2 * info.width, height=2 * info.height, k=k),)


def camera(name: str, what: str, change=None, **more) -> Fault:
    return Fault(name, "cameras", what, **({"change": change} if change else {}), **more)


def info(name: str, what: str, change, **more) -> Fault:
    return Fault(name, "camera_info", what, change=change, **more)


UNREADABLE = r"image|JPEG|PNG|message|bytes|encoding|silent|nearest"

CAMERA_FAULTS = (
    camera(
        "camera never starts",
        "not present when the node is configured",
        silent,
        begin=never_there,
        named=SILENT,
        level=2,
        alone=True,
    ),
    camera(
        "camera stops",
        "sends nothing for a while, then continues",
        images(silent),
        named=SILENT,
        level=2,
        seconds=(2.6, 3.2),  # longer than the map keeps what moves
    ),
    camera(
        "camera unplugged",
        "its publishers are destroyed, and created again",
        silent,
        begin=unplugged,
        named=SILENT,
        level=2,
    ),
    camera("camera flickers", "stops and continues, each for a fraction of a second", images(flicker)),
    camera(
        "anchor stops",
        "the camera that gives the outputs their stamps sends nothing",
        images(silent),
        strikes="anchor",
        named=SILENT,
        level=2,
    ),
    camera(
        "all cameras stop",
        "no camera sends, then all continue",
        images(silent),
        strikes="cameras",
        line="camera {anchor}",
        named=SILENT,
        level=2,
        stops=True,
    ),
    camera("rate doubles", "twice as many images a second", images(twice_as_often)),
    camera(
        "duplicates",
        "each image three times",
        images(lambda i, m: (m, m.copy(delay=m.delay + 0.01), m.copy(delay=m.delay + 0.05))),
    ),
    camera("out of order", "images arrive in another order than that of their stamps", images(shuffled)),
    camera("late images", "0.4 s after their stamps", images(lambda i, m: (m.copy(delay=m.delay + 0.4),))),
    camera("size changes", "half as large as camera_info says", images(smaller), named="camera_info says"),
    camera("encoding changes", "PNG for JPEG, bgr8 or mono8 for rgb8", images(other_encoding)),
    camera("unknown encoding", "an encoding that does not exist", images(unknown_encoding), named=UNREADABLE),
    camera(
        "transport changes",
        "compressed in place of raw, or raw in place of compressed",
        images(other_transport),
        end=transport_back,
    ),
    camera("truncated message", "cut at a random byte", images(bent_bytes(cut)), named=UNREADABLE),
    camera("random bytes", "noise in place of an image message", images(bent_bytes(noise)), named=UNREADABLE),
    camera("flipped bytes", "some of the first 200 bytes changed", images(bent_bytes(flipped)), judge_free=False),
    camera(
        "half a picture",
        "the message is complete, its compressed picture is cut off",
        images(half_a_picture),
        named=UNREADABLE,
    ),
    camera("empty picture", "no pixels", images(empty_picture), named=UNREADABLE),
    camera("huge picture", "declares 65535 or 2^31 pixels a side", images(claims_to_be_huge), named=UNREADABLE),
    camera(
        "other frame_id",
        "an optical frame that TF does not know",
        lambda i, m: (reframed(m, "nowhere_optical"),) if m.kind == "image" else (m,),
        named="cannot be placed",
    ),
    info("other K", "another focal length for a while", with_k(zoom)),
    info("K of zeros", "as from a driver without calibration", with_k(zeros), named="K is all zeros"),
    info("K not finite", "it holds NaN or infinity", with_k(not_numbers), named="camera_info"),
    info("camera_info of another size", "twice the image's", infos(another_size), named="camera_info says"),
    info("camera_info stops", "no more messages come", infos(silent)),
    info("camera_info truncated", "cut at a random byte", infos(bent_bytes(cut)), named="camera_info"),
    info(
        "camera_info of random bytes",
        "random bytes in place of a message",
        infos(bent_bytes(noise)),
        named="camera_info",
    ),
    info(
        "unknown distortion",
        "a distortion model that does not exist",
        infos(lambda i, m: (edited(m, distortion_model="magic", d=[0.1, 0.0, 0.0, 0.0, 0.0]),)),
        named="camera_info",
    ),
)


def reframed(message: Message, frame_id: str) -> Message:
    new = message.copy(usable=False)
    new.ros.header.frame_id = frame_id
    return new
