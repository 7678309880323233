"""Publishes a recording's topics at the pace of the recording, for `renderocc replay`.

Each topic is offered with the QoS that it was recorded with. A latched /tf_static is latched again, with all messages.
"""

from __future__ import annotations

import difflib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from renderocc_model.rosio.bags import Bag, Topic
from renderocc_ros.commands.recorded_topics import ReplayError, is_latched, message_class, qos_profile
from renderocc_ros.commands.video_replay import VideoAsImages
from renderocc_ros.process import prepare_process
from renderocc_ros.ros_arguments import RosArgumentsError, start_ros

__all__ = ["CLOCK_TOPIC", "Part", "Played", "Player"]

CLOCK_TOPIC = "/clock"
CDR_HEADER_BYTES = 4
SETTLED_S = 0.5  # after the last change of subscriptions, the other side has matched too
DISCOVERED_S = 3.0  # time to discover every running program, so that playing does not begin with the first one
ACKNOWLEDGE_S = 3.0
SHORTEST_LOOP_S = 0.1  # a recording of a single moment would otherwise repeat without a pause


@dataclass
class Played:
    """What a replay did.

    Attributes:
        messages: number of messages published, over all loops, without /clock.
        loops: number of complete passes over the recording.
        skipped: {topic: why it was not played}.
        late_s: longest delay of a message, seconds.
        seconds: steady time from the first to the last message.
    """

    messages: int = 0
    loops: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    late_s: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Part:
    """The span of record times to play: [start_ns, stop_ns)."""

    first_ns: int
    start_ns: int
    stop_ns: int

    @classmethod
    def of(cls, bag: Bag, start: float, duration: float | None) -> Part:
        length = (bag.end_ns - bag.start_ns) / 1e9
        if start > length:
            raise ReplayError(f"start is {start} s but {bag.path} is {length:.3f} s long")
        start_ns = bag.start_ns + round(start * 1e9)
        stop_ns = bag.end_ns + 1
        if duration is not None:
            stop_ns = min(stop_ns, start_ns + round(duration * 1e9))
        return cls(bag.start_ns, start_ns, stop_ns)

    @property
    def seconds(self) -> float:
        return (self.stop_ns - self.start_ns) / 1e9


