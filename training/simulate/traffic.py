"""Motion: the recording car's trajectory through the town, and the traffic, which never touches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .mesh import Mesh
from .people import WALK_PHASES
from .plan import Plan

__all__ = ["CRUISE", "SHADOW_REACH", "Drive", "Mover", "Traffic", "lane_offset"]

CRUISE = 8.0  # m/s, usual speed on straight streets
_TURNING, _BRAKING = 4.2, 1.4  # m/s, m/s^2
_TURN_RADIUS = 7.5
_STRIDE = 1.4
_BODY_STEP = 1.1  # metres between the circles that stand for a vehicle's body
_TIME_STEP = 0.2
_FAR, SHADOW_REACH = 150.0, 28.0


def lane_offset(lanes: int, lane: int = 0) -> float:
    """Distance in metres from the centre line to the right, at which a lane's middle lies; lane 0 is the outermost."""
    return (lanes - lane - 0.5) * 3.5 + (0.3 if lanes == 2 and lane == 1 else 0.0)


class Drive:
    """The recording car's trajectory: a closed loop, clockwise around the middle of the town.

    Args:
        plan: the town's plan.
        start: position at time 0, metres after the first corner.
        cruise: speed on straight streets, m/s. A faster car brakes and accelerates harder.
    """

    def __init__(self, plan: Plan, start: float = 6.0, cruise: float = CRUISE) -> None:
        self._plan = plan
        left, right = plan.along_y[1], plan.along_y[-2]
        bottom, top = plan.along_x[1], plan.along_x[-2]

        def offset(street):
            return lane_offset(street.lanes)

        x0, x1 = left.centre + offset(left), right.centre - offset(right)
        y0, y1 = bottom.centre + offset(bottom), top.centre - offset(top)
        points = _rounded(np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]]), _TURN_RADIUS)
        ox, oy = plan.bend(*points.T)
        step = np.hypot(np.diff(ox), np.diff(oy))
        self._way = np.concatenate([[0], np.cumsum(step)])
        self._points = points
        speed = _speeds(points, step, cruise)
        self._time = np.concatenate([[0], np.cumsum(step / ((speed[1:] + speed[:-1]) / 2))])
        self._start = float(np.interp(start, self._way, self._time))

    @property
    def lap(self) -> float:
        """Seconds for one loop."""
        return float(self._time[-1])

    def plan_pose(self, t: float) -> tuple[float, float, float]:
        """Plan x, y and heading of base_link at a time in seconds."""
        x, y = self._at(t)
        (ax, ay), (bx, by) = self._at(t - 0.06), self._at(t + 0.06)
        return x, y, float(np.arctan2(by - ay, bx - ax))

    def _at(self, t: float) -> tuple[float, float]:
        when = (t + self._start) % self.lap
        return float(np.interp(when, self._time, self._points[:, 0])), float(
            np.interp(when, self._time, self._points[:, 1])
        )

    def odom_from_base(self, t: float) -> np.ndarray:
        """Pose (4, 4) of base_link at a time in seconds. It lies on the road, under the middle of the rear axle."""
        pose = self._plan.place(*self.plan_pose(t), tilt=True)
        return pose if self._plan.slopes is None else pose @ _swayed(t, self._plan.slopes.sway)


def _swayed(t: float, sway: float) -> np.ndarray:
    """(4, 4) level_from_base: the body's pitch and roll on its springs, up to about `sway` radians."""
    roll = sway * (0.6 * np.sin(2 * np.pi * 0.31 * t) + 0.4 * np.sin(2 * np.pi * 1.13 * t + 1.0))
    pitch = sway * (0.6 * np.sin(2 * np.pi * 0.23 * t + 2.0) + 0.4 * np.sin(2 * np.pi * 1.37 * t))
    cr, sr, cp, sp = np.cos(roll), np.sin(roll), np.cos(pitch), np.sin(pitch)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return pose


