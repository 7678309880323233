"""Does a vehicle's pose go on from the one before, or has the odometry jumped?"""

from __future__ import annotations

import math

import numpy as np

from ..geometry.transforms import invert

__all__ = ["OdometryJumps"]

_FASTEST, _FASTEST_TURN = 70.0, 4.0  # m/s, rad/s: no vehicle on the ground is faster
_ACCELERATION, _TURN_ACCELERATION = 12.0, 20.0  # m/s^2, rad/s^2: of hard braking and of a robot that turns on the spot
_SHORTEST = 0.02  # seconds; a speed from poses that are nearer in time would be noise
_SLACK, _TURN_SLACK = 0.5, 0.15  # m, rad: noise of an odometry


class OdometryJumps:
    """Compares each pose with the one that the motion before it leads to expect.

    A pose has jumped if no vehicle could have moved so: it is further from the expected place than an acceleration of
    12 m/s^2 (20 rad/s^2) since the last frame explains, and 0.5 m (0.15 rad) more. Slow drift is no jump.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all poses."""
        self._last: tuple[np.ndarray, int] | None = None
        self._motion: tuple[np.ndarray, float] | None = None  # m/s along odom's axes, rad/s about z

    def add(self, odom_from_base: np.ndarray, stamp_ns: int) -> str:
        """Take the next pose.

        Args:
            odom_from_base: (4, 4).
            stamp_ns: its time.
        Returns:
            One sentence about a jump, of the pose or of time; empty if there is none.
        """
        last, motion = self._last, self._motion
        seconds = 0.0 if last is None else (stamp_ns - last[1]) * 1e-9
        if last is not None and 0 <= seconds < _SHORTEST:
            return ""
        self._last, self._motion = (np.array(odom_from_base), stamp_ns), None
        if last is None:
            return ""
        if seconds < 0:
            return f"time went back by {-seconds:.1f} s"
        moved = odom_from_base[:3, 3] - last[0][:3, 3]
        turned = _yaw(invert(last[0]) @ odom_from_base)
        if motion is None:
            speed, turn = _FASTEST * seconds, _FASTEST_TURN * seconds
            error, turn_error = float(np.linalg.norm(moved)), abs(turned)
        else:
            speed, turn = _ACCELERATION * seconds**2, _TURN_ACCELERATION * seconds**2
            error = float(np.linalg.norm(moved - motion[0] * seconds))
            turn_error = abs(math.remainder(turned - motion[1] * seconds, 2 * math.pi))
        if error > speed + _SLACK or turn_error > turn + _TURN_SLACK:
            return (
                f"the vehicle's pose jumped by {error:.2f} m and {math.degrees(turn_error):.0f} degrees "
                f"within {seconds:.2f} s"
            )
        self._motion = moved / seconds, turned / seconds
        return ""


def _yaw(pose: np.ndarray) -> float:
    return math.atan2(pose[1, 0], pose[0, 0])