class Player:
    """Publishes a recording's topics with a node of its own; a context manager."""

    def __init__(
        self,
        bag: Bag,
        topics: Sequence[Topic],
        remap: Mapping[str, str],
        clock_hz: float | None,
        played: Played,
        ros_args: Sequence[str] = (),
    ) -> None:
        """Create the node and its publishers; a topic whose type is not installed is noted in `played.skipped`, but for
        videos: their pictures are published as raw images."""
        import rclpy

        self.bag = bag
        self.played = played
        self.clock_hz = clock_hz
        classes = {}
        self._videos: dict[str, VideoAsImages] = {}  # topics whose messages are not installed
        for topic in topics:
            try:
                classes[topic.name] = message_class(topic.type)
            except ReplayError as error:
                if VideoAsImages.can_play(topic, bag.topics):
                    self._videos[topic.name] = VideoAsImages(topic)
                    classes[topic.name] = message_class("sensor_msgs/msg/Image")
                else:
                    played.skipped[topic.name] = str(error)
        targets = {name: video.image_topic for name, video in self._videos.items()} | remapped(bag, remap)
        self._context = rclpy.Context()
        prepare_process()
        try:
            start_ros(list(ros_args), context=self._context)
        except RosArgumentsError as error:
            raise ReplayError(str(error)) from None
        try:
            self._node = rclpy.create_node("renderocc_replay", context=self._context, start_parameter_services=False)
            self.publishers = {
                topic.name: self._node.create_publisher(
                    classes[topic.name], targets.get(topic.name, topic.name), qos_profile(topic)
                )
                for topic in topics
                if topic.name in classes
            }
            self._clock = self._make_clock() if clock_hz else None
        except BaseException:
            rclpy.shutdown(context=self._context)
            raise

    def _make_clock(self):
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from rosgraph_msgs.msg import Clock

        # A reliable publisher reaches subscriptions of both kinds. Only the newest time is of use.
        return self._node.create_publisher(
            Clock, CLOCK_TOPIC, QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        )

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        import rclpy

        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def publish_clock(self, stamp_ns: int) -> None:
        """Publish a record time on /clock, as bytes: CDR header, int32 seconds, uint32 nanoseconds."""
        if self._clock is not None:
            seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
            self._clock.publish(
                b"\x00\x01\x00\x00" + seconds.to_bytes(4, "little", signed=True) + nanoseconds.to_bytes(4, "little")
            )

    def wait_for_subscriptions(
        self, limit_s: float, stamp_ns: int, stop: threading.Event, say: Callable[[str], None]
    ) -> None:
        """Wait for subscriptions: discovery takes a second or two, and earlier messages are lost.

        The wait ends when every topic has a subscription, or when some have one and there was time to discover the
        others, or at the limit. Meanwhile the time on /clock stays at `stamp_ns`.
        """
        if limit_s == 0:
            return
        began = changed = time.monotonic()
        seen: frozenset[str] = frozenset()
        told = False
        while not stop.is_set():
            self.publish_clock(stamp_ns)
            matched = frozenset(
                name for name, publisher in self.publishers.items() if publisher.get_subscription_count()
            )
            now = time.monotonic()
            if matched != seen:
                seen, changed = matched, now
            everyone = len(seen) == len(self.publishers)
            if seen and now - changed > SETTLED_S and (everyone or now - began > DISCOVERED_S):
                break
            if now - began >= limit_s:
                break
            if not told and now - began > 1.0 and not seen:
                told = True
                say(f"waiting up to {limit_s:g} s for a subscription to one of {shortened(self.publishers)}")
            stop.wait(0.05)
        if not seen and not stop.is_set():
            say(
                f"nobody subscribed within {limit_s:g} s; playing anyway (do both have the same ROS_DOMAIN_ID? "
                "a program that is still loading needs a longer --wait-for)"
            )
        self._name_incompatible(say)

    def _name_incompatible(self, say: Callable[[str], None]) -> None:
        """Report subscriptions whose QoS does not match the recorded QoS; DDS does not report them."""
        from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

        for name, publisher in self.publishers.items():
            for info in self._node.get_subscriptions_info_by_topic(publisher.topic_name):
                asked, offered = info.qos_profile, publisher.qos_profile
                words = []
                if (
                    asked.reliability == ReliabilityPolicy.RELIABLE
                    and offered.reliability == ReliabilityPolicy.BEST_EFFORT
                ):
                    words.append("reliable")
                if (
                    asked.durability == DurabilityPolicy.TRANSIENT_LOCAL
                    and offered.durability == DurabilityPolicy.VOLATILE
                ):
                    words.append("transient local")
                if words:
                    say(f"{name}: {info.node_name} asks for {' and '.join(words)}, recorded without: nothing arrives")

    def play(
        self, part: Part, rate: float, loop: bool, stop: threading.Event, advance: Callable[[float], None]
    ) -> None:
        """Publish the part at its recorded pace times `rate`, once or until `stop`."""
        began = time.monotonic()
        while not stop.is_set():
            self._play_once(part, rate, stop, advance)
            if stop.is_set():
                break
            self.played.loops += 1
            if not loop:
                break
            stop.wait(SHORTEST_LOOP_S - part.seconds / rate if part.seconds / rate < SHORTEST_LOOP_S else 0)
        self.played.seconds = time.monotonic() - began

    def _play_once(self, part: Part, rate: float, stop: threading.Event, advance: Callable[[float], None]) -> None:
        if part.start_ns > part.first_ns:
            latched = [name for name in self.publishers if is_latched(self.bag.topics[name])]
            if latched:
                for topic, _, data in self.bag.messages(latched, part.first_ns, part.start_ns):
                    self._publish(topic, data)
        began = time.monotonic()
        self.publish_clock(part.start_ns)
        for topic, stamp_ns, data in self.bag.messages(self.publishers, part.start_ns, part.stop_ns):
            due = began + (stamp_ns - part.start_ns) / 1e9 / rate
            self._pause_until(due, began, part.start_ns, rate, stop)
            if stop.is_set():
                return
            self.played.late_s = max(self.played.late_s, time.monotonic() - due)
            self.publish_clock(stamp_ns)
            self._publish(topic, data)
            advance((stamp_ns - part.start_ns) / 1e9)
        self._pause_until(began + part.seconds / rate, began, part.start_ns, rate, stop)

    def _publish(self, topic: str, data: bytes) -> None:
        if len(data) < CDR_HEADER_BYTES:
            self.played.skipped.setdefault(topic, f"a message of {len(data)} bytes, too short to be one")
            return
        if topic in self._videos:
            video = self._videos[topic]
            for image in video.images(data):
                self.publishers[topic].publish(image)
            for reason, count in video.failed.items():
                self.played.skipped[topic] = f"{count} messages without a picture: {reason}"
        else:
            self.publishers[topic].publish(data)
        self.played.messages += 1

    def _pause_until(self, due: float, began: float, start_ns: int, rate: float, stop: threading.Event) -> None:
        """Sleep until a point of steady time, publishing /clock at its rate meanwhile.

        Times are absolute, so that delays do not add up.
        """
        while not stop.is_set():
            now = time.monotonic()
            if now >= due:
                return
            if self._clock is None:
                stop.wait(due - now)
                continue
            tick = began + (math.floor((now - began) * self.clock_hz) + 1) / self.clock_hz
            if tick >= due:
                stop.wait(due - now)
                continue
            stop.wait(tick - now)
            self.publish_clock(start_ns + round((tick - began) * rate * 1e9))

    def wait_until_acknowledged(self, stop: threading.Event) -> None:
        """Wait until reliable subscriptions have received everything: destroying a publisher loses its queue."""
        from rclpy.duration import Duration

        deadline = time.monotonic() + (ACKNOWLEDGE_S if not stop.is_set() else 0.0)
        for publisher in self.publishers.values():
            remaining = max(0.0, deadline - time.monotonic())
            if hasattr(publisher, "wait_for_all_acked") and publisher.get_subscription_count():
                publisher.wait_for_all_acked(Duration(seconds=remaining))


def remapped(bag: Bag, remap: Mapping[str, str]) -> dict[str, str]:
    """{recorded name: name to publish on}, both absolute.

    Raises:
        ReplayError: the recording has no such topic.
    """
    targets = {}
    for name, target in remap.items():
        name, target = "/" + name.lstrip("/"), "/" + target.lstrip("/")
        if name not in bag.topics:
            nearest = difflib.get_close_matches(name, bag.topics, n=1)
            raise ReplayError(
                f"remap {name}: {bag.path} has no such topic" + (f"; did you mean {nearest[0]}?" if nearest else "")
            )
        targets[name] = target
    return targets


def shortened(names: Sequence[str], limit: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
