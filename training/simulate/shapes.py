"""Meshes for the ray tracer, and the primitive shapes of the town.

A shape's own frame is in metres: x forward, y left, z up, with the origin on the ground under the shape.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .mesh import Mesh, Surface

__all__ = ["blob", "box", "boxes", "cross", "cylinder", "extrude", "linear", "loft", "quads", "tube"]


def linear(red: int, green: int, blue: int) -> np.ndarray:
    """An sRGB colour (0..255) as linear albedo."""
    value = np.array([red, green, blue], np.float32) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products of (..., 3) vectors; faster than numpy's function."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def make(vertices, normals, texture, faces, surface, colour) -> Mesh:
    """A mesh without labels. Surface and colour are one for all faces, or one for each."""
    count = len(faces)
    return Mesh(
        np.asarray(vertices, np.float32),
        np.asarray(normals, np.float32),
        np.asarray(texture, np.float32),
        np.asarray(faces, np.int32),
        np.full(count, surface, np.uint8),
        np.full((count, 3), colour, np.float32),
        np.zeros(count, np.uint8),
    )


def quads(
    corners: np.ndarray, surface=Surface.PLAIN, colour=(0.5, 0.5, 0.5), texture: np.ndarray | None = None
) -> Mesh:
    """Flat quadrilaterals.

    Args:
        corners: (Q, 4, 3), counter-clockwise seen from outside.
        surface, colour: one for all, or (Q,) and (Q, 3).
        texture: (Q, 4, 3); by default, metres along the first edge and across it.
    """
    corners = np.asarray(corners, np.float64).reshape(-1, 4, 3)
    along, up = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    normal = cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    if texture is None:
        along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        up = cross(normal, along)
        offset = corners - corners[:, :1]
        s, t = (offset * along[:, None]).sum(-1), (offset * up[:, None]).sum(-1)
        texture = np.stack([s, t, np.zeros_like(s)], -1)
    first = np.arange(len(corners))[:, None] * 4
    faces = np.stack([first + [0, 1, 2], first + [0, 2, 3]], 1).reshape(-1, 3)
    surface, colour = np.asarray(surface, np.uint8), np.asarray(colour, np.float32)
    surface = np.repeat(surface, 2) if surface.ndim else surface
    colour = np.repeat(colour, 2, axis=0) if colour.ndim > 1 else colour
    return make(
        corners.reshape(-1, 3), np.repeat(normal, 4, axis=0), np.asarray(texture).reshape(-1, 3), faces, surface, colour
    )


_BOX = np.array(  # corners of a unit box's faces: front, back, left, right, top, bottom
    [
        [[1, -1, -1], [1, 1, -1], [1, 1, 1], [1, -1, 1]],
        [[-1, 1, -1], [-1, -1, -1], [-1, -1, 1], [-1, 1, 1]],
        [[1, 1, -1], [-1, 1, -1], [-1, 1, 1], [1, 1, 1]],
        [[-1, -1, -1], [1, -1, -1], [1, -1, 1], [-1, -1, 1]],
        [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]],
        [[-1, 1, -1], [1, 1, -1], [1, -1, -1], [-1, -1, -1]],
    ],
    np.float64,
)


def box(lower, upper, surface=Surface.PLAIN, colour=(0.5, 0.5, 0.5), taper: float = 1.0) -> Mesh:
    """An axis-aligned box between two corners; `taper` scales its top about the middle.

    `surface` may be one or six (front, back, left, right, top, bottom).
    """
    lower, upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    corners = _BOX.copy()
    corners[..., :2] *= np.where(corners[..., 2:] > 0, taper, 1.0)
    return quads((lower + upper) / 2 + corners * (upper - lower) / 2, surface, colour)


def boxes(lower: np.ndarray, upper: np.ndarray, surface=Surface.PLAIN, colour=(0.5, 0.5, 0.5)) -> Mesh:
    """Many axis-aligned boxes at once: (N, 3) lower and upper corners."""
    lower, upper = np.asarray(lower, np.float64)[:, None, None], np.asarray(upper, np.float64)[:, None, None]
    return quads((lower + upper) / 2 + _BOX * (upper - lower) / 2, surface, colour)


@cache
def ring_faces(rings: int, points: int, closed: bool = True) -> np.ndarray:
    """Faces between consecutive rings of points. Rings are counter-clockwise, equally long, and stacked on an axis."""
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(points if closed else points - 1), indexing="ij")
    a, b = i * points + j, i * points + (j + 1) % points
    c, d = b + points, a + points
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)


def smooth_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted vertex normals."""
    corner = vertices[faces]
    normal = cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, faces[:, k], normal)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def tube(path, radii, sides: int = 8, surface=Surface.PLAIN, colour=(0.5, 0.5, 0.5)) -> Mesh:
    """A round tube along a polyline, closed at both ends.

    Args:
        path: (P, 3) points.
        radii: one radius, or (P,).
    """
    path = np.asarray(path, np.float64)
    radii = np.full(len(path), radii, np.float64)
    direction = path[[1, *range(2, len(path)), -1]] - path[[0, *range(len(path) - 2), -2]]  # along the path
    direction /= np.maximum(_length(direction), 1e-12)
    helper = np.where(np.abs(direction[:, 2:]) > 0.9, [[1.0, 0, 0]], [[0, 0, 1.0]])
    across = cross(helper, direction)
    across /= _length(across)
    other = cross(direction, across)
    angle = np.arange(sides) * 2 * np.pi / sides
    circle = np.cos(angle)[:, None] * across[:, None] + np.sin(angle)[:, None] * other[:, None]
    rings = path[:, None] + radii[:, None, None] * circle
    texture = np.zeros((len(path), sides, 3))
    texture[..., 0] = angle * radii.max()
    texture[1:, :, 1] = np.cumsum(_length(path[1:] - path[:-1]))[:, None]
    closed = [(index, sign) for index, sign in ((0, -1), (-1, 1)) if radii[index] > 1e-6]
    vertices = [*rings, *(rings[index][::sign] for index, sign in closed)]
    normals = [*circle, *(np.tile(sign * direction[index], (sides, 1)) for index, sign in closed)]
    flat = [np.zeros((sides, 3))] * len(closed)
    return make(
        np.concatenate(vertices),
        np.concatenate(normals),
        np.concatenate([*texture, *flat]),
        _tube_faces(len(path), sides, len(closed)),
        surface,
        colour,
    )


