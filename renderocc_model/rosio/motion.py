"""Motions that no vehicle makes: where the ego pose jumps, because odometry was reset, a loop was closed, or two nodes
publish the same transform.

A jump lies between two poses that follow each other. Poses before it and after it are in different pieces of the
recording: nothing may be related across it, and there is no pose inside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from renderocc_model.base.config import configuration, setting
from renderocc_model.rosio.tf_buffer import TransformBuffer, TransformError

__all__ = ["Jump", "JumpWatch", "Jumps", "MotionLimits", "find_jumps", "jumps_of"]

_WINDOW_S = 0.25  # the motion before and after two poses is measured over this time, or over one step if it is longer
_TURN_SLACK = math.radians(3.0)  # noise of the rotation between two poses
_MOST_ROUNDS = 50  # of the search, each for one jump of every cluster
_NAMED = 5  # jumps that are named one by one


@configuration
class MotionLimits:
    """How a vehicle can move. Two poses between which it would have to move otherwise have a jump between them."""

    max_speed: float = setting(70.0, "largest speed of the vehicle [m/s]", minimum=0.0, maximum=1000.0)
    max_acceleration: float = setting(
        15.0, "largest change of its speed from one pose to the next, up or down [m/s^2]", minimum=0.0, maximum=1000.0
    )
    max_yaw_rate: float = setting(
        3.0, "largest rate at which it turns, about any axis [rad/s]", minimum=0.0, maximum=1000.0
    )
    max_climb_rate: float = setting(10.0, "largest speed up or down [m/s]", minimum=0.0, maximum=1000.0)
    max_pose_step: float = setting(
        0.5,
        "noise of the ego poses: a step that is longer than the limits allow by no more than this is no jump [m]",
        minimum=0.0,
        maximum=1000.0,
    )


@dataclass(frozen=True)
class Jump:
    """One jump of the ego pose.

    Attributes:
        before_ns, after_ns: stamps of the poses before and after it.
        distance: metres between their positions.
        climb: metres between their heights.
        turn: radians between their rotations.
    """

    before_ns: int
    after_ns: int
    distance: float
    climb: float
    turn: float

    def __str__(self) -> str:
        seconds = max(self.after_ns - self.before_ns, 0) / 1e9
        parts = [f"moves {self.distance:.2f} m"]
        if abs(self.climb) > 0.5 * self.distance:
            parts[0] += f" ({self.climb:+.2f} m in height)"
        if self.turn > _TURN_SLACK:
            parts.append(f"turns {math.degrees(self.turn):.1f} degrees")
        speed = f" ({self.distance / seconds:.0f} m/s)" if seconds > 1e-6 else ""
        return f"it jumps: {' and '.join(parts)} within {seconds:.3f} s{speed}"


@dataclass(frozen=True)
class Jumps:
    """The jumps of a recording's ego pose, in the order of time."""

    items: tuple[Jump, ...] = ()

    def __post_init__(self) -> None:
        # Of poses with the same stamp a look-up takes the last: the first ones end before it.
        before = [min(jump.before_ns, jump.after_ns - 1) for jump in self.items]
        object.__setattr__(self, "_before", np.array(before, np.int64))
        object.__setattr__(self, "_after", np.array([jump.after_ns for jump in self.items], np.int64))

    def __len__(self) -> int:
        return len(self.items)

    def between(self, one_ns: int, other_ns: int) -> Jump | None:
        """The first jump that keeps two moments from being related; None if they are in the same piece.

        A moment inside a jump, where there is no pose, is not related to any, nor to itself.
        """
        if not self.items:
            return None
        first, last = min(one_ns, other_ns), max(one_ns, other_ns)
        crossed = np.flatnonzero((self._before < last) & (self._after > first))  # type: ignore[attr-defined]
        return self.items[int(crossed[0])] if crossed.size else None

    def texts(self, time_text: Callable[[int], str]) -> list[str]:
        """Lines about the first jumps, each with its time and size, and one about the others.

        Args:
            time_text: turns a stamp into text.
        """
        lines = [f"at {time_text(jump.after_ns)} {jump}" for jump in self.items[:_NAMED]]
        more = len(self.items) - len(lines)
        if more:
            last = time_text(self.items[-1].after_ns)
            lines.append(f"it jumps {more} times more, for the last time at {last}; do two nodes publish it?")
        return lines


