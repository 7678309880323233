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

__all__ = ["Hits", "Tracer", "dot", "place", "rotate"]

_NOTHING = 1e30  # Embree answers 1e37 where a ray hits nothing


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise dot products, (N,)."""
    return np.einsum("ij,ij->i", a, b)


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

    Attributes:
        hit: (N,) bool.
        distance: (N,) float32, metres along the unit direction; inf without a hit.
        point, normal: (N, 3) float32 in odom; the normal is unit, smooth on round shapes, and faces the ray.
        texture: (N, 3) float32, see `Mesh`.
        surface, class_id: (N,) uint8.
        colour: (N, 3) float32, linear albedo.
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
        directions = np.ascontiguousarray(directions, np.float32)
        origins = np.ascontiguousarray(np.broadcast_to(np.asarray(origins, np.float32), directions.shape))
        count = len(directions)
        answers = [part.scene.run(origins, directions, query="INTERSECT", output=1) for part in self._parts]
        distance = np.full(count, _NOTHING, np.float32)
        nearest = np.full(count, -1, np.int8)
        for index, answer in enumerate(answers):
            closer = (answer["primID"] >= 0) & (answer["tfar"] < distance)
            distance[closer] = answer["tfar"][closer]
            nearest[closer] = index
        hits = Hits(
            nearest >= 0, distance, np.zeros((count, 3), np.float32), np.zeros((count, 3), np.float32),
            np.zeros((count, 3), np.float32), np.zeros(count, np.uint8), np.zeros(count, np.uint8),
            np.zeros((count, 3), np.float32),
        )  # fmt: skip
        for index, (part, answer) in enumerate(zip(self._parts, answers)):
            rays = np.flatnonzero(nearest == index)
            if len(rays):
                _fill(hits, rays, part.mesh, answer["primID"][rays], answer["u"][rays, None], answer["v"][rays, None])
        distance[~hits.hit] = np.inf
        hits.point = origins + directions * np.where(hits.hit, distance, 0)[:, None]
        away = dot(hits.normal, directions) > 0
        hits.normal[away] *= -1
        return hits

    def distances(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Distances of the first hits only, (N,) float32, inf where there is none: cheaper than `trace`."""
        directions = np.ascontiguousarray(directions, np.float32)
        origins = np.ascontiguousarray(np.broadcast_to(np.asarray(origins, np.float32), directions.shape))
        nearest = np.full(len(directions), _NOTHING, np.float32)
        for part in self._parts:
            np.minimum(nearest, part.scene.run(origins, directions, query="DISTANCE"), out=nearest)
        nearest[nearest >= _NOTHING] = np.inf
        return nearest

    def blocked(self, origins: np.ndarray, directions: np.ndarray, limit: float = np.inf) -> np.ndarray:
        """(N,) bool: something lies within `limit` metres along the direction."""
        directions = np.ascontiguousarray(directions, np.float32)
        origins = np.ascontiguousarray(origins, np.float32)
        result = np.zeros(len(directions), bool)
        for part in self._parts:
            if np.isfinite(limit):
                result |= part.scene.run(origins, directions, query="DISTANCE") < limit
            else:
                result |= part.scene.run(origins, directions, query="OCCLUDED") >= 0
        return result


def _fill(hits: Hits, rays: np.ndarray, mesh: Mesh, faces: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Copy the hit triangles' attributes, the vertices' weighted by the barycentric coordinates."""
    corners = mesh.faces[faces]
    w = 1 - u - v
    first, second, third = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = w * mesh.normals[first] + u * mesh.normals[second] + v * mesh.normals[third]
    normal /= np.maximum(np.sqrt(dot(normal, normal)), 1e-12)[:, None]
    hits.normal[rays] = normal
    hits.texture[rays] = w * mesh.texture[first] + u * mesh.texture[second] + v * mesh.texture[third]
    hits.texture[rays, 2] = mesh.texture[first, 2]  # constant over a triangle, and to the last bit
    hits.surface[rays] = mesh.surface[faces]
    hits.class_id[rays] = mesh.class_id[faces]
    hits.colour[rays] = mesh.colour[faces]
