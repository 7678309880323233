"""Videos for tests: pictures encoded as H.264 or H.265, and recordings whose images became video messages."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from renderocc_model.images.decoding import decode_compressed
from renderocc_model.rosio import cdr

FOXGLOVE, FFMPEG = "foxglove_msgs/msg/CompressedVideo", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
_DEFINITIONS = {
    FOXGLOVE: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    FFMPEG: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
}
STORE = get_typestore(Stores.ROS2_JAZZY)
for name, text in _DEFINITIONS.items():
    STORE.register(get_types_from_msg(text, name))
ENCODERS = {"h264": "libx264", "h265": "libx265"}


def moving_pictures(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Smooth pictures, in which a coloured pattern moves by two pixels a picture."""
    rows, columns = np.mgrid[0:height, 0 : width + 2 * count]
    waves = [np.sin(columns / 9) * np.cos(rows / 7), np.cos(columns / 11 + 1), np.sin((columns + rows) / 13)]
    base = np.stack([np.rint(128 + 90 * wave).astype(np.uint8) for wave in waves], -1)
    return [np.ascontiguousarray(base[:, 2 * k : 2 * k + width]) for k in range(count)]


def encoded(
    pictures, codec="h264", every=8, reordered=0, quality=12, options=None, pixels="yuv420p", colours=None
) -> list[tuple[int, bytes]]:
    """(index of its picture, bytes) of each packet, in the order of decoding.

    Args:
        codec: "h264" or "h265".
        every: pictures from one key frame to the next.
        reordered: B pictures between two others.
        quality: the quantiser; less is better.
        options: of the encoder.
        pixels: format of the encoded pixels, as FFmpeg names it.
        colours: (range, colour space) of the encoded pixels, by FFmpeg's numbers.
    """
    import av

    context = av.CodecContext.create(ENCODERS[codec], "w")
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = pixels, Fraction(1, 10), 10
    changed = {}
    if colours is not None:
        context.color_range, context.colorspace = colours
        changed = {"dst_color_range": colours[0], "dst_colorspace": colours[1]}
    parameters = f"keyint={every}:min-keyint={every}:scenecut=0:bframes={reordered}:rc-lookahead={reordered + 1}"
    quiet = {"h264": {"x264-params": parameters}, "h265": {"x265-params": f"{parameters}:log-level=none"}}[codec]
    context.options = {"preset": "fast", "crf": str(quality), "bf": str(reordered), **quiet, **(options or {})}
    packets = []
    for index, picture in enumerate([*pictures, None]):
        frame = None
        if picture is not None:
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels, **changed)
            frame.pts = index
        packets += [(packet.pts, bytes(packet)) for packet in context.encode(frame)]
    return packets


def video_message(kind: str, stamp_ns: int, frame_id: str, codec: str, data: bytes, size=(0, 0), pts=0) -> bytes:
    """A serialised video message. kind: `FOXGLOVE` or `FFMPEG`."""
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    payload = np.frombuffer(data, np.uint8)
    if kind == FOXGLOVE:
        message = types[kind](timestamp=stamp, frame_id=frame_id, data=payload, format=codec)
    else:
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)
        encoding = {"h264": "libx264", "h265": "hevc;yuv420p;bgr8;bgr8"}[codec]
        message = types[kind](
            header=header,
            width=size[1],
            height=size[0],
            encoding=encoding,
            pts=pts,
            flags=0,
            is_bigendian=False,
            data=payload,
        )
    return bytes(STORE.serialize_cdr(message, kind))


def write_video_bag(folder, kind, packets, codec="h264", topic="/front/image_raw/video", stamp=lambda index: index):
    """A recording of one video topic; packet k is recorded at k ms, with the stamp of its picture's index."""
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=STORE)
        for number, (index, data) in enumerate(packets):
            message = video_message(kind, stamp(index), "front_optical", codec, data, pts=index)
            writer.write(connection, number * 10**6, message)
    return folder


def as_video(bag, out, kind=FOXGLOVE, codec="h264", every=2, reordered=0, quality=8, suffix=None, lost=()):
    """A copy of a recording whose compressed images are videos on IMAGE_TOPIC/foxglove or /ffmpeg."""
    lost = set(lost)  # (camera, number) of packets that are not in the copy
    suffix = suffix or {FOXGLOVE: "foxglove", FFMPEG: "ffmpeg"}[kind]
    with Reader(bag) as reader, Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        is_image = lambda topic: topic.endswith("/image_raw/compressed")
        kept = [connection for connection in reader.connections if not is_image(connection.topic)]
        out_of = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=STORE) for c in kept}
        entries = [(when, out_of[c.topic], raw) for c, when, raw in reader.messages(kept)]
        for connection in (c for c in reader.connections if is_image(c.topic)):
            messages = [(when, cdr.read_compressed_image(raw)) for _, when, raw in reader.messages([connection])]
            pictures = [decode_compressed(message.data) for _, message in messages]
            target = writer.add_connection(
                f"{connection.topic.removesuffix('compressed')}{suffix}", kind, typestore=STORE
            )
            for number, (index, data) in enumerate(encoded(pictures, codec, every, reordered, quality)):
                if (connection.topic.split("/")[1], number) in lost:
                    continue
                message, size = messages[index][1], pictures[0].shape[:2]
                raw = video_message(kind, message.stamp_ns, message.frame_id, codec, data, size, index)
                entries.append((messages[number][0], target, raw))
        for when, connection, raw in sorted(entries, key=lambda entry: entry[0]):
            writer.write(connection, when, raw)
    if (Path(bag) / "occupancy").is_dir():
        shutil.copytree(Path(bag) / "occupancy", Path(out) / "occupancy")
    return out
