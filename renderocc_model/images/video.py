"""Decodes H.264 and H.265 packet by packet, with PyAV.

A picture of a video needs the pictures before it, back to a key frame. `VideoDecoder` takes a camera's packets in their
order and gives pictures by the packets' numbers. A picture whose own or whose earlier packets were lost or damaged is
refused, because its decoder would paint over the fault.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from .reduction import MAX_PIXELS
from .video_packets import H264, FrameNumbers, VideoError, read_packet

__all__ = ["MAX_PACKET_BYTES", "VideoDecoder", "VideoError", "check_video_support"]

MAX_PACKET_BYTES = 1 << 26
_MOST_KEPT, _FEWEST_KEPT = 20, 6  # decoded pictures, asked for or not; H.264 reorders at most 16
_MOST_KEPT_BYTES = 1 << 26
_MOST_REASONS = 1000  # packets of which it is remembered why they have no picture
_NO_KEY_FRAME = "no key frame has come before it"
_DAMAGED_BEFORE = "a packet before it is damaged, and no key frame came in between"
_LOST_BEFORE = "packets before it were lost, and no key frame came in between"


def check_video_support() -> Any:
    """PyAV.

    Raises:
        VideoError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError(f"video needs PyAV ({error}); pip install av") from None
    return av


class VideoDecoder:
    """Decodes one video.

    Args:
        codec: `H264` or `H265` of `video_packets`.
    Raises:
        VideoError: PyAV is not installed, or has no such decoder.
    """

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self._av = check_video_support()
        try:
            self._context = self._av.CodecContext.create(codec, "r")
        except (ValueError, self._av.error.FFmpegError) as error:
            raise VideoError(f"the installed PyAV cannot decode {codec} ({error}); pip install av") from None
        self._context.thread_count = 1  # pictures that are decoded side by side come out later
        self._context.options = {"max_pixels": str(MAX_PIXELS)}
        self._pictures: OrderedDict[int, Any] = OrderedDict()
        self._reasons: OrderedDict[int, str] = OrderedDict()
        self._numbers = FrameNumbers()
        self._parameters: dict[int, bytes] = {}
        self._waiting = _NO_KEY_FRAME  # why nothing can be decoded before the next key frame; empty while it can
        self._damaged: int | None = None  # pictures after this one are damaged too

    def feed(self, number: int, data: bytes) -> None:
        """Decode the next packet. What is wrong with it is said when its picture, or a later one, is asked for.

        Args:
            number: of the packet; each is larger than the one before.
            data: its bytes.
        """
        try:
            if len(data) > MAX_PACKET_BYTES:
                raise VideoError(f"video packet has {len(data)} bytes; expected at most {MAX_PACKET_BYTES}")
            contents = read_packet(self.codec, data)
        except VideoError as error:
            self._stop(number, str(error), _DAMAGED_BEFORE)
            return
        follows = self.codec != H264 or self._numbers.follows(contents)
        self._parameters |= contents.parameters
        if contents.is_key and self._waiting:
            self._context.flush_buffers()
            self._waiting, self._damaged = "", None
            self._decode(number, b"".join(self._parameters[kind] for kind in sorted(self._parameters)) + data)
        elif not follows and not self._waiting:
            self._stop(number, "packets before it were lost", _LOST_BEFORE)
        elif self._waiting:
            self._refuse(number, self._waiting)
        else:
            self._decode(number, data)

    def flush(self) -> None:
        """Take out the pictures that still wait for later packets. After that a key frame has to come."""
        if not self._waiting:
            try:
                self._take(self._context.decode(None))
            except (self._av.error.FFmpegError, EOFError):
                pass  # a damaged end: its pictures are missing
            self._waiting = _NO_KEY_FRAME

    def picture(self, number: int) -> np.ndarray:
        """A picture, (H, W, 3) uint8 RGB.

        Args:
            number: of its packet; one of the last that were fed.
        Raises:
            VideoError: it cannot be decoded, or is not decoded yet; the text says why.
        """
        frame = self._pictures.get(number)
        if frame is None:
            raise VideoError(f"video picture cannot be decoded: {self.why_missing(number)}")
        try:
            return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
        except (ValueError, MemoryError, self._av.error.FFmpegError) as error:
            raise VideoError(f"video picture cannot be converted to RGB: {error}") from None

    def has(self, number: int) -> bool:
        """Whether the picture can be had now."""
        return number in self._pictures

    def is_lost(self, number: int) -> bool:
        """Whether the packet was fed, and its picture will never come."""
        return number in self._reasons

    def why_missing(self, number: int) -> str:
        """Why there is no picture of a packet."""
        return self._reasons.get(number) or "its decoder needs packets after it, or was given too few before it"

    def _decode(self, number: int, data: bytes) -> None:
        packet = self._av.Packet(data)
        packet.pts = number
        try:
            frames = self._context.decode(packet)
        except (self._av.error.FFmpegError, EOFError, MemoryError) as error:
            reason = f"its packet of {len(data)} bytes is damaged ({getattr(error, 'strerror', None) or error})"
            self._stop(number, reason, _DAMAGED_BEFORE)
            return
        self._take(frames)

    def _take(self, frames: list) -> None:
        for frame in frames:
            if frame.pts is None:
                continue
            if frame.is_corrupt and (self._damaged is None or frame.pts < self._damaged):
                self._damaged = frame.pts
                self._waiting = _DAMAGED_BEFORE
            if self._damaged is not None and frame.pts >= self._damaged:
                own = frame.pts == self._damaged
                self._refuse(frame.pts, "its packet is damaged" if own else _DAMAGED_BEFORE)
                continue
            self._pictures[frame.pts] = frame
            most = max(_FEWEST_KEPT, min(_MOST_KEPT, _MOST_KEPT_BYTES // max(2 * frame.width * frame.height, 1)))
            while len(self._pictures) > most:
                self._pictures.popitem(last=False)

    def _stop(self, number: int, reason: str, later: str) -> None:
        """Decode nothing until the next key frame. reason: of this packet; later: of those after it."""
        self.flush()
        self._waiting = later
        self._refuse(number, reason)

    def _refuse(self, number: int, reason: str) -> None:
        self._reasons[number] = reason
        while len(self._reasons) > _MOST_REASONS:
            self._reasons.popitem(last=False)
