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

__all__ = ["VIDEO_READERS", "FirstPicture", "VideoTrack", "video_topic"]

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


class VideoIndex:
    """Follows the packets of a video without decoding them.

    Attributes:
        codec: of the packets; empty before the first.
        count: packets that were taken in.
        keys: numbers of those that are key frames.
    """

    def __init__(self) -> None:
        self.codec = ""
        self.count = 0
        self.keys: list[int] = []
        self._numbers = FrameNumbers()
        self._waiting = "no key frame has come before it"

    def take(self, message: cdr.VideoMessage) -> int:
        """Take in the next packet; returns its number.

        Raises:
            VideoError: its picture cannot be decoded, for packets before it are missing, or it is no video that can be.
        """
        number, self.count = self.count, self.count + 1
        codec = codec_of(message.format)
        if self.codec and codec != self.codec:
            raise VideoError(f"the video changes from {self.codec} to {codec}; record with one codec")
        self.codec = codec
        try:
            contents = read_packet(codec, message.data.tobytes())
        except VideoError:
            self._waiting = "a packet before it is damaged, and no key frame came in between"
            raise
        follows = codec != H264 or self._numbers.follows(contents)
        if contents.is_key:
            self.keys.append(number)
            self._waiting = ""
        elif not follows and not self._waiting:
            self._waiting = "packets before it were lost, and no key frame came in between"
        if self._waiting:
            raise VideoError(f"video picture cannot be decoded: {self._waiting}")
        return number


class FirstPicture:
    """Decodes a video up to its first picture, to know whether it can be decoded, and its size."""

    def __init__(self) -> None:
        self._index = VideoIndex()
        self._decoder: VideoDecoder | None = None
        self._size: tuple[int, int] | None = None

    def take(self, message: cdr.VideoMessage) -> tuple[int, int] | None:
        """Take in the next packet; returns (height, width), None if no picture was decoded yet.

        Raises:
            VideoError: its picture cannot be decoded; or PyAV is not installed.
        """
        number = self._index.take(message)
        if self._size is None:
            self._decoder = self._decoder or VideoDecoder(self._index.codec)
            self._decoder.feed(number, message.data.tobytes())
            first = next(
                (one for one in range(max(0, number - _LOOK_AHEAD), number + 1) if self._decoder.has(one)), None
            )
            if first is not None:
                height, width = self._decoder.picture(first).shape[:2]
                self._size, self._decoder = (height, width), None
        return self._size


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
        self._index = VideoIndex()
        self._recorded: list[int] = []
        self._number_of: dict[int, int] = {}
        self._decoder: VideoDecoder | None = None
        self._next = 0  # number of the packet to feed next

    def take(self, message: cdr.VideoMessage, recorded_ns: int) -> None:
        """Take in a message: its stamp, and whether it is a key frame. VideoError as of `VideoIndex.take`."""
        self._recorded.append(recorded_ns)
        self._number_of.setdefault(message.stamp_ns, self._index.take(message))

    def picture(self, stamp_ns: int) -> np.ndarray:
        """The picture with this stamp, (H, W, 3) uint8 RGB.

        Raises:
            KeyError: there is none, or `take` has refused it.
            VideoError: PyAV is not installed, or the picture cannot be decoded.
        """
        number = self._number_of[stamp_ns]
        if self._decoder is None:
            self._decoder = VideoDecoder(self._index.codec)
        decoder = self._decoder
        keys = self._index.keys
        last = bisect_left(keys, number + 1) - 1
        # Pictures just after a key frame may need the group of pictures before it.
        for begin in keys[max(last - 1, 0) : last + 1][::-1]:
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
