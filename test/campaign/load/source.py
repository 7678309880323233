"""Cameras that send as fast as they are told to, from ready-made bytes; in a process of its own.

    python -m campaign.load.source SPECIFICATION.json

Prints a JSON object a second: frames sent, frames that were given up because it was late, the longest it was late.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import cv2
import numpy as np

__all__ = ["main"]

_STAMP = 4  # bytes before the header's stamp in any message that begins with one
_SAY_S = 1.0


def with_stamp(data: bytes, stamp: int) -> bytes:
    """A copy of a serialised message with another header stamp, nanoseconds."""
    return b"".join((data[:_STAMP], struct.pack("<iI", *divmod(stamp, 1_000_000_000)), data[_STAMP + 8 :]))


def calibration(info, width: int, height: int):
    """The CameraInfo of the same lens at another image size."""
    across, down = width / info.width, height / info.height
    k = list(info.k)
    k[0], k[2], k[4], k[5] = k[0] * across, (k[2] + 0.5) * across - 0.5, k[4] * down, (k[5] + 0.5) * down - 0.5
    info.k, info.width, info.height = k, width, height
    return info


def main(argv: list[str]) -> int:
    """Send until it is told to stop."""
    specification = json.loads(Path(argv[0]).read_text())
    from renderocc_ros.process import prepare_process

    prepare_process()
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from system import LATCHED, pixels_of, transform_message
    from tf2_msgs.msg import TFMessage

    from campaign.recordings import load_scene
    from renderocc_model.rosio import cdr_writer

    width, height, jpeg = specification["width"], specification["height"], specification["transport"] == "jpeg"
    scene = load_scene(Path(specification["bag"]))
    rclpy.init()
    node = rclpy.create_node("load_source", start_parameter_services=False)
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
    senders = []
    for camera in scene.cameras:
        frame_id, pixels = scene.frame_ids[camera], pixels_of(scene.frames[0].images[camera])
        pixels = np.ascontiguousarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))
        if jpeg:
            data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            message = cdr_writer.write_compressed_image(0, frame_id, "jpeg", data)
            images = node.create_publisher(CompressedImage, f"/{camera}/image_raw/compressed", qos)
        else:
            message = cdr_writer.write_image(0, frame_id, pixels, "rgb8")
            images = node.create_publisher(Image, f"/{camera}/image_raw", qos)
        info = serialize_message(calibration(scene.infos[camera], width, height))
        senders.append((images, bytes(message), node.create_publisher(CameraInfo, f"/{camera}/camera_info", qos), info))
    mounts = [transform_message("base_link", scene.frame_ids[name], 1, *scene.mounts[name]) for name in scene.cameras]
    static = node.create_publisher(TFMessage, "/tf_static", LATCHED)
    static.publish(TFMessage(transforms=mounts))
    moving = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
    size = sum(len(message) for _, message, _, _ in senders)
    print(json.dumps({"bytes_of_a_frame": size, "cameras": len(senders)}), flush=True)

    def send() -> None:
        stamp = time.time_ns()
        pose = transform_message("odom", "base_link", stamp + 50_000_000, *scene.frames[0].pose)
        moving.publish(TFMessage(transforms=[pose]))
        for images, message, infos, info in senders:
            infos.publish(with_stamp(info, stamp))
            images.publish(with_stamp(message, stamp))

    try:
        pump(send, 1 / specification["rate"])
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def pump(send, period: float) -> None:
    """Call `send` every so many seconds; turns that are more than a period late are left out, and counted."""
    sent = missed = 0
    latest, said = 0.0, time.monotonic()
    due = said
    while True:
        now = time.monotonic()
        if now < due:
            time.sleep(min(due - now, 0.05))
            continue
        latest = max(latest, now - due)
        send()
        sent += 1
        due += period
        behind = int((time.monotonic() - due) / period)
        if behind > 0:
            missed += behind
            due += behind * period
        if time.monotonic() - said >= _SAY_S:
            said, cpu = time.monotonic(), time.process_time()
            print(
                json.dumps({"t": time.time(), "sent": sent, "missed": missed, "late": round(latest, 4), "cpu": cpu}),
                flush=True,
            )
            latest = 0.0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
