"""Ray casting into meshes with Embree: what each ray hits first, and whether anything lies between two points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore import EmbreeDevice
from embreex.rtcore_scene import EmbreeScene

from .shapes import Mesh

__all__ = ["Hits", "Tracer", "columns", "dot", "place", "put_columns", "rotate"]

_NOTHING = 1e30  # Embree answers 1e37 where a ray hits nothing


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products, (N,), of vectors in columns, (3, N); or of columns with one vector, (3,)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def columns(vectors: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Some columns of (3, N) vectors; indexing with [:, rays] takes five times as long."""
    return np.take(vectors, rays, axis=1)


def put_columns(vectors: np.ndarray, rays: np.ndarray, values: np.ndarray) -> None:
    """vectors[:, rays] = values, row by row: in a third of the time."""
    for row, value in zip(vectors, values):
        row[rays] = value


def rotate(a_from_b: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, 3) of b in a, float32; OpenCV, as BLAS and einsum waste their time on so thin a product."""
    return _transformed(np.asarray(a_from_b, np.float32)[:3, :3], vectors)


def place(a_from_b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 3) of b in a, float32."""
    return _transformed(np.asarray(a_from_b, np.float32)[:3], points)


def _transformed(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    if not len(vectors):
        return np.zeros((0, 3), np.float32)
    return cv2.transform(np.asarray(vectors, np.float32)[None], matrix)[0]


@dataclass
class Hits:
    """The first thing along each of N rays; columns are undefined where `hit` is False.

    Vectors are columns, (3, N): numpy works through long rows, and is slow at many short ones.

    Attributes:
        hit: (N,) bool.
        distance: (N,) float32, metres along the unit direction; inf without a hit.
        point, normal: (3, N) float32 in odom; the normal is unit, smooth on round shapes, and faces the ray.
        texture: (3, N) float32, see `Mesh`.
        surface, class_id: (N,) uint8.
        colour: (3, N) float32, linear albedo.
    """

    hit: np.ndarray
    distance: np.ndarray
    point: np.ndarray
    normal: np.ndarray
    texture: np.ndarray
    surface: np.ndarray
    class_id: np.ndarray
    colour: np.ndarray


@functools.cache
def _device() -> EmbreeDevice:
    """One Embree device for all scenes of this process: making one takes longer than a small scene."""
    return EmbreeDevice()


class _Part:
    """One mesh in an Embree scene of its own."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.scene = EmbreeScene(_device())
        TriangleMesh(self.scene, np.ascontiguousarray(mesh.vertices), np.ascontiguousarray(mesh.faces))


class Tracer:
    """Casts rays into several meshes at once, the static town and what moves in it.

    Args:
        meshes: in odom; empty ones are left out. A `Tracer` made `with_moved` shares the static mesh's tree.
    """

    def __init__(self, meshes: Sequence[Mesh]) -> None:
        self._parts = [_Part(mesh) for mesh in meshes if len(mesh.faces)]

    def with_moved(self, mesh: Mesh) -> Tracer:
        """This scene and one more mesh."""
        other = Tracer([mesh])
        other._parts = self._parts + other._parts
        return other

    def trace(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits.

        Args:
            origins: (N, 3) or (3,).
            directions: (N, 3), unit.
        """
        origins, directions = _rays(origins, directions)
        count = len(directions)
        hits = Hits(
            np.zeros(count, bool), np.full(count, _NOTHING, np.float32), np.zeros((3, count), np.float32),
            np.zeros((3, count), np.float32), np.zeros((3, count), np.float32), np.zeros(count, np.uint8),
            np.zeros(count, np.uint8), np.zeros((3, count), np.float32),
        )  # fmt: skip
        answers = []
        for number, part in enumerate(self._parts):
            rays, chosen = np.arange(count), (origins, directions)
            if number:  # few rays hit what moves, and how far something is comes faster than what it is
                rays = np.flatnonzero(part.scene.run(origins, directions, query="DISTANCE") < hits.distance)
                chosen = origins[rays], directions[rays]
            if len(rays):
                found = part.scene.run(*chosen, query="INTERSECT", output=1)
                nearer = np.flatnonzero((found["primID"] >= 0) & (found["tfar"] < hits.distance[rays]))
                hits.distance[rays[nearer]] = found["tfar"][nearer]
                answers.append((part.mesh, rays[nearer], *(found[name][nearer] for name in ("primID", "u", "v"))))
        for mesh, rays, faces, u, v in answers:  # a later one covers what is hidden behind it
            _fill(hits, rays, mesh, faces, u, v)
        hits.hit = hits.distance < _NOTHING
        hits.point = origins.T + directions.T * np.where(hits.hit, hits.distance, 0)
        hits.distance[~hits.hit] = np.inf
        hits.normal *= np.where(dot(hits.normal, directions.T) > 0, np.float32(-1), np.float32(1))
        return hits

    def distances(self, origins: np.ndarray, directions: np.ndarray, limit: float = np.inf) -> np.ndarray:
        """Distances of the first hits only: cheaper than `trace`.

        Args:
            origins: (N, 3) or (3,).
            directions: (N, 3), unit.
            limit: metres; what lies further is not looked for.
        Returns:
            (N,) float32, `limit` where there is none.
        """
        origins, directions = _rays(origins, directions)
        nearest = np.full(len(directions), min(limit, _NOTHING), np.float32)
        for part in self._parts:
            found = part.scene.run(origins, directions, dists=nearest, query="DISTANCE")
            nearest = np.minimum(nearest, found)
        nearest[nearest >= _NOTHING] = np.inf
        return nearest

    def blocked(self, origins: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) bool: something lies in one direction, (3,), from points, (N, 3)."""
        result = np.zeros(len(origins), bool)
        for part in self._parts:
            free = np.flatnonzero(~result)
            if len(free):
                result[free] = part.scene.run(*_rays(origins[free], direction, len(free)), query="OCCLUDED") >= 0
        return result


def _rays(origins: np.ndarray, directions: np.ndarray, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions as Embree's binding takes them: (N, 3) float32 each, contiguous."""
    shape = (len(directions) if count is None else count, 3)
    both = (np.broadcast_to(np.asarray(vectors, np.float32), shape) for vectors in (origins, directions))
    return tuple(map(np.ascontiguousarray, both))


def _fill(hits: Hits, rays: np.ndarray, mesh: Mesh, faces: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Copy the hit triangles' attributes, the vertices' weighted by the barycentric coordinates."""
    corners = [np.take(mesh.faces, faces, axis=0)[:, corner] for corner in range(3)]
    weights = (1 - u - v, u, v)
    normals = [np.take(mesh.normals, corner, axis=0).T for corner in corners]
    normal = sum(weight * vectors for weight, vectors in zip(weights, normals))
    put_columns(hits.normal, rays, normal / np.maximum(np.sqrt(dot(normal, normal)), 1e-12))
    texture = [np.take(mesh.texture, corner, axis=0).T for corner in corners]
    for axis in (0, 1):
        hits.texture[axis][rays] = sum(weight * vectors[axis] for weight, vectors in zip(weights, texture))
    hits.texture[2][rays] = texture[0][2]  # constant over a triangle, and to the last bit
    hits.surface[rays] = mesh.surface[faces]
    hits.class_id[rays] = mesh.class_id[faces]
    put_columns(hits.colour, rays, np.take(mesh.colour, faces, axis=0).T)
