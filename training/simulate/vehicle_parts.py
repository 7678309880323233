"""Paints, wheels and lamps of vehicles."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Surface
from .shapes import box, cylinder, linear

__all__ = [
    "AMBER",
    "GLASS",
    "RED_LAMP",
    "RIM",
    "TYRE",
    "UNDER",
    "WHITE_LAMP",
    "YELLOW",
    "lamps",
    "paint",
    "wheel",
    "wheels",
]

_PAINTS = [
    (235, 235, 232),
    (235, 235, 232),
    (168, 172, 176),
    (168, 172, 176),
    (96, 100, 106),
    (60, 63, 68),
    (28, 29, 32),
    (28, 29, 32),
    (30, 58, 120),
    (42, 92, 160),
    (140, 24, 28),
    (178, 36, 30),
    (30, 68, 52),
    (186, 170, 140),
    (196, 92, 30),
    (120, 156, 178),
]
TYRE, RIM, UNDER = (0.018, 0.018, 0.02), (0.32, 0.32, 0.34), (0.025, 0.025, 0.028)
GLASS = (0.03, 0.035, 0.04)
WHITE_LAMP, RED_LAMP, AMBER = (0.85, 0.85, 0.8), (0.45, 0.02, 0.015), (0.8, 0.3, 0.03)
YELLOW = linear(232, 168, 20)


def paint(rng: np.random.Generator) -> np.ndarray:
    """A random car colour, mostly a grey."""
    base = linear(*_PAINTS[rng.integers(len(_PAINTS))])
    return np.clip(base * rng.uniform(0.85, 1.15) + 0.004, 0.004, 0.9)


def wheel(x: float, y: float, radius: float, width: float, sides: int = 14) -> Mesh:
    """A wheel with its rim; its outer face lies at |y|."""
    inner = y - np.sign(y) * width / 2
    tyre = cylinder((x, inner, radius), "y", radius, width, sides, Surface.RUBBER, TYRE)
    rim = cylinder((x, inner + np.sign(y) * 0.006, radius), "y", radius * 0.62, width, 10, Surface.PLAIN, RIM)
    return Mesh.join([tyre, rim])


def wheels(xs, half_width: float, radius: float, width: float = 0.22, arches: bool = False) -> Mesh:
    """A wheel on both sides at each x; `arches` adds dark wheel arches."""
    parts = []
    for x in xs:
        for side in (-1, 1):
            parts.append(wheel(x, side * (half_width + 0.012), radius, width))
            if arches:
                house = (x, side * (half_width - 0.1), radius * 1.08)
                parts.append(cylinder(house, "y", radius * 1.2, 0.212, 14, Surface.RUBBER, UNDER))
    return Mesh.join(parts)


def lamps(x_front: float, x_rear: float, half_width: float, z_front: float, z_rear: float, size=(0.3, 0.14)) -> Mesh:
    """Headlights, tail lights and number plates, a little outside the body."""
    wide, high = size
    parts = []
    for side in (-1, 1):
        y = side * (half_width - wide / 2)
        low, up = np.array([0.03, wide / 2, high / 2]), None
        for x, z, colour in ((x_front, z_front, WHITE_LAMP), (x_rear, z_rear, RED_LAMP)):
            up = np.array([x, y, z])
            parts.append(box(up - low, up + low, Surface.LAMP, colour))
    for x in (x_front, x_rear):
        parts.append(box((x - 0.02, -0.26, 0.42), (x + 0.02, 0.26, 0.54), Surface.SIGN, (0.75, 0.75, 0.7)))
    return Mesh.join(parts)
