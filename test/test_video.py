"""Videos: any picture of a packet whose own and whose earlier packets are there, and a clear word of all others."""

import builtins

import numpy as np
import pytest

pytest.importorskip("av")

from videos import FFMPEG, FOXGLOVE, encoded, moving_pictures, video_message, write_video_bag

from renderocc_model.images import video
from renderocc_model.images.video import VideoDecoder, VideoError
from renderocc_model.images.video_packets import H264, H265, FrameNumbers, codec_of, read_packet
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.video_track import VIDEO_READERS, VideoTrack

COUNT = 20
PICTURES = moving_pictures(COUNT)
KINDS = [("h264", 0), ("h264", 2), ("h265", 0), ("h265", 2)]
NAMES = {"h264": H264, "h265": H265}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}_{kind[1]}_reordered")
def stream(request):
    """(codec, [(index of its picture, packet)])."""
    codec, reordered = request.param
    return codec, encoded(PICTURES, codec, 8, reordered)


def decoded(codec, packets) -> tuple[str, VideoDecoder]:
    """What became of each packet: '.' a picture, 'x' refused, '?' neither; and the decoder."""
    decoder = VideoDecoder(NAMES[codec])
    for number, data in enumerate(packets):
        decoder.feed(number, data)
    decoder.flush()
    letters = ("." if decoder.has(k) else "x" if decoder.is_lost(k) else "?" for k in range(len(packets)))
    return "".join(letters), decoder


def difference(picture, index) -> float:
    return float(np.abs(picture.astype(int) - PICTURES[index]).mean())


def test_every_packet_gives_its_own_picture(stream):
    codec, packets = stream
    letters, decoder = decoded(codec, [data for _, data in packets])
    assert letters == "." * COUNT
    for number, (index, _) in enumerate(packets):
        # Colours have half the resolution. The next picture is shifted by two pixels, and differs by more than 8.
        assert difference(decoder.picture(number), index) < 4
        assert np.abs((decoder.picture(number).astype(int) - PICTURES[index]).mean((0, 1))).max() < 2  # the hues
        assert difference(decoder.picture(number), (index + 1) % COUNT) > 8


@pytest.mark.parametrize(
    "made",
    [
        {"pixels": "yuvj420p"},  # all of 0 to 255, as most cameras have it
        {"colours": (2, 1)},  # the same, in the colours of HD television (BT.709)
        {"colours": (1, 1)},
        {"pixels": "yuv444p"},
        {"codec": "h265", "pixels": "yuv420p10le"},
    ],
    ids=["full_range", "bt709_full_range", "bt709", "yuv444", "ten_bits"],
)
def test_colours_are_those_of_the_picture_however_they_are_encoded(made):
    codec = made.get("codec", "h264")
    packets = encoded(PICTURES[:3], **made)
    _, decoder = decoded(codec, [data for _, data in packets])
    for number, (index, _) in enumerate(packets):
        apart = decoder.picture(number).astype(int) - PICTURES[index]
        # BT.601 taken for BT.709, or video range for full range, is off by more than 8 in a channel.
        assert np.abs(apart.mean((0, 1))).max() < 2 and np.abs(apart).mean() < 4


def test_nothing_is_decoded_before_the_first_key_frame(stream):
    codec, packets = stream
    letters, decoder = decoded(codec, [data for _, data in packets[3:]])
    second = [index for index, (_, data) in enumerate(packets[3:]) if read_packet(NAMES[codec], data).is_key][0]
    assert letters[:second] == "x" * second and letters[second:].count(".") >= COUNT - 3 - second - 2
    with pytest.raises(VideoError, match="no key frame has come before it"):
        decoder.picture(0)


