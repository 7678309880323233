"""Objects in the streets: trees, lamps, signs, and parked vehicles."""

from __future__ import annotations

import numpy as np

from . import furniture, vehicles
from .builder import Builder, beside, stretches
from .mesh import Mesh

__all__ = ["furnish_streets", "park_vehicles", "stage_beginning"]


def furnish_streets(builder: Builder, rng: np.random.Generator, trees: list[Mesh]) -> None:
    for street, kind, begin, end in stretches(builder.plan):
        planted = rng.random() < 0.75
        for side in (-1, 1):
            kerb = street.half + 0.12
            for at in np.arange(begin + 4, end - 4, rng.uniform(9, 14)):
                at = at + rng.uniform(-1, 1)
                if planted and street.pavement > 2.6 and rng.random() < 0.8:
                    x, y, _ = beside(street, kind, at, side, kerb + 0.85)
                    if builder.claim(x, y, 0.8):
                        builder.plant(rng, trees, x, y, (0.65, 0.95))
            for at in np.arange(begin + 2, end, 27.0):
                x, y, yaw = beside(street, kind, at + rng.uniform(0, 2), side, kerb + 0.45)
                if builder.claim(x, y, 0.3):
                    builder.put(builder.models.draw(rng, furniture.lamp_post), "manmade", x, y, yaw)
                    builder.lamps.append((x, y, yaw))
            for at in rng.uniform(begin + 3, end - 3, 7):
                _furnish(builder, rng, street, kind, at, side, kerb)
    for vertical in builder.plan.along_y:
        for horizontal in builder.plan.along_x:
            for sx, sy, yaw in ((1, -1, np.pi), (-1, 1, 0.0), (1, 1, -np.pi / 2), (-1, -1, np.pi / 2)):
                x, y = vertical.centre + sx * (vertical.half + 0.8), horizontal.centre + sy * (horizontal.half + 0.8)
                if builder.claim(x, y, 0.3):
                    builder.put(
                        builder.models.draw(rng, furniture.signal, (3.4, 4.6)[rng.integers(2)]), "manmade", x, y, yaw
                    )


def _furnish(builder, rng, street, kind, at, side, kerb) -> None:
    """Put one small object on the sidewalk."""
    near, back = kerb + 0.5, street.reach - 0.5
    x, y, yaw = beside(street, kind, at, side, near)
    thing = rng.random()
    if thing < 0.3:
        if builder.claim(x, y, 0.4):
            towards = yaw + rng.choice([-1, 1]) * np.pi / 2
            builder.put(builder.models.draw(rng, furniture.sign), "manmade", x, y, towards)
    elif thing < 0.5:
        x, y, yaw = beside(street, kind, at, side, back)
        for k in range(rng.integers(1, 4)):
            if builder.claim(x + 0.7 * k * (kind == "x"), y + 0.7 * k * (kind == "y"), 0.3):
                builder.put(
                    builder.models.draw(rng, furniture.bin_),
                    "others",
                    x + 0.7 * k * (kind == "x"),
                    y + 0.7 * k * (kind == "y"),
                    yaw,
                )
    elif thing < 0.65:
        x, y, yaw = beside(street, kind, at, side, back)
        if builder.claim(x, y, 1.0):
            builder.put(builder.models.draw(rng, furniture.bench), "manmade", x, y, yaw)
    elif thing < 0.75:
        if builder.claim(x, y, 2.0):
            builder.put(builder.models.draw(rng, furniture.rack), "others", x, y, yaw + np.pi / 2)
            for along in np.arange(-1.4, 1.5, 0.8):
                if rng.random() < 0.6:
                    bx, by = x + along * (kind == "x"), y + along * (kind == "y")
                    builder.put(
                        builder.models.draw(rng, vehicles.bicycle), "bicycle", bx, by, yaw + rng.choice([0, np.pi])
                    )
    elif thing < 0.83:
        if builder.claim(x, y, 0.3):
            builder.put(builder.models.draw(rng, furniture.hydrant), "manmade", x, y, yaw)
    elif thing < 0.9:
        x, y, yaw = beside(street, kind, at, side, back - 0.4)
        if street.pavement > 2.8 and builder.claim(x, y, 2.4):
            builder.put(builder.models.draw(rng, furniture.shelter), "manmade", x, y, yaw)
    elif builder.claim(x, y, 1.0):
        builder.put(builder.models.draw(rng, vehicles.motorcycle), "motorcycle", x, y, yaw + np.pi / 2)