def find_jumps(
    transforms: TransformBuffer, odom_frame: str, base_frame: str, limits: MotionLimits, from_ns: int | None = None
) -> Jumps:
    """The jumps of base_frame in odom_frame, over all poses in a buffer.

    Each moving transform between the two frames is examined at its own stamps, so that a correction that comes less
    often than odometry (map to odom) is not hidden by interpolation.

    Args:
        transforms: all of /tf and /tf_static.
        odom_frame: the fixed frame; when empty, the vehicle stands still and does not jump.
        base_frame: the vehicle's frame.
        limits: how it can move.
        from_ns: look only at poses from this stamp on, and at the few before it.
    """
    if not odom_frame:
        return Jumps()
    found: dict[tuple[int, int], Jump] = {}
    for stamps, poses in transforms.trajectories(odom_frame, base_frame, from_ns):
        for jump in jumps_of(stamps, poses, limits):
            found.setdefault((jump.before_ns, jump.after_ns), jump)
    return Jumps(tuple(found[key] for key in sorted(found)))


class JumpWatch:
    """The jumps of a pose that goes on: looks at the poses that are new, and keeps the jumps of the last few seconds.

    Args:
        transforms: of /tf and /tf_static.
        odom_frame, base_frame, limits: as for `find_jumps`.
        memory: seconds for which jumps are kept, counted back from the newest pose.
    Attributes:
        jumps: those that are kept.
        count: how many were found.
        last: the newest one.
    """

    def __init__(
        self,
        transforms: TransformBuffer,
        odom_frame: str,
        base_frame: str,
        limits: MotionLimits,
        memory: float = 60.0,
    ) -> None:
        self._transforms, self._frames, self._limits = transforms, (odom_frame, base_frame), limits
        self._memory_ns = round(memory * 1e9)
        self._newest: int | None = None
        self._known: dict[tuple[int, int], Jump] = {}
        self.jumps, self.count = Jumps(), 0
        self.last: Jump | None = None

    def reset(self) -> None:
        """Forget the jumps: time has gone back."""
        self._newest, self._known, self.jumps = None, {}, Jumps()

    def update(self) -> list[Jump]:
        """Look at the poses that have come since the last call. Returns the jumps among them, in the order of time."""
        odom_frame, base_frame = self._frames
        try:
            newest = self._transforms.latest(odom_frame, base_frame) if odom_frame else 0
        except TransformError:
            newest = 0
        if not newest or newest == self._newest:
            return []
        if self._newest is not None and newest < self._newest:
            self.reset()
        since = None if self._newest is None else self._newest - round(2e9 * _WINDOW_S)
        found = find_jumps(self._transforms, odom_frame, base_frame, self._limits, since)
        self._newest = newest
        new = [jump for jump in found.items if (jump.before_ns, jump.after_ns) not in self._known]
        if new:
            self._known |= {(jump.before_ns, jump.after_ns): jump for jump in new}
            self._known = {key: jump for key, jump in self._known.items() if key[1] > newest - self._memory_ns}
            self.jumps = Jumps(tuple(self._known[key] for key in sorted(self._known)))
            self.count, self.last = self.count + len(new), new[-1]
        return new


