"""Features of images: SIFT of COLMAP, in the original, distorted image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from renderocc_model.geometry.camera_model import CameraModel

from .colmap import import_pycolmap
from .settings import MotionDepth

__all__ = ["Features", "Extractor", "pixel_angles"]

_WIDEST = np.cos(np.radians(85.0))  # COLMAP's models divide by z: features farther off the axis are left out
_PEAK = 0.003  # contrast of a feature; COLMAP's default finds few on roads


@dataclass(frozen=True)
class Features:
    """Features of one image.

    Attributes:
        pixels: (N, 2) float64 (column, row); integers are pixel centres.
        directions: (N, 3) float64 unit vectors in the optical frame.
        angles: (N,) radians that a pixel spans at the feature.
        descriptors: (N, 128) float32 of length 1.
    """

    pixels: np.ndarray
    directions: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def kept(self, which: np.ndarray) -> Features:
        """The features that a mask or indices select."""
        return Features(*(getattr(self, field.name)[which] for field in fields(self)))


class Extractor:
    """Finds the features of images. Not for several threads at a time.

    Args:
        settings: number of features and the size of images.
    """

    def __init__(self, settings: MotionDepth) -> None:
        pycolmap = import_pycolmap()
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.num_threads = 1
        options.max_image_size = settings.feature_image_size
        options.sift.max_num_features = settings.max_features
        options.sift.peak_threshold = _PEAK
        options.sift.max_num_orientations = 1
        self._extractor: Any = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
        self._pycolmap, self._size, self._most = pycolmap, settings.feature_image_size, settings.max_features

    def __call__(self, image: np.ndarray, model: CameraModel) -> Features:
        """Features of an image (H, W, 3) uint8 RGB or (H, W) uint8."""
        gray = image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        scale = min(1.0, self._size / max(gray.shape))
        if scale < 1:
            size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        keypoints, found = self._extractor.extract_from_uint8_array(np.ascontiguousarray(gray))
        places = self._pycolmap.keypoints_to_matrix(keypoints)[:, :2].astype(np.float64)
        pixels = places / (gray.shape[1] / image.shape[1], gray.shape[0] / image.shape[0]) - 0.5
        directions = model.unproject(pixels)
        with np.errstate(invalid="ignore"):
            usable = np.isfinite(directions).all(axis=1) & (directions[:, 2] > _WIDEST)
        angles = pixel_angles(model, pixels)
        with np.errstate(invalid="ignore"):
            usable &= np.isfinite(angles) & (angles > 0)
        usable[np.flatnonzero(usable)[self._most :]] = False
        descriptors = found.data[usable].astype(np.float32)
        descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
        return Features(pixels[usable], directions[usable], angles[usable], descriptors)


def pixel_angles(model: CameraModel, pixels: np.ndarray) -> np.ndarray:
    """Radians that a pixel spans, (N,): the square root of its solid angle."""
    directions = model.unproject(pixels)
    right = model.unproject(pixels + (0.5, 0.0)) - model.unproject(pixels - (0.5, 0.0))
    down = model.unproject(pixels + (0.0, 0.5)) - model.unproject(pixels - (0.0, 0.5))
    return np.sqrt(np.abs(np.einsum("ij,ij->i", np.cross(right, down), directions)))
