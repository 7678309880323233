"""One camera's video in the node: packets come in from the executor's thread, pictures go out to a decoder's thread.

Every packet is needed to decode those after it, but only the pictures of complete sets are. So packets wait here as
they came, and are decoded up to a picture when that is asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from renderocc_model.images.video import MAX_PACKET_BYTES, VideoDecoder, VideoError
from renderocc_model.images.video_packets import codec_of, read_packet
from renderocc_model.rosio.video_track import VIDEO_READERS

__all__ = ["VideoPicture", "VideoStream"]

_MOST_PACKETS = 900  # that wait to be decoded; a key frame comes every 10 to 300 pictures
_MOST_BYTES = MAX_PACKET_BYTES
_MOST_REORDERED = 16
_STAMP_BACK_NS = 1_000_000_000  # stamps that go back by more are not of reordered pictures, but of another time


@dataclass(frozen=True)
class _Packet:
    number: int
    codec: str
    is_key: bool
    data: bytes


@dataclass(frozen=True, eq=False)
class VideoPicture:
    """A picture of a stream that is not decoded yet. `given` is what `VideoStream.add` got with its packet."""

    stream: VideoStream
    number: int
    stamp_ns: int
    given: Any

    def rgb(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB; VideoError if it cannot be had."""
        return self.stream.picture(self.number)


class VideoStream:
    """The packets of one camera. `add` and `clear` are for one thread, `picture` for another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the packets
        self._decoding = threading.Lock()
        self._packets: deque[_Packet] = deque()
        self._bytes = 0
        self._number = 0
        self._decoder: VideoDecoder | None = None
        self._fed = -1
        self._waiting: list[VideoPicture] = []  # pictures whose stamps earlier ones may still precede
        self._recent: deque[int] = deque(maxlen=_MOST_REORDERED)
        self._delay = 0

    def add(self, stamp_ns: int, message_type: str, buffer: bytes, given: Any = None) -> list[VideoPicture]:
        """Take in a message.

        Args:
            stamp_ns: its stamp.
            message_type: one of `VIDEO_READERS`.
            buffer: the serialised message.
            given: goes with the picture.
        Returns:
            the pictures that are next in the order of stamps: this one; with B pictures, earlier ones.
        Raises:
            ValueError: the message cannot be read, or has no picture of a known codec.
        """
        newest = max(self._recent, default=stamp_ns)
        if newest - stamp_ns > _STAMP_BACK_NS:
            self.clear()
        self._number += 1
        message = VIDEO_READERS[message_type](buffer)
        codec, data = codec_of(message.format), message.data.tobytes()
        packet = _Packet(self._number, codec, read_packet(codec, data).is_key, data)
        with self._lock:
            self._packets.append(packet)
            self._bytes += len(data)
            self._bound()
        return self._in_order(VideoPicture(self, self._number, stamp_ns, given))

    def clear(self) -> None:
        """Forget the packets. The next picture is that of the next key frame."""
        with self._lock:
            self._packets.clear()
            self._bytes = 0
        self._number += 1  # a gap, after which the decoder waits for a key frame
        self._waiting.clear()
        self._recent.clear()

    def picture(self, number: int) -> np.ndarray:
        """The picture of a packet, (H, W, 3) uint8 RGB.

        Raises:
            VideoError: PyAV is not installed, the picture cannot be decoded, or is not decoded yet.
        """
        with self._decoding:
            while not self._has(number):
                packet = self._take(number)
                if packet is None:
                    break
                self._feed(packet)
            if self._decoder is None:
                raise VideoError("video picture cannot be decoded: its packets are gone, for newer ones came")
            return self._decoder.picture(number)

    def _has(self, number: int) -> bool:
        return self._decoder is not None and (self._decoder.has(number) or self._decoder.is_lost(number))

    def _take(self, number: int) -> _Packet | None:
        """The next packet to decode for a picture: the next one, or a key frame that makes those before it needless."""
        with self._lock:
            keys = [place for place, one in enumerate(self._packets) if one.is_key and one.number <= number]
            for _ in range(keys[-1] if keys else 0):
                self._bytes -= len(self._packets.popleft().data)
            if not self._packets:
                return None
            packet = self._packets.popleft()
            self._bytes -= len(packet.data)
            return packet

    def _feed(self, packet: _Packet) -> None:
        if self._decoder is None or self._decoder.codec != packet.codec:
            self._decoder = VideoDecoder(packet.codec)
        elif packet.number != self._fed + 1:
            self._decoder.flush()
        self._fed = packet.number
        self._decoder.feed(packet.number, packet.data)

    def _bound(self) -> None:
        """Drop packets if too many wait: those before the newest key frame, or all."""
        if len(self._packets) <= _MOST_PACKETS and self._bytes <= _MOST_BYTES:
            return
        newest = max((place for place, one in enumerate(self._packets) if one.is_key), default=0)
        for _ in range(newest or len(self._packets)):
            self._bytes -= len(self._packets.popleft().data)

    def _in_order(self, picture: VideoPicture) -> list[VideoPicture]:
        """Hold pictures back for as many packets as B pictures come late, and one, as decoders do."""
        later = sum(stamp > picture.stamp_ns for stamp in self._recent)
        self._recent.append(picture.stamp_ns)
        if later:
            self._delay = max(self._delay, later + 1)
        self._waiting.append(picture)
        self._waiting.sort(key=lambda one: one.stamp_ns)
        ready = self._waiting[: max(0, len(self._waiting) - self._delay)]
        del self._waiting[: len(ready)]
        return ready
