"""Houses: walls with painted windows, roofs, and the parts that overhang."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Surface
from .shapes import box, boxes, extrude, linear, quads

__all__ = ["fence", "garden_wall", "house", "shed"]

_WALLS = [
    (206, 190, 160),
    (222, 214, 198),
    (184, 160, 128),
    (158, 88, 68),
    (140, 74, 58),
    (176, 120, 90),
    (196, 198, 194),
    (212, 176, 120),
    (150, 156, 160),
    (186, 196, 186),
    (204, 150, 128),
    (120, 112, 104),
]
_TILES = [(150, 72, 50), (120, 62, 46), (84, 76, 74), (64, 66, 70), (136, 90, 62)]


def walls(width: float, depth: float, height: float, colour, seed: float) -> Mesh:
    """The four facades of a house centred on the origin; texture runs around them from the ground up."""
    x, y = depth / 2, width / 2
    corners = np.array([[x, -y], [x, y], [-x, y], [-x, -y]])
    parts = []
    for index in range(4):
        a, b = corners[index], corners[(index + 1) % 4]
        length = float(np.hypot(*(b - a)))
        # Starting below ground hides the gap on a slope; t = 0 stays at the ground.
        face = np.array([[*a, -1.0], [*b, -1.0], [*b, height], [*a, height]])
        texture = np.array([[0, -1.0, seed], [length, -1.0, seed], [length, height, seed], [0, height, seed]])
        parts.append(quads(face[None], Surface.FACADE, colour, texture[None]))
    return Mesh.join(parts)


def gable(width: float, depth: float, height: float, rise: float, overhang: float, tile, wall) -> Mesh:
    """A pitched roof with its ridge along y, its eaves overhanging."""
    x, y = depth / 2 + overhang, width / 2 + overhang
    drop = rise * overhang / (depth / 2)
    low, top = height - drop, height + rise
    slopes = np.array(
        [
            [[x, -y, low], [x, y, low], [0, y, top], [0, -y, top]],
            [[-x, y, low], [-x, -y, low], [0, -y, top], [0, y, top]],
            [[x, y, low - 0.12], [x, -y, low - 0.12], [0, -y, top - 0.12], [0, y, top - 0.12]],
            [[-x, -y, low - 0.12], [-x, y, low - 0.12], [0, y, top - 0.12], [0, -y, top - 0.12]],
        ]
    )
    ends = extrude(
        [(-depth / 2, height - 0.08), (depth / 2, height - 0.08), (0, top - 0.08)], width / 2, Surface.CONCRETE, wall
    )
    rims = [
        box((side * x - 0.06, -y, low - 0.14), (side * x + 0.06, y, low + 0.02), Surface.PLAIN, (0.35, 0.33, 0.3))
        for side in (-1, 1)
    ]
    return Mesh.join([quads(slopes, Surface.ROOF, tile), ends, *rims])


def balcony(x: float, y: float, z: float, width: float, rng_tone: float) -> Mesh:
    """A slab with a parapet, standing 1.3 m out of the facade at x."""
    rail = (0.25 * rng_tone, 0.25 * rng_tone, 0.26 * rng_tone)
    return Mesh.join(
        [
            box((x - 0.05, y - width / 2, z - 0.18), (x + 1.3, y + width / 2, z), Surface.CONCRETE, (0.45, 0.44, 0.42)),
            box((x + 1.24, y - width / 2, z), (x + 1.3, y + width / 2, z + 0.95), Surface.PLAIN, rail),
            box((x, y - width / 2, z), (x + 1.3, y - width / 2 + 0.05, z + 0.95), Surface.PLAIN, rail),
            box((x, y + width / 2 - 0.05, z), (x + 1.3, y + width / 2, z + 0.95), Surface.PLAIN, rail),
        ]
    )


def house(rng: np.random.Generator, width: float, depth: float, storeys: int) -> Mesh:
    """A house facing +x, centred on its footprint: `width` along y, `depth` along x."""
    colour = linear(*_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.85, 1.1)
    tile = linear(*_TILES[rng.integers(len(_TILES))])
    height = storeys * 3.1 + rng.uniform(0.3, 0.9)
    front = depth / 2
    parts = [walls(width, depth, height, colour, float(rng.uniform(1, 900)))]
    if storeys <= 3 and rng.random() < 0.75:
        parts.append(gable(width, depth, height, rng.uniform(0.3, 0.5) * depth, rng.uniform(0.35, 0.7), tile, colour))
        chimney = rng.uniform(-width / 4, width / 4)
        parts.append(
            box(
                (-0.8, chimney - 0.35, height),
                (-0.2, chimney + 0.35, height + depth * 0.35 + 1),
                Surface.BRICK,
                (0.25, 0.1, 0.07),
            )
        )
    else:
        parts.append(
            box((-front, -width / 2, height - 0.2), (front, width / 2, height), Surface.CONCRETE, (0.3, 0.3, 0.3))
        )
        ledge, rise = rng.uniform(0.0, 0.4), rng.uniform(0.4, 1.0)
        side = width / 2
        for low, up in (
            ((front - 0.2, -side), (front + ledge, side)),
            ((-front - ledge, -side), (-front + 0.2, side)),
            ((-front, -side - ledge), (front, -side + 0.2)),
            ((-front, side - 0.2), (front, side + ledge)),
        ):
            parts.append(box((*low, height - 0.1), (*up, height + rise), Surface.CONCRETE, colour * 0.9))
        parts.append(box((-1.5, -1.5, height), (1.5, 1.2, height + 2.2), Surface.CONCRETE, (0.4, 0.4, 0.4)))
    if storeys >= 3 and rng.random() < 0.6:
        tone = rng.uniform(0.4, 1.8)
        for column in np.arange(-width / 2 + 2.5, width / 2 - 2.0, rng.uniform(4.0, 6.5)):
            for storey in range(1, storeys):
                parts.append(balcony(front, column, storey * 3.1 + 0.2, rng.uniform(2.4, 3.2), tone))
    if rng.random() < 0.45:
        reach, half = rng.uniform(1.0, 1.8), width * rng.uniform(0.25, 0.45)
        awning = linear(
            *[(150, 40, 36), (40, 80, 60), (210, 180, 120), (40, 60, 110), (190, 190, 184)][rng.integers(5)]
        )
        parts.append(box((front, -half, 2.75), (front + reach, half, 2.85), Surface.CLOTH, awning).pitched(0))
        parts.append(box((front + reach - 0.04, -half, 2.5), (front + reach, half, 2.85), Surface.STRIPES, awning))
    else:
        door = rng.uniform(-width / 3, width / 3)
        parts.append(
            box((front - 0.1, door - 0.55, -0.2), (front + 0.04, door + 0.55, 2.15), Surface.PLAIN, linear(80, 56, 40))
        )
        parts.append(
            box((front - 0.1, door - 0.9, 2.35), (front + 0.9, door + 0.9, 2.5), Surface.CONCRETE, (0.4, 0.38, 0.36))
        )
        parts.append(
            box((front - 0.1, door - 0.9, -0.5), (front + 0.7, door + 0.9, 0.12), Surface.CONCRETE, (0.35, 0.34, 0.33))
        )
    return Mesh.join(parts)


def shed(rng: np.random.Generator) -> Mesh:
    """A garage of 3 m by 5.5 m with its gate to +x."""
    colour = linear(*_WALLS[rng.integers(len(_WALLS))]) * 0.9
    return Mesh.join(
        [
            box(
                (-2.75, -1.5, -0.5), (2.75, 1.5, 2.6), Surface.BRICK if rng.random() < 0.5 else Surface.CONCRETE, colour
            ),
            box((2.7, -1.2, 0.0), (2.8, 1.2, 2.1), Surface.PLAIN, linear(190, 190, 186)),
            box((-2.9, -1.65, 2.6), (2.95, 1.65, 2.75), Surface.PLAIN, (0.12, 0.12, 0.12)),
        ]
    )


def fence(rng: np.random.Generator, length: float) -> Mesh:
    """A wooden fence along x, centred."""
    colour = linear(134, 106, 76) * rng.uniform(0.6, 1.3)
    height = rng.uniform(0.9, 1.6)
    x = np.arange(-length / 2, length / 2, 0.17)
    low = np.stack([x, x * 0 - 0.025, x * 0 + 0.08], -1)
    parts = [boxes(low, low + [0.11, 0.05, height - 0.08], Surface.BARK, colour)]
    parts += [
        box((-length / 2, 0.02, z), (length / 2, 0.06, z + 0.08), Surface.BARK, colour * 0.8)
        for z in (0.25, height - 0.25)
    ]
    return Mesh.join(parts)


def garden_wall(rng: np.random.Generator, length: float) -> Mesh:
    """A low wall along x, centred."""
    height = rng.uniform(0.6, 1.5)
    surface = Surface.BRICK if rng.random() < 0.6 else Surface.CONCRETE
    colour = linear(150, 86, 66) if surface == Surface.BRICK else linear(170, 166, 158)
    return Mesh.join(
        [
            box((-length / 2, -0.12, -0.4), (length / 2, 0.12, height), surface, colour),
            box((-length / 2, -0.17, height), (length / 2, 0.17, height + 0.07), Surface.CONCRETE, (0.4, 0.39, 0.37)),
        ]
    )
