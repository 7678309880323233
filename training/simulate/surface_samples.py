"""Samples of surfaces, from which voxels get their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import OCC3D_NUSCENES

from .loops import merge, spread
from .mesh import Mesh
from .shapes import cross

__all__ = ["LEAST", "Samples", "lengths", "sample_surface", "solid"]

_THIN = 0.1  # metres; the samples of one class in a cube of this width are merged
LEAST = 0.02  # share of a voxel's face: with less, a voxel is free
_WHOLE = 1.0  # share of a voxel's face: a surface that continues beyond the voxel covers as much, an edge less
_GOES_ON = 0.6  # share of a face in the rows on either side: no edge, whatever the samples add up to


def sample_surface(mesh: Mesh, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on every triangle, no further than `spacing` from their neighbours, corners and edges included.

    Returns:
        points (N, 3) float32, the class of each, (N,) uint8, and its share of the surface, (N, 3) float32: the normal,
        on the side where its largest component is positive, times an area in m^2.
    """
    corners = mesh.vertices[mesh.faces]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    normals = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    largest = np.take_along_axis(normals, np.abs(normals).argmax(1)[:, None], 1)
    shares = (np.where(largest < 0, -normals, normals) / 2).astype(np.float32)
    pieces = np.maximum(np.ceil(edges / spacing), 1).astype(np.int64)
    count = int(((pieces + 1) * (pieces + 2) // 2).sum())
    points, areas = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
    owner = np.empty(count, np.int64)
    spread(np.ascontiguousarray(corners, np.float32), pieces, shares, points, areas, owner)
    return points, mesh.class_id[owner], areas


@dataclass(frozen=True)
class Samples:
    """Samples of surfaces with their areas, one for each class in a cube of 0.1 m, and their bounding rectangle."""

    points: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, classes: np.ndarray, areas: np.ndarray) -> Samples:
        if not len(points):
            return cls(points, classes, areas, np.full(2, np.inf), np.full(2, -np.inf))
        cells = np.floor(points / np.float32(_THIN)).astype(np.int64)
        x, y, z = cells[:, 0] & 0xFFFFF, cells[:, 1] & 0xFFFFF, cells[:, 2] & 0x7FFF
        key = x << 40 | y << 20 | z << 5 | classes
        order = np.argsort(key, kind="stable")
        key = key[order]
        begins = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
        merged = np.empty((len(begins), 3), np.float32), np.empty((len(begins), 3), np.float32)
        merge(order, np.append(begins, len(order)), points, areas, *merged)
        points, areas = merged
        classes = (key[begins] & 31).astype(np.uint8)
        return cls(points, classes, areas, points[:, :2].min(0), points[:, :2].max(0))


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Lengths of (N, 3) vectors; NumPy's function takes three times as long."""
    x, y, z = vectors.T
    return np.sqrt(x * x + y * y + z * z)


def solid(facing: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find the voxels that have the larger part of a surface.

    Project a plane along the axis that it mostly faces. In every row of voxels along this axis its areas add up to one
    voxel's face, and the fullest voxel of the row is kept, so a plane has no holes. If a row adds up to less, it is at
    an edge or on a thin object. It is kept too, unless a neighbouring voxel is covered completely by the same class.

    Args:
        facing: (X, Y, Z, 3) area of the surfaces in each voxel as seen along x, y and z, in units of a voxel's face.
        labels: (X, Y, Z) class of each.
    Returns:
        (X, Y, Z) bool.
    """
    faces = np.moveaxis(facing, -1, 0)
    largest = np.maximum(np.maximum(faces[0], faces[1]), faces[2])
    place = np.argwhere(largest > LEAST)
    if not len(place):
        return np.zeros(labels.shape, bool)
    strides = np.cumprod([1, *(np.array(labels.shape)[:0:-1] + 2)])[::-1]
    flat = (place + 1) @ strides
    axis, most = facing[tuple(place.T)].argmax(1), largest[tuple(place.T)]
    fullest, covered = np.ones(len(place), bool), np.zeros(len(place), bool)
    for number, stride in enumerate(strides):
        along, rows = np.pad(faces[number], 1).ravel(), np.flatnonzero(axis == number)
        here = flat[rows]
        fullest[rows] = np.maximum(along[here - stride], along[here + stride]) <= most[rows]
        row_sum = (
            along + np.roll(along, stride) + np.roll(along, -stride)
        )  # the padding is empty, so nothing wraps around
        goes_on = [
            np.minimum(row_sum[here - aside], row_sum[here + aside]) > _GOES_ON for aside in strides if aside != stride
        ]
        covered[rows] = fullest[rows] & ((row_sum[here] >= _WHOLE) | (goes_on[0] & goes_on[1]))
    whole = np.full(np.prod(np.array(labels.shape) + 2), OCC3D_NUSCENES.free, np.uint8)
    classes = labels[tuple(place.T)]
    whole[flat[covered]] = classes[covered]
    rest = np.flatnonzero(fullest & ~covered)
    edge = np.zeros(len(rest), bool)
    for step in np.ndindex(3, 3, 3):
        edge |= whole[flat[rest] + (np.array(step) - 1) @ strides] == classes[rest]
    result = np.zeros(labels.shape, bool)
    result[tuple(place[covered].T)] = True
    result[tuple(place[rest[~edge]].T)] = True
    return result