def _rounded(corners: np.ndarray, radius: float) -> np.ndarray:
    """A closed polyline with rounded corners, clockwise, with a point every 0.1 m. It begins after the first corner."""
    pieces = []
    count = len(corners)
    for k in range(count):
        a, b, c = corners[k], corners[(k + 1) % count], corners[(k + 2) % count]
        into, out = (b - a) / np.linalg.norm(b - a), (c - b) / np.linalg.norm(c - b)
        first, last = a + into * radius, b - into * radius
        steps = int(np.linalg.norm(last - first) / 0.1)
        pieces.append(first + (last - first) * np.linspace(0, 1, steps, endpoint=False)[:, None])
        centre = last + out * radius
        angle = np.linspace(0, np.pi / 2, int(radius * np.pi / 2 / 0.1), endpoint=False)[:, None]
        pieces.append(centre - out * radius * np.cos(angle) + into * radius * np.sin(angle))
    points = np.concatenate(pieces)
    return np.concatenate([points, points[:1]])


def _speeds(points: np.ndarray, step: np.ndarray, cruise: float) -> np.ndarray:
    """Speed at every point: slow in bends, with braking before and acceleration after them."""
    direction = np.diff(points, axis=0)
    heading = np.unwrap(np.arctan2(direction[:, 1], direction[:, 0]))
    turning = np.abs(np.gradient(heading)) / np.maximum(step, 1e-6) > 0.02
    speed = np.where(np.append(turning, turning[0]), _TURNING, cruise)
    braking = _BRAKING * max(cruise / CRUISE, 1.0) ** 2
    for _ in range(2):  # two loops, so that braking before the start affects the end
        for order in (range(len(step)), range(len(step) - 1, -1, -1)):
            for k in order:
                a, b = (k, k + 1) if order.step > 0 else (k + 1, k)
                speed[b] = min(speed[b], (speed[a] ** 2 + 2 * braking * step[k]) ** 0.5)
        speed[0] = speed[-1] = min(speed[0], speed[-1])
    return speed


@dataclass
class Mover:
    """An object that moves along a straight line of the plan.

    Attributes:
        poses: its mesh, or one mesh for each phase of its stride.
        x, y, yaw: plan position at time 0, and direction.
        speed: m/s.
        length: metres.
        until: length of its way in metres; at its end, where the street ends, it disappears.
        began: metres that it has moved before time 0; negative if it appears later.
        wheeled: whether it leans with the slope of the road.
    """

    poses: list[Mesh]
    x: float
    y: float
    yaw: float
    speed: float
    length: float
    until: float
    began: float = 0.0
    wheeled: bool = True

    def at(self, t: Any) -> tuple[Any, Any]:
        """Plan position at a time, or at each of many."""
        return self.x + self.speed * t * np.cos(self.yaw), self.y + self.speed * t * np.sin(self.yaw)

    def exists(self, t: float) -> bool:
        return 0 <= self.speed * t + self.began < self.until


