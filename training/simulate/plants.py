"""Trees, bushes and hedges."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, Surface
from .shapes import blob, cross, linear, make, tube

__all__ = ["bush", "hedge", "thinned", "tree"]

_GREENS = [(74, 98, 40), (88, 112, 44), (60, 86, 42), (96, 116, 56), (104, 108, 44), (70, 92, 62)]


def leaf_cards(
    points: np.ndarray, outward: np.ndarray, size: float, colour: np.ndarray, rng: np.random.Generator
) -> Mesh:
    """Clusters of leaves: at each point a bent quadrilateral (a card) that faces roughly outwards."""
    count = len(points)
    facing = outward + rng.normal(0, 0.6, (count, 3))
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    across = cross(facing, rng.normal(size=(count, 3)))
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    up = cross(facing, across)
    extent = size * rng.uniform(0.5, 1.2, (count, 1))
    corners = np.stack(
        [
            points - extent * across + facing * extent * rng.uniform(-0.3, 0.3, (count, 1)),
            points - extent * up * rng.uniform(0.5, 1.0, (count, 1)),
            points + extent * across + facing * extent * rng.uniform(-0.3, 0.3, (count, 1)),
            points + extent * up * rng.uniform(0.5, 1.0, (count, 1)),
        ],
        1,
    )
    first = np.arange(count)[:, None] * 4
    faces = np.stack([first + [0, 1, 2], first + [0, 2, 3]], 1).reshape(-1, 3)
    # A crown is shaded as a whole: its leaves have the normals of the crown, with some noise.
    normals = np.repeat(outward + 0.35 * facing, 4, axis=0)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    texture = np.stack([corners[..., 0], corners[..., 2], corners[..., 1] * 0], -1).reshape(-1, 3)
    shades = np.repeat(colour * rng.uniform(0.75, 1.3, (count, 1)), 2, axis=0)
    return make(corners.reshape(-1, 3), normals, texture, faces, Surface.LEAVES, shades)


def crown(centre, radii, colour: np.ndarray, rng: np.random.Generator, cards: int, size: float) -> Mesh:
    """An opaque, lumpy core with leaf clusters on its surface."""
    centre, radii = np.asarray(centre, float), np.asarray(radii, float)
    core = blob(centre, radii * 0.86, 1, 0.13, rng, Surface.LEAVES, colour * 0.6)
    direction = rng.normal(size=(cards, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = centre + direction * radii * rng.uniform(0.84, 1.02, (cards, 1))
    return Mesh.join([core, leaf_cards(points, direction, size, colour, rng)])


def tree(rng: np.random.Generator, height: float | None = None) -> Mesh:
    """A broad-leaved tree of 5 to 11 m, sometimes a conifer; its lowest branches overhang at 2 to 3 m."""
    height = rng.uniform(5.0, 10.5) if height is None else height
    colour = linear(*_GREENS[rng.integers(len(_GREENS))]) * rng.uniform(0.9, 1.4)
    bark = linear(92, 78, 62) * rng.uniform(0.7, 1.2)
    girth = height * rng.uniform(0.016, 0.024)
    if rng.random() < 0.15:
        parts = [tube([(0, 0, -0.2), (0, 0, height * 0.9)], [girth, 0.02], 7, Surface.BARK, bark)]
        for level in np.linspace(0.2, 0.92, 6):
            reach = height * 0.24 * (1.08 - level)
            parts.append(crown((0, 0, height * level), (reach, reach, height * 0.1), colour * 0.75, rng, 40, 0.3))
        return Mesh.join(parts)
    fork = height * rng.uniform(0.28, 0.4)
    lean = rng.normal(0, 0.15, 2)
    trunk = [(0, 0, -0.2), (lean[0] * 0.3, lean[1] * 0.3, fork * 0.6), (lean[0], lean[1], fork)]
    parts = [tube(trunk, [girth * 1.3, girth, girth * 0.8], 8, Surface.BARK, bark)]
    lobes = rng.integers(4, 7)
    spread = height * rng.uniform(0.19, 0.27)
    for index in range(lobes):
        turn = 2 * np.pi * (index + rng.uniform(-0.25, 0.25)) / (lobes - 1)
        top = index == lobes - 1
        out = 0.0 if top else spread * rng.uniform(0.55, 0.95)
        level = height * (0.82 if top else rng.uniform(0.5, 0.7))
        centre = np.array([lean[0] + out * np.cos(turn), lean[1] + out * np.sin(turn), level])
        size = height * rng.uniform(0.15, 0.21)
        parts.append(
            tube([(lean[0], lean[1], fork * 0.95), centre], [girth * 0.55, girth * 0.2], 5, Surface.BARK, bark)
        )
        parts.append(crown(centre, (size, size, size * 0.8), colour * rng.uniform(0.85, 1.15), rng, 95, 0.25))
    return Mesh.join(parts)


def thinned(mesh: Mesh, keep: int = 3, growth: float = 1.6) -> Mesh:
    """A tree for large distances: one in `keep` of its leaf cards, enlarged. At 120 m a card is two pixels wide."""
    first, after = mesh.faces[:-1], mesh.faces[1:]
    begins = (mesh.surface[:-1] == Surface.LEAVES) & (first == first[:, :1] + [0, 1, 2]).all(1)
    begins &= (after == first[:, :1] + [0, 2, 3]).all(1)  # shapes that `leaf_cards` makes, and no others
    cards = np.flatnonzero(begins)
    kept = np.ones(len(mesh.faces), bool)
    dropped = np.delete(cards, np.s_[::keep])
    kept[dropped] = kept[dropped + 1] = False
    corners = mesh.faces[cards[::keep], 0][:, None] + np.arange(4)
    vertices = mesh.vertices.copy()
    middle = vertices[corners].mean(1, keepdims=True)
    vertices[corners] = middle + (vertices[corners] - middle) * np.float32(growth)
    used = np.zeros(len(vertices), bool)
    used[mesh.faces[kept]] = True
    number = (np.cumsum(used) - 1).astype(np.int32)
    return Mesh(
        vertices[used],
        mesh.normals[used],
        mesh.texture[used],
        number[mesh.faces[kept]],
        mesh.surface[kept],
        mesh.colour[kept],
        mesh.class_id[kept],
    )


def bush(rng: np.random.Generator) -> Mesh:
    """A bush of about a metre."""
    colour = linear(*_GREENS[rng.integers(len(_GREENS))]) * rng.uniform(0.8, 1.3)
    size = rng.uniform(0.4, 0.9)
    return crown((0, 0, size * 0.6), (size, size * rng.uniform(0.8, 1.2), size * 0.75), colour, rng, 40, 0.2)


def hedge(rng: np.random.Generator, length: float, height: float = 1.2) -> Mesh:
    """A clipped hedge along x, centred."""
    colour = linear(58, 82, 36) * rng.uniform(0.9, 1.3)
    count = max(2, round(length / 0.9))
    parts = []
    for x in np.linspace(-length / 2 + 0.45, length / 2 - 0.45, count):
        reach = (0.62, 0.36, height * 0.56)
        parts.append(crown((x, 0, height * 0.5), reach, colour * rng.uniform(0.9, 1.1), rng, 26, 0.17))
    return Mesh.join(parts)
