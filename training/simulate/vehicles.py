"""Vehicles of every class. Their shapes and colours are drawn at random.

The name of this module is part of the seed of each model (`builder.Models`): a model that moves looks different.
"""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Surface
from .people import figure
from .shapes import blob, box, cylinder, extrude, linear, loft, tube
from .vehicle_parts import GLASS, RED_LAMP, RIM, TYRE, UNDER, WHITE_LAMP, YELLOW, lamps, paint, wheels

__all__ = ["bicycle", "bus", "car", "excavator", "motorcycle", "trailer", "truck", "wheel_loader"]

# style: length, width, height, hood height, boot height, belt height, then x as fractions of the length from the rear:
# rear window's foot, roof's rear, roof's front, windscreen's foot.
_CARS = {
    "sedan": (4.65, 1.82, 1.44, 0.86, 1.00, 0.90, 0.16, 0.32, 0.56, 0.75),
    "hatch": (4.05, 1.76, 1.48, 0.88, 1.06, 0.92, 0.025, 0.12, 0.54, 0.76),
    "estate": (4.70, 1.84, 1.48, 0.87, 1.02, 0.91, 0.02, 0.09, 0.57, 0.75),
    "suv": (4.60, 1.90, 1.70, 1.04, 1.12, 1.06, 0.025, 0.11, 0.56, 0.74),
    "van": (5.30, 2.02, 2.15, 1.12, 1.20, 1.20, 0.012, 0.05, 0.74, 0.87),
}


def car(rng: np.random.Generator) -> Mesh:
    """A sedan, hatchback, estate, SUV or van."""
    style = rng.choice(list(_CARS), p=[0.27, 0.27, 0.14, 0.22, 0.10])
    length, width, height, hood, boot, belt, foot, rear, front, screen = _CARS[style]
    length, height, half = length * rng.uniform(0.95, 1.05), height * rng.uniform(0.98, 1.03), width / 2

    def at(fraction):
        return (fraction - 0.5) * length

    sill, roof = 0.24 if style != "suv" else 0.32, half * 0.66 if style != "van" else half * 0.84
    pillar = at((rear + front) / 2 + 0.02)

    def body(x, mid, top, top_half, inset=0.0, lift=0.0):
        return (
            x,
            half - 0.05 - inset,
            sill + lift,
            half - inset * 0.8,
            mid,
            top_half - inset,
            top,
        )

    stations = [
        body(at(0.0), 0.72, boot * 0.86, half * 0.80, 0.16, 0.14),
        body(at(0.018), 0.80, boot * 0.95, half * 0.84, 0.05, 0.06),
        body(at(foot) + 0.03, belt - 0.03, boot, half * 0.86),
        body(at(rear), belt, height - 0.02, roof),
        body(pillar, belt, height, roof * 1.01),
        body(pillar + 0.09, belt, height, roof * 1.01),
        body(at(front), belt - 0.01, height - 0.01, roof),
        body(at(screen), belt - 0.05, hood + 0.08, half * 0.84),
        body(at(0.93), belt - 0.13, hood - 0.03, half * 0.82),
        body(at(0.982), 0.68, hood * 0.80, half * 0.80, 0.07, 0.05),
        body(at(1.0), 0.56, hood * 0.66, half * 0.74, 0.18, 0.14),
    ]
    surfaces = np.full((10, 3), Surface.PAINT, np.uint8)
    colours = np.tile(paint(rng), (10, 3, 1))
    closed_van = style == "van" and rng.random() < 0.6
    glazed = [5, 6] if closed_van else [2, 3, 5, 6]
    for interval in glazed:
        surfaces[interval, 1], colours[interval, 1] = Surface.GLASS, GLASS
    for interval in (6,) if closed_van else (2, 6):
        surfaces[interval, 2], colours[interval, 2] = Surface.GLASS, GLASS
    radius = 0.31 if style in ("sedan", "hatch", "estate") else 0.35
    parts = [loft(stations, surfaces, colours), wheels((at(0.19), at(0.81)), half, radius, arches=True)]
    parts.append(lamps(at(0.985), at(0.008), half - 0.12, 0.66, 0.84))
    for x in (at(0.0) + 0.1, at(1.0) - 0.1):
        parts.append(box((x - 0.12, -half + 0.16, sill + 0.08), (x + 0.12, half - 0.16, sill + 0.26), colour=UNDER))
    for side in (-1, 1):
        y = side * (half + 0.07)
        x = at(screen) - 0.28
        parts.append(box((x, y - 0.1, belt), (x + 0.14, y + 0.1, belt + 0.15), Surface.PAINT, colours[0, 0]))
    return Mesh.join(parts)