class Traffic:
    """Moving objects that never touch one another or the recording car during a recording.

    Args:
        duration: length of the recording, seconds.
    """

    def __init__(self, plan: Plan, drive: Drive, duration: float) -> None:
        self._plan = plan
        self._times = np.arange(-0.5, duration + 1.0, _TIME_STEP)
        self.movers: list[Mover] = []
        self._bodies: list[np.ndarray] = []
        self._middles = np.full((64, len(self._times), 2), np.nan)
        self._reaches = np.zeros(64)
        way = np.array([drive.plan_pose(t) for t in self._times])
        # base_link lies under the rear axle: the car reaches from 1 m behind it to 3.7 m before it.
        self._remember(*self._body(way[:, 0], way[:, 1], way[:, 2], 1.35, -0.9, 3.6))

    def _body(self, x, y, yaw, centre: float, rear: float, front: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Circles along a body over time (T, K, 2), its middle (T, 2), and its half-length."""
        along = np.linspace(rear, front, max(1, int(np.ceil((front - rear) / _BODY_STEP)) + 1))
        direction = np.stack(np.broadcast_arrays(np.cos(yaw), np.sin(yaw)), -1) * np.ones((len(self._times), 1))
        middle = np.stack([x, y], -1)
        return (
            middle[:, None] + along[None, :, None] * direction[:, None],
            middle + centre * direction,
            (front - rear) / 2,
        )

    def add(self, mover: Mover, clearance: float = 2.6) -> bool:
        """Add a moving object, unless it would come within `clearance` metres (between body axes) of another."""
        x, y = mover.at(self._times)
        exists = np.array([mover.exists(t) for t in self._times])
        half = max(mover.length / 2 - 0.9, 0.0)
        circles, middle, reach = self._body(x, y, np.full(len(x), mover.yaw), 0.0, -half, half)
        middle = np.where(exists[:, None], middle, np.nan)
        middles, reaches = self._middles[: len(self._bodies)], self._reaches[: len(self._bodies)]
        distance2 = ((middles - middle) ** 2).sum(-1)  # NaN, and so never near, while one does not exist
        near = distance2 < (reaches[:, None] + reach + clearance) ** 2
        for index in np.flatnonzero(near.any(1)):
            gap = circles[near[index]][:, :, None] - self._bodies[index][near[index]][:, None]
            if (gap**2).sum(-1).min() < clearance**2:
                return False
        self._remember(circles, middle, reach)
        self.movers.append(mover)
        return True

    def _remember(self, circles: np.ndarray, middle: np.ndarray, reach: float) -> None:
        count = len(self._bodies)
        if count == len(self._reaches):
            self._middles = np.concatenate([self._middles, np.full_like(self._middles, np.nan)])
            self._reaches = np.concatenate([self._reaches, np.zeros_like(self._reaches)])
        self._middles[count], self._reaches[count] = middle, reach
        self._bodies.append(circles)

    def mesh(self, t: float, seen_from: np.ndarray) -> Mesh:
        """All models that `models` gives for a view all around, as one mesh in odom."""
        return Mesh.join([model.moved(pose) for model, pose in self.models(t, seen_from)])

    def models(
        self,
        t: float,
        seen_from: np.ndarray,
        axis: np.ndarray | None = None,
        half_angle: float = np.pi,
        reach: float = _FAR,
    ) -> list[tuple[Mesh, np.ndarray]]:
        """The moving models that a sensor can see at a time, each with its odom_from_model (4, 4).

        Args:
            t: seconds.
            seen_from: (3,) the sensor's position in odom.
            axis: (3,) the sensor's direction; None for a view all around.
            half_angle: radians that it sees on either side of its axis. Models outside this angle are kept only if
                they are near enough to cast a shadow into the image.
            reach: metres.
        """
        present = [mover for mover in self.movers if mover.exists(t)]
        if not present:
            return []
        columns = np.array([(*mover.at(t), mover.yaw, mover.wheeled) for mover in present]).T
        poses = self._plan.place(columns[0], columns[1], columns[2], tilt=columns[3] > 0)
        offset = poses[:, :2, 3] - np.asarray(seen_from)[:2]
        distance = np.hypot(*offset.T)
        kept = distance < reach
        if axis is not None:
            turn = np.arctan2(offset[:, 1], offset[:, 0]) - np.arctan2(axis[1], axis[0])
            beside = np.abs((turn + np.pi) % (2 * np.pi) - np.pi) > half_angle + np.arctan2(7.0, distance)
            kept &= ~beside | (distance < np.where(columns[3] > 0, SHADOW_REACH, SHADOW_REACH / 3))
        models = []
        for index in np.flatnonzero(kept):
            mover = present[index]
            phase = int((mover.speed * t + 1000 * _STRIDE) / _STRIDE * WALK_PHASES) % len(mover.poses)
            models.append((mover.poses[phase], poses[index]))
        return models
