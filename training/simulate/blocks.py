"""What is built on the blocks between streets: houses, gardens, parks, parking lots, building sites, squares."""

from __future__ import annotations

import numpy as np

from . import buildings, furniture, plants, vehicles
from .builder import Builder
from .mesh import Mesh, Surface
from .shapes import blob, box, linear
from .street_grid import Block

__all__ = ["fill_block"]


def _sides(block: Block):
    """The four sides of a block: (start, along, outward yaw, length), walking with the block on the left."""
    x0, y0, x1, y1 = block.x0, block.y0, block.x1, block.y1
    return [
        ((x0, y0), (1, 0), -np.pi / 2, x1 - x0),
        ((x1, y0), (0, 1), 0.0, y1 - y0),
        ((x1, y1), (-1, 0), np.pi / 2, x1 - x0),
        ((x0, y1), (0, -1), np.pi, y1 - y0),
    ]


def fill_block(builder: Builder, block: Block, trees: list[Mesh]) -> None:
    rng = np.random.default_rng(block.seed)
    fill = {
        "dense": _dense,
        "houses": _houses,
        "park": _park_land,
        "field": _field,
        "parking": _parking_lot,
        "site": _site,
        "plaza": _plaza,
    }[block.use]
    fill(builder, block, rng, trees)


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
        builder.plant(rng, trees, x, y)


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
                    builder.plant(rng, trees, *spot, (0.5, 0.8))
                else:
                    builder.put(builder.models.draw(rng, plants.bush), "vegetation", *spot)
            at += lot
    for x, y in _scatter(block, rng, 14, 14):
        if builder.claim(x, y, 2.0):
            builder.plant(rng, trees, x, y)


def _park_land(builder, block, rng, trees) -> None:
    for x, y in _scatter(block, rng, 42):
        if builder.claim(x, y, 2.2):
            builder.plant(rng, trees, x, y)
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
            builder.plant(rng, trees, x, y, (0.9, 1.4))
        else:
            builder.put(builder.models.draw(rng, plants.bush), "vegetation", x, y)


def _parking_lot(builder, block, rng, trees) -> None:
    """Rows of parking bays as `textures` paints them: bays of 2.7 m by 5 m, two rows in every 16 m."""
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
            builder.plant(rng, trees, x, y, (0.5, 0.8))


def _site(builder, block, rng, trees) -> None:
    """A building site with barriers around it: machines, a concrete shell, containers, heaps."""
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
                builder.plant(rng, trees, x, y, (0.6, 0.9))
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
