"""Ray casting into meshes with Embree: the first hit of each ray, and whether anything lies between two points."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .embree import Scene
from .loops import NOTHING, interpolate
from .mesh import Mesh

__all__ = ["Hits", "Tracer", "columns", "dot", "place", "put_columns", "rotate"]


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products (N,) of column vectors (3, N), or of columns with one vector (3,)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def columns(vectors: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Some columns of (3, N) vectors; indexing with [:, rays] takes five times as long."""
    return np.take(vectors, rays, axis=1)


def put_columns(vectors: np.ndarray, rays: np.ndarray, values: np.ndarray) -> None:
    """vectors[:, rays] = values, row by row, which takes a third of the time."""
    for row, value in zip(vectors, values):
        row[rays] = value


def rotate(a_from_b: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, 3) of frame b in frame a, float32. OpenCV is faster than BLAS and einsum at such narrow matrices."""
    return _transformed(np.asarray(a_from_b, np.float32)[:3, :3], vectors)


def place(a_from_b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, 3) of frame b in frame a, float32."""
    return _transformed(np.asarray(a_from_b, np.float32)[:3], points)


def _transformed(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    if not len(vectors):
        return np.zeros((0, 3), np.float32)
    return cv2.transform(np.asarray(vectors, np.float32)[None], matrix)[0]


@dataclass
class Hits:
    """The first hit of each of N rays; columns are undefined where `hit` is False.

    Vectors are columns, (3, N), because NumPy is fast on long rows and slow on many short ones.

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


class Tracer:
    """Casts rays into several meshes at once, the static town and what moves in it.

    Args:
        meshes: in odom; empty ones are left out. A `Tracer` from `with_moved` shares the tree of the static mesh.
    """

    def __init__(self, meshes: Sequence[Mesh]) -> None:
        self._static = self._meshes = [mesh for mesh in meshes if len(mesh.faces)]
        self._still = self._scene = _scene(self._static)

    def with_moved(self, mesh: Mesh) -> Tracer:
        """This scene and one more mesh."""
        if not len(mesh.faces):
            return self
        other = copy.copy(self)
        other._meshes = [*self._meshes, mesh]
        other._scene = _scene(other._meshes[len(self._static) :], self._still)
        return other

    def trace(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits.

        Args:
            origins: (N, 3) or (3,).
            directions: (N, 3), unit.
        """
        origins, directions = _rays(origins, directions)
        count = len(directions)
        distance, part, face, u, v = self._scene.intersect(origins, directions)
        hits = Hits(
            part >= 0,
            distance,
            np.zeros((3, count), np.float32),
            np.zeros((3, count), np.float32),
            np.zeros((3, count), np.float32),
            np.zeros(count, np.uint8),
            np.zeros(count, np.uint8),
            np.zeros((3, count), np.float32),
        )
        for number, mesh in enumerate(self._meshes):
            interpolate(
                number, part, face, u, v, mesh.faces, mesh.normals, mesh.texture, directions, hits.normal, hits.texture
            )
            rays = np.flatnonzero(part == number)
            faces = face[rays]
            hits.surface[rays], hits.class_id[rays] = mesh.surface[faces], mesh.class_id[faces]
            put_columns(hits.colour, rays, np.take(mesh.colour, faces, axis=0).T)
        hits.point = origins.T + directions.T * np.where(hits.hit, distance, 0)
        distance[~hits.hit] = np.inf
        return hits

    def distances(self, origins: np.ndarray, directions: np.ndarray, limit: float = np.inf) -> np.ndarray:
        """Only the distances of the first hits, which is cheaper than `trace`.

        Args:
            origins: (N, 3) or (3,).
            directions: (N, 3), unit.
            limit: metres; hits beyond it do not count.
        Returns:
            (N,) float32; `limit` for rays without a hit.
        """
        nearest = self._scene.nearest(*_rays(origins, directions), float(np.minimum(limit, NOTHING)))
        nearest[nearest >= NOTHING] = np.inf
        return nearest

    def blocked(self, origins: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) bool: a ray from each point (N, 3) in one direction (3,) hits something."""
        return self._scene.blocked(*_rays(origins, direction))


def _scene(meshes: Sequence[Mesh], around: Scene | None = None) -> Scene:
    return Scene([(mesh.vertices, mesh.faces) for mesh in meshes], around)


def _rays(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins and directions as contiguous float32, (N, 3) each, or (1, 3) if all rays share one."""
    starts, along = (np.ascontiguousarray(np.atleast_2d(vectors), np.float32) for vectors in (origins, directions))
    return starts, along
