"""Street furniture: lamps, traffic lights, signs, cones, barriers, benches, bins, bicycle racks, shelters."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Surface
from .shapes import blob, box, cylinder, extrude, linear, tube

__all__ = [
    "barrier",
    "bench",
    "bin_",
    "bollard",
    "cone",
    "container",
    "hydrant",
    "lamp_post",
    "planter",
    "rack",
    "shelter",
    "sign",
    "signal",
]

_STEEL = (0.2, 0.21, 0.22)


def lamp_post(rng: np.random.Generator, reach: float = 2.0) -> Mesh:
    """A street lamp whose arm reaches forward over the road at 6 to 8 m."""
    height = rng.uniform(6.0, 8.0)
    path = [(0, 0, -0.2), (0, 0, height * 0.93), (reach * 0.3, 0, height), (reach, 0, height + 0.1)]
    post = tube(path, [0.09, 0.06, 0.05, 0.045], 8, Surface.PLAIN, _STEEL)
    head = box((reach - 0.1, -0.14, height), (reach + 0.55, 0.14, height + 0.13), Surface.PLAIN, (0.3, 0.31, 0.32))
    return Mesh.join([post, head, cylinder((0, 0, 0.4), "z", 0.12, 0.9, 8, Surface.PLAIN, _STEEL)])


def signal(rng: np.random.Generator, reach: float = 4.5) -> Mesh:
    """Traffic lights on a mast whose arm overhangs the road ahead of it (+x)."""
    height = 5.6
    mast = [(0, 0, -0.2), (0, 0, height), (reach * 0.2, 0, height + 0.15), (reach, 0, height + 0.25)]
    parts = [tube(mast, [0.1, 0.08, 0.07, 0.05], 8, Surface.PLAIN, (0.1, 0.11, 0.1))]
    lit = rng.integers(3)
    for x, z in ((reach - 0.2, height - 0.35), (0.22, 2.7)):
        parts.append(box((x - 0.17, -0.15, z - 0.5), (x + 0.17, 0.15, z + 0.5), Surface.PLAIN, (0.02, 0.025, 0.02)))
        for index, colour in enumerate(((0.7, 0.03, 0.02), (0.75, 0.4, 0.03), (0.03, 0.6, 0.2))):
            shade = 1.0 if index == lit else 0.06
            surface = Surface.LAMP if index == lit else Surface.PLAIN
            for side in (-1, 1):
                centre = (x, side * 0.15, z + 0.3 - 0.3 * index)
                parts.append(cylinder(centre, "y", 0.11, 0.04, 10, surface, np.array(colour) * shade))
    return Mesh.join(parts)


def sign(rng: np.random.Generator) -> Mesh:
    """A traffic sign on a pole, facing +x."""
    pole = tube([(0, 0, -0.2), (0, 0, 2.9)], 0.035, 6, Surface.PLAIN, (0.35, 0.35, 0.36))
    kind = rng.integers(4)
    if kind == 0:
        plate = [
            cylinder((0.05, 0, 2.55), "x", 0.32, 0.02, 16, Surface.PLAIN, (0.55, 0.03, 0.03)),
            cylinder((0.062, 0, 2.55), "x", 0.24, 0.02, 16, Surface.SIGN, (0.75, 0.75, 0.72)),
        ]
    elif kind == 1:
        triangle = extrude([(-0.38, 0), (0.38, 0), (0, 0.66)], 0.012, Surface.PLAIN, (0.55, 0.03, 0.03))
        inner = extrude([(-0.25, 0.08), (0.25, 0.08), (0, 0.52)], 0.02, Surface.PLAIN, (0.75, 0.75, 0.7))
        plate = [Mesh.join([triangle, inner]).at(0, -0.05, 2.2, np.pi / 2)]
    elif kind == 2:
        plate = [box((0.04, -0.3, 2.2), (0.06, 0.3, 2.8), Surface.SIGN, linear(20, 70, 160))]
    else:
        plate = [box((0.04, -0.75, 2.2), (0.07, 0.75, 2.85), Surface.SIGN, linear(16, 90, 60))]
    return Mesh.join([pole, *plate])


def cone(rng: np.random.Generator) -> Mesh:
    """A traffic cone of 0.75 m: orange with white bands."""
    orange, white = (0.75, 0.14, 0.02), (0.75, 0.75, 0.72)
    parts = [box((-0.2, -0.2, 0), (0.2, 0.2, 0.05), Surface.RUBBER, (0.05, 0.04, 0.04))]
    edges, radii = [0.05, 0.25, 0.38, 0.5, 0.6, 0.75], [0.155, 0.115, 0.09, 0.068, 0.05, 0.022]
    for index in range(5):
        path = [(0, 0, edges[index]), (0, 0, edges[index + 1])]
        parts.append(tube(path, radii[index : index + 2], 10, Surface.PLAIN, white if index in (1, 3) else orange))
    return Mesh.join(parts)


def barrier(rng: np.random.Generator, kind: str | None = None) -> Mesh:
    """A barrier 2 m long along x: concrete, plastic, or a striped plank on feet."""
    kind = rng.choice(["concrete", "plastic", "plank"]) if kind is None else kind
    if kind == "plank":
        red = (0.6, 0.03, 0.03)
        parts = [box((-1.0, -0.02, z), (1.0, 0.02, z + 0.24), Surface.STRIPES, red) for z in (0.75, 0.3)]
        for x in (-0.8, 0.8):
            parts.append(box((x - 0.03, -0.03, 0), (x + 0.03, 0.03, 1.05), Surface.PLAIN, (0.4, 0.4, 0.4)))
            parts.append(box((x - 0.06, -0.3, 0), (x + 0.06, 0.3, 0.06), Surface.RUBBER, (0.03, 0.03, 0.03)))
        return Mesh.join(parts)
    profile = [
        (-0.3, 0),
        (0.3, 0),
        (0.28, 0.12),
        (0.12, 0.35),
        (0.09, 0.85),
        (-0.09, 0.85),
        (-0.12, 0.35),
        (-0.28, 0.12),
    ]
    # `extrude` needs convex outlines, so a barrier is two of them on top of each other.
    foot = extrude([profile[0], profile[1], profile[2], profile[3], profile[6], profile[7]], 1.0)
    stem = extrude([profile[6], profile[3], profile[4], profile[5]], 1.0)
    colour = linear(176, 172, 164) if kind == "concrete" else linear(*[(206, 70, 30), (226, 226, 222)][rng.integers(2)])
    made = Mesh.join([foot, stem])
    made.surface[:] = Surface.CONCRETE if kind == "concrete" else Surface.PLAIN
    made.colour[:] = colour
    return made.at(0, 0, 0, np.pi / 2)


def bench(rng: np.random.Generator) -> Mesh:
    """A bench 1.8 m long along y, its back to -x."""
    wood = linear(130, 90, 56)
    parts = [box((-0.2 + 0.14 * k, -0.9, 0.43), (-0.08 + 0.14 * k, 0.9, 0.47), Surface.BARK, wood) for k in range(3)]
    parts += [box((-0.28, -0.9, z), (-0.24, 0.9, z + 0.11), Surface.BARK, wood) for z in (0.58, 0.74)]
    parts += [box((-0.26, y - 0.03, 0), (0.2, y + 0.03, 0.43), Surface.PLAIN, (0.04, 0.04, 0.04)) for y in (-0.7, 0.7)]
    return Mesh.join(parts)


def bin_(rng: np.random.Generator) -> Mesh:
    """A wheeled bin of 1.1 m."""
    colour = linear(*[(36, 60, 44), (50, 52, 56), (30, 70, 130), (190, 160, 40)][rng.integers(4)])
    low, high = (-0.26, -0.24), (0.26, 0.24)
    body = box((*low, 0.08), (*high, 1.0), Surface.PLAIN, colour, taper=1.18)
    return Mesh.join(
        [
            body,
            box((-0.36, -0.3, 1.0), (0.34, 0.3, 1.1), Surface.PLAIN, colour * 0.8),
            cylinder((-0.24, 0, 0.1), "y", 0.1, 0.5, 10, Surface.RUBBER, (0.02, 0.02, 0.02)),
        ]
    )


def bollard(rng: np.random.Generator) -> Mesh:
    return Mesh.join(
        [cylinder((0, 0, 0.45), "z", 0.07, 1.0, 8, Surface.PLAIN, _STEEL), blob((0, 0, 0.97), (0.08, 0.08, 0.06), 1)]
    )


def hydrant(rng: np.random.Generator) -> Mesh:
    red = linear(170, 40, 32)
    return Mesh.join(
        [
            cylinder((0, 0, 0.3), "z", 0.12, 0.7, 10, Surface.PAINT, red),
            blob((0, 0, 0.66), (0.13, 0.13, 0.12), 1, colour=red),
            cylinder((0, 0, 0.45), "y", 0.06, 0.4, 8, Surface.PAINT, red),
        ]
    )


def planter(rng: np.random.Generator) -> Mesh:
    """Only the trough; its bush is an object of its own, of the class vegetation."""
    return box((-0.6, -0.6, 0), (0.6, 0.6, 0.55), Surface.CONCRETE, (0.4, 0.38, 0.35), taper=1.08)


def rack(rng: np.random.Generator) -> Mesh:
    """A bicycle rack of five hoops along x."""
    hoop = [(0, -0.35, 0), (0, -0.35, 0.7), (0, 0, 0.85), (0, 0.35, 0.7), (0, 0.35, 0)]
    return Mesh.join(
        [tube(hoop, 0.03, 6, Surface.PLAIN, (0.45, 0.46, 0.47)).at(x, 0) for x in np.arange(-1.6, 1.7, 0.8)]
    )


def shelter(rng: np.random.Generator) -> Mesh:
    """A bus shelter 4 m long along y, open to +x, its roof overhanging."""
    parts = [
        box((-0.75, -2.1, 2.35), (0.85, 2.1, 2.47), Surface.PLAIN, (0.2, 0.22, 0.24)),
        box((-0.7, -2.0, 0.25), (-0.66, 2.0, 2.2), Surface.GLASS, (0.06, 0.07, 0.07)),
        box((-0.7, -2.02, 0.2), (0.5, -1.98, 2.2), Surface.SIGN, linear(200, 180, 60)),
        box((-0.6, -1.2, 0.42), (-0.25, 1.2, 0.48), Surface.BARK, linear(120, 84, 54)),
    ]
    for x in (-0.68, 0.6):
        for y in (-1.95, 1.95):
            parts.append(tube([(x, y, 0), (x, y, 2.4)], 0.045, 6, Surface.PLAIN, (0.15, 0.15, 0.16)))
    return Mesh.join(parts)


def container(rng: np.random.Generator) -> Mesh:
    """A site container of 6 m along x."""
    colour = linear(*[(40, 90, 150), (190, 70, 40), (70, 110, 80), (200, 196, 186)][rng.integers(4)])
    ribs = [
        box((x, -1.26, 0.15), (x + 0.12, 1.26, 2.5), Surface.PAINT, colour * 0.85) for x in np.arange(-2.9, 2.9, 0.36)
    ]
    return Mesh.join([box((-3.0, -1.22, 0.05), (3.0, 1.22, 2.6), Surface.PAINT, colour), *ribs])
