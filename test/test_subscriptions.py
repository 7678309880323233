"""Subscriptions that follow what publishers offer, against real publishers in this process."""

import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from system import new_domain, transform_message
from tf2_msgs.msg import TFMessage

from renderocc_model.rosio import cdr
from renderocc_ros.input.subscriptions import AdaptiveSubscription, ImageSubscription

pytestmark = pytest.mark.system

RELIABLE = QoSProfile(depth=5)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Graph:
    """Two nodes of one domain, spun by the test itself: `publishing` and `listening`, which may have QoS overrides."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=new_domain())
        self.publishing = self.node("publishing")
        self.listening = self.node("listening")

    def node(self, name: str, **overrides):
        arguments = ["--ros-args"]
        for key, value in overrides.items():
            arguments += ["-p", f"{key}:={value}"]
        return rclpy.create_node(
            name, context=self.context, start_parameter_services=False, cli_args=arguments, enable_rosout=False
        )

    def run(self, subscription, done, timeout: float = 10.0) -> bool:
        """Let the listening node work, and its subscription follow the publishers, until `done()`; did it come."""
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.listening)
        end = time.monotonic() + timeout
        try:
            while not done():
                if time.monotonic() > end:
                    return False
                subscription.follow_publishers()
                executor.spin_once(timeout_sec=0.02)
            return True
        finally:
            executor.shutdown()

    def heard(self, subscription, publisher, message, received: list) -> bool:
        """Publish until the subscription has it."""
        before = len(received)

        def done() -> bool:
            publisher.publish(message)
            return len(received) > before

        return self.run(subscription, done)

    def close(self) -> None:
        self.publishing.destroy_node()
        self.listening.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def graph():
    running = Graph()
    yield running
    running.close()


def texts(buffers: list) -> list[str]:
    return [deserialize_message(buffer, String).data for buffer in buffers]


def test_a_reliable_publisher_is_heard_as_bytes(graph):
    received = []
    subscription = AdaptiveSubscription(graph.listening, String, "/topic", received.append, depth=5)
    publisher = graph.publishing.create_publisher(String, "/topic", RELIABLE)
    assert graph.heard(subscription, publisher, String(data="a"), received)
    assert isinstance(received[0], bytes) and texts(received)[0] == "a"


def test_a_best_effort_publisher_is_heard_and_a_reliable_one_after_it(graph):
    received = []
    subscription = AdaptiveSubscription(graph.listening, String, "/topic", received.append, depth=5)
    publisher = graph.publishing.create_publisher(String, "/topic", BEST_EFFORT)
    assert graph.heard(subscription, publisher, String(data="a"), received)

    def reliability() -> set:
        infos = graph.publishing.get_subscriptions_info_by_topic("/topic")
        return {info.qos_profile.reliability for info in infos}

    assert graph.run(subscription, lambda: reliability() == {ReliabilityPolicy.BEST_EFFORT})
    graph.publishing.destroy_publisher(publisher)
    publisher = graph.publishing.create_publisher(String, "/topic", RELIABLE)
    assert graph.heard(subscription, publisher, String(data="b"), received)
    assert graph.run(subscription, lambda: reliability() == {ReliabilityPolicy.RELIABLE})


def test_a_best_effort_and_a_reliable_publisher_of_one_topic_are_both_heard(graph):
    received = []
    subscription = AdaptiveSubscription(graph.listening, String, "/topic", received.append, depth=5)
    one = graph.publishing.create_publisher(String, "/topic", RELIABLE)
    other = graph.publishing.create_publisher(String, "/topic", BEST_EFFORT)

    def both() -> bool:
        one.publish(String(data="reliable"))
        other.publish(String(data="best effort"))
        return set(texts(received)) == {"reliable", "best effort"}

    assert graph.run(subscription, both)


def test_while_the_publishers_stay_the_same_so_does_the_subscription(graph):
    """Each new subscription would be discovered anew by every publisher, and lose what is sent meanwhile."""
    received = []
    subscription = AdaptiveSubscription(graph.listening, String, "/topic", received.append, depth=5)
    publisher = graph.publishing.create_publisher(String, "/topic", BEST_EFFORT)
    assert graph.heard(subscription, publisher, String(data="a"), received)
    before = list(graph.listening.subscriptions)
    for _ in range(5):
        subscription.follow_publishers()
    assert list(graph.listening.subscriptions) == before


def test_a_message_that_was_latched_before_anybody_listened_is_heard(graph):
    publisher = graph.publishing.create_publisher(String, "/topic", LATCHED)
    publisher.publish(String(data="said once, long ago"))
    received = []
    subscription = AdaptiveSubscription(graph.listening, String, "/topic", received.append, depth=5)
    assert graph.run(subscription, lambda: received)
    assert texts(received) == ["said once, long ago"]


def listen_to_static(graph, callback) -> AdaptiveSubscription:
    return AdaptiveSubscription(graph.listening, TFMessage, "/tf_static", callback, depth=100, latched=True)


def static_children(buffers: list) -> set[str]:
    return {transform.child for buffer in buffers for transform in cdr.read_tf(buffer)}


def test_all_latched_messages_of_all_publishers_of_tf_static_are_heard(graph):
    publishers = [graph.publishing.create_publisher(TFMessage, "/tf_static", LATCHED) for _ in range(2)]
    for index, child in enumerate(("front", "left", "back", "lidar")):  # two of each publisher
        publishers[index // 2].publish(TFMessage(transforms=[transform_message("base_link", child, 1)]))
    received = []
    subscription = listen_to_static(graph, received.append)
    assert graph.run(subscription, lambda: len(static_children(received)) == 4)
    assert static_children(received) == {"front", "left", "back", "lidar"}


def test_a_volatile_publisher_of_tf_static_is_heard_and_latched_ones_that_come_later_too(graph):
    """As with a converted recording, whose player latches nothing, and drivers that are started after it."""
    received = []
    subscription = listen_to_static(graph, received.append)
    volatile = graph.publishing.create_publisher(TFMessage, "/tf_static", RELIABLE)
    message = TFMessage(transforms=[transform_message("base_link", "front", 1)])
    assert graph.heard(subscription, volatile, message, received)
    late = graph.publishing.create_publisher(TFMessage, "/tf_static", LATCHED)
    late.publish(TFMessage(transforms=[transform_message("base_link", "left", 1)]))  # before it is discovered
    assert graph.run(subscription, lambda: "left" in static_children(received))


def offered(graph, topic: str) -> list[tuple]:
    infos = graph.publishing.get_subscriptions_info_by_topic(topic)
    return [(info.qos_profile.reliability, info.qos_profile.durability) for info in infos]


def test_qos_overrides_of_the_user_win(graph):
    graph.listening.destroy_node()
    prefix = "qos_overrides./topic.subscription"
    graph.listening = graph.node(
        "listening", **{f"{prefix}.reliability": "best_effort", f"{prefix}.durability": "volatile"}
    )
    received = []
    subscription = AdaptiveSubscription(graph.listening, String, "/topic", received.append, depth=5)
    publisher = graph.publishing.create_publisher(String, "/topic", LATCHED)
    assert graph.heard(subscription, publisher, String(data="a"), received)
    before = list(graph.listening.subscriptions)
    for _ in range(5):
        subscription.follow_publishers()
    assert list(graph.listening.subscriptions) == before
    assert offered(graph, "/topic") == [(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)]


def test_a_destroyed_subscription_leaves_the_graph(graph):
    subscription = listen_to_static(graph, lambda buffer: None)
    assert graph.run(subscription, lambda: graph.publishing.count_subscribers("/tf_static") == 1)
    subscription.destroy()
    assert graph.run(subscription, lambda: graph.publishing.count_subscribers("/tf_static") == 0)


# ---- images, raw or compressed --------------------------------------------------------------------------------------


class Images:
    """A camera's subscription, and what it has heard as (compressed, height or format)."""

    def __init__(self, graph, transport: str) -> None:
        self.graph, self.received = graph, []
        self.subscription = ImageSubscription(
            graph.listening, Image, CompressedImage, "/front/image_raw", transport, self.take
        )

    def take(self, buffer: bytes, compressed: bool) -> None:
        message = deserialize_message(buffer, CompressedImage if compressed else Image)
        self.received.append((compressed, message.format if compressed else message.height))

    def subscribers(self) -> tuple[int, int]:
        return tuple(self.graph.publishing.count_subscribers(f"/front/image_raw{end}") for end in ("", "/compressed"))

    def settles(self, raw: int, compressed: int) -> bool:
        return self.graph.run(self.subscription, lambda: self.subscribers() == (raw, compressed))


