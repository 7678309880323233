"""Raw subscriptions that follow what the publishers offer: reliability, latching, raw or compressed images."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


class AdaptiveSubscription:
    """A subscription to CDR bytes that hears every publisher of its topic.

    It starts reliable, so that large images arrive whole, and becomes best effort when a publisher offers only that; it
    becomes latched when all publishers are (a calibration that is published once). QoS overrides of the node win.

    Args:
        node: its owner.
        message_type: of the topic.
        topic: its name, relative to the node.
        callback: called with the message's bytes, encapsulation header included.
        depth: messages kept for the callback.
        latched: start with transient local durability, as /tf_static needs.
    """

    def __init__(
        self, node: Node, message_type, topic: str, callback: Callable[[bytes], None], depth: int, latched: bool = False
    ) -> None:
        self._node = node
        self._message_type = message_type
        self._callback = callback
        self.topic = topic
        self._qos = QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self._always_latched = latched
        self._subscription = None
        self._create()

    def _create(self) -> None:
        def nothing(_info) -> None:  # an incompatible offer is followed, not warned about
            pass

        self._subscription = self._node.create_subscription(
            self._message_type,
            self.topic,
            self._callback,
            self._qos,
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=nothing),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def publisher_count(self) -> int:
        return self._node.count_publishers(self.topic)

    def follow_publishers(self) -> None:
        """Adapt to the publishers that are there now; without any, nothing changes."""
        offers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(self._subscription.topic_name)]
        if not offers:
            return
        reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        if (reliability, durability) != (self._qos.reliability, self._qos.durability):
            self._qos.reliability, self._qos.durability = reliability, durability
            self.destroy()
            self._create()

    def destroy(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None


class ImageSubscription:
    """One camera's images, raw or compressed.

    With transport `auto` both topics are listened to; where both are published only the raw one is, since a second copy of
    every image would cost its bandwidth. When the raw publisher goes, the compressed one is taken again.

    Args:
        callback: called with (bytes, whether they are a CompressedImage).
    """

    def __init__(
        self, node: Node, raw_type, compressed_type, topic: str, transport: str, callback: Callable[[bytes, bool], None], depth: int = 2
    ) -> None:
        self._make = {
            False: lambda: AdaptiveSubscription(node, raw_type, topic, lambda buffer: callback(buffer, False), depth),
            True: lambda: AdaptiveSubscription(
                node, compressed_type, f"{topic}/compressed", lambda buffer: callback(buffer, True), depth
            ),
        }
        self._node = node
        self._topic = topic
        self._auto = transport == "auto"
        wanted = {"raw": (False,), "compressed": (True,), "auto": (False, True)}[transport]
        self._subscriptions = {compressed: self._make[compressed]() for compressed in wanted}

    def follow_publishers(self) -> None:
        if self._auto:
            both = self._node.count_publishers(self._topic) and self._node.count_publishers(f"{self._topic}/compressed")
            if both and True in self._subscriptions:
                self._subscriptions.pop(True).destroy()
            elif not both and True not in self._subscriptions:
                self._subscriptions[True] = self._make[True]()
        for subscription in self._subscriptions.values():
            subscription.follow_publishers()

    def destroy(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.destroy()
        self._subscriptions = {}
