"""The town: plan, houses, trees, street furniture, parked and moving traffic, all from one seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from . import buildings, furniture, people, plants, vehicles
from .plan import Block, Plan, Street
from .shade import Weather
from .shapes import Mesh, Surface, blob, box, linear
from .traffic import Drive, Mover, Traffic, lane_offset

__all__ = ["CLASSES", "Town", "build_town"]

# Ids of OCC3D_NUSCENES by name, as `renderocc_model.classes` has them.
CLASSES = {
    "others": 0, "barrier": 1, "bicycle": 2, "bus": 3, "car": 4, "construction_vehicle": 5, "motorcycle": 6,
    "pedestrian": 7, "traffic_cone": 8, "trailer": 9, "truck": 10, "manmade": 15, "vegetation": 16,
}  # fmt: skip


_CELL = 24.0  # metres; two circles of 12 m that touch lie in neighbouring cells


@dataclass
class Town:
    """A town and one drive through it.

    Attributes:
        static: all that stands still, in odom.
        drive: the recording car's trajectory.
        traffic: what moves.
        weather: sun and sky.
        plan: streets and ground.
    """

    static: Mesh
    drive: Drive
    traffic: Traffic
    weather: Weather
    plan: Plan


def build_town(seed: int, duration: float) -> Town:
    """Build the town of a seed, with traffic for a recording of `duration` seconds. Same seed, same town."""
    streams = [np.random.default_rng([seed, stream]) for stream in range(7)]
    plan = Plan(streams[0])
    drive = Drive(plan)
    builder = _Builder(plan, _Models(streams[6]))
    trees = [plants.tree(streams[1]) for _ in range(18)]
    for block in plan.blocks:
        _fill_block(builder, block, trees)
    _furnish_streets(builder, streams[2], trees)
    _park(builder, streams[3])
    _stage_beginning(builder, streams[3])
    traffic = Traffic(plan, drive, duration, len(builder.placed) + 1)
    _let_drive(builder, traffic, streams[4], duration)
    _let_walk(builder, traffic, streams[4], duration)
    static = Mesh.join([plan.ground(), builder.build()])
    return Town(static, drive, traffic, Weather.draw(streams[5]), plan)


class _Models:
    """A limited number of different models of each kind, made when first asked for: a town repeats itself a little."""

    def __init__(self, rng: np.random.Generator, count: int = 24) -> None:
        self._seed = int(rng.integers(2**31))
        self._count = count
        self._made: dict[tuple, Mesh] = {}

    def draw(self, rng: np.random.Generator, make, *options) -> Mesh:
        """One of the models that `make(rng, *options)` gives."""
        key = (make.__module__, make.__name__, *options, int(rng.integers(self._count)))
        if key not in self._made:
            # A model depends on its own number only, not on what was drawn before it.
            own = np.random.default_rng([self._seed, zlib.crc32(repr(key).encode())])
            self._made[key] = make(own, *options)
        return self._made[key]


class _Placed(NamedTuple):
    """A model and where it stands, in plan coordinates."""

    mesh: Mesh
    name: str
    x: float
    y: float
    yaw: float
    lift: float
    tilt: bool


@dataclass
class _Builder:
    """Collects models and their places; `build` makes one mesh of them and numbers the objects from 1."""

    plan: Plan
    models: _Models
    placed: list[_Placed] = field(default_factory=list)
    taken: dict[tuple[int, int], list[tuple[float, float, float]]] = field(default_factory=dict)

    def put(
        self, mesh: Mesh, name: str, x: float, y: float, yaw: float = 0.0, lift: float = 0.0, tilt: bool = False
    ) -> None:
        """Stand a mesh at a plan point as one object of a class."""
        self.placed.append(_Placed(mesh, name, x, y, yaw, lift, tilt))

    def build(self) -> Mesh:
        """Everything that was put, in odom."""
        x, y, yaw, lift, tilt = np.array([placed[2:] for placed in self.placed], float).T
        poses = self.plan.place(x, y, yaw, lift, tilt > 0)
        meshes = [placed.mesh.moved(pose) for placed, pose in zip(self.placed, poses)]
        for number, (placed, mesh) in enumerate(zip(self.placed, meshes), 1):
            mesh.labelled(CLASSES[placed.name], number)
        return Mesh.join(meshes)

    def claim(self, x: float, y: float, radius: float) -> bool:
        """Reserve a circle of the plan (at most 12 m in radius); False where it is taken."""
        i, j = int(x // _CELL), int(y // _CELL)
        for cell in ((i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)):
            for a, b, r in self.taken.get(cell, ()):
                if (x - a) ** 2 + (y - b) ** 2 < (radius + r) ** 2:
                    return False
        self.taken.setdefault((i, j), []).append((x, y, radius))
        return True


def _sides(block: Block):
    """The four sides of a block: (start, along, outward yaw, length), walking with the block on the left."""
    x0, y0, x1, y1 = block.x0, block.y0, block.x1, block.y1
    return [
        ((x0, y0), (1, 0), -np.pi / 2, x1 - x0), ((x1, y0), (0, 1), 0.0, y1 - y0),
        ((x1, y1), (-1, 0), np.pi / 2, x1 - x0), ((x0, y1), (0, -1), np.pi, y1 - y0),
    ]  # fmt: skip


def _fill_block(builder: _Builder, block: Block, trees: list[Mesh]) -> None:
    rng = np.random.default_rng(block.seed)
    fill = {"dense": _dense, "houses": _houses, "park": _park_land, "field": _field, "parking": _parking_lot, "site": _site,
            "plaza": _plaza}[block.use]  # fmt: skip
    fill(builder, block, rng, trees)


def _plant(
    builder: _Builder, rng: np.random.Generator, trees: list[Mesh], x: float, y: float, scale=(0.8, 1.2)
) -> None:
    mesh = trees[rng.integers(len(trees))].at(0, 0, 0, rng.uniform(-np.pi, np.pi), rng.uniform(*scale))
    builder.put(mesh.seeded(float(rng.uniform(0, 99))), "vegetation", x, y)


def _scatter(block: Block, rng: np.random.Generator, count: int, margin: float = 3.0) -> np.ndarray:
    low, high = np.array([block.x0, block.y0]) + margin, np.array([block.x1, block.y1]) - margin
    return rng.uniform(low, np.maximum(high, low + 0.1), (count, 2))


def _dense(builder, block, rng, trees) -> None:
    """Houses wall to wall around a courtyard."""
    depth = 12.0
    for index, (start, along, facing, length) in enumerate(_sides(block)):
        begin = 0.0 if index % 2 == 0 else depth
        end = length if index % 2 == 0 else length - depth
        at = begin
        while end - at > 7:
            width = min(rng.uniform(10, 20), end - at)
            if end - at - width < 7:
                width = end - at
            if width > 26:
                width /= 2
            if rng.random() < 0.93:
                middle = at + width / 2
                x = start[0] + along[0] * middle - np.cos(facing) * depth / 2
                y = start[1] + along[1] * middle - np.sin(facing) * depth / 2
                builder.put(buildings.house(rng, width - 0.05, depth, int(rng.integers(3, 7))), "manmade", x, y, facing)
            at += width
    for x, y in _scatter(block, rng, 5, 18):
        _plant(builder, rng, trees, x, y)


def _houses(builder, block, rng, trees) -> None:
    """Detached houses in gardens behind fences, hedges and walls."""
    for start, along, facing, length in _sides(block):
        at = 6.0
        while length - at > 15:
            lot = rng.uniform(14, 21)
            middle, width, depth = at + lot / 2, rng.uniform(7.5, 11), rng.uniform(7.5, 9.5)
            out = np.array([np.cos(facing), np.sin(facing)])
            foot = np.array(start) + np.array(along) * middle
            spot = foot - out * (rng.uniform(4.0, 6.5) + depth / 2)
            inside = block.x0 + 5 < spot[0] < block.x1 - 5 and block.y0 + 5 < spot[1] < block.y1 - 5
            if inside and builder.claim(*spot, 6.0):
                builder.put(buildings.house(rng, width, depth, int(rng.integers(1, 3))), "manmade", *spot, facing)
                beside = spot + np.array(along) * (width / 2 + 2.4)
                if lot > 17 and builder.claim(*beside, 1.0):
                    builder.put(buildings.shed(rng), "manmade", *beside, facing)
            border = foot - out * 0.5
            kind, span = rng.integers(4), lot - 4.0
            turn = facing + np.pi / 2
            if kind == 0:
                builder.put(buildings.fence(rng, span), "manmade", *border, turn)
            elif kind == 1:
                builder.put(plants.hedge(rng, span, rng.uniform(0.9, 1.7)), "vegetation", *border, turn)
            elif kind == 2:
                builder.put(buildings.garden_wall(rng, span), "manmade", *border, turn)
            for _ in range(rng.integers(1, 4)):
                spot = foot - out * rng.uniform(1.8, 3.2) + np.array(along) * rng.uniform(-lot / 2, lot / 2)
                if rng.random() < 0.35 and builder.claim(*spot, 1.5):
                    _plant(builder, rng, trees, *spot, (0.5, 0.8))
                else:
                    builder.put(builder.models.draw(rng, plants.bush), "vegetation", *spot)
            at += lot
    for x, y in _scatter(block, rng, 14, 14):
        if builder.claim(x, y, 2.0):
            _plant(builder, rng, trees, x, y)


def _park_land(builder, block, rng, trees) -> None:
    for x, y in _scatter(block, rng, 42):
        if builder.claim(x, y, 2.2):
            _plant(builder, rng, trees, x, y)
    for x, y in _scatter(block, rng, 25, 1.5):
        builder.put(builder.models.draw(rng, plants.bush), "vegetation", x, y)
    for start, along, facing, length in _sides(block):
        for at in np.arange(8, length - 8, rng.uniform(14, 22)):
            spot = np.array(start) + np.array(along) * at - np.array([np.cos(facing), np.sin(facing)]) * 0.9
            builder.put(builder.models.draw(rng, furniture.bench), "manmade", *spot, facing)


def _field(builder, block, rng, trees) -> None:
    area = (block.x1 - block.x0) * (block.y1 - block.y0)
    for x, y in _scatter(block, rng, int(area / 160)):
        if rng.random() < 0.6 and builder.claim(x, y, 2.2):
            _plant(builder, rng, trees, x, y, (0.9, 1.4))
        else:
            builder.put(builder.models.draw(rng, plants.bush), "vegetation", x, y)


def _parking_lot(builder, block, rng, trees) -> None:
    """Rows of bays as `textures` paints them: every 2.7 m, two rows of 5 m for every 16 m."""
    for column in range(int(block.x0 / 2.7) + 2, int(block.x1 / 2.7) - 1):
        for row in range(int(block.y0 // 16), int(block.y1 // 16) + 1):
            for inset, yaw in ((2.5, np.pi / 2), (13.5, -np.pi / 2)):
                x, y = (column + 0.5) * 2.7 + 0.05, row * 16 + inset
                if block.y0 + 5 < y < block.y1 - 5 and rng.random() < 0.55 and builder.claim(x, y, 1.0):
                    turn = yaw if rng.random() < 0.7 else -yaw
                    builder.put(
                        builder.models.draw(rng, vehicles.car),
                        "car",
                        x + rng.normal(0, 0.1),
                        y + rng.normal(0, 0.2),
                        turn,
                        tilt=True,
                    )
    y = (int(block.y0 // 16) + 1) * 16 + 8.0
    if y < block.y1 - 4:
        x = block.x0 + 14
        builder.put(vehicles.trailer(rng), "trailer", x + 8, y, 0.0, tilt=True)
        builder.put(vehicles.truck(rng, tractor=True), "truck", x + 8 + 1.9, y, 0.0, tilt=True)
        builder.put(builder.models.draw(rng, vehicles.bus), "bus", x + 32, y, 0.0, tilt=True)
    for x, y in _scatter(block, rng, 8, 0.5):
        edge = rng.integers(4)
        x, y = [(block.x0 + 1, y), (block.x1 - 1, y), (x, block.y0 + 1), (x, block.y1 - 1)][edge]
        if builder.claim(x, y, 1.0):
            _plant(builder, rng, trees, x, y, (0.5, 0.8))


def _site(builder, block, rng, trees) -> None:
    """A building site: machines, a shell of concrete, containers, heaps, barriers around."""
    centre = np.array([(block.x0 + block.x1) / 2, (block.y0 + block.y1) / 2])
    shell = []
    for floor in range(rng.integers(2, 4)):
        shell.append(box((-9, -7, floor * 3.2 + 3.0), (9, 7, floor * 3.2 + 3.25), Surface.CONCRETE, (0.42, 0.41, 0.39)))
        for x in (-8.5, -3, 3, 8.5):
            for y in (-6.5, 6.5):
                shell.append(
                    box(
                        (x - 0.2, y - 0.2, floor * 3.2 - 0.6),
                        (x + 0.2, y + 0.2, floor * 3.2 + 3.0),
                        Surface.CONCRETE,
                        (0.4, 0.39, 0.37),
                    )
                )
    builder.claim(*centre, 11.5)
    builder.put(Mesh.join(shell), "manmade", *centre, rng.uniform(-0.2, 0.2))
    makers = [vehicles.excavator, vehicles.excavator, vehicles.wheel_loader, vehicles.truck]
    for (x, y), make in zip(_scatter(block, rng, 40, 8), makers * 10):
        if builder.claim(x, y, 4.5):
            name = "truck" if make is vehicles.truck else "construction_vehicle"
            builder.put(make(rng), name, x, y, rng.uniform(-np.pi, np.pi), -0.02)
            makers = makers[1:]
        if rng.random() < 0.2 and builder.claim(x + 7, y, 3.0):
            builder.put(builder.models.draw(rng, furniture.container), "manmade", x + 7, y, rng.uniform(-0.3, 0.3))
    for x, y in _scatter(block, rng, 9, 6):
        if builder.claim(x, y, 2.0):
            heap = blob(
                (0, 0, -0.1),
                (rng.uniform(1, 2.5), rng.uniform(1, 2.5), rng.uniform(0.6, 1.5)),
                2,
                0.12,
                rng,
                Surface.EARTH,
                linear(140, 112, 84),
            )
            builder.put(heap, "others", x, y)
    for start, along, facing, length in _sides(block):
        out = np.array([np.cos(facing), np.sin(facing)])
        kind = rng.choice(["concrete", "plastic", "plank"])
        for at in np.arange(2, length - 2, 2.08):
            if rng.random() < 0.93:
                spot = np.array(start) + np.array(along) * at - out * 0.6
                builder.put(
                    builder.models.draw(rng, furniture.barrier, str(kind)), "barrier", *spot, facing + np.pi / 2
                )


def _plaza(builder, block, rng, trees) -> None:
    for x, y in _scatter(block, rng, 26, 3):
        if not builder.claim(x, y, 2.0):
            continue
        kind = rng.random()
        if kind < 0.45:
            builder.put(builder.models.draw(rng, furniture.planter), "manmade", x, y, rng.uniform(-np.pi, np.pi))
            if rng.random() < 0.6:
                _plant(builder, rng, trees, x, y, (0.6, 0.9))
            else:
                builder.put(builder.models.draw(rng, plants.bush), "vegetation", x, y, lift=0.45)
        elif kind < 0.8:
            builder.put(builder.models.draw(rng, furniture.bench), "manmade", x, y, rng.integers(4) * np.pi / 2)
        else:
            kiosk = buildings.shed(rng)
            builder.put(kiosk, "manmade", x, y, rng.integers(4) * np.pi / 2)
    centre = ((block.x0 + block.x1) / 2, (block.y0 + block.y1) / 2)
    if builder.claim(*centre, 8.5):
        builder.put(buildings.house(rng, 14, 12, 4), "manmade", *centre, rng.integers(4) * np.pi / 2)
    for start, along, facing, length in _sides(block):
        out = np.array([np.cos(facing), np.sin(facing)])
        for at in np.arange(1.5, length - 1, 2.5):
            builder.put(
                builder.models.draw(rng, furniture.bollard),
                "manmade",
                *(np.array(start) + np.array(along) * at - out * 0.3),
            )


def _stretches(plan: Plan):
    """Straight pieces of streets between junctions: (street, kind, from, to) in plan coordinates along the street."""
    for kind, own, others in (("y", plan.along_y, plan.along_x), ("x", plan.along_x, plan.along_y)):
        for street in own:
            for before, after in zip(others[:-1], others[1:]):
                yield street, kind, before.centre + before.reach, after.centre - after.reach


def _beside(street: Street, kind: str, along: float, side: int, offset: float) -> tuple[float, float, float]:
    """Plan point `offset` metres from the centre line on one side (1: left of increasing plan coordinate), and the yaw that
    looks from there at the road."""
    if kind == "y":
        return street.centre - side * offset, along, 0.0 if side > 0 else np.pi
    return along, street.centre + side * offset, -np.pi / 2 if side > 0 else np.pi / 2


def _furnish_streets(builder: _Builder, rng: np.random.Generator, trees: list[Mesh]) -> None:
    for street, kind, begin, end in _stretches(builder.plan):
        planted = rng.random() < 0.75
        for side in (-1, 1):
            kerb = street.half + 0.12
            for at in np.arange(begin + 4, end - 4, rng.uniform(9, 14)):
                at = at + rng.uniform(-1, 1)
                if planted and street.pavement > 2.6 and rng.random() < 0.8:
                    x, y, _ = _beside(street, kind, at, side, kerb + 0.85)
                    if builder.claim(x, y, 0.8):
                        _plant(builder, rng, trees, x, y, (0.65, 0.95))
            for at in np.arange(begin + 2, end, 27.0):
                x, y, yaw = _beside(street, kind, at + rng.uniform(0, 2), side, kerb + 0.45)
                if builder.claim(x, y, 0.3):
                    builder.put(builder.models.draw(rng, furniture.lamp_post), "manmade", x, y, yaw)
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
    """One small thing on the sidewalk."""
    near, back = kerb + 0.5, street.reach - 0.5
    x, y, yaw = _beside(street, kind, at, side, near)
    thing = rng.random()
    if thing < 0.3:
        if builder.claim(x, y, 0.4):
            towards = yaw + rng.choice([-1, 1]) * np.pi / 2
            builder.put(builder.models.draw(rng, furniture.sign), "manmade", x, y, towards)
    elif thing < 0.5:
        x, y, yaw = _beside(street, kind, at, side, back)
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
        x, y, yaw = _beside(street, kind, at, side, back)
        if builder.claim(x, y, 1.0):
            builder.put(builder.models.draw(rng, furniture.bench), "manmade", x, y, yaw)
    elif thing < 0.75:
        if builder.claim(x, y, 2.0):
            builder.put(builder.models.draw(rng, furniture.rack), "others", x, y, yaw + np.pi / 2)
            for k in np.arange(-1.4, 1.5, 0.8):
                if rng.random() < 0.6:
                    bx, by = x + k * (kind == "x"), y + k * (kind == "y")
                    builder.put(
                        builder.models.draw(rng, vehicles.bicycle), "bicycle", bx, by, yaw + rng.choice([0, np.pi])
                    )
    elif thing < 0.83:
        if builder.claim(x, y, 0.3):
            builder.put(builder.models.draw(rng, furniture.hydrant), "manmade", x, y, yaw)
    elif thing < 0.9:
        x, y, yaw = _beside(street, kind, at, side, back - 0.4)
        if street.pavement > 2.8 and builder.claim(x, y, 2.4):
            builder.put(builder.models.draw(rng, furniture.shelter), "manmade", x, y, yaw)
    elif builder.claim(x, y, 1.0):
        builder.put(builder.models.draw(rng, vehicles.motorcycle), "motorcycle", x, y, yaw + np.pi / 2)


_PARKED = {"car": 0.86, "truck": 0.05, "trailer": 0.03, "motorcycle": 0.04, "construction_vehicle": 0.02}
_MAKERS = {
    "car": (vehicles.car,), "truck": (vehicles.truck,), "motorcycle": (vehicles.motorcycle,),
    "trailer": (vehicles.trailer, False), "construction_vehicle": (vehicles.wheel_loader,),
}  # fmt: skip
_DRIVEN = {
    "car": (vehicles.car,), "truck": (vehicles.truck,), "bus": (vehicles.bus,),
    "motorcycle": (vehicles.motorcycle, True), "bicycle": (vehicles.bicycle, True),
}  # fmt: skip


def _park(builder: _Builder, rng: np.random.Generator) -> None:
    """Vehicles in the parking bays along streets: one every 6 m where bays are painted."""
    for street, kind, begin, end in _stretches(builder.plan):
        if not street.parking:
            continue
        for side in (-1, 1):
            for at in np.arange(begin + 9, end - 9, 6.0):
                x, y, yaw = _beside(street, kind, at, side, street.driving + 1.25)
                if rng.random() > 0.62 or not builder.claim(x, y, 2.4):
                    continue
                name = rng.choice(list(_PARKED), p=list(_PARKED.values()))
                # Right-hand traffic: what stands on a side looks where that side drives.
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


def _stage_beginning(builder: _Builder, rng: np.random.Generator) -> None:
    """One of every class along the first 60 m of the drive, so that a short recording has them all."""
    plan = builder.plan
    street, row = plan.along_y[1], plan.along_x[1]
    begin = row.centre + row.reach + 15
    standing = {"car", "truck", "trailer", "motorcycle", "construction_vehicle"}
    on_stage = lambda x, y: abs(x - street.centre) < street.half + 0.3 and begin - 4 < y < begin + 62
    builder.placed = [p for p in builder.placed if not (p.name in standing and on_stage(p.x, p.y))]
    bay, walk = street.driving + 1.25, street.half + 1.0
    right = lambda name, mesh, at, offset=bay, yaw=np.pi / 2: builder.put(
        mesh, name, street.centre + offset, begin + at, yaw, tilt=offset == bay
    )
    left = lambda name, mesh, at, offset=bay, yaw=-np.pi / 2: builder.put(
        mesh, name, street.centre - offset, begin + at, yaw, tilt=offset == bay
    )
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


def _let_drive(builder: _Builder, traffic: Traffic, rng: np.random.Generator, duration: float) -> None:
    """Vehicles in every lane, as dense as they can be without touching; a cyclist before the recording car."""
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


def _let_walk(builder: _Builder, traffic: Traffic, rng: np.random.Generator, duration: float) -> None:
    """People on the sidewalks, most of them walking, and on the zebra crossings."""
    plan = builder.plan
    crowd = lambda walking: [
        [pose.labelled(CLASSES["pedestrian"]) for pose in people.pedestrian(rng, walking)] for _ in range(16)
    ]
    walkers, standers = crowd(True), crowd(False)
    for street, kind, begin, end in _stretches(plan):
        for side in (-1, 1):
            for _ in range(rng.integers(2, 7)):
                walking = rng.random() < 0.8
                poses = walkers[rng.integers(len(walkers))] if walking else standers[rng.integers(len(standers))]
                speed = rng.uniform(1.0, 1.6) if walking else 0.0
                sign = rng.choice([-1, 1])
                x, y, yaw = _beside(
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
