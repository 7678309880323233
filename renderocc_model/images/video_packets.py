"""What a packet of H.264 or H.265 says before it is decoded: whether it is a key frame, its parameter sets, its place.

Packets are in the byte stream format of ITU-T H.264 and H.265, Annex B: NAL units that begin with 00 00 01.
"""

from __future__ import annotations

from dataclasses import dataclass

from .reduction import ImageError

__all__ = ["H264", "H265", "FrameNumbers", "PacketContents", "VideoError", "codec_of", "read_packet"]

H264, H265 = "h264", "hevc"  # as FFmpeg calls them
_START_CODE = b"\x00\x00\x01"
_MOST_UNITS = 64  # NAL units before the first slice of a packet; encoders write about five
_MOST_PARAMETER_BYTES = 1 << 16
_SLICE_HEADER_BYTES = 32  # of which the first numbers are read
_HIGH_PROFILES = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_IDR, _SPS, _PPS = 5, 7, 8  # NAL unit types of H.264
_INTRA_SLICES = (2, 4, 7, 9)


class VideoError(ImageError):
    """A picture of a video that cannot be decoded; the message says why, and what to do."""


def codec_of(form: str) -> str:
    """The codec that a message names: `H264` or `H265`.

    Args:
        form: `format` of a foxglove_msgs/CompressedVideo ("h264", "h265"), or `encoding` of an FFMPEGPacket, which is
            the name of the codec or of its encoder, with the formats of the pixels after a semicolon
            ("hevc_nvenc", "h264;yuv420p;bgr8;bgr8").
    Raises:
        VideoError: another codec; or the video shows a Bayer mosaic.
    """
    name, *pixels = form.lower().replace("/", ";").split(";")
    mosaic = next((one for one in pixels if "bayer" in one), "")
    if mosaic:
        raise VideoError(f"the video shows a Bayer mosaic ({form!r}), which cannot be used; encode colour pictures")
    if "264" in name or name == "avc":
        return H264
    if "265" in name or "hevc" in name:
        return H265
    raise VideoError(f"the video is encoded as {form!r}; expected h264 or h265 (hevc)")


@dataclass(frozen=True)
class PacketContents:
    """What `read_packet` finds.

    Attributes:
        is_key: whether a decoder can begin here.
        parameters: {type of NAL unit: the packet's parameter sets of this type, with their start codes}.
        is_reference, slice_header: of H.264: whether other pictures refer to this one, and how its first slice begins.
    """

    is_key: bool
    parameters: dict[int, bytes]
    is_reference: bool = False
    slice_header: bytes = b""


def read_packet(codec: str, data: bytes) -> PacketContents:
    """Look at the NAL units of a packet up to its first slice.

    Raises:
        VideoError: there are no NAL units, or no slice among them.
    """
    start = data.find(_START_CODE)
    if start < 0 or start > 1:
        seen = data[:8].hex(" ") or "nothing"
        raise VideoError(f"video packet begins with {seen}; expected NAL units after 00 00 01 (Annex B)")
    parameters: dict[int, bytes] = {}
    for _ in range(_MOST_UNITS):
        first = start + len(_START_CODE)
        if first >= len(data):
            break
        header = data[first]
        kind = header & 31 if codec == H264 else header >> 1 & 63
        if kind in (1, 2, _IDR) if codec == H264 else kind < 32:
            return _contents(codec, kind, header, data[first : first + _SLICE_HEADER_BYTES], parameters)
        end = data.find(_START_CODE, first)
        end = len(data) if end < 0 else end
        if kind in ((_SPS, _PPS) if codec == H264 else (32, 33, 34)):
            parameters[kind] = parameters.get(kind, b"") + data[start:end]
            if len(parameters[kind]) > _MOST_PARAMETER_BYTES:
                raise VideoError(f"video packet has more than {_MOST_PARAMETER_BYTES} bytes of parameter sets")
        start = end
    raise VideoError(f"video packet of {len(data)} bytes has no picture in it")


def _contents(codec: str, kind: int, header: int, head: bytes, parameters: dict[int, bytes]) -> PacketContents:
    if codec == H265:
        return PacketContents(16 <= kind <= 21, parameters)
    begins = kind == _IDR
    if not begins and parameters:  # an open group of pictures begins with an I picture that is no IDR picture
        bits = _Bits(head[1:])
        bits.unsigned()
        begins = bits.unsigned() in _INTRA_SLICES
    return PacketContents(begins, parameters, bool(header >> 5 & 3), head[1:])


class FrameNumbers:
    """Finds H.264 packets that were lost, by the numbers of the pictures that others refer to (frame_num, 7.4.3)."""

    def __init__(self) -> None:
        self._bits = 0
        self._planes = self._gaps_allowed = False
        self._before: int | None = None

    def follows(self, packet: PacketContents) -> bool:
        """Whether no reference picture is missing between the packet before and this one, as far as can be known."""
        if _SPS in packet.parameters:
            self._read_sequence(packet.parameters[_SPS])
        if not self._bits or self._gaps_allowed:
            return True
        try:
            bits = _Bits(packet.slice_header)
            for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
                bits.unsigned()
            if self._planes:
                bits.read(2)
            number = bits.read(self._bits)
        except VideoError:
            return True  # what is wrong with it is found when it is decoded
        before, most = self._before, 1 << self._bits
        follows = packet.is_key or before is None or number in (before, (before + 1) % most)
        if packet.is_reference or packet.is_key:
            self._before = number
        return follows

    def _read_sequence(self, units: bytes) -> None:
        try:
            self._bits, self._planes, self._gaps_allowed = _sequence(_Bits(units[len(_START_CODE) + 1 :]))
        except VideoError:
            self._bits = 0  # nothing is known of lost packets then


def _sequence(bits: _Bits) -> tuple[int, bool, bool]:
    """Of a sequence parameter set (7.3.2.1.1): bits of frame_num, separate colour planes, whether gaps are allowed."""
    profile, planes = bits.read(8), False
    bits.read(16)
    bits.unsigned()
    if profile in _HIGH_PROFILES:
        chroma = bits.unsigned()
        planes = chroma == 3 and bool(bits.read(1))
        bits.unsigned()
        bits.unsigned()
        bits.read(1)
        if bits.read(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    frame_num_bits = bits.unsigned() + 4
    if frame_num_bits > 16:
        raise VideoError("sequence parameter set: log2_max_frame_num is more than 16")
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.read(1)
        bits.unsigned()
        bits.unsigned()
        for _ in range(min(bits.unsigned(), 255)):
            bits.unsigned()
    bits.unsigned()
    return frame_num_bits, planes, bool(bits.read(1))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.unsigned()
            following = (last + (-(code // 2) if code % 2 == 0 else (code + 1) // 2)) % 256
        last = following or last


class _Bits:
    """Reads numbers from a raw byte sequence payload, after taking out the bytes that prevent start codes in it."""

    def __init__(self, payload: bytes) -> None:
        payload = payload[:1024].replace(b"\x00\x00\x03", b"\x00\x00")
        self._value, self._left = int.from_bytes(payload, "big"), 8 * len(payload)

    def read(self, count: int) -> int:
        if count > self._left:
            raise VideoError("video packet ends inside a header; it is cut off")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """A number in Exp-Golomb code, ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise VideoError("video packet has a header that cannot be; it is damaged")
        return (1 << zeros) - 1 + self.read(zeros)
