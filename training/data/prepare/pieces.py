"""The pieces of a recording whose ego pose jumps: frames of different pieces are not related to each other."""

from __future__ import annotations

from collections.abc import Sequence

from training.recordings.frames import FrameIndex, Recording
from training.recordings.sources import RecordingError

__all__ = ["piece_starts", "related_images"]


def related_images(recording: Recording, frames: Sequence[FrameIndex]) -> list[FrameIndex]:
    """The frames without those inside a jump, and each without the images that a jump separates from its moment.

    Raises:
        RecordingError: none is left.
    """
    if not len(recording.jumps):
        return list(frames)
    kept = []
    for frame in frames:
        at = frame.stamp_ns
        images = {camera: stamp for camera, stamp in frame.images.items() if recording.related(stamp, at)}
        if recording.related(at, at) and images:
            kept.append(FrameIndex(at, images))
    if not kept:
        first = recording.jumps.texts(recording.time_text)[0]
        raise RecordingError(
            f"{recording.path}: all {len(frames)} frames are inside jumps of the ego pose on /tf; {first}; repair what "
            "publishes it, or set the limits of motion (--max-pose-step and others)"
        )
    return kept


def piece_starts(recording: Recording, frames: Sequence[FrameIndex]) -> list[int]:
    """Numbers of the frames before which the ego pose jumps, ascending; frame 0 is not one of them."""
    pairs = zip(frames, frames[1:])
    return [
        number
        for number, (one, next_one) in enumerate(pairs, 1)
        if not recording.related(one.stamp_ns, next_one.stamp_ns)
    ]
