"""One video topic of a recording, of which any picture can be had: from the key frame before it on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from renderocc_model.images.video import VideoDecoder, VideoError
from renderocc_model.images.video_packets import H264, FrameNumbers, codec_of, read_packet
from renderocc_model.rosio import cdr

if TYPE_CHECKING:
    from renderocc_model.rosio.bags import Bag

__all__ = ["VIDEO_READERS", "VideoTrack", "video_topic"]

VIDEO_READERS = {
    "foxglove_msgs/msg/CompressedVideo": cdr.read_compressed_video,
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": cdr.read_ffmpeg_packet,
}
_LOOK_AHEAD = 20  # packets after a picture's own that its decoder may need first; H.264 reorders at most 16


def video_topic(topics: Mapping[str, Collection[str]], image_topic: str) -> tuple[str, str] | None:
    """The video of a camera among topics: the image topic itself, or the first one right below it.

    Args:
        topics: {absolute name: its message types}.
        image_topic: absolute name of the raw image topic.
    Returns:
        (topic, message type); None without a video.
    """
    below = sorted(name for name in topics if name.rpartition("/")[0] == image_topic)
    for name in (image_topic, *below):
        for message_type in VIDEO_READERS:
            if message_type in topics.get(name, ()):
                return name, message_type
    return None


class VideoTrack:
    """A video topic. `take` is called with all of its messages once, in the order of recording; then `picture` decodes.

    Pictures that are asked for in the order of recording are decoded once each; others from their key frame on. It is
    for one thread.

    Args:
        bag: an open bag.
        topic: name of the topic, of a type in `VIDEO_READERS`.
    """

    def __init__(self, bag: Bag, topic: str) -> None:
        self._bag, self._topic = bag, topic
        self._read = VIDEO_READERS[bag.topics[topic].type]
        self._codec = ""
        self._recorded: list[int] = []
        self._keys: list[int] = []  # numbers of the packets that are key frames
        self._number_of: dict[int, int] = {}
        self._numbers = FrameNumbers()
        self._waiting = "no key frame has come before it"
        self._decoder: VideoDecoder | None = None
        self._next = 0  # number of the packet to feed next

    def take(self, data: bytes, recorded_ns: int) -> None:
        """Take in a message: its stamp, and whether it is a key frame.

        Raises:
            VideoError: its picture cannot be decoded, for packets before it are missing, or it is no video that can be.
            MessageError: it cannot be read.
        """
        number = len(self._recorded)
        self._recorded.append(recorded_ns)
        message = self._read(data)
        codec = codec_of(message.format)
        if self._codec and codec != self._codec:
            raise VideoError(f"the video changes from {self._codec} to {codec}; record with one codec")
        self._codec = codec
        try:
            contents = read_packet(codec, message.data.tobytes())
        except VideoError:
            self._waiting = "a packet before it is damaged, and no key frame came in between"
            raise
        follows = codec != H264 or self._numbers.follows(contents)
        if contents.is_key:
            self._keys.append(number)
            self._waiting = ""
        elif not follows and not self._waiting:
            self._waiting = "packets before it were lost, and no key frame came in between"
        if self._waiting:
            raise VideoError(f"video picture cannot be decoded: {self._waiting}")
        self._number_of.setdefault(message.stamp_ns, number)

    def picture(self, stamp_ns: int) -> np.ndarray:
        """The picture with this stamp, (H, W, 3) uint8 RGB.

        Raises:
            KeyError: there is none, or `take` has refused it.
            VideoError: PyAV is not installed, or the picture cannot be decoded.
        """
        number = self._number_of[stamp_ns]
        if self._decoder is None:
            self._decoder = VideoDecoder(self._codec)
        decoder = self._decoder
        last = bisect_left(self._keys, number + 1) - 1
        # Pictures just after a key frame may need the group of pictures before it.
        for begin in self._keys[max(last - 1, 0) : last + 1][::-1]:
            if not decoder.has(number):
                self._decode(decoder, begin, number)
        return decoder.picture(number)

    def _decode(self, decoder: VideoDecoder, begin: int, number: int) -> None:
        """Feed a decoder until it has a picture, from a key frame on, or from where it stands if that is later."""
        if not begin <= self._next <= number:
            decoder.flush()
            self._next = begin
        for packet, data in self._packets(self._next, number + 1):
            decoder.feed(packet, data)
        self._next = number + 1
        end = min(number + 1 + _LOOK_AHEAD, len(self._recorded))
        while not decoder.has(number) and not decoder.is_lost(number):
            if self._next >= end:
                decoder.flush()
                self._next = len(self._recorded)  # a key frame has to come first now
                return
            for packet, data in self._packets(self._next, self._next + 1):
                decoder.feed(packet, data)
            self._next += 1

    def _packets(self, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) of the packets from one number on and before another."""
        start_ns, stop_ns = self._recorded[first], self._recorded[stop - 1] + 1
        number = bisect_left(self._recorded, start_ns)
        for _, _, data in self._bag.messages([self._topic], start_ns, stop_ns):
            if first <= number < stop:
                yield number, self._read(data).data.tobytes()
            number += 1