def bus(rng: np.random.Generator) -> Mesh:
    """A city bus of 9 to 12 m."""
    length, half = rng.uniform(9.5, 12.0), 1.26
    base = linear(*[(200, 40, 36), (236, 196, 40), (28, 96, 168), (230, 232, 234), (40, 120, 84)][rng.integers(5)])
    skirt = base * 0.5 if rng.random() < 0.5 else base
    edges = [-length / 2, -length / 2 + 0.3]
    while edges[-1] < length / 2 - 2.0:
        edges += [edges[-1] + 1.25, edges[-1] + 1.37]
    edges += [length / 2 - 0.25, length / 2]
    inset = np.zeros(len(edges))
    inset[[0, -1]] = 0.1
    levels = ((half - 0.03, 0.32), (half, 1.1), (half - 0.02, 2.55), (half - 0.12, 3.05))
    stations = [[x, *np.ravel([(w - cut, z) for w, z in levels])] for x, cut in zip(edges, inset)]
    count = len(edges) - 1
    surfaces = np.full((count, 4), Surface.PAINT, np.uint8)
    colours = np.tile(base, (count, 4, 1)).astype(np.float32)
    colours[:, 0] = skirt
    for interval in range(1, count):
        if edges[interval + 1] - edges[interval] > 0.5:
            surfaces[interval, 1], colours[interval, 1] = Surface.GLASS, GLASS
    parts = [loft(stations, surfaces, colours)]
    front, rear = length / 2, -length / 2
    parts.append(box((front - 0.1, -1.1, 1.0), (front + 0.012, 1.1, 2.45), Surface.GLASS, GLASS))
    parts.append(box((front - 0.1, -0.8, 2.55), (front + 0.015, 0.8, 2.85), Surface.LAMP, (0.5, 0.32, 0.04)))
    parts.append(box((rear - 0.012, -0.9, 1.5), (rear + 0.1, 0.9, 2.4), Surface.GLASS, GLASS))
    for x in (front - 2.2, 0.2):
        parts.append(box((x - 0.62, -half - 0.012, 0.4), (x + 0.62, -half + 0.1, 2.5), Surface.GLASS, GLASS))
    parts.append(box((-length * 0.3, -0.7, 3.03), (length * 0.1, 0.7, 3.3), Surface.PLAIN, (0.6, 0.6, 0.6)))
    parts.append(wheels((length / 2 - 2.6, -length / 2 + 2.9), half, 0.48, 0.3, arches=True))
    parts.append(lamps(front, rear, half - 0.05, 0.72, 1.0, (0.34, 0.2)))
    return Mesh.join(parts)


def truck_cab(rng: np.random.Generator, x: float, colour: np.ndarray) -> Mesh:
    """A cab-over-engine cab with its rear wall at x."""
    half, height = 1.2, rng.uniform(2.6, 3.1)

    def levels(top, cut):
        return (half - 0.02 - cut, 0.55, half - cut, 1.55, half - 0.12 - cut, top)

    stations = [
        (x, *levels(height, 0.0)),
        (x + 0.75, *levels(height, 0.0)),
        (x + 1.65, *levels(height * 0.97, 0.0)),
        (x + 2.0, *levels(height * 0.78, 0.04)),
    ]
    surfaces = np.full((3, 3), Surface.PAINT, np.uint8)
    colours = np.tile(colour, (3, 3, 1)).astype(np.float32)
    surfaces[1, 1], colours[1, 1] = Surface.GLASS, GLASS
    surfaces[2, 2], colours[2, 2] = Surface.GLASS, GLASS
    parts = [loft(stations, surfaces, colours)]
    parts.append(box((x + 1.9, -1.0, 1.5), (x + 2.012, 1.0, height * 0.76), Surface.GLASS, GLASS))
    parts.append(box((x + 1.8, -1.1, 0.35), (x + 2.05, 1.1, 0.75), Surface.PLAIN, UNDER))
    for side in (-1, 1):
        parts.append(box((x + 1.75, side * 1.32 - 0.1, 1.6), (x + 1.87, side * 1.32 + 0.1, 2.3), colour=UNDER))
        parts.append(
            box((x + 2.0, side * 0.85 - 0.18, 0.85), (x + 2.03, side * 0.85 + 0.18, 1.02), Surface.LAMP, WHITE_LAMP)
        )
    return Mesh.join(parts)


