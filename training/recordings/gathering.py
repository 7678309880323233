"""Reads the messages of several images in one pass over each bag that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from renderocc_model.rosio import cdr

from .sources import ImageSource, Message, RecordingError, read_message, time_text

__all__ = ["gather"]


def gather(
    wanted: Iterable[tuple[str, str, int]], source_of: Callable[[str, str], ImageSource], start_ns: int
) -> dict[tuple[str, str, int], Message]:
    """Read the messages of several images.

    Args:
        wanted: (kind, camera, stamp) of each; the kind is 'image', 'semantic' or 'depth'.
        source_of: gives the image topic of a kind and a camera.
        start_ns: when the recording began, for error texts.
    Returns:
        {(kind, camera, stamp): message}.
    Raises:
        RecordingError: one of the images does not exist, or cannot be read.
    """
    wanted = set(wanted)
    found: dict[tuple[str, str, int], Message] = {}
    by_bag: dict[int, dict[str, tuple[str, str, ImageSource]]] = {}
    times: dict[int, list[int]] = {}
    for kind, camera, stamp_ns in sorted(wanted):
        source = source_of(kind, camera)
        if stamp_ns not in source.recorded:
            raise RecordingError(f"{source.bag.path}: {source.topic} has no image at {time_text(stamp_ns, start_ns)}")
        if source.video is not None:
            recorded_ns = source.recorded[stamp_ns]
            found[kind, camera, stamp_ns] = read_message(source, recorded_ns, source.picture, stamp_ns)
            continue
        by_bag.setdefault(id(source.bag), {})[source.topic] = (kind, camera, source)
        times.setdefault(id(source.bag), []).append(source.recorded[stamp_ns])
    for key, topics in by_bag.items():
        bag = next(iter(topics.values()))[2].bag
        for topic, recorded_ns, data in bag.messages(list(topics), min(times[key]), max(times[key]) + 1):
            kind, camera, source = topics[topic]
            stamp_ns = read_message(source, recorded_ns, cdr.read_header, data)[0] + source.offset_ns
            name = (kind, camera, stamp_ns)
            if name in wanted and name not in found:
                read = source.plain if kind == "image" else source.read
                found[name] = read_message(source, recorded_ns, read, data)
    return found