def test_pictures_after_a_lost_packet_are_refused_until_the_next_key_frame(stream):
    codec, packets = stream
    kept = packets[:3] + packets[4:]
    letters, decoder = decoded(codec, [data for _, data in kept])
    second = [index for index, (_, data) in enumerate(kept) if index and read_packet(NAMES[codec], data).is_key][0]
    assert letters[0] == letters[second] == "."
    # Packet 3 is a P picture, or a B picture that no other needs.
    assert "." not in letters[3:second] or packets[3][0] < max(index for index, _ in packets[:3])
    for number, (index, _) in enumerate(kept):
        if decoder.has(number):
            assert difference(decoder.picture(number), index) < 4


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x01", b"\xff" * 50, b"\x00\x00\x01\x46\x01\x50"])
def test_packets_without_a_picture_are_refused_and_so_are_those_that_need_them(stream, damage):
    codec, packets = stream
    streams = [data for _, data in packets]
    letters, decoder = decoded(codec, [*streams[:4], damage, *streams[5:]])
    assert letters[4] == "x" and letters[5] == "x" and letters.endswith("....")
    with pytest.raises(VideoError, match="damaged, and no key frame"):
        decoder.picture(5)


def test_a_damaged_h264_packet_is_refused_and_so_are_those_after_it():
    packets = [data for _, data in encoded(PICTURES, "h264", 8)]
    bad = bytearray(packets[3])
    bad[30::7] = bytes(byte ^ 0x55 for byte in bad[30::7])
    for damaged in (bytes(bad), packets[3][:30]):
        letters, decoder = decoded("h264", [*packets[:3], damaged, *packets[4:]])
        assert letters == "...xxxxx" + "." * 12
        with pytest.raises(VideoError, match="its packet is damaged|of 30 bytes is damaged"):
            decoder.picture(3)


def test_parameter_sets_that_came_once_serve_for_every_key_frame():
    packets = [data for _, data in encoded(PICTURES, "h264", 8)]
    first = read_packet(H264, packets[0]).parameters
    assert sorted(first) == [7, 8]
    stripped = []
    for number, data in enumerate(packets):
        for unit in read_packet(H264, data).parameters.values() if number else ():
            data = data.replace(unit, b"")
        stripped.append(data)
    assert not read_packet(H264, stripped[8]).parameters and read_packet(H264, stripped[8]).is_key
    assert decoded("h264", stripped)[0] == "." * COUNT
    assert decoded("h264", stripped[:3] + stripped[4:])[0] == "...xxxx" + "." * 12  # begins again at such a key frame


def test_a_stream_without_gaps_has_none_over_the_wrap_of_its_numbers():
    packets = encoded(moving_pictures(40, 32, 32), "h264", 40)  # log2_max_frame_num is 4 to 6 for so few references
    numbers = FrameNumbers()
    assert all(numbers.follows(read_packet(H264, data)) for _, data in packets)
    for lost in range(1, 38):
        numbers = FrameNumbers()
        kept = [data for _, data in packets[:lost] + packets[lost + 1 :]]
        assert [numbers.follows(read_packet(H264, data)) for data in kept].index(False) == lost


def test_pictures_of_a_huge_size_are_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 48)
    letters, decoder = decoded("h264", [data for _, data in encoded(PICTURES[:3], "h264", 8)])
    assert letters == "xxx"


def test_a_packet_of_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(video, "MAX_PACKET_BYTES", 1000)
    decoder = VideoDecoder(H264)
    decoder.feed(0, b"\x00\x00\x01\x65" + bytes(2000))
    with pytest.raises(VideoError, match="2004 bytes; expected at most 1000"):
        decoder.picture(0)


def test_pictures_that_nobody_asks_for_are_forgotten():
    packets = encoded(moving_pictures(60, 32, 32), "h264", 8)
    decoder = VideoDecoder(H264)
    for number, (_, data) in enumerate(packets):
        decoder.feed(number, data)
    assert sum(decoder.has(number) for number in range(60)) == 20


def test_without_pyav_the_remedy_is_one_line(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(VideoError, match=r"^video needs PyAV \(No module named 'av'\); pip install av$"):
        VideoDecoder(H264)


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("h264", H264),
        ("libx264", H264),
        ("h264_nvenc;nv12;bgr8;bgr8", H264),
        ("h265", H265),
        ("hevc", H265),
        ("hevc_vaapi/nv12", H265),
    ],
)
def test_codecs_are_known_by_the_names_of_their_encoders(form, codec):
    assert codec_of(form) == codec


