"""Builds the town from a seed: plan, houses, trees, street furniture, parked and moving traffic."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from . import people, plants, vehicles
from .blocks import fill_block
from .builder import CLASSES, Builder, Models, beside, stretches
from .materials import Materials, draw_materials
from .mesh import Mesh
from .plan import Plan
from .skies import draw_light, draw_weather
from .street_grid import Slopes, Verges
from .streets import furnish_streets, park_vehicles, stage_beginning
from .traffic import CRUISE, Drive, Mover, Traffic, lane_offset
from .variety import stream
from .weather import Weather

__all__ = ["CLASSES", "Town", "build_town"]


_FAST_START = 40.0  # metres after the first corner


@dataclass
class Town:
    """A town and one drive through it.

    Attributes:
        static: all objects that do not move, in odom.
        drive: the recording car's trajectory.
        traffic: all objects that move.
        weather: sun and sky.
        plan: streets and ground.
        lamps: (L, 3) positions of the street lamps' bulbs in odom.
        materials: how surfaces differ from the default ones.
    """

    static: Mesh
    drive: Drive
    traffic: Traffic
    weather: Weather
    plan: Plan
    lamps: np.ndarray
    materials: Materials | None = None


def build_town(seed: int, duration: float, varied: Collection[str] = (), speed: float = CRUISE) -> Town:
    """Build the town of a seed, with traffic for a recording of `duration` seconds. Same seed, same town.

    Args:
        varied: which of light, weather, slopes, materials and ground are drawn from a wider range (`variety.KINDS`).
        speed: of the recording car on straight streets, m/s. A car that is faster than usual begins at this speed.
    """
    streams = [np.random.default_rng([seed, stream]) for stream in range(7)]
    slopes = Slopes.draw(stream(seed, "slopes")) if "slopes" in varied else None
    plan = Plan(streams[0], slopes=slopes, verges=Verges.draw(stream(seed, "ground")) if "ground" in varied else None)
    drive = Drive(plan, cruise=speed) if speed <= CRUISE else Drive(plan, _FAST_START, speed)
    way = np.array([drive.plan_pose(t)[:2] for t in np.arange(0.0, min(duration, drive.lap), 1.0)])
    builder = Builder(plan, Models(streams[6]), way)
    trees = [plants.tree(streams[1]) for _ in range(18)]
    for block in plan.blocks:
        fill_block(builder, block, trees)
    furnish_streets(builder, streams[2], trees)
    park_vehicles(builder, streams[3])
    stage_beginning(builder, streams[3])
    traffic = Traffic(plan, drive, duration)
    _let_drive(builder, traffic, streams[4], duration)
    _let_walk(builder, traffic, streams[4], duration)
    static = Mesh.join([plan.ground(), *builder.build()])
    weather = draw_light(stream(seed, "light")) if "light" in varied else Weather.draw(streams[5])
    if "weather" in varied:
        weather = draw_weather(weather, stream(seed, "weather"))
    materials = draw_materials(stream(seed, "materials")) if "materials" in varied else None
    return Town(static, drive, traffic, weather, plan, _lamps(builder), materials)


def _lamps(builder: Builder) -> np.ndarray:
    """(L, 3) positions of the street lamps' bulbs: 2.2 m towards the road, 7 m high."""
    if not builder.lamps:
        return np.zeros((0, 3))
    poses = builder.plan.place(*np.array(builder.lamps).T)
    return (poses @ [2.2, 0.0, 7.0, 1.0])[:, :3]


_DRIVEN = {
    "car": (vehicles.car,),
    "truck": (vehicles.truck,),
    "bus": (vehicles.bus,),
    "motorcycle": (vehicles.motorcycle, True),
    "bicycle": (vehicles.bicycle, True),
}


