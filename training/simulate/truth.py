"""Exact 3D truth of the town in Occ3D's layout: voxels with a surface, their classes, and which sensors see them.

A voxel is occupied if it has the larger part of a surface. A surface is one voxel thick along the axis that it mostly
faces. A voxel that it only cuts is free if a neighbour has more of it. Otherwise rays just above a surface would end in
the air. Surfaces are sampled densely, once for each tile of the town, and each sample has its share of the area. In a
voxel with ground and an object, the object's area has more weight.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid
from renderocc_model.geometry.transforms import invert

from .mesh import Mesh
from .plan import GROUND
from .sensors import CameraRenderer, Lidar
from .surface_samples import Samples, lengths, sample_surface, solid
from .town import Town
from .trace import Tracer, place, rotate

__all__ = ["LONGEST_MOVER", "TruthVolumes", "Voxeliser"]

_TILE = 16.0  # metres
_MARGIN = 1.0  # metres: the grid leans with the car, but tiles are selected as seen from above
_SPACING = 0.13  # a third of a voxel
LONGEST_MOVER = 10.0  # metres from the position of a moving object to its farthest point
_CEILING = 9.0  # nothing this far above the lowest ground of its tile reaches into the grid
_OBJECT_VOTES = 4  # weight of an object's area, where that of the ground is 1
_PIXEL_STRIDE = 2


@dataclass(frozen=True)
class TruthVolumes:
    """One frame's truth, each (X, Y, Z) uint8: class ids with `free`, and masks (0 or 1) of visible voxels."""

    semantics: np.ndarray
    mask_camera: np.ndarray
    mask_lidar: np.ndarray