_PARKED = {"car": 0.86, "truck": 0.05, "trailer": 0.03, "motorcycle": 0.04, "construction_vehicle": 0.02}
_MAKERS = {
    "car": (vehicles.car,),
    "truck": (vehicles.truck,),
    "motorcycle": (vehicles.motorcycle,),
    "trailer": (vehicles.trailer, False),
    "construction_vehicle": (vehicles.wheel_loader,),
}


def park_vehicles(builder: Builder, rng: np.random.Generator) -> None:
    """Vehicles in the parking bays along streets: one every 6 m where bays are painted."""
    for street, kind, begin, end in stretches(builder.plan):
        if not street.parking:
            continue
        for side in (-1, 1):
            for at in np.arange(begin + 9, end - 9, 6.0):
                x, y, yaw = beside(street, kind, at, side, street.driving + 1.25)
                if rng.random() > 0.62 or not builder.claim(x, y, 2.4):
                    continue
                name = rng.choice(list(_PARKED), p=list(_PARKED.values()))
                # Right-hand traffic: parked vehicles face the direction in which their side drives.
                heading = yaw + np.pi / 2 + (np.pi if rng.random() < 0.06 else 0)
                make, *options = _MAKERS[name]
                mesh = builder.models.draw(rng, make, *options)
                builder.put(
                    mesh,
                    name,
                    x + rng.normal(0, 0.08),
                    y + rng.normal(0, 0.08),
                    heading + rng.normal(0, 0.02),
                    tilt=True,
                )


def stage_beginning(builder: Builder, rng: np.random.Generator) -> None:
    """One object of every class along the first 60 m of the drive, so that a short recording has all classes."""
    plan = builder.plan
    street, row = plan.along_y[1], plan.along_x[1]
    begin = row.centre + row.reach + 15
    standing = {"car", "truck", "trailer", "motorcycle", "construction_vehicle"}

    def on_stage(x, y):
        return abs(x - street.centre) < street.half + 0.3 and begin - 4 < y < begin + 62

    builder.placed = [p for p in builder.placed if not (p.name in standing and on_stage(p.x, p.y))]
    bay, walk = street.driving + 1.25, street.half + 1.0

    def right(name, mesh, at, offset=bay, yaw=np.pi / 2):
        return builder.put(mesh, name, street.centre + offset, begin + at, yaw, tilt=offset == bay)

    def left(name, mesh, at, offset=bay, yaw=-np.pi / 2):
        return builder.put(mesh, name, street.centre - offset, begin + at, yaw, tilt=offset == bay)

    right("car", builder.models.draw(rng, vehicles.car), 0)
    for k in range(4):
        right("traffic_cone", builder.models.draw(rng, furniture.cone), 4.5 + 1.4 * k, street.driving + 0.35)
    right("construction_vehicle", vehicles.excavator(rng), 12)
    for k in range(4):
        right("barrier", furniture.barrier(rng), 8 + 2.1 * k, street.driving + 0.1)
    right("truck", vehicles.truck(rng), 22)
    right("motorcycle", builder.models.draw(rng, vehicles.motorcycle), 28.5)
    right("bus", builder.models.draw(rng, vehicles.bus), 37)
    right("trailer", vehicles.trailer(rng, semi=False), 46)
    right("car", builder.models.draw(rng, vehicles.car), 52)
    left("trailer", vehicles.trailer(rng), 14, yaw=-np.pi / 2)
    left("truck", vehicles.truck(rng, tractor=True), 14 - 1.9)
    left("car", builder.models.draw(rng, vehicles.car), 34)
    left("car", builder.models.draw(rng, vehicles.car), 41)
    left("bicycle", builder.models.draw(rng, vehicles.bicycle), 8, walk, yaw=-1.2)
    left("others", builder.models.draw(rng, furniture.bin_), 10, walk)
    left("others", builder.models.draw(rng, furniture.bin_), 10.8, walk)
