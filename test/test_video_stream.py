"""A camera's video in the node: pictures in the order of their stamps, and none that is not what the camera saw."""

import numpy as np
import pytest

pytest.importorskip("av")

from videos import FFMPEG, FOXGLOVE, encoded, moving_pictures, video_message

from renderocc_model.images.video import VideoDecoder, VideoError
from renderocc_ros.input import video_stream
from renderocc_ros.input.video_stream import VideoStream

pytestmark = pytest.mark.slow
COUNT = 40
PICTURES = moving_pictures(COUNT, 64, 48)
STEP = 100_000_000


def messages(packets, kind, codec):
    """(stamp, message) of each packet; picture k has the stamp (k + 1) * STEP."""
    return [(STEP * (k + 1), video_message(kind, STEP * (k + 1), "front", codec, data, pts=k)) for k, data in packets]


def shown(picture) -> int:
    """Which of `PICTURES` a picture is."""
    differences = [np.abs(picture.rgb().astype(int) - one).mean() for one in PICTURES]
    assert min(differences) < 5
    return int(np.argmin(differences))


@pytest.mark.parametrize("kind", [FOXGLOVE, FFMPEG])
@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("every", [1, 4], ids=["each", "every_fourth"])
def test_pictures_that_are_asked_for_are_those_of_their_stamps(kind, codec, every):
    stream = VideoStream()
    for number, (stamp, data) in enumerate(messages(encoded(PICTURES, codec, 10), kind, codec)):
        (picture,) = stream.add(stamp, kind, data, given=f"image {number}")
        assert (picture.stamp_ns, picture.given) == (stamp, f"image {number}")
        if number % every == 0:
            assert shown(picture) == number


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_pictures_with_b_pictures_come_in_the_order_of_stamps_and_can_be_decoded(codec):
    stream, stamps, right = VideoStream(), [], 0
    for stamp, data in messages(encoded(PICTURES, codec, 10, reordered=2), FFMPEG, codec):
        for picture in stream.add(stamp, FFMPEG, data):
            stamps.append(picture.stamp_ns)
            if len(stamps) > 6:  # how many come late is learned from the first ones
                assert shown(picture) == picture.stamp_ns // STEP - 1
                right += 1
    assert stamps[6:] == sorted(stamps[6:]) and right > 20


def test_packets_before_the_first_key_frame_have_no_picture():
    stream = VideoStream()
    pictures = [
        stream.add(stamp, FOXGLOVE, data)[0]
        for stamp, data in messages(encoded(PICTURES, "h264", 10)[3:], FOXGLOVE, "h264")
    ]
    with pytest.raises(VideoError, match="no key frame has come before it"):
        pictures[0].rgb()
    assert shown(pictures[7]) == 10


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_after_a_lost_packet_there_are_no_pictures_until_the_next_key_frame(codec):
    stream, said = VideoStream(), []
    for number, (stamp, data) in enumerate(messages(encoded(PICTURES, codec, 10), FOXGLOVE, codec)):
        if number == 13:
            continue
        try:
            assert shown(stream.add(stamp, FOXGLOVE, data)[0]) == number
        except VideoError:
            said.append(number)
    assert said == [14, 15, 16, 17, 18, 19]


def test_after_a_pause_the_stream_waits_for_a_key_frame():
    stream, given = VideoStream(), messages(encoded(PICTURES, "h264", 10), FOXGLOVE, "h264")
    for stamp, data in given[:5]:
        stream.add(stamp, FOXGLOVE, data)[0].rgb()
    stream.clear()
    for number in (5, 6, 10):  # nothing is missing but for what `clear` has forgotten: the packets are in a row
        picture = stream.add(*given[number][:1], FOXGLOVE, given[number][1])[0]
        if number == 10:
            assert shown(picture) == 10
        else:
            with pytest.raises(VideoError, match="no key frame"):
                picture.rgb()


def test_a_recording_that_begins_again_is_decoded_from_its_first_key_frame_on():
    stream, given = VideoStream(), messages(encoded(PICTURES, "h264", 10), FOXGLOVE, "h264")
    for stamp, data in given:
        stream.add(stamp, FOXGLOVE, data)
    for number, (stamp, data) in enumerate(given[:12]):
        (picture,) = stream.add(stamp, FOXGLOVE, data)
        assert shown(picture) == number


def test_packets_wait_in_bounded_memory_and_the_newest_group_stays(monkeypatch):
    monkeypatch.setattr(video_stream, "_MOST_PACKETS", 15)
    stream, given = VideoStream(), messages(encoded(PICTURES, "h264", 10), FOXGLOVE, "h264")
    pictures = [stream.add(stamp, FOXGLOVE, data)[0] for stamp, data in given]
    assert len(stream._packets) <= 15 and stream._bytes == sum(len(one.data) for one in stream._packets)
    assert shown(pictures[-1]) == COUNT - 1
    with pytest.raises(VideoError):
        pictures[5].rgb()


def test_one_endless_group_of_pictures_takes_bounded_memory_too(monkeypatch):
    monkeypatch.setattr(video_stream, "_MOST_BYTES", 4000)
    stream, given = VideoStream(), messages(encoded(PICTURES, "h264", 1000), FOXGLOVE, "h264")
    for stamp, data in given:
        picture = stream.add(stamp, FOXGLOVE, data)[0]
        assert stream._bytes <= 4000
    with pytest.raises(VideoError):
        picture.rgb()


def test_only_the_newest_group_is_decoded_when_pictures_are_asked_for_rarely(monkeypatch):
    stream, given, fed = VideoStream(), messages(encoded(PICTURES, "h264", 10), FOXGLOVE, "h264"), []
    feed = VideoDecoder.feed
    monkeypatch.setattr(VideoDecoder, "feed", lambda self, number, data: (fed.append(number), feed(self, number, data)))
    pictures = [stream.add(stamp, FOXGLOVE, data)[0] for stamp, data in given]
    assert shown(pictures[32]) == 32
    assert fed == [31, 32, 33]  # numbers begin at 1, and picture 30 is a key frame


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x00\x00", video_message(FOXGLOVE, 1, "front", "vp9", b"\x00" * 9)])
def test_messages_that_are_no_video_are_refused(data):
    with pytest.raises(ValueError):
        VideoStream().add(STEP, FOXGLOVE, data)