def truck(rng: np.random.Generator, tractor: bool = False) -> Mesh:
    """A box, flatbed, tank or tipper truck of 6 to 9 m; with `tractor` only cab and chassis, 5.4 m."""
    colour = paint(rng)
    if tractor:
        chassis = box((-3.0, -0.45, 0.6), (0.6, 0.45, 0.95), colour=UNDER)
        plate = cylinder((-1.9, 0, 1.05), "z", 0.5, 0.16, 12, Surface.PLAIN, UNDER)
        return Mesh.join([chassis, plate, truck_cab(rng, 0.4, colour), wheels((1.4, -1.6, -2.4), 1.2, 0.5, 0.3)])
    length, half = rng.uniform(6.2, 9.0), 1.24
    front = length / 2 - 2.05
    rear = -length / 2
    parts = [box((rear, -0.45, 0.55), (front, 0.45, 0.95), colour=UNDER), truck_cab(rng, front, colour)]
    kind = rng.choice(["box", "flatbed", "tank", "tipper"], p=[0.55, 0.15, 0.12, 0.18])
    if kind == "box":
        load = linear(
            *[(226, 228, 230), (226, 228, 230), (200, 120, 30), (36, 84, 140), (150, 30, 36)][rng.integers(5)]
        )
        parts.append(box((rear, -half, 0.98), (front - 0.15, half, rng.uniform(3.0, 3.7)), Surface.PLAIN, load))
        parts.append(box((rear - 0.01, -half + 0.1, 1.05), (rear + 0.1, half - 0.1, 2.9), Surface.SIGN, load * 0.8))
    elif kind == "tank":
        middle, reach = (rear + front) / 2, (front - rear) / 2
        parts.append(cylinder((middle, 0, 2.05), "x", 1.05, 2 * reach - 0.3, 18, Surface.PAINT, linear(190, 194, 198)))
    else:
        bed = linear(150, 90, 40) if kind == "flatbed" else YELLOW * 0.8
        wall = 0.5 if kind == "flatbed" else 1.2
        parts.append(box((rear, -half, 0.95), (front - 0.15, half, 1.1), colour=bed))
        for low, up in (
            ((rear, -half, 1.1), (front - 0.15, -half + 0.06, 1.1 + wall)),
            ((rear, half - 0.06, 1.1), (front - 0.15, half, 1.1 + wall)),
            ((front - 0.22, -half, 1.1), (front - 0.15, half, 1.3 + wall)),
            ((rear, -half, 1.1), (rear + 0.06, half, 1.1 + wall)),
        ):
            parts.append(box(low, up, Surface.PLAIN, bed))
        heap = ((rear + front) / 2, 0, 1.1 + wall * 0.6)
        parts.append(
            blob(
                heap, ((front - rear) * 0.42, half * 0.85, wall * 0.8), 2, 0.12, rng, Surface.EARTH, (0.16, 0.11, 0.07)
            )
        )
    rears = (rear + 1.2,) if length < 7.5 else (rear + 1.0, rear + 2.1)
    parts.append(wheels((front + 1.0, *rears), half - 0.02, 0.48, 0.3))
    for side in (-1, 1):
        parts.append(
            box((rear - 0.03, side * 0.95 - 0.15, 0.8), (rear, side * 0.95 + 0.15, 0.95), Surface.LAMP, RED_LAMP)
        )
    return Mesh.join(parts)


def trailer(rng: np.random.Generator, semi: bool = True) -> Mesh:
    """A semi-trailer of 10 to 13 m with its kingpin 1 m behind the front, or a small flat trailer with a drawbar."""
    if not semi:
        bed = linear(120, 122, 124)
        parts = [
            box((-1.5, -0.85, 0.55), (1.1, 0.85, 0.65), colour=bed),
            tube([(1.1, 0, 0.5), (2.3, 0, 0.45)], 0.05, 6, colour=bed),
        ]
        for low, up in (
            ((-1.5, -0.85, 0.65), (1.1, -0.8, 1.0)),
            ((-1.5, 0.8, 0.65), (1.1, 0.85, 1.0)),
            ((-1.5, -0.85, 0.65), (-1.45, 0.85, 1.0)),
            ((1.05, -0.85, 0.65), (1.1, 0.85, 1.0)),
        ):
            parts.append(box(low, up, colour=bed))
        if rng.random() < 0.6:
            parts.append(box((-1.4, -0.8, 0.65), (1.0, 0.8, 1.75), Surface.CLOTH, linear(40, 70, 110)))
        parts.append(wheels((-0.2,), 0.98, 0.3, 0.18))
        parts.append(tube([(2.1, 0, 0.02), (2.1, 0, 0.5)], 0.04, 6, colour=bed))
        return Mesh.join(parts)
    length, half = rng.uniform(10.0, 13.0), 1.26
    tarp = linear(*[(220, 222, 224), (30, 74, 138), (160, 32, 34), (26, 90, 60), (216, 150, 30)][rng.integers(5)])
    parts = [
        box((-length + 1, -half, 1.15), (1.0, half, 3.85), Surface.CLOTH, tarp),
        box((-length + 1, -0.5, 0.85), (0.2, 0.5, 1.15), colour=UNDER),
        box((-length + 0.95, -half, 0.75), (-length + 1.05, half, 1.1), Surface.STRIPES, (0.6, 0.03, 0.02)),
    ]
    for side in (-1, 1):
        parts.append(box((-1.7, side * 0.6 - 0.07, 0.02), (-1.55, side * 0.6 + 0.07, 1.1), colour=UNDER))
        parts.append(
            box((-length + 4.6, side * 1.2 - 0.03, 0.55), (-2.2, side * 1.2 + 0.03, 1.0), colour=(0.3, 0.3, 0.3))
        )
    parts.append(wheels([-length + 2.0, -length + 3.2, -length + 4.4], half - 0.03, 0.5, 0.34))
    return Mesh.join(parts)


