"""Augmentation of images and of the vehicle's frame, with geometry kept consistent.

Image: one affine map of its pixels resizes, crops and flips a view. The intrinsics are multiplied by it from the left.
Rays are in base_link and do not change. Bird's eye: base_link is rotated about z, and mirrored in x and y, so camera
poses, rays, ego poses and 3D truth are all multiplied by one matrix. A mirrored view is that of a camera whose x axis
points the other way. So focal lengths stay positive, and every mirroring gives poses of determinant -1, which all later
code accepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from renderocc_model.base.config import configuration, setting
from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import transform_points
from renderocc_model.geometry.undistortion import FILL_COLOUR

__all__ = ["AugmentConfig", "ImageChange", "bird_eye_change", "change_volume", "draw_image_change"]


@configuration
class AugmentConfig:
    """Ranges of the augmentation. With the defaults nothing changes."""

    zoom_out: float = setting(1.0, "smallest factor by which views are resized", minimum=0.1, maximum=1.0)
    zoom_in: float = setting(1.0, "largest factor by which views are resized", minimum=1.0, maximum=10.0)
    shift: float = setting(
        0.0, "largest distance of a crop from the centre, as a share of the view's size", minimum=0.0, maximum=0.5
    )
    image_flip: float = setting(0.0, "probability that a view is mirrored left to right", minimum=0.0, maximum=1.0)
    brightness: float = setting(0.0, "largest relative change of a view's brightness", minimum=0.0, maximum=0.9)
    contrast: float = setting(0.0, "largest relative change of a view's contrast", minimum=0.0, maximum=0.9)
    mirror_x: float = setting(0.0, "probability that front and back are exchanged", minimum=0.0, maximum=1.0)
    mirror_y: float = setting(0.0, "probability that left and right are exchanged", minimum=0.0, maximum=1.0)
    rotation: float = setting(0.0, "largest rotation of the vehicle about z [rad]", minimum=0.0, maximum=math.pi)
    no_previous: float = setting(
        0.0, "probability that there are no earlier frames, as after a start", minimum=0.0, maximum=1.0
    )
    standing: float = setting(
        0.0,
        "probability that the earlier frames are the current one, as if the vehicle stood",
        minimum=0.0,
        maximum=1.0,
    )
    fewer_previous: bool = setting(
        False, "draw the number of earlier frames, few of them more often than many (a shorter step than with all)"
    )


@dataclass(frozen=True, eq=False)
class ImageChange:
    """The change of one view.

    Attributes:
        pixels: (3, 3) new pixel from old pixel, homogeneous.
        flipped: whether left and right are mirrored.
        gain, offset: new colour = gain * old colour + offset.
    """

    pixels: np.ndarray
    flipped: bool = False
    gain: float = 1.0
    offset: float = 0.0

    def image(self, view: np.ndarray) -> np.ndarray:
        """The changed view, (H, W, 3) uint8 of the same size; mean grey outside of the old view."""
        if not np.array_equal(self.pixels, np.eye(3)):
            size = (view.shape[1], view.shape[0])
            view = cv2.warpAffine(
                view,
                self.pixels[:2],
                size,
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=FILL_COLOUR,
            )
        if (self.gain, self.offset) != (1.0, 0.0):
            levels = np.clip(np.arange(256) * self.gain + self.offset, 0, 255)
            view = cv2.LUT(view, np.rint(levels).astype(np.uint8))
        return view

    def intrinsics(self, K: np.ndarray) -> np.ndarray:
        """K of the changed view, (3, 3), with positive focal lengths."""
        changed = self.pixels @ K
        return changed * (-1, 1, 1) if self.flipped else changed

    def pose(self, base_from_camera: np.ndarray) -> np.ndarray:
        """(4, 4) pose of the changed view's camera."""
        return base_from_camera * (-1, 1, 1, 1) if self.flipped else base_from_camera


def draw_image_change(rng: np.random.Generator, config: AugmentConfig, height: int, width: int) -> ImageChange:
    """Draw a random change of one view. It always draws as many random numbers, whatever the settings are."""
    zoom, right, down, flip, brightness, contrast = rng.random(6)
    scale = config.zoom_out + (config.zoom_in - config.zoom_out) * zoom
    pixels = np.eye(3)
    if (scale, config.shift) != (1.0, 0.0):
        # About the middle of the view, which lies at (size - 1) / 2 as pixel centres are whole numbers.
        middle = np.array([width - 1, height - 1]) / 2
        moved = config.shift * np.array([width, height]) * (2 * np.array([right, down]) - 1)
        pixels = np.array([[scale, 0, 0], [0, scale, 0], [0, 0, 1.0]])
        pixels[:2, 2] = middle + moved - scale * middle
    flipped = bool(flip < config.image_flip)
    if flipped:
        pixels = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ pixels
    gain = 1 + config.contrast * (2 * contrast - 1)
    offset = 127.5 * (1 - gain) + 255 * 0.5 * config.brightness * (2 * brightness - 1)
    return ImageChange(pixels, flipped, gain, offset)


def bird_eye_change(rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """Draw (4, 4) new base from old base: a rotation about z, then mirrorings of x and y, without translation."""
    angle, mirror_x, mirror_y = rng.random(3)
    angle = config.rotation * (2 * angle - 1)
    change = np.eye(4)
    change[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    if mirror_x < config.mirror_x:
        change[0] *= -1
    if mirror_y < config.mirror_y:
        change[1] *= -1
    return change


def change_volume(volume: np.ndarray, grid: VoxelGrid, new_from_old: np.ndarray, outside: int) -> np.ndarray:
    """A volume of the old base frame in the new one: each voxel takes the value of the old voxel that holds its centre.

    This is exact if a grid is mirrored that is symmetric about the axis, and nearest-neighbour sampling otherwise.

    Args:
        volume: (X, Y, Z).
        outside: value of voxels whose centre lay outside of the grid, for example UNLABELLED.
    """
    if volume.shape != grid.shape:
        raise ValueError(f"volume has shape {volume.shape}, the grid {grid.shape}; give the volume's own grid")
    old_from_new = np.linalg.inv(new_from_old)
    centres = transform_points(old_from_new, grid.centres().reshape(-1, 3).astype(np.float64))
    indices, inside = grid.index_of(centres)
    changed = np.full(len(centres), outside, volume.dtype)
    changed[inside] = volume[tuple(indices[inside].T)]
    return changed.reshape(volume.shape)


def change_truth(truth: dict, grid: VoxelGrid, new_from_old: np.ndarray) -> dict:
    """Occ3D arrays in the new base frame. Voxels from outside of the old grid are unlabelled and in no mask."""
    if np.array_equal(new_from_old, np.eye(4)):
        return truth
    return {
        name: change_volume(volume, grid, new_from_old, UNLABELLED if name == "semantics" else 0)
        for name, volume in truth.items()
    }
