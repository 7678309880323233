"""Subscriptions to serialised messages that adapt to their publishers: reliability, durability, compression."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from renderocc_model.rosio.camera_search import COMPRESSED, IMAGE
from renderocc_ros.rclpy_private import parameter_overrides

FOLLOWED = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class AdaptiveSubscription:
    """A subscription to CDR bytes that receives from every publisher of its topic.

    It begins reliable, so that large images arrive whole, and becomes best effort when a publisher offers only that. It
    becomes transient local (latched) when all publishers are, as for a calibration that is published once. QoS
    overrides of the node have priority.

    Args:
        node: its owner.
        message_type: message class of the topic.
        topic: name of the topic, relative to the node.
        callback: called with the message's bytes, encapsulation header included.
        depth: messages kept for the callback.
        latched: keep a transient local subscription, as /tf_static needs. If a publisher is volatile, there is a second
            subscription, and messages that both receive are delivered twice.
    """

    def __init__(
        self, node: Node, message_type, topic: str, callback: Callable[[bytes], None], depth: int, latched: bool = False
    ) -> None:
        self._node = node
        self._message_type = message_type
        self._callback = callback
        self.topic = topic
        self._resolved = node.resolve_topic_name(topic)
        self._depth = depth
        self._latched = latched
        # A policy that is declared as a parameter keeps its first value for ever. Therefore a policy that follows the
        # publishers is declared only if the user has set it, and then it does not follow.
        self._overridden = [kind for kind in FOLLOWED if self._is_overridden(kind)]
        self._subscriptions: dict[DurabilityPolicy, Subscription] = {}
        self._reliability = ReliabilityPolicy.RELIABLE
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        self._listen(self._reliability, {durability})

    def _is_overridden(self, kind: QoSPolicyKind) -> bool:
        return f"qos_overrides.{self._resolved}.subscription.{kind.name.lower()}" in parameter_overrides(self._node)

    def _listen(self, reliability: ReliabilityPolicy, durabilities: set[DurabilityPolicy]) -> None:
        """Have one subscription of each durability, all with this reliability; keep those that exist already."""
        if reliability != self._reliability:
            self.destroy()
            self._reliability = reliability
        for durability in set(self._subscriptions) - durabilities:
            self._node.destroy_subscription(self._subscriptions.pop(durability))
        for durability in durabilities - set(self._subscriptions):
            self._subscriptions[durability] = self._create(reliability, durability)

    def _create(self, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> Subscription:
        def nothing(_info) -> None:  # incompatible offers need no warning: `follow_publishers` adapts to them
            pass

        kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, *self._overridden)
        return self._node.create_subscription(
            self._message_type,
            self.topic,
            self._callback,
            QoSProfile(depth=self._depth, reliability=reliability, durability=durability),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=nothing),
            qos_overriding_options=QoSOverridingOptions(kinds),
        )

    def follow_publishers(self) -> None:
        """Adapt to the publishers that exist now; without publishers, nothing changes."""
        offers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(self._resolved)]
        if not offers:
            return
        reliability, durabilities = self._reliability, set(self._subscriptions)
        if QoSPolicyKind.RELIABILITY not in self._overridden:
            reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
            reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if QoSPolicyKind.DURABILITY not in self._overridden:
            latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
            durabilities = {DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE}
            durabilities |= {DurabilityPolicy.TRANSIENT_LOCAL} if self._latched else set()
        self._listen(reliability, durabilities)

    def destroy(self) -> None:
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions = {}


class ImageSubscription:
    """One camera's images, raw or compressed.

    With transport `auto` it subscribes to both topics. If both are published it keeps only the raw one, because a
    second copy of every image costs bandwidth. When the raw publisher goes, it subscribes to the compressed one again.

    Args:
        node: owner of the subscriptions.
        raw_type, compressed_type: message classes.
        topic: name of the raw topic; compressed images are at TOPIC/compressed, or on TOPIC itself where nobody
            publishes raw ones there.
        transport: auto, raw or compressed.
        callback: called with (bytes, whether they are a CompressedImage).
        depth: messages kept for the callback.
    """

    def __init__(
        self,
        node: Node,
        raw_type,
        compressed_type,
        topic: str,
        transport: str,
        callback: Callable[[bytes, bool], None],
        depth: int = 2,
    ) -> None:
        self._make = {
            False: lambda: AdaptiveSubscription(node, raw_type, topic, lambda buffer: callback(buffer, False), depth),
            True: lambda: AdaptiveSubscription(
                node, compressed_type, f"{topic}/compressed", lambda buffer: callback(buffer, True), depth
            ),
        }
        self._node = node
        self._direct = lambda: AdaptiveSubscription(
            node, compressed_type, topic, lambda buffer: callback(buffer, True), depth
        )
        self._transport = transport
        self._is_direct = False
        self._resolved = [node.resolve_topic_name(name) for name in (topic, f"{topic}/compressed")]  # with remappings
        self._auto = transport == "auto"
        self._subscriptions: dict[bool, AdaptiveSubscription] = {}
        self._subscribe(self._holds_compressed())

    def _holds_compressed(self) -> bool:
        """Whether the raw topic has compressed images, as converters of datasets write them."""
        if self._transport == "raw":
            return False
        kinds = {info.topic_type for info in self._node.get_publishers_info_by_topic(self._resolved[0])}
        return COMPRESSED in kinds and IMAGE not in kinds

    def _subscribe(self, direct: bool) -> None:
        self._is_direct = direct
        wanted = {"raw": (False,), "compressed": (True,), "auto": (False, True)}[self._transport]
        try:
            if direct:
                self._subscriptions[True] = self._direct()
            for compressed in () if direct else wanted:
                self._subscriptions[compressed] = self._make[compressed]()
        except BaseException:
            self.destroy()
            raise

    @property
    def is_published(self) -> bool:
        """Whether anybody publishes raw or compressed images."""
        return any(self._node.count_publishers(topic) for topic in self._resolved)

    def follow_publishers(self) -> None:
        if self._holds_compressed() != self._is_direct:
            self.destroy()  # first: a topic cannot have subscriptions of two types
            self._subscribe(not self._is_direct)
        if self._auto and not self._is_direct:
            both = all(self._node.count_publishers(topic) for topic in self._resolved)
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
