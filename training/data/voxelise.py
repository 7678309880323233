"""Turns 2D labels into voxels: occupied voxels with their class, free voxels, and unknown voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.grid import VoxelGrid

from .traversal import checked_rays

__all__ = ["VoxelLabels", "VoxelMarks"]


@dataclass(frozen=True, eq=False)
class VoxelLabels:
    """The labels of a grid's voxels. A voxel that is neither occupied nor free is unknown.

    Attributes:
        semantics: (X, Y, Z) uint8, the most frequent class of a voxel's returns; 255 without a return of known class.
        occupied: (X, Y, Z) bool, the voxel has a return.
        free: (X, Y, Z) bool, rays pass the voxel, and it has no return.
    """

    semantics: np.ndarray
    occupied: np.ndarray
    free: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """(X, Y, Z) bool, occupied or free."""
        return self.occupied | self.free

    def arrays(self) -> dict[str, np.ndarray]:
        """The three arrays by name, as a `Sample` holds them."""
        return {"semantics": self.semantics, "occupied": self.occupied, "free": self.free}


class VoxelMarks:
    """Marks labelled rays in the voxels of a grid.

    A voxel that holds a return is occupied. A voxel that rays only pass is free. A ray whose return is behind the grid
    passes all voxels on its way. Pixels and rays without a distance (0, negative or NaN) are not used.

    Args:
        class_count: number of ids in the class table; larger ids, such as 255, are unknown classes.
    """

    def __init__(self, grid: VoxelGrid, class_count: int) -> None:
        self.grid, self.class_count = grid, class_count
        self._votes = np.zeros((class_count + 1, grid.size), np.uint16)
        self._passed = np.zeros(grid.size, bool)

    def add_rays(self, origins: np.ndarray, directions: np.ndarray, distances: np.ndarray, classes: np.ndarray) -> None:
        """Mark returns, and the voxels on the way to them. A ray that begins outside of the grid is not used.

        Args:
            origins: (R, 3) metres in the grid's frame.
            directions: (R, 3) unit vectors.
            distances: (R,) metres along the ray; infinite if the ray is known to leave the grid.
            classes: (R,) ids.
        Raises:
            ValueError: an origin or a direction is not finite.
        """
        from .traversal_loops import walk

        grid = self.grid
        origins, directions = checked_rays(origins, directions)
        distances = np.asarray(distances, np.float64) / grid.voxel_size
        names = np.minimum(np.asarray(classes, np.int64), self.class_count)
        places = (origins - grid.lower) / grid.voxel_size
        walk(grid.shape, places, directions, distances, names, self._votes, self._passed)

    def add_pixels(
        self,
        directions: np.ndarray,
        base_from_camera: np.ndarray,
        starts: np.ndarray,
        pixels: np.ndarray,
        distances: np.ndarray,
        left_out: np.ndarray,
        stride: int = 1,
        first: int = 0,
    ) -> None:
        """Mark the returns of one image's labelled pixels, but no free voxels. This is much faster than `add_rays`.

        Args:
            directions: (H, W, 3) float32 unit directions of the pixels in the camera's frame.
            base_from_camera: (4, 4) of determinant 1 or, mirrored, -1.
            starts: (C + 2,) first row of each class in `pixels` and `distances`, as in `Tables`.
            pixels, distances: (M, 2) column and row, (M,) metres.
            left_out: (C + 1,) bool, classes that are not used.
            stride, first: of each class, every `stride`-th pixel is used, beginning with number `first`.
        """
        from .voxelise_loops import mark

        scale, lower = 1 / self.grid.voxel_size, np.array(self.grid.lower)
        rotation = np.ascontiguousarray(base_from_camera[:3, :3], np.float64) * scale
        origin = (np.asarray(base_from_camera[:3, 3], np.float64) - lower) * scale
        mark(
            self.grid.shape,
            directions,
            rotation,
            origin,
            np.ascontiguousarray(starts),
            left_out,
            first,
            stride,
            pixels,
            distances,
            self._votes,
        )

    def labels(self) -> VoxelLabels:
        """The labels marked so far. If classes have equally many returns in a voxel, it gets the lowest id."""
        from .voxelise_loops import elect

        occupied, semantics = np.zeros(self.grid.size, bool), np.full(self.grid.size, UNLABELLED, np.uint8)
        elect(self._votes, occupied, semantics)
        volumes = (semantics, occupied, self._passed & ~occupied)
        return VoxelLabels(*(volume.reshape(self.grid.shape) for volume in volumes))