@cache
def _tube_faces(rings: int, sides: int, ends: int) -> np.ndarray:
    """Faces of a tube, and of its two ends, each a fan. The rings of the ends follow those of the tube."""
    fan = np.stack([np.zeros(sides - 2, int), np.arange(1, sides - 1), np.arange(2, sides)], -1)
    return np.concatenate([ring_faces(rings, sides), *(fan + (rings + end) * sides for end in range(ends))])


def _length(vectors: np.ndarray) -> np.ndarray:
    """Lengths (N, 1) of (N, 3) vectors."""
    return np.sqrt((vectors * vectors).sum(1, keepdims=True))


def cylinder(
    centre, axis, radius: float, length: float, sides: int = 12, surface=Surface.PLAIN, colour=(0.5, 0.5, 0.5)
):
    """A closed cylinder around a centre along an axis ('x', 'y' or 'z')."""
    half = np.eye(3)["xyz".index(axis)] * length / 2
    return tube([np.asarray(centre) - half, np.asarray(centre) + half], radius, sides, surface, colour)


def extrude(profile, half_width: float, surface=Surface.PLAIN, colour=(0.5, 0.5, 0.5)) -> Mesh:
    """A side view drawn across y: (P, 2) points (x, z), counter-clockwise seen from the right; convex."""
    profile = np.asarray(profile, np.float64)
    count = len(profile)
    right = np.insert(profile, 1, -half_width, axis=1)
    left = np.insert(profile, 1, half_width, axis=1)
    following = np.roll(np.arange(count), -1)
    sides = quads(np.stack([right[following], right, left, left[following]], 1), surface, colour)
    fan = np.stack([np.zeros(count - 2), np.arange(1, count - 1), np.arange(2, count)], -1)
    flat = np.stack([profile[:, 0], profile[:, 1], np.zeros(count)], -1)
    caps = [
        make(right, np.tile([0, -1, 0], (count, 1)), flat, fan, surface, colour),
        make(left, np.tile([0, 1, 0], (count, 1)), flat, fan[:, ::-1], surface, colour),
    ]
    return Mesh.join([sides, *caps])


