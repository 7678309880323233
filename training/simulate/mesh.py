"""A triangle mesh with normals and textures, for the ray tracer and the shapes of the town."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property

import numpy as np

__all__ = ["Mesh", "Surface"]


class Surface(IntEnum):
    """The material of a triangle, which selects its procedural texture."""

    PLAIN = 0
    ASPHALT = 1
    PAVING = 2
    GRASS = 3
    FACADE = 4
    ROOF = 5
    LEAVES = 6
    BARK = 7
    PAINT = 8
    GLASS = 9
    LAMP = 10
    STRIPES = 11
    BRICK = 12
    CLOTH = 13
    CONCRETE = 14
    COBBLES = 15
    PARKING = 16
    EARTH = 17
    KERB = 18
    RUBBER = 19
    SIGN = 20


@dataclass
class Mesh:
    """Triangles with appearance and labels.

    Attributes:
        vertices: (V, 3) float32, metres.
        normals: (V, 3) float32, unit; equal on a flat face's corners, averaged where a shape is round.
        texture: (V, 3) float32: two coordinates along the surface in metres, and a seed for the pattern of each copy.
        faces: (F, 3) int32.
        surface: (F,) uint8, a `Surface`.
        colour: (F, 3) float32, linear RGB albedo.
        class_id: (F,) uint8.
    """

    vertices: np.ndarray
    normals: np.ndarray
    texture: np.ndarray
    faces: np.ndarray
    surface: np.ndarray
    colour: np.ndarray
    class_id: np.ndarray

    @classmethod
    def empty(cls) -> Mesh:
        point, face = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
        ids = np.zeros(0, np.uint8)
        return cls(point, point, point, face, ids, point, ids)

    @classmethod
    def join(cls, meshes: Sequence[Mesh]) -> Mesh:
        """One mesh of all triangles, in order."""
        meshes = [mesh for mesh in meshes if len(mesh.faces)]
        if not meshes:
            return cls.empty()
        starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
        columns = {
            field.name: np.concatenate([getattr(mesh, field.name) for mesh in meshes])
            for field in fields(cls)
            if field.name != "faces"
        }
        faces = np.concatenate([mesh.faces + np.int32(start) for mesh, start in zip(meshes, starts)])
        return cls(faces=faces, **columns)

    def moved(self, parent_from_mesh: np.ndarray) -> Mesh:
        """A copy placed by a rigid (or uniformly scaled) 4x4 transform."""
        linear_part = np.asarray(parent_from_mesh, np.float32)
        vertices = self.vertices @ linear_part[:3, :3].T + linear_part[:3, 3]
        normals = self.normals @ linear_part[:3, :3].T
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return Mesh(vertices, normals, self.texture, self.faces, self.surface, self.colour, self.class_id)

    @cached_property
    def lattice(self) -> np.ndarray:
        """(48, 3) points spread inside the bounding box, for tests of visibility."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        steps = np.stack(np.meshgrid(*(np.linspace(0.03, 0.97, count) for count in (4, 3, 4)), indexing="ij"), -1)
        return (low + (high - low) * steps.reshape(-1, 3)).astype(np.float32)

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0, scale: float = 1.0) -> Mesh:
        """A copy turned about z by `yaw` (radians), scaled, and moved to a point."""
        c, s = np.cos(yaw) * scale, np.sin(yaw) * scale
        return self.moved(np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, scale, z], [0, 0, 0, 1]]))

    def pitched(self, angle: float) -> Mesh:
        """A copy rotated about y; positive angles lift the front."""
        c, s = np.cos(angle), np.sin(angle)
        return self.moved(np.array([[c, 0, -s, 0], [0, 1, 0, 0], [s, 0, c, 0], [0, 0, 0, 1]]))

    def labelled(self, class_id: int) -> Mesh:
        """The same triangles, all of one class."""
        self.class_id = np.full(len(self.faces), class_id, np.uint8)
        return self

    def seeded(self, seed: float) -> Mesh:
        """The same triangles with another seed, so that the textures of copies differ."""
        self.texture = self.texture.copy()
        self.texture[:, 2] = seed
        return self
