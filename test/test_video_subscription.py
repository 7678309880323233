"""Videos on the graph: found by type, subscribed to where nothing else is, named where their package is missing."""

import pytest
from sensor_msgs.msg import CompressedImage, Image
from test_subscriptions import RELIABLE, Graph
from videos import FFMPEG, FOXGLOVE, video_message

from renderocc_model.rosio.video_track import VIDEO_READERS, video_topic
from renderocc_ros.input.discovery import cameras_on_graph
from renderocc_ros.input.video_subscription import VideoSubscription, video_class
from renderocc_ros.parameters import NodeConfig

IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"


@pytest.mark.parametrize("kind", [FOXGLOVE, FFMPEG])
def test_a_video_is_found_at_the_image_topic_and_below_it(kind):
    for name in ("/front/image_raw", "/front/image_raw/ffmpeg", "/front/image_raw/h264"):
        topics = {"/front/image_raw/compressed": ["sensor_msgs/msg/CompressedImage"], name: [kind]}
        assert video_topic(topics, "/front/image_raw") == (name, kind)
    for name in ("/front/image_raw/a/b", "/front/image_raw2", "/back/image_raw/ffmpeg"):
        assert video_topic({name: [kind], "/front/image_raw": [IMAGE]}, "/front/image_raw") is None


@pytest.mark.parametrize("kind", [FOXGLOVE, FFMPEG])
def test_a_camera_that_sends_only_video_is_found(kind):
    topics = [("/front/camera_info", [INFO]), ("/front/image_raw/video", [kind]), ("/back/camera_info", [INFO])]
    assert cameras_on_graph(topics, NodeConfig(), "/") == ("front",)
    assert cameras_on_graph(topics, NodeConfig(), "/", lambda topic: topic != "/front/image_raw/video") == ()


def test_a_package_that_is_missing_is_named_with_the_remedy():
    with pytest.raises(ImportError, match="needs the package foxglove_msgs .*sudo apt install ros-.*-foxglove-msgs"):
        video_class(FOXGLOVE)


@pytest.fixture
def graph():
    made = Graph()
    yield made
    made.close()


@pytest.mark.system
def test_a_video_is_received_while_no_other_images_are_published(graph, monkeypatch):
    """An installed message stands for the video's, which no package of the test brings; the bytes are the video's."""
    monkeypatch.setitem(VIDEO_READERS, "sensor_msgs/msg/CompressedImage", VIDEO_READERS[FOXGLOVE])
    received, said = [], []
    subscription = VideoSubscription(
        graph.listening,
        "front/image_raw",
        lambda *what: received.append(what),
        said.append,
        lambda kind: CompressedImage,
    )

    class Followed:
        wanted = True

        def follow_publishers(self):
            subscription.follow_publishers(self.wanted)

    followed = Followed()
    publisher = graph.publishing.create_publisher(CompressedImage, "front/image_raw/foxglove", RELIABLE)
    data = video_message(FOXGLOVE, 5, "front", "h264", b"\x00\x00\x01\x65")
    assert graph.run(followed, lambda: (publisher.publish(data), received)[1])
    buffer, kind = received[0]
    assert VIDEO_READERS[kind](buffer).data.tobytes() == b"\x00\x00\x01\x65" and not said
    followed.wanted = False
    assert graph.run(followed, lambda: not publisher.get_subscription_count())
    subscription.destroy()


@pytest.mark.system
def test_a_video_whose_package_is_missing_is_reported(graph, monkeypatch):
    monkeypatch.setitem(VIDEO_READERS, IMAGE, VIDEO_READERS[FOXGLOVE])  # found by this type

    def missing(kind):
        raise ImportError(f"{kind} needs a package")

    said = []
    subscription = VideoSubscription(graph.listening, "front/image_raw", lambda *what: None, said.append, missing)
    publisher = graph.publishing.create_publisher(Image, "front/image_raw", RELIABLE)

    class Followed:
        def follow_publishers(self):
            subscription.follow_publishers(True)

    assert graph.run(Followed(), lambda: said)
    assert said[0] == f"the video on /front/image_raw is not used: {IMAGE} needs a package"
    graph.publishing.destroy_publisher(publisher)
    subscription.destroy()
