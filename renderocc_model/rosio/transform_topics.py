"""The transforms and the ego motion of a recording: which topics hold them, and reading these into a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from renderocc_model.rosio import cdr
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError
from renderocc_model.rosio.vehicle import Vehicle, absolute, odometry_frame

if TYPE_CHECKING:  # the node needs no rosbags
    from renderocc_model.rosio.bags import Topic

__all__ = ["ODOMETRY", "TRANSFORMS", "TransformReader", "other_topics", "set_odometry", "with_topics"]

V = TypeVar("V", bound=Vehicle)
TRANSFORMS, ODOMETRY = "tf2_msgs/msg/TFMessage", "nav_msgs/msg/Odometry"


def other_topics(there: list[str], usual: str) -> list[str]:
    """The topics that have the last part of another topic's name: those of /tf in a namespace.

    Args:
        there: names of topics of one type.
        usual: the name that was expected, /tf or /tf_static.
    """
    last = usual.rpartition("/")[2]
    return sorted(name for name in there if name.rpartition("/")[2] == last and name != usual)


@dataclass
class TransformReader:
    """Reads a recording's transforms and odometry into a buffer.

    `take` gets the messages of `topics`; `finish` comes after the last one.

    Args:
        recorded: the recording's topics by name.
        vehicle: its topics of TF and odometry, and its frames.
        namespace: of relative topics.
        transforms: the buffer.
    Attributes:
        tf, static: the topics that are read.
        fixed: the fixed frame of ego motion in the buffer; empty without ego motion. Final after `finish`.
        named: the name of the fixed frame in the messages, where poses come from a topic of odometry; else as `fixed`.
        pose_stamps: stamps of the ego poses, ascending after `finish`.
        notes: what was taken though the settings do not name it, one sentence each.
        missing: {topic or setting: what is not there, and what to do}.
    """

    recorded: Mapping[str, Topic]
    vehicle: Vehicle
    namespace: str = "/"
    transforms: TransformBuffer = field(default_factory=lambda: TransformBuffer(history=1e9, max_samples=1 << 30))
    pose_stamps: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vehicle = self.vehicle
        self.tf = self._topic("tf_topic", vehicle.tf_topic, bool(vehicle.odom_frame and not vehicle.odom_topic))
        self.static = self._topic("tf_static_topic", vehicle.tf_static_topic, needed=True)
        self.fixed = self.named = vehicle.fixed
        self._odometry: dict[str, list[cdr.TransformMessage]] = {}
        there = self._of_type(ODOMETRY)
        if vehicle.odom_frame and vehicle.odom_topic:
            topic = absolute(vehicle.odom_topic, self.namespace)
            if topic not in there:
                names = ", ".join(there) or "none"
                self.missing["odom_topic"] = f"no nav_msgs/Odometry on {topic} (odom_topic); topics with it: {names}"
            there = [name for name in there if name == topic]
        self._odometry = {name: [] for name in there} if vehicle.odom_frame else {}

    @property
    def topics(self) -> set[str]:
        """The topics to read."""
        return {self.tf, self.static, *self._odometry}

    @property
    def pose_topic(self) -> str:
        """The topic of the ego poses."""
        return self.fixed.removeprefix(odometry_frame("")) if self.fixed.startswith(odometry_frame("")) else self.tf

    def take(self, topic: str, data: bytes) -> None:
        """A message of one of the topics.

        Raises:
            ValueError: it cannot be used.
        """
        if topic in self._odometry:
            self._odometry[topic].append(cdr.read_odometry(data))
            return
        static = topic == self.static
        for item in cdr.read_tf(data):
            self.transforms.set(item.parent, item.child, item.stamp_ns, item.translation, item.quaternion, static)
            if not static and item.child.removeprefix("/") == self.vehicle.base:
                self.pose_stamps.append(item.stamp_ns)

    def finish(self) -> None:
        """Choose the source of ego motion: TF, the odometry that the settings name, or the only one there is."""
        chosen = self.vehicle.odom_topic
        if self._odometry and (chosen or not self._in_tf()):
            if chosen or len(self._odometry) == 1:
                self._use_odometry(*self._odometry)
            else:
                names = ", ".join(self._odometry)
                self.missing["odom_topic"] = (
                    f"TF has no pose of {self.vehicle.base} in {self.fixed}, and several topics hold "
                    f"nav_msgs/Odometry: {names}; choose one with --odom-topic (parameter odom_topic)"
                )
        self.pose_stamps = sorted(set(self.pose_stamps))

    def _use_odometry(self, topic: str) -> None:
        vehicle, messages = self.vehicle, self._odometry[topic]
        if not vehicle.odom_topic:
            self.notes.append(
                f"TF has no pose of {vehicle.base} in {self.fixed}; the poses on {topic} (nav_msgs/Odometry) are used"
            )
        self.fixed = vehicle.fixed if vehicle.odom_topic else odometry_frame(topic)
        self.pose_stamps = []
        self.named = messages[0].parent if messages else self.fixed
        for message in messages:
            set_odometry(self.transforms, vehicle, self.fixed, message)
            self.pose_stamps.append(message.stamp_ns)

    def _in_tf(self) -> bool:
        """Whether TF relates the vehicle's frame to the fixed one at any time."""
        try:
            newest = self.transforms.latest(self.fixed, self.vehicle.base)
            self.transforms.lookup(self.fixed, self.vehicle.base, newest)
        except TransformError:
            return False
        return True

    def _topic(self, setting: str, wanted: str, needed: bool) -> str:
        """The topic of transforms to read: the wanted one, or the only one with its name in a namespace."""
        topic = absolute(wanted, self.namespace)
        there = self._of_type(TRANSFORMS)
        if topic in there:
            return topic
        others = other_topics(there, topic)
        option = f"--{setting.replace('_', '-')} (parameter {setting})"
        if len(others) == 1:
            self.notes.append(f"there is nothing on {topic}; the transforms on {others[0]} are used")
            return others[0]
        if others:
            self.missing[topic] = (
                f"nothing is on {topic}, and several topics hold transforms: {', '.join(others)}; choose one with "
                f"{option}"
            )
        elif needed:
            self.missing[topic] = f"there are no messages on {topic}"
        return topic

    def _of_type(self, kind: str) -> list[str]:
        return sorted(topic.name for topic in self.recorded.values() if topic.type == kind and topic.count)


def with_topics(vehicle: V, reader: TransformReader) -> V:
    """The vehicle with the topics of transforms and odometry that a finished reader took."""
    odometry = reader.pose_topic if reader.fixed == odometry_frame(reader.pose_topic) else vehicle.odom_topic
    return replace(vehicle, tf_topic=reader.tf, tf_static_topic=reader.static, odom_topic=odometry)


def set_odometry(transforms: TransformBuffer, vehicle: Vehicle, fixed: str, message: cdr.TransformMessage) -> bool:
    """Put a pose of an Odometry topic into a buffer, in the fixed frame that `odometry_frame` names.

    That frame hangs below the frame that the message names as the child, so that it cannot take the place of another
    parent of the vehicle in TF.

    Returns:
        as `TransformBuffer.set`.
    Raises:
        TransformError: the pose cannot be used.
    """
    child = vehicle.frame(message.child) or vehicle.base
    return transforms.set(child, fixed, message.stamp_ns, message.translation, message.quaternion, inverse=True)
