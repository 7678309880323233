"""The way between two frames of the forest that transforms form: up from both to where they meet."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from .tf_history import FrameHistory, TransformError

__all__ = ["Frames", "disconnected", "newest_chain", "walk"]

Frames = Mapping[str, FrameHistory]  # each child frame's history, by its name


def walk(frames: Frames, target: str, source: str, stamp_ns: int) -> tuple[list, list]:
    """The links (frame, bracket) from `source`, and those from `target`, up to the frame where they meet."""
    up, passed, gap_above_source = _climb(frames, source, (target,), stamp_ns)
    if target in passed:
        return up, []
    down, below, gap = _climb(frames, target, passed, stamp_ns)
    meeting = next(reversed(below))
    if meeting in passed:
        return up[: passed[meeting]], down
    gap = gap or gap_above_source
    if gap is None:
        raise disconnected(frames, target, source)
    text = f"{gap}, when looking up transform from frame [{source}] to frame [{target}]"
    raise TransformError(gap.kind, text, gap.may_come)


def _climb(
    frames: Frames, start: str, goals: Container[str], stamp_ns: int
) -> tuple[list, dict[str, int], TransformError | None]:
    """Climbs from `start` to the first goal, the root, or a frame without data at the stamp.

    Returns:
        The links (frame, bracket) in order; the frames passed, in order, with the number of links below each; and
        why there is no data, if that ended it.
    """
    links: list = []
    passed = {start: 0}
    name = start
    while name not in goals:
        frame = frames.get(name)
        if frame is None:
            return links, passed, None
        try:
            bracket = frame.bracket(stamp_ns)
        except IndexError:
            return links, passed, frame.missing_data(name, stamp_ns)
        links.append((frame, bracket))
        name = frame.parents[bracket[0]]
        if name in passed:
            raise _loop(passed, name)
        passed[name] = len(links)
    return links, passed, None


def newest_chain(frames: Frames, name: str, goals: Container[str] = ()) -> list[str]:
    """The frames from `name` up to the first goal or its root, by their newest parents."""
    chain = [name]
    while name not in goals:
        frame = frames.get(name)
        if frame is None or not frame.stamps:
            break
        name = frame.parents[-1]
        if name in chain:
            raise _loop(chain, name)
        chain.append(name)
    return chain


def disconnected(frames: Frames, target: str, source: str) -> TransformError:
    """The error of a lookup between two frames that nothing joins; more data may join them."""
    return TransformError(
        "disconnected",
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the same "
        f"tree: that of '{target}' ends at {_newest_root(frames, target)}, that of '{source}' at "
        f"{_newest_root(frames, source)}; publish a transform that joins them",
        True,
    )


def _newest_root(frames: Frames, name: str) -> str:
    try:
        return f"'{newest_chain(frames, name)[-1]}'"
    except TransformError:  # the loop was made a moment ago
        return "a loop"


def _loop(passed: Iterable[str], name: str) -> TransformError:
    names = list(passed)
    around = " -> ".join([*names[names.index(name) :], name])
    return TransformError("loop", f"The tf tree is invalid because it contains a loop: {around}; stop one publisher")