@pytest.mark.parametrize(("form", "text"), [("vp9", "'vp9'; expected h264"), ("hevc;gray;bayer_rggb8;", "mosaic")])
def test_other_codecs_and_mosaics_are_named(form, text):
    with pytest.raises(VideoError, match=text):
        codec_of(form)


@pytest.mark.parametrize("kind", [FOXGLOVE, FFMPEG])
@pytest.mark.parametrize("frame", ["f" * length for length in range(9)])
def test_messages_are_read_as_they_were_written(kind, frame):
    stamp = 1_700_000_003_987_654_321
    for payload in (b"", b"\x00\x00\x01\x65", bytes(range(97))):
        data = video_message(kind, stamp, frame, "h264", payload, (48, 64), 7)
        message = VIDEO_READERS[kind](data)
        assert message[:2] == (stamp, frame) and codec_of(message.format) == H264
        assert message.data.tobytes() == payload
        assert cdr.read_header(data) == (stamp, frame)
        for cut in range(len(data) - len(payload)):
            with pytest.raises(cdr.MessageError):
                VIDEO_READERS[kind](data[:cut])


@pytest.fixture(params=[FOXGLOVE, FFMPEG], ids=["foxglove", "ffmpeg"])
def track_of(request, tmp_path):
    """Makes the track of a list of packets, and what `take` has refused: {number: text}."""
    opened = []

    def make(packets, codec="h264"):
        bag = Bag(write_video_bag(tmp_path / f"bag{len(opened)}", request.param, packets, codec))
        opened.append(bag)
        track, refused = VideoTrack(bag, "/front/image_raw/video"), {}
        for number, (_, recorded_ns, data) in enumerate(bag.messages()):
            try:
                track.take(VIDEO_READERS[request.param](data), recorded_ns)
            except VideoError as error:
                refused[number] = str(error)
        return track, refused

    yield make
    for bag in opened:
        bag.close()


@pytest.mark.parametrize("order", ["forward", "backward", "mixed"])
def test_a_recording_gives_its_pictures_in_any_order(stream, track_of, order):
    codec, packets = stream
    track, refused = track_of(packets, codec)
    assert not refused
    indices = {"forward": range(COUNT), "backward": range(COUNT)[::-1], "mixed": [13, 2, 19, 3, 0, 12, 12, 7]}[order]
    for index in indices:
        assert difference(track.picture(index), index) < 4


def test_pictures_in_order_are_decoded_once_and_any_other_from_its_key_frame_on(track_of, monkeypatch):
    track, _ = track_of(encoded(moving_pictures(40, 32, 32), "h264", 8))
    fed = []
    feed = VideoDecoder.feed
    monkeypatch.setattr(VideoDecoder, "feed", lambda self, number, data: (fed.append(number), feed(self, number, data)))
    for index in range(40):
        track.picture(index)
    assert fed == list(range(40))
    fed.clear()
    track.picture(11)
    assert fed == [8, 9, 10, 11]  # key frames are 0, 8, 16, 24 and 32
    track.picture(14)
    assert fed == [8, 9, 10, 11, 12, 13, 14]


def test_a_recording_that_begins_between_key_frames_says_which_pictures_are_missing(track_of):
    track, refused = track_of(encoded(PICTURES, "h264", 8)[3:])
    assert list(refused) == [0, 1, 2, 3, 4]
    assert refused[0] == "video picture cannot be decoded: no key frame has come before it"
    assert difference(track.picture(8), 8) < 4
    with pytest.raises(KeyError):
        track.picture(4)


def test_a_recording_that_lost_a_packet_says_which_pictures_need_it(track_of):
    packets = encoded(PICTURES, "h264", 8)
    track, refused = track_of(packets[:10] + packets[11:])
    assert list(refused) == [10, 11, 12, 13, 14] and "were lost" in refused[10]
    assert difference(track.picture(9), 9) < 4 and difference(track.picture(16), 16) < 4
