"""Decides whether a LiDAR's clouds are deskewed: do their points have times, and how far does the vehicle drive?"""

from __future__ import annotations

import numpy as np

from renderocc_model.geometry.transforms import invert
from training.recordings.frames import Recording
from training.recordings.lidar_topics import read_cloud
from training.recordings.notes import was_imported
from training.recordings.point_times import PointTimes, find_point_times
from training.recordings.sources import RecordingError
from training.recordings.stamped_topic import StampedTopic

from .mapping import LabelError

__all__ = ["distance_in_scan", "scan_times"]

_EXAMINED = 5  # clouds whose fields are looked at
_MEASURED = 100  # clouds at which the vehicle's motion is measured
_SCAN_S = 0.1  # longest time of a turn, where the clouds do not tell it
_STILL = 0.1  # metres in a scan up to which the vehicle counts as standing


def scan_times(
    recording: Recording, clouds: StampedTopic, switched_off: bool
) -> tuple[PointTimes | None, dict[str, str]]:
    """Where the times of a topic's points are, if its clouds have to be deskewed; and notes about it.

    Args:
        recording: an open recording.
        clouds: its topic of clouds.
        switched_off: whether `--no-deskew` was given.
    Returns:
        The times, or None: the clouds are used as they are. The notes are lines for the terminal and for labels.yaml; a
        note 'warning' says that the vehicle moves during a scan, and how far.
    Raises:
        LabelError: a cloud cannot be read.
    """
    if not recording.odom_frame:
        return None, {"deskewing": "none: the vehicle stands still (--odom-frame is empty)"}
    if was_imported(recording.path):
        return None, {"deskewing": "none: the dataset's clouds are deskewed already"}
    steps = np.diff(clouds.stamps) / 1e9
    period = float(np.median(steps)) if len(steps) else None
    chosen = np.unique(np.linspace(0, len(clouds.stamps) - 1, _EXAMINED).round().astype(int))
    messages = []
    for stamp_ns in (clouds.stamps[index] for index in chosen):
        try:
            messages.append(read_cloud(clouds.type, clouds.read(stamp_ns)))
            times, why = find_point_times(messages[-1:], period)  # names a broken cloud
        except ValueError as error:
            where = f"{recording.path}: {clouds.topic} at {recording.time_text(stamp_ns)}"
            raise LabelError(f"{where}: {error}") from None
    times, why = find_point_times(messages, period)
    duration = times.duration if times else min(_SCAN_S, period or _SCAN_S)
    distance = distance_in_scan(recording, clouds.stamps, duration)
    moves = f"the vehicle drives up to {distance:.2f} m during a scan of {duration:.2f} s"
    if times is not None and not switched_off:
        return times, {"deskewing": f"{clouds.topic}, {times}; {moves}"}
    notes = {"deskewing": "switched off (--no-deskew)" if switched_off else f"none: {why}"}
    if distance > _STILL and not switched_off:
        notes["warning"] = (
            f"{clouds.topic} cannot be deskewed: {why}; {moves}, and its points are that far from their places if the "
            "driver has not deskewed them; let it send the time of each point, or give --no-deskew if it has"
        )
    return None, notes


def distance_in_scan(recording: Recording, stamps: list[int], duration: float) -> float:
    """Largest distance in metres that the vehicle drives within a scan that begins at one of the stamps.

    Scans without an ego pose at both ends are left out.
    """
    if not stamps:
        return 0.0
    longest = 0.0
    chosen = np.unique(np.linspace(0, len(stamps) - 1, _MEASURED).round().astype(int)).tolist()
    for begin_ns in (stamps[index] for index in chosen):
        end_ns = begin_ns + round(duration * 1e9)
        if not recording.related(begin_ns, end_ns):
            continue
        try:
            moved = invert(recording.odom_from_base(begin_ns)) @ recording.odom_from_base(end_ns)
        except RecordingError:
            continue
        longest = max(longest, float(np.linalg.norm(moved[:3, 3])))
    return longest