def test_where_raw_and_compressed_images_are_published_only_the_raw_ones_are_taken(graph):
    images = Images(graph, "auto")
    assert images.settles(1, 1)
    compressed = graph.publishing.create_publisher(CompressedImage, "/front/image_raw/compressed", BEST_EFFORT)
    assert graph.heard(images.subscription, compressed, CompressedImage(format="jpeg"), images.received)
    assert images.received[-1] == (True, "jpeg")
    raw = graph.publishing.create_publisher(Image, "/front/image_raw", BEST_EFFORT)
    assert images.settles(1, 0)
    images.received.clear()
    assert graph.heard(images.subscription, raw, Image(height=2), images.received)
    assert images.received[-1] == (False, 2)
    graph.publishing.destroy_publisher(raw)  # the driver is started again with compressed images only
    assert images.settles(1, 1)
    images.received.clear()
    assert graph.heard(images.subscription, compressed, CompressedImage(format="png"), images.received)
    assert images.received[-1] == (True, "png")


@pytest.mark.parametrize(("transport", "subscribers"), [("raw", (1, 0)), ("compressed", (0, 1))])
def test_a_transport_that_was_chosen_is_kept(graph, transport, subscribers):
    images = Images(graph, transport)
    for message_type, topic in ((Image, "/front/image_raw"), (CompressedImage, "/front/image_raw/compressed")):
        graph.publishing.create_publisher(message_type, topic, RELIABLE)
    assert images.settles(*subscribers)
    for _ in range(5):
        images.subscription.follow_publishers()
    assert images.settles(*subscribers)
    images.subscription.destroy()
    assert graph.run(Nothing(), lambda: images.subscribers() == (0, 0))


class Nothing:
    """In place of a subscription that is gone."""

    def follow_publishers(self) -> None:
        pass


def test_where_the_second_subscription_cannot_be_made_the_first_is_given_back(graph):
    topic = "/" + "a" * 240  # allowed, but not with "/compressed" behind it
    before = len(list(graph.listening.subscriptions))
    with pytest.raises(RuntimeError, match="topic length"):
        ImageSubscription(graph.listening, Image, CompressedImage, topic, "auto", print)
    assert len(list(graph.listening.subscriptions)) == before
