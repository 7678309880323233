"""People: walking, standing and riding figures."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Surface
from .shapes import blob, box, linear, tube

__all__ = ["WALK_PHASES", "figure", "pedestrian"]

WALK_PHASES = 6  # poses of one stride of 1.4 m

_CLOTHES = [
    (36, 40, 52),
    (36, 40, 52),
    (70, 74, 82),
    (120, 40, 44),
    (30, 70, 120),
    (190, 180, 160),
    (220, 220, 216),
    (52, 84, 60),
    (200, 130, 40),
    (120, 84, 130),
    (24, 24, 26),
    (150, 156, 164),
]
_SKIN = [(236, 196, 170), (222, 170, 136), (172, 118, 84), (112, 72, 50), (84, 54, 40)]
_HAIR = [(28, 22, 18), (60, 40, 26), (110, 80, 44), (150, 140, 130)]


def pick(rng: np.random.Generator, colours) -> np.ndarray:
    return linear(*colours[rng.integers(len(colours))])


def joint(start, end, first: float, second: float, forward: float) -> np.ndarray:
    """The position (2,) of a knee or elbow between two points of the x-z plane, bent forwards (1) or backwards (-1)."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    reach = max(float(np.hypot(*(end - start))), 1e-6)
    reach = min(reach, (first + second) * 0.999)
    along = (first**2 - second**2 + reach**2) / (2 * reach)
    out = max(first**2 - along**2, 0) ** 0.5
    direction = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
    return start + direction * along + forward * out * np.array([-direction[1], direction[0]])


def limb(start, middle, end, y_start: float, y_end: float, radii, surface, colour) -> Mesh:
    path = [(start[0], y_start, start[1]), (middle[0], (y_start + y_end) / 2, middle[1]), (end[0], y_end, end[1])]
    return tube(path, radii, 6, surface, colour)


def body(rng: np.random.Generator, hip, lean: float, hands, feet, helmet: bool, hat: bool = False) -> Mesh:
    """A figure: hip (x, z), lean of its back in radians, right and left hands and feet, each (x, z)."""
    shirt, trousers, skin, hair = pick(rng, _CLOTHES), pick(rng, _CLOTHES), pick(rng, _SKIN), pick(rng, _HAIR)
    hip = np.asarray(hip, float)
    up = np.array([np.sin(lean), np.cos(lean)])
    chest, shoulder, neck = hip + 0.32 * up, hip + 0.5 * up, hip + 0.58 * up
    head = neck + 0.17 * (0.5 * up + [0, 0.5])
    build = rng.uniform(0.9, 1.15)
    trunk = [
        (hip[0], 0, hip[1] - 0.06),
        (hip[0], 0, hip[1]),
        (chest[0], 0, chest[1]),
        (shoulder[0], 0, shoulder[1]),
        (neck[0], 0, neck[1]),
    ]
    torso = tube(trunk, np.array([0.1, 0.145, 0.165, 0.15, 0.06]) * build, 10, Surface.CLOTH, shirt)
    # The body is wider than deep.
    torso.vertices = (torso.vertices * [1, 1.25, 1]).astype(np.float32)
    parts = [torso, blob((head[0], 0, head[1]), (0.1, 0.085, 0.125), 1, colour=skin)]
    top = (head[0] - 0.015, 0, head[1] + 0.035)
    if helmet:
        parts.append(blob(top, (0.14, 0.125, 0.14), 1, surface=Surface.PAINT, colour=pick(rng, _CLOTHES)))
    else:
        parts.append(
            blob(top, (0.108, 0.097, 0.115), 1, surface=Surface.CLOTH, colour=pick(rng, _CLOTHES) if hat else hair)
        )
    for side, hand, foot in ((-1, hands[0], feet[0]), (1, hands[1], feet[1])):
        knee = joint(hip, foot, 0.46, 0.46, 1.0)
        parts.append(limb(hip, knee, foot, side * 0.09, side * 0.1, [0.095, 0.07, 0.05], Surface.CLOTH, trousers))
        heel = (foot[0] - 0.08, side * 0.1 - 0.045, foot[1] - 0.07)
        toe = (foot[0] + 0.18, side * 0.1 + 0.045, foot[1] + 0.03)
        parts.append(box(heel, toe, Surface.PLAIN, (0.03, 0.03, 0.03)))
        elbow = joint(shoulder, hand, 0.3, 0.28, -1.0)
        parts.append(limb(shoulder, elbow, hand, side * 0.2, side * 0.22, [0.06, 0.05, 0.04], Surface.CLOTH, shirt))
        parts.append(blob((hand[0], side * 0.22, hand[1]), (0.045, 0.04, 0.05), 0, colour=skin))
    return Mesh.join(parts)


def figure(rng: np.random.Generator, seat, hands, feet, lean: float, helmet: bool = False) -> Mesh:
    """A rider: seat, hands and feet as (x, z) in the vehicle's frame."""
    pedal = 0.14
    return body(rng, seat, lean, (hands, hands), ((feet[0], feet[1]), (feet[0] + pedal, feet[1] + pedal)), helmet)


def pedestrian(rng: np.random.Generator, walking: bool = True) -> list[Mesh]:
    """A person 1.55 to 1.9 m tall, as `WALK_PHASES` poses of one stride, or as one pose if the person stands."""
    look = rng.integers(2**31)
    scale = rng.uniform(0.9, 1.08)
    extra = []
    if rng.random() < 0.4:
        extra.append(box((-0.32, -0.16, 1.05), (-0.16, 0.16, 1.45), Surface.CLOTH, pick(rng, _CLOTHES)))
    hat = rng.random() < 0.2
    poses = []
    for phase in range(WALK_PHASES if walking else 1):
        swing = np.sin(2 * np.pi * phase / WALK_PHASES) * (0.33 if walking else 0.02)
        lift = 0.1 * max(0.0, np.cos(2 * np.pi * phase / WALK_PHASES)) if walking else 0.0
        feet = ((swing, 0.08), (-swing, 0.08 + lift))
        hands = ((-0.8 * swing, 0.85), (0.8 * swing, 0.85))
        hip = (0.0, 0.95 - 0.12 * abs(swing))
        person = body(np.random.default_rng(look), hip, 0.04, hands, feet, False, hat)
        poses.append(Mesh.join([person, *extra]).at(0, 0, 0, 0, scale))
    return poses
