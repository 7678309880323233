"""Reads one topic of a recording by header stamp."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.stamp_text import seconds_text

__all__ = ["SeveralTopics", "StampedTopic", "TopicError", "find_topic"]


class TopicError(ValueError):
    """The topic is missing or cannot be read. The text names the recording, the topic and what to do."""


class StampedTopic:
    """A topic whose messages begin with a header. Only stamps and record times stay in memory.

    Args:
        bag: an open bag.
        topic: name of the topic. It is read once, for its stamps.
        offset_ns: nanoseconds to add to the headers' stamps, which puts the sensor's clock right.
        tolerant: leave messages out whose header cannot be read, as long as there are others.
    Attributes:
        type: message type.
        stamps: header stamps with the offset, ascending. Of messages with equal stamps only the first is used.
        left_out: number of messages whose header cannot be read.
    Raises:
        TopicError: the topic is not in the recording or a header cannot be read.
    """

    def __init__(self, bag: Bag, topic: str, tolerant: bool = False, offset_ns: int = 0) -> None:
        if topic not in bag.topics or not bag.topics[topic].count:
            kinds = ", ".join(bag.topics) or "none"
            raise TopicError(f"{bag.path}: there is no message on {topic}; its topics are {kinds}")
        self.bag, self.topic, self.type = bag, topic, bag.topics[topic].type
        self._recorded: dict[int, int] = {}
        self._offset_ns = offset_ns
        self.left_out, first = 0, ""
        for _, recorded_ns, data in bag.messages([topic]):
            try:
                self._recorded.setdefault(cdr.read_header(data)[0] + offset_ns, recorded_ns)
            except ValueError as error:
                self.left_out += 1
                first = first or f"{bag.path}: {topic}, message recorded at {seconds_text(recorded_ns)} s: {error}"
        if first and not (tolerant and self._recorded):
            raise TopicError(first)
        self.stamps = sorted(self._recorded)

    def __contains__(self, stamp_ns: int) -> bool:
        return stamp_ns in self._recorded

    def nearest(self, stamp_ns: int, limit_ns: int) -> int | None:
        """The stamp nearest to `stamp_ns`, the earlier of two; None when none is within the limit."""
        place = bisect_left(self.stamps, stamp_ns)
        around = self.stamps[max(place - 1, 0) : place + 1]
        near = min(around, key=lambda stamp: (abs(stamp - stamp_ns), stamp), default=None)
        return near if near is not None and abs(near - stamp_ns) <= limit_ns else None

    def around(self, stamp_ns: int, count: int) -> list[int]:
        """Up to `count` stamps, nearest first."""
        place = bisect_left(self.stamps, stamp_ns)
        window = self.stamps[max(place - count, 0) : place + count]
        return sorted(window, key=lambda stamp: (abs(stamp - stamp_ns), stamp))[:count]

    def read(self, stamp_ns: int) -> bytes:
        """The serialised message with this stamp."""
        recorded_ns = self._recorded[stamp_ns]
        for _, _, data in self.bag.messages([self.topic], recorded_ns, recorded_ns + 1):
            if cdr.read_header(data)[0] + self._offset_ns == stamp_ns:
                return data
        raise TopicError(f"{self.bag.path}: {self.topic} at {seconds_text(stamp_ns)} s is gone; the file was changed")


class SeveralTopics(TopicError):
    """Several topics hold the messages that are looked for, and an option must choose one."""


def find_topic(bag: Bag, kinds: Sequence[str], wanted: str | None, option: str) -> str | None:
    """The topic of some message types: the wanted one, or the only one of these types, or None if there is none.

    Raises:
        TopicError: the wanted one does not exist or has another type, or there are several and none is wanted.
    """
    there = [topic.name for topic in bag.topics.values() if topic.type in kinds and topic.count]
    if wanted is not None:
        name = wanted if wanted.startswith("/") else f"/{wanted}"
        if name not in there:
            raise TopicError(f"{bag.path}: no {kinds[0]} on {name}; there are {', '.join(there) or 'none'}")
        return name
    if len(there) > 1:
        raise SeveralTopics(f"{bag.path}: several topics hold clouds; choose one with {option}: {', '.join(there)}")
    return there[0] if there else None