def loft(stations, surfaces: np.ndarray, colours: np.ndarray) -> Mesh:
    """A body through symmetric cross-sections, closed at both ends, as used for vehicles.

    Args:
        stations: (S, 1 + 2 K): x, then K pairs (half-width, z) from the bottom edge to the top edge.
        surfaces: (S - 1, K) a surface for each strip of each interval: the K - 1 side strips and the top.
        colours: (S - 1, K, 3).
    """
    stations = np.asarray(stations, np.float64)
    count, levels = len(stations), (stations.shape[1] - 1) // 2
    pairs = stations[:, 1:].reshape(count, levels, 2)
    x = np.repeat(stations[:, :1], levels, axis=1)
    left = np.stack([x, pairs[..., 0], pairs[..., 1]], -1)
    right = left * [1, -1, 1]
    parts = []
    for strip in range(levels):
        upper_left = left[:, strip + 1] if strip + 1 < levels else right[:, strip]
        for a, b, flip in (
            (left[:, strip], upper_left, False),
            (right[:, strip], right[:, min(strip + 1, levels - 1)], True),
        ):
            if strip + 1 == levels and flip:
                continue
            corners = np.stack([a[:-1], b[:-1], b[1:], a[1:]], 1)
            parts.append(quads(corners[:, ::-1] if flip else corners, surfaces[:, strip], colours[:, strip]))
    for index, sign in ((0, -1), (count - 1, 1)):
        edge = max(0, min(index, count - 2))
        face = np.stack([right[index, :-1], left[index, :-1], left[index, 1:], right[index, 1:]], 1)
        parts.append(quads(face[:, ::sign], surfaces[edge, :-1], colours[edge, :-1]))
    bottom = np.stack([left[:-1, 0], left[1:, 0], right[1:, 0], right[:-1, 0]], 1)
    parts.append(quads(bottom, Surface.RUBBER, (0.02, 0.02, 0.02)))
    return Mesh.join(parts)


_PHI = (1 + 5**0.5) / 2
_ICOSAHEDRON = np.array(
    [
        [-1, _PHI, 0],
        [1, _PHI, 0],
        [-1, -_PHI, 0],
        [1, -_PHI, 0],
        [0, -1, _PHI],
        [0, 1, _PHI],
        [0, -1, -_PHI],
        [0, 1, -_PHI],
        [_PHI, 0, -1],
        [_PHI, 0, 1],
        [-_PHI, 0, -1],
        [-_PHI, 0, 1],
    ]
)
_ICOSAHEDRON_FACES = np.array(
    [
        [0, 11, 5],
        [0, 5, 1],
        [0, 1, 7],
        [0, 7, 10],
        [0, 10, 11],
        [1, 5, 9],
        [5, 11, 4],
        [11, 10, 2],
        [10, 7, 6],
        [7, 1, 8],
        [3, 9, 4],
        [3, 4, 2],
        [3, 2, 6],
        [3, 6, 8],
        [3, 8, 9],
        [4, 9, 5],
        [2, 4, 11],
        [6, 2, 10],
        [8, 6, 7],
        [9, 8, 1],
    ]
)


@cache
def sphere_points(divisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) on the unit sphere and faces of an icosahedron divided `divisions` times."""
    vertices, faces = _ICOSAHEDRON / np.linalg.norm(_ICOSAHEDRON[0]), _ICOSAHEDRON_FACES
    for _ in range(divisions):
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        unique, inverse = np.unique(edges, axis=0, return_inverse=True)
        middle = vertices[unique].mean(1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        ab, bc, ca = inverse.reshape(3, -1) + len(vertices)
        vertices = np.concatenate([vertices, middle])
        a, b, c = faces.T
        faces = np.concatenate([np.stack(f, -1) for f in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))])
    return vertices, faces


def blob(
    centre,
    radii,
    divisions: int = 1,
    rough: float = 0.0,
    rng: np.random.Generator | None = None,
    surface=Surface.PLAIN,
    colour=(0.5, 0.5, 0.5),
) -> Mesh:
    """An ellipsoid whose vertices are moved in or out by up to `rough` times the radius."""
    points, faces = sphere_points(divisions)
    if rough and rng is not None:
        points = points * (1 + rng.uniform(-rough, rough, (len(points), 1)))
    vertices = np.asarray(centre) + points * np.asarray(radii)
    angles = np.stack(
        [np.arctan2(points[:, 1], points[:, 0]), np.arcsin(np.clip(points[:, 2], -1, 1)), points[:, 0] * 0], -1
    )
    return make(vertices, smooth_normals(vertices, faces), angles * np.mean(radii), faces, surface, colour)