class Voxeliser:
    """Voxelises a town around the car, frame by frame.

    Args:
        town: the town.
        cameras: cameras for `mask_camera`, each with its offset from the frame's nominal time, seconds.
        lidar: LiDAR for `mask_lidar`; None leaves the mask empty.
        grid: grid of the truth.
    Attributes:
        reach: metres from base_link to the grid's furthest corner, as seen from above.
    """

    def __init__(
        self,
        town: Town,
        cameras: list[tuple[CameraRenderer, float]],
        lidar: Lidar | None,
        grid: VoxelGrid = OCC3D_GRID,
    ) -> None:
        self._town, self._cameras, self._lidar, self._grid = town, cameras, lidar, grid
        self._beams = self._beam_of_voxels(lidar) if lidar else None
        corners = town.static.vertices[:, :2][town.static.faces]
        cells = np.floor(corners[:, 0] / _TILE).astype(np.int64)
        _, tile_of, counts = np.unique(cells[:, 0] << 32 | cells[:, 1] + 2**31, return_inverse=True, return_counts=True)
        order = np.argsort(tile_of, kind="stable")
        starts = np.cumsum(counts) - counts
        self._faces = np.split(order, starts[1:])
        # Triangles may reach out of their tile, so this is the rectangle around all of its triangles.
        self._low = np.minimum.reduceat(corners.min(1)[order], starts).astype(float)
        self._high = np.maximum.reduceat(corners.max(1)[order], starts).astype(float)
        corner = np.maximum(np.abs(grid.lower), np.abs(grid.upper))
        self.reach = float(np.hypot(*corner[:2]))
        self._axes = [low + (np.arange(count) + 0.5) * grid.voxel_size for low, count in zip(grid.lower, grid.shape)]
        self._samples: dict[int, Samples] = {}
        self._model_cache: dict[int, tuple[Mesh, Samples]] = {}

    def prepare(self, t: float) -> None:
        """Sample the surroundings at a time. This is called before workers fork, so that they share the samples."""
        pose = self._town.drive.odom_from_base(t)
        for index in self._tiles_within(pose).tolist():
            self._tile_samples(index)
        for model, _ in self._town.traffic.models(t, pose[:3, 3], reach=self.reach + LONGEST_MOVER):
            self._model_samples(model)

    def voxelise(
        self,
        t: float,
        moving: list[tuple[Mesh, np.ndarray]],
        tracer: Tracer,
        body: Mesh | None = None,
        lost: Collection[int] = (),
    ) -> TruthVolumes:
        """The truth around base_link.

        Args:
            t: the frame's nominal time in seconds.
            moving: moving models with odom_from_model, at least those in the grid. Models outside the grid hide nothing
                inside it, but the LiDAR's beams may return from them.
            tracer: a tracer of the static town and of `moving`.
            body: the car's own body in base_link, which hides what is behind it from cameras.
            lost: numbers of the cameras without an image.
        """
        odom_from_base = self._town.drive.odom_from_base(t)
        semantics = self._vote(odom_from_base, moving)
        unhidden = tracer if body is None else tracer.with_moved(body.moved(odom_from_base))
        seen = self._seen_by_cameras(t, odom_from_base, unhidden, lost)
        returned = np.zeros_like(seen)
        if self._lidar is not None and self._beams is not None:
            returned = self._seen_by_lidar(self._lidar, self._beams, odom_from_base, tracer)
        return TruthVolumes(semantics, seen.astype(np.uint8), returned.astype(np.uint8))

    def touched(self, t: float, moving: list[tuple[Mesh, np.ndarray]]) -> np.ndarray:
        """The voxels with any part of a surface in them, (X, Y, Z) bool. The arguments are those of `voxelise`."""
        voxels = self._surfaces(self._town.drive.odom_from_base(t), moving)[0]
        return np.bincount(voxels, minlength=self._grid.size).reshape(self._grid.shape) > 0

    def _surfaces(
        self, odom_from_base: np.ndarray, moving: list[tuple[Mesh, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples of all surfaces in the grid, as `_inside` gives them."""
        near = self._tiles_within(odom_from_base).tolist()
        # Forget the samples of tiles behind the car, so that memory does not grow with the length of a drive.
        self._samples = {index: self._samples[index] for index in near if index in self._samples}
        base_from_odom = invert(odom_from_base)
        placed = [(self._tile_samples(index), base_from_odom) for index in near]
        here, reach = odom_from_base[:2, 3], self.reach + LONGEST_MOVER
        placed += [
            (self._model_samples(model), base_from_odom @ pose)
            for model, pose in moving
            if np.hypot(*(pose[:2, 3] - here)) < reach
        ]
        columns = [self._inside(part, pose) for part, pose in placed]
        voxel, classes, areas = (np.concatenate(column) for column in zip(*columns))
        return voxel, classes, areas

    def _vote(self, odom_from_base: np.ndarray, moving: list[tuple[Mesh, np.ndarray]]) -> np.ndarray:
        """The class of every voxel that has the larger part of a surface; `free` for the others."""
        voxel, classes, areas = self._surfaces(odom_from_base, moving)
        size, kinds = self._grid.size, OCC3D_NUSCENES.free
        facing = np.stack([np.bincount(voxel, weights=column, minlength=size) for column in areas.T])
        touched = (facing[0] > 0) | (facing[1] > 0) | (facing[2] > 0)
        row = np.cumsum(touched) - 1
        votes = np.bincount(
            row[voxel] * kinds + classes, weights=lengths(areas), minlength=int(touched.sum()) * kinds
        ).reshape(-1, kinds)
        votes[:, np.setdiff1d(np.arange(kinds), GROUND)] *= _OBJECT_VOTES
        result = np.full(size, OCC3D_NUSCENES.free, np.uint8)
        result[touched] = votes.argmax(1)
        result = result.reshape(self._grid.shape)
        result[~solid(np.moveaxis(facing.reshape(3, *self._grid.shape), 0, -1), result)] = OCC3D_NUSCENES.free
        return result

    def _tiles_within(self, odom_from_base: np.ndarray) -> np.ndarray:
        """Numbers of the tiles whose rectangle overlaps that of the grid, which is rotated (separating axes)."""
        lower, upper = np.array(self._grid.lower[:2]) - _MARGIN, np.array(self._grid.upper[:2]) + _MARGIN
        base_from_odom = invert(odom_from_base)
        corners = np.array([[lower[0], lower[1]], [lower[0], upper[1]], [upper[0], lower[1]], [upper[0], upper[1]]])
        grid = corners @ odom_from_base[:2, :2].T + odom_from_base[:2, 3]
        meets = (self._low < grid.max(0)).all(1) & (self._high > grid.min(0)).all(1)
        middle, half = (self._low + self._high) / 2, (self._high - self._low) / 2
        middle = middle @ base_from_odom[:2, :2].T + base_from_odom[:2, 3]
        half = half @ np.abs(base_from_odom[:2, :2]).T
        return np.flatnonzero(meets & (middle - half < upper).all(1) & (middle + half > lower).all(1))

    def _inside(self, part: Samples, base_from_part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples inside the grid: flat voxel number, class, and area along x, y and z (in voxel faces)."""
        voxel, inside = self._voxels(place(base_from_part, part.points))
        areas = np.abs(rotate(base_from_part, part.areas[inside])) / np.float32(self._grid.voxel_size**2)
        return voxel[inside], part.classes[inside], areas

    def _model_samples(self, model: Mesh) -> Samples:
        """The samples of a moving model, in its own frame."""
        if id(model) not in self._model_cache:
            # The model is kept beside its samples, so that no other object can get its id.
            self._model_cache[id(model)] = model, Samples.of(*sample_surface(model, _SPACING))
        return self._model_cache[id(model)][1]

    def _tile_samples(self, index: int) -> Samples:
        """The samples of one tile of the static town. They are made when they are first needed."""
        if index not in self._samples:
            static, rows = self._town.static, np.sort(self._faces[index])
            bottom = static.vertices[static.faces[rows]][:, :, 2].min(1)
            rows = rows[bottom < bottom.min() + _CEILING]
            piece = Mesh(
                static.vertices,
                static.normals,
                static.texture,
                static.faces[rows],
                static.surface[rows],
                static.colour[rows],
                static.class_id[rows],
            )
            columns = sample_surface(piece, _SPACING)
            kept = columns[0][:, 2] < columns[0][:, 2].min() + _CEILING
            self._samples[index] = Samples.of(*(column[kept] for column in columns))
        return self._samples[index]

    def _voxels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat voxel numbers of points in base_link, and which points lie inside the grid."""
        shape = self._grid.shape
        places = (points - np.array(self._grid.lower, np.float32)) / np.float32(self._grid.voxel_size)
        index = np.floor(places).astype(np.int32)
        within = index.view(np.uint32) < np.array(shape, np.uint32)  # as unsigned numbers, negative ones are huge
        inside = within[:, 0] & within[:, 1] & within[:, 2]
        return (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2], inside

    def _seen_by_cameras(
        self, t: float, odom_from_base: np.ndarray, tracer: Tracer, lost: Collection[int]
    ) -> np.ndarray:
        """The voxels that a camera sees: no surface hides their centre, or the ray of a pixel ends in them."""
        seen = np.zeros(self._grid.size, bool)
        for renderer, offset in (pair for index, pair in enumerate(self._cameras) if index not in lost):
            odom_from_camera = self._town.drive.odom_from_base(t + offset) @ renderer.camera.base_from_camera
            base_from_camera = invert(odom_from_base) @ odom_from_camera
            shape, directions = renderer.ray_grid(_PIXEL_STRIDE)
            distance = tracer.distances(odom_from_camera[:3, 3], rotate(odom_from_camera, directions))
            self._mark_ends(seen, base_from_camera, directions, distance)
            x, y, z = self._centres_in(invert(base_from_camera))
            candidates = np.flatnonzero(renderer.may_see(x, y, z).ravel() & ~seen)
            if len(candidates):
                local = np.stack([axis.ravel()[candidates] for axis in (x, y, z)], -1)
                pixels, inside = renderer.project(local)
                candidates, pixels = candidates[inside], pixels[inside]
                column, row = np.rint(pixels.T / _PIXEL_STRIDE).astype(int)
                column, row = np.minimum(column, shape[1] - 1), np.minimum(row, shape[0] - 1)
                far = lengths(local[inside])
                seen[candidates[far <= distance.reshape(shape)[row, column]]] = True
        return seen.reshape(self._grid.shape)

    def _centres_in(self, frame_from_base: np.ndarray) -> list[np.ndarray]:
        """The three coordinates of all voxel centres in a frame, (X, Y, Z) float32 each."""
        x, y, z = (np.float32(axis) for axis in self._axes)
        return [
            (row[0] * x)[:, None, None] + (row[1] * y)[:, None] + (row[2] * z + row[3])
            for row in frame_from_base[:3].astype(np.float32)
        ]

    def _seen_by_lidar(
        self,
        lidar: Lidar,
        beams_of_voxels: tuple[np.ndarray, np.ndarray, np.ndarray],
        odom_from_base: np.ndarray,
        tracer: Tracer,
    ) -> np.ndarray:
        """Voxels that a laser beam with a return passes through or ends in."""
        base_from_lidar = lidar.base_from_lidar
        directions = lidar.directions
        odom_from_lidar = odom_from_base @ base_from_lidar
        distance = tracer.distances(odom_from_lidar[:3, 3], rotate(odom_from_lidar, directions))
        distance = np.where(distance < lidar.reach, distance, 0)
        seen = np.zeros(self._grid.size, bool)
        self._mark_ends(seen, base_from_lidar, directions, distance)
        voxels, beams, far = beams_of_voxels
        seen[voxels[far <= distance[beams]]] = True
        return seen.reshape(self._grid.shape)

    def _beam_of_voxels(self, lidar: Lidar) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxels with a centre within half a voxel of a beam: flat number, beam's number, and metres to the centre."""
        local = self._grid.centres().reshape(-1, 3) - lidar.base_from_lidar[:3, 3].astype(np.float32)
        far = lengths(local)
        column = np.rint(-np.arctan2(local[:, 1], local[:, 0]) / (2 * np.pi) * lidar.columns).astype(int)
        column %= lidar.columns
        elevation = np.arcsin(np.clip(local[:, 2] / np.maximum(far, 1e-6), -1, 1))
        beam = np.clip(np.searchsorted(lidar.elevations, elevation), 1, lidar.beams - 1)
        beam -= elevation - lidar.elevations[beam - 1] < lidar.elevations[beam] - elevation
        beside = np.flatnonzero(np.abs(elevation - lidar.elevations[beam]) * far < self._grid.voxel_size / 2)
        return beside, (column * lidar.beams + beam)[beside], far[beside]

    def _mark_ends(
        self, seen: np.ndarray, base_from_sensor: np.ndarray, directions: np.ndarray, distance: np.ndarray
    ) -> None:
        """Mark the voxels in which rays end, 1 mm behind the surface's near side."""
        hit = np.isfinite(distance) & (distance > 0) & (distance < 80)
        ends = directions[hit] * (distance[hit, None] + np.float32(1e-3))
        voxel, inside = self._voxels(rotate(base_from_sensor, ends) + base_from_sensor[:3, 3].astype(np.float32))
        seen[voxel[inside]] = True