def _let_drive(builder: Builder, traffic: Traffic, rng: np.random.Generator, duration: float) -> None:
    """Fill every lane with vehicles that do not touch, and put a cyclist ahead of the recording car."""
    plan = builder.plan
    x0, y0, x1, y1 = plan.extent
    start = plan.along_x[1].centre + plan.along_x[1].reach
    cyclist = vehicles.bicycle(rng, ridden=True).labelled(CLASSES["bicycle"])
    lane = plan.along_y[1].centre + plan.along_y[1].driving - 0.15
    traffic.add(Mover([cyclist], lane, start + 42, np.pi / 2, 3.6, 1.8, y1 - start, began=42), 1.2)
    kinds = ["car", "car", "car", "car", "truck", "bus", "motorcycle", "bicycle"]
    lengths = {"car": 4.7, "truck": 9.0, "bus": 12.0, "motorcycle": 2.1, "bicycle": 1.8}
    for kind, streets, low, high in (("y", plan.along_y, y0, y1), ("x", plan.along_x, x0, x1)):
        for street in streets:
            for sign in (1, -1):
                for lane_index in range(street.lanes):
                    speed = rng.uniform(6.0, 9.5)
                    span = high - low + speed * duration
                    for _ in range(int(span / 38)):
                        name = str(rng.choice(kinds))
                        own = speed * rng.uniform(0.95, 1.0) if name != "bicycle" else rng.uniform(3.5, 5.0)
                        offset = lane_offset(street.lanes, lane_index) if name != "bicycle" else street.driving - 0.3
                        travelled = rng.uniform(-own * duration, high - low)
                        along = (low + travelled) if sign > 0 else (high - travelled)
                        right = offset if kind == "y" else -offset
                        across = street.centre + sign * right
                        x, y = (across, along) if kind == "y" else (along, across)
                        yaw = (np.pi / 2 if kind == "y" else 0.0) + (0 if sign > 0 else np.pi)
                        mover = Mover([], x, y, yaw, own, lengths[name], high - low, began=travelled)
                        if traffic.add(mover, 2.7 if name != "bicycle" else 1.9):
                            make, *options = _DRIVEN[name]
                            mover.poses = [builder.models.draw(rng, make, *options).labelled(CLASSES[name])]


def _let_walk(builder: Builder, traffic: Traffic, rng: np.random.Generator, duration: float) -> None:
    """Put people on the sidewalks, most of them walking, and on the zebra crossings."""
    plan = builder.plan

    def crowd(walking):
        return [[pose.labelled(CLASSES["pedestrian"]) for pose in people.pedestrian(rng, walking)] for _ in range(16)]

    walkers, standers = crowd(True), crowd(False)
    for street, kind, begin, end in stretches(plan):
        for side in (-1, 1):
            for _ in range(rng.integers(2, 7)):
                walking = rng.random() < 0.8
                poses = walkers[rng.integers(len(walkers))] if walking else standers[rng.integers(len(standers))]
                speed = rng.uniform(1.0, 1.6) if walking else 0.0
                sign = rng.choice([-1, 1])
                x, y, _ = beside(
                    street,
                    kind,
                    rng.uniform(begin, end),
                    side,
                    street.half + 0.5 + rng.uniform(0.9, street.pavement - 0.6),
                )
                heading = (
                    (np.pi / 2 if kind == "y" else 0.0) + (0 if sign > 0 else np.pi)
                    if walking
                    else rng.uniform(-np.pi, np.pi)
                )
                traffic.add(Mover(poses, x, y, heading, speed, 0.6, 1e9, began=1e6, wheeled=False), 0.75)
    for vertical in plan.along_y:
        for horizontal in plan.along_x:
            for _ in range(3):
                poses = walkers[rng.integers(len(walkers))]
                wait, speed = rng.uniform(-5, duration), rng.uniform(1.1, 1.6)
                far = vertical.half + 2.7
                side, sign = rng.choice([-1, 1]), rng.choice([-1, 1])
                y = horizontal.centre + side * (horizontal.half + rng.uniform(1.6, 3.8))
                x = vertical.centre - sign * (far + speed * wait)
                mover = Mover(
                    poses, x, y, 0.0 if sign > 0 else np.pi, speed, 0.6, 2 * far, began=-speed * wait, wheeled=False
                )
                traffic.add(mover, 1.5)
