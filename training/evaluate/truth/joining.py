"""Which recordings can be joined: those whose drives come near each other in one fixed frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.recordings.frames import Recording
from training.recordings.sources import RecordingError

__all__ = ["Footprint", "footprint", "neighbours"]

_APART = 1.0  # metres between the places of a footprint
_BLOCK = 1000  # places that are compared at a time


@dataclass(frozen=True)
class Footprint:
    """The fixed frame of a recording's ego poses, and the places (N, 2) in it that the vehicle passed, metres."""

    frame: str
    places: np.ndarray


def footprint(recording: Recording) -> Footprint:
    """The footprint of an open recording.

    Raises:
        RecordingError: it has no ego poses, or they jump, so that it is in more than one frame.
    """
    path = recording.path
    if not recording.odom_frame:
        raise RecordingError(f"{path}: has no fixed frame, so nothing can be joined with it; leave it out of --join")
    if len(recording.jumps):
        raise RecordingError(
            f"{path}: its ego pose jumps ({recording.jumps.texts(recording.time_text)[0]}), so it is not in one frame; "
            "cut it there, or leave it out of --join"
        )
    places: list[np.ndarray] = []
    for stamp_ns in recording.reader.pose_stamps:
        try:
            place = recording.odom_from_base(stamp_ns)[:2, 3]
        except RecordingError:
            continue
        if not places or np.linalg.norm(place - places[-1]) >= _APART:
            places.append(place)
    if not places:
        raise RecordingError(f"{path}: not one ego pose can be used; leave it out of --join")
    return Footprint(recording.reader.named, np.stack(places))


def neighbours(footprints: Mapping[Path, Footprint], reach: float) -> tuple[dict[Path, list[Path]], list[str]]:
    """The recordings whose drives come near each one's, and warnings about those that are alone.

    Args:
        footprints: of each recording.
        reach: largest distance in metres between two drives that share surroundings.
    Raises:
        ValueError: the fixed frames have different names, or no two recordings come near each other.
    """
    bags = list(footprints)
    first = bags[0]
    for bag in bags[1:]:
        if footprints[bag].frame != footprints[first].frame:
            raise ValueError(
                f"--join: the ego poses of {first} are in '{footprints[first].frame}', those of {bag} in "
                f"'{footprints[bag].frame}'; name one frame that both have with --odom-frame, such as a map's"
            )
    apart = {
        (one, other): distance(footprints[one].places, footprints[other].places)
        for index, one in enumerate(bags)
        for other in bags[index + 1 :]
    }
    near: dict[Path, list[Path]] = {bag: [] for bag in bags}
    for (one, other), metres in apart.items():
        if metres <= reach:
            near[one].append(other)
            near[other].append(one)
    if not any(near.values()):
        (one, other), metres = min(apart.items(), key=lambda item: item[1])
        raise ValueError(
            f"--join: no two recordings come within {reach:g} m of each other, so there is nothing to join; the "
            f"nearest are {one} and {other}, {_metres(metres)} apart in '{footprints[first].frame}'"
        )
    alone = []
    for bag in (bag for bag in bags if not near[bag]):
        metres = min(far for pair, far in apart.items() if bag in pair)
        alone.append(f"{bag}: is {_metres(metres)} from the nearest other recording; nothing is joined with it")
    return near, alone


def distance(places: np.ndarray, others: np.ndarray) -> float:
    """The smallest distance between places (N, 2) and others (M, 2)."""
    least = np.inf
    for begin in range(0, len(places), _BLOCK):
        block = places[begin : begin + _BLOCK, None] - others[None]
        least = min(least, float((block**2).sum(axis=-1).min()))
    return float(np.sqrt(least))


def _metres(metres: float) -> str:
    return f"{metres / 1000:.1f} km" if metres >= 1000 else f"{metres:.0f} m"
