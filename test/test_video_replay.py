"""A recorded video is played as raw images where its messages are not installed."""

import numpy as np
import pytest

pytest.importorskip("av")

from videos import FFMPEG, FOXGLOVE, encoded, moving_pictures, write_video_bag

from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag, Topic
from renderocc_model.rosio.camera_search import CameraSource
from renderocc_ros.commands.demo.pictures import views_at
from renderocc_ros.commands.player import Played, Player
from renderocc_ros.commands.video_replay import VideoAsImages

PICTURES = moving_pictures(12)


def stamps_of(step):
    return lambda index: 10**9 + index * step


@pytest.mark.parametrize("kind, reordered", [(FOXGLOVE, 0), (FFMPEG, 2)])
def test_pictures_come_in_order_as_images(tmp_path, kind, reordered):
    folder = write_video_bag(
        tmp_path / "bag", kind, encoded(PICTURES, "h264", 6, reordered), stamp=stamps_of(100_000_000)
    )
    with Bag(folder) as bag:
        (topic,) = bag.topics.values()
        video = VideoAsImages(topic)
        assert video.image_topic == "/front/image_raw"
        images = [cdr.read_image(one) for _, _, data in bag.messages() for one in video.images(data)]
    assert len(images) >= (12 if not reordered else 6)
    for image in images:
        index = (image.stamp_ns - 10**9) // 100_000_000
        assert (image.encoding, image.frame_id, image.height, image.width) == ("rgb8", "front_optical", 64, 96)
        assert np.abs(image.data.reshape(64, 96, 3).astype(int) - PICTURES[index]).mean() < 4


def test_a_video_is_decoded_where_its_raw_images_are_not_recorded_too():
    def topic(name):
        return Topic(name, FOXGLOVE, 1, ())

    below, alone = topic("/front/image_rect/h264"), topic("/front/compressed_video")
    assert VideoAsImages(below).image_topic == "/front/image_rect"
    assert VideoAsImages(alone).image_topic == "/front/compressed_video"
    assert VideoAsImages.can_play(below, ["/front/image_rect/h264", "/front/camera_info"])
    assert not VideoAsImages.can_play(below, ["/front/image_rect", "/front/image_rect/h264"])
    assert VideoAsImages.can_play(alone, ["/front/compressed_video"])
    assert not VideoAsImages.can_play(Topic("/tf", "tf2_msgs/msg/TFMessage", 1, ()), ["/tf"])


def test_what_cannot_be_decoded_is_counted(tmp_path):
    folder = write_video_bag(tmp_path / "bag", FOXGLOVE, encoded(PICTURES, "h264", 6)[2:], stamp=stamps_of(10**8))
    with Bag(folder) as bag:
        video = VideoAsImages(next(iter(bag.topics.values())))
        count = sum(len(video.images(data)) for _, _, data in bag.messages())
    assert count == 6 and list(video.failed.values()) == [4]
    assert "no key frame has come before it" in next(iter(video.failed))


@pytest.mark.system
def test_the_player_publishes_the_images_of_a_video(tmp_path):
    folder = write_video_bag(tmp_path / "bag", FOXGLOVE, encoded(PICTURES, "h264", 6), stamp=stamps_of(10**8))
    played = Played()
    with Bag(folder) as bag, Player(bag, list(bag.topics.values()), {}, None, played) as player:
        (publisher,) = player.publishers.values()
        assert publisher.topic_name == "/front/image_raw" and publisher.msg_type.__name__ == "Image"
        assert played.skipped == {}


def test_the_demo_shows_the_picture_nearest_to_a_stamp(tmp_path):
    folder = write_video_bag(tmp_path / "bag", FFMPEG, encoded(PICTURES, "h265", 6), "h265", stamp=stamps_of(10**8))
    with Bag(folder) as bag:
        (topic,) = bag.topics.values()
    front = CameraSource("front", topic.name, topic.type, "/front/camera_info")
    view = views_at(folder, [front], 10**9 + 7 * 10**8 + 3)["front"]
    assert np.abs(view.astype(int) - PICTURES[7]).mean() < 4