def arm(points, width: float, heights, colour) -> Mesh:
    """A jointed arm in the x-z plane: boxes along (P, 2) points, `heights` thick."""
    parts = []
    for (x0, z0), (x1, z1), thick in zip(points[:-1], points[1:], heights):
        length = float(np.hypot(x1 - x0, z1 - z0))
        beam = box((-0.12, -width / 2, -thick / 2), (length + 0.12, width / 2, thick / 2), Surface.PLAIN, colour)
        parts.append(beam.pitched(np.arctan2(z1 - z0, x1 - x0)).at(x0, 0, z0))
    return Mesh.join(parts)


def excavator(rng: np.random.Generator) -> Mesh:
    """A crawler excavator with its boom raised."""
    colour = YELLOW if rng.random() < 0.7 else linear(220, 90, 24)
    track = [
        (-1.75, 0.25),
        (-1.45, 0.0),
        (1.45, 0.0),
        (1.75, 0.25),
        (1.75, 0.55),
        (1.45, 0.8),
        (-1.45, 0.8),
        (-1.75, 0.55),
    ]
    parts = [extrude(track, 0.28, Surface.RUBBER, UNDER).at(0, side * 1.05) for side in (-1, 1)]
    parts.append(box((-1.0, -0.9, 0.4), (1.0, 0.9, 0.95), colour=UNDER))
    house = [
        box((-1.9, -1.25, 1.0), (0.2, 1.25, 1.75), Surface.PAINT, colour),
        box((-2.3, -1.2, 1.0), (-1.5, 1.2, 2.05), Surface.PAINT, colour * 0.45),
        box((-0.6, 0.25, 1.0), (1.15, 1.25, 1.6), Surface.PAINT, colour),
        box((-0.5, 0.3, 1.6), (1.1, 1.2, 2.75), Surface.GLASS, GLASS, taper=0.9),
        box((-0.55, 0.28, 2.72), (1.05, 1.22, 2.85), Surface.PAINT, colour),
    ]
    lift = rng.uniform(0.9, 1.15)
    boom = [(0.1, 1.5), (1.7, 1.5 + 2.3 * lift), (4.2, 1.6 + 3.1 * lift), (5.9, 1.2 + 1.9 * lift)]
    house.append(arm(boom, 0.42, (0.6, 0.5, 0.38), colour).at(0, -0.35))
    x, z = boom[-1]
    bucket = [(-0.1, -1.0), (0.5, -1.05), (0.75, -0.6), (0.4, 0.05), (-0.05, 0.1), (-0.3, -0.4)]
    house.append(extrude(bucket, 0.55, Surface.PLAIN, (0.05, 0.05, 0.05)).at(x, -0.35, z))
    return Mesh.join([*parts, Mesh.join(house).at(0, 0, 0, rng.uniform(-0.5, 0.5))])