def jumps_of(stamps: np.ndarray, poses: np.ndarray, limits: MotionLimits) -> list[Jump]:
    """The jumps of one row of poses.

    Two poses have a jump between them if speed, turn or climb exceed the limits; or if the step does not go on from the
    motion before it or into the motion after it. With the mean velocity v over a time w next to the step, and a limit a
    of acceleration in any direction, a step of dt ends within a dt (w + dt) / 2 of v dt.

    Args:
        stamps: (N,) int64 nanoseconds, ascending; may repeat.
        poses: (N, 4, 4), odom_from_base.
        limits: how the vehicle can move.
    """
    if len(stamps) < 2:
        return []
    steps = np.diff(stamps) / 1e9
    moves = np.diff(poses[:, :3, 3], axis=0)
    distances, climbs = np.linalg.norm(moves, axis=1), moves[:, 2]
    turns = _angles(poses)
    slack = limits.max_pose_step
    impossible = distances > limits.max_speed * steps + slack
    impossible |= turns > limits.max_yaw_rate * steps + _TURN_SLACK
    impossible |= np.abs(climbs) > limits.max_climb_rate * steps + slack
    for _ in range(_MOST_ROUNDS):
        excess = _excess(stamps, poses[:, :3, 3], impossible, limits)  # (2, N - 1), before and after
        worst = _worst_of_clusters(stamps, excess)
        if not worst.size:
            break
        impossible[worst] = True  # its neighbours were measured across it, and are measured again without
    else:
        impossible |= (excess > 0).any(axis=0)
    return [
        Jump(int(stamps[i]), int(stamps[i + 1]), float(distances[i]), float(climbs[i]), float(turns[i]))
        for i in np.flatnonzero(impossible)
    ]


def _angles(poses: np.ndarray) -> np.ndarray:
    """Angles (N - 1,) of the rotations from each pose to the next, radians; accurate near zero, too."""
    changes = np.swapaxes(poses[:-1, :3, :3], 1, 2) @ poses[1:, :3, :3]
    sines = np.linalg.norm(changes - np.swapaxes(changes, 1, 2), axis=(1, 2)) / math.sqrt(8)
    cosines = (np.trace(changes, axis1=1, axis2=2) - 1) / 2
    return np.arctan2(sines, cosines)


def _excess(stamps: np.ndarray, places: np.ndarray, cut: np.ndarray, limits: MotionLimits) -> np.ndarray:
    """By how many metres each step misses what the motion before and after it allows, (2, N - 1).

    A step with 0 or less is possible. Minus infinity where there is no such motion. Steps that are `cut` are not judged
    again, and no motion is measured across them.
    """
    count = len(cut)
    steps, moves = np.diff(stamps) / 1e9, np.diff(places, axis=0)
    pieces = np.concatenate([[0], np.cumsum(cut)])  # of each pose
    starts = np.searchsorted(pieces, pieces, side="left")
    ends = np.searchsorted(pieces, pieces, side="right") - 1
    here, after = np.arange(count), np.arange(1, count + 1)
    window = round(_WINDOW_S * 1e9)
    first = np.minimum(np.searchsorted(stamps, stamps[:-1] - window, side="right") - 1, here - 1)
    last = np.maximum(np.searchsorted(stamps, stamps[1:] + window, side="left"), after + 1)
    first, last = np.maximum(first, starts[here]), np.minimum(last, ends[after])
    excess = np.full((2, count), -np.inf)
    for side, begin, end in ((0, first, here), (1, after, last)):
        seconds = (stamps[end] - stamps[begin]) / 1e9
        known = (seconds > 0) & ~cut
        velocity = (places[end] - places[begin])[known] / seconds[known, None]
        misses = np.linalg.norm(moves[known] - velocity * steps[known, None], axis=1)
        allowed = limits.max_acceleration * steps[known] * (seconds + steps)[known] / 2 + limits.max_pose_step
        excess[side, known] = misses - allowed
    return excess


def _worst_of_clusters(stamps: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Of steps with an excess (2, N - 1) that are near each other in time, the one that is a jump.

    A jump fits neither the motion before it nor that after it. Its neighbours have an excess too, because one of their
    motions is measured across it, but only one.
    """
    found = np.flatnonzero((excess > 0).any(axis=0))
    if not found.size:
        return found
    near = stamps[found[1:]] - stamps[found[:-1] + 1] <= 2e9 * _WINDOW_S
    near |= np.diff(found) <= 2  # poses that are farther apart than the window
    clusters = np.concatenate([[0], np.cumsum(~near)])
    sides = np.isfinite(excess[:, found]).sum(axis=0)
    least = np.where(sides == 2, excess[:, found].min(axis=0), excess[:, found].max(axis=0))
    order = np.lexsort((-sides, -np.round(least, 3), clusters))
    return found[order[np.concatenate([[True], np.diff(clusters[order]) > 0])]]