def wheel_loader(rng: np.random.Generator) -> Mesh:
    """A wheel loader with its shovel raised."""
    colour = YELLOW
    lift = rng.uniform(0.2, 0.75)
    parts = [
        wheels((-1.5, 1.5), 1.25, 0.72, 0.55),
        box((-3.0, -0.95, 0.75), (-0.3, 0.95, 1.9), Surface.PAINT, colour, taper=0.94),
        box((-0.5, -0.6, 0.7), (2.0, 0.6, 1.35), Surface.PAINT, colour),
        box((-1.1, -0.8, 1.9), (0.45, 0.8, 3.25), Surface.GLASS, GLASS, taper=0.88),
        box((-1.15, -0.78, 3.2), (0.4, 0.78, 3.35), Surface.PAINT, colour),
    ]
    end = (1.2 + 2.4 * np.cos(lift), 1.35 + 2.6 * np.sin(lift))
    for side in (-1, 1):
        parts.append(arm([(1.0, 1.4), end], 0.2, (0.35,), colour).at(0, side * 0.55))
    shovel = [(0.0, -0.5), (1.1, -0.45), (0.95, -0.3), (0.35, 0.55), (0.1, 0.5)]
    parts.append(extrude(shovel, 1.35, Surface.PLAIN, (0.09, 0.085, 0.08)).at(end[0] - 0.1, 0, end[1]))
    return Mesh.join(parts)


def spoked_wheel(x: float, radius: float, thickness: float, filled: bool) -> Mesh:
    """A thin wheel in the x-z plane: a tyre, and a disc or a few spokes."""
    angle = np.linspace(0, 2 * np.pi, 15)
    rim = np.stack([x + radius * np.cos(angle), 0 * angle, radius + radius * np.sin(angle)], -1) * [1, 1, 1]
    parts = [tube(rim, thickness, 5, Surface.RUBBER, TYRE)]
    if filled:
        parts.append(cylinder((x, 0, radius), "y", radius * 0.6, thickness, 10, Surface.PLAIN, RIM))
    else:
        for turn in np.arange(4) * np.pi / 4:
            reach = np.array([np.cos(turn), 0, np.sin(turn)]) * radius
            parts.append(tube([(x, 0, radius) - reach, (x, 0, radius) + reach], 0.006, 3, colour=RIM))
    return Mesh.join(parts)


def bicycle(rng: np.random.Generator, ridden: bool = False) -> Mesh:
    """A bicycle, 1.75 m long, with its rider, who has the same class."""
    colour = paint(rng)
    frame = [
        [(-0.5, 0, 0.34), (-0.12, 0, 0.32), (-0.28, 0, 0.88)],
        [(-0.5, 0, 0.34), (-0.26, 0, 0.78)],
        [(-0.12, 0, 0.32), (0.42, 0, 0.72)],
        [(-0.25, 0, 0.76), (0.42, 0, 0.8)],
        [(0.52, 0, 0.34), (0.38, 0, 0.98)],
        [(0.34, -0.27, 1.0), (0.38, 0, 0.98), (0.34, 0.27, 1.0)],
    ]
    parts = [tube(path, 0.022, 5, Surface.PAINT, colour) for path in frame]
    parts += [spoked_wheel(-0.5, 0.33, 0.022, False), spoked_wheel(0.52, 0.33, 0.022, False)]
    parts.append(box((-0.4, -0.07, 0.88), (-0.14, 0.07, 0.94), colour=UNDER))
    if ridden:
        parts.append(figure(rng, seat=(-0.26, 0.9), hands=(0.34, 1.02), feet=(-0.1, 0.25), lean=0.45))
    return Mesh.join(parts)


def motorcycle(rng: np.random.Generator, ridden: bool = False) -> Mesh:
    """A motorcycle or scooter, 2 m long, with its rider, who has the same class."""
    colour = paint(rng)
    parts = [
        spoked_wheel(-0.68, 0.3, 0.07, True),
        spoked_wheel(0.72, 0.3, 0.06, True),
        blob((0.12, 0, 0.82), (0.34, 0.17, 0.16), 1, surface=Surface.PAINT, colour=colour),
        box((-0.25, -0.17, 0.35), (0.35, 0.17, 0.72), colour=UNDER),
        box((-0.75, -0.14, 0.74), (-0.05, 0.14, 0.86), Surface.CLOTH, UNDER),
        tube([(0.72, 0, 0.3), (0.45, 0, 1.02)], 0.045, 6, colour=RIM),
        tube([(0.4, -0.36, 1.06), (0.46, 0, 1.02), (0.4, 0.36, 1.06)], 0.025, 5, colour=UNDER),
        box((-0.95, -0.08, 0.75), (-0.72, 0.08, 0.88), Surface.LAMP, RED_LAMP),
        blob((0.6, 0, 0.92), (0.09, 0.1, 0.1), 1, surface=Surface.LAMP, colour=WHITE_LAMP),
        tube([(-0.1, -0.2, 0.35), (-0.8, -0.22, 0.45)], 0.05, 6, colour=RIM),
    ]
    if ridden:
        parts.append(figure(rng, seat=(-0.3, 0.88), hands=(0.4, 1.05), feet=(-0.05, 0.4), lean=0.25, helmet=True))
    return Mesh.join(parts)
