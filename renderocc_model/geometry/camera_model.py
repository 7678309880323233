"""One camera's optics: intrinsics and distortion, from points to pixels and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .distortion import BrownConrady, KannalaBrandt, make_lens

__all__ = ["CameraModel"]

_LARGEST_SIDE = 32768  # pixels; more is a corrupt message, not a camera
_FAR_PRINCIPAL_POINT = 1.0  # how far outside the image, in image sizes, a principal point may still lie (crops do that)


@dataclass(frozen=True, eq=False)
class CameraModel:
    """How one camera maps directions to pixels. Integer pixel coordinates are pixel centres (OpenCV, ROS).

    Args:
        width, height: image size, pixels.
        K: (3, 3) [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], pixels.
        distortion_model: "plumb_bob" (4 or 5 coefficients), "rational_polynomial" (8, 12 or 14) or "equidistant" (4).
        coefficients: distortion, in the order of sensor_msgs/CameraInfo.
    Raises:
        ValueError: what is wrong with the calibration, without the camera's name.
    """

    width: int
    height: int
    K: np.ndarray
    distortion_model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if int(value) != value or not 1 <= value <= _LARGEST_SIDE:
                raise ValueError(
                    f"{name} is {value}; expected 1 to {_LARGEST_SIDE} pixels, publish a filled camera_info"
                )
            object.__setattr__(self, name, int(value))
        K = np.array(self.K, dtype=np.float64)
        _check_intrinsics(K, self.width, self.height)
        K.setflags(write=False)
        object.__setattr__(self, "K", K)
        object.__setattr__(self, "coefficients", tuple(float(value) for value in self.coefficients))
        _ = self._lens  # checks the model and its coefficients

    @cached_property
    def _lens(self) -> BrownConrady | KannalaBrandt:
        return make_lens(self.distortion_model, self.coefficients)

    def _key(self) -> tuple:
        return self.width, self.height, self.K.tobytes(), self.distortion_model, self.coefficients

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CameraModel) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of points in the optical frame (x right, y down, z forward).

        Args:
            points: (N, 3), any unit.
        Returns:
            pixels (N, 2) float64 as (column, row), NaN for points that the lens does not map (behind the camera, or
            past the angle where its polynomial folds over);
            in_image (N,) bool: on the image's area, -0.5 <= column < width - 0.5 and the same for rows.
        """
        points = _as_columns("points", points, 3)
        plane, valid = self._lens.distort(points)
        pixels = plane @ self.K[:2, :2].T + self.K[:2, 2]
        with np.errstate(invalid="ignore"):
            inside = (pixels >= -0.5) & (pixels < (self.width - 0.5, self.height - 0.5))
        return pixels, valid & inside.all(axis=1)

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """Directions that pixels look into, the inverse of `project` to 1e-9 px.

        Args:
            pixels: (N, 2) as (column, row), inside the image or not.
        Returns:
            (N, 3) unit vectors in the optical frame, NaN where no direction leads to the pixel.
        """
        pixels = _as_columns("pixels", pixels, 2)
        y = (pixels[:, 1] - self.K[1, 2]) / self.K[1, 1]
        x = (pixels[:, 0] - self.K[0, 2] - self.K[0, 1] * y) / self.K[0, 0]
        return self._lens.undistort(np.stack([x, y], axis=-1))

    @property
    def largest_angle(self) -> float:
        """Off-axis angle, radians, up to which the distortion model maps directions one-to-one."""
        return self._lens.largest_angle

    @cached_property
    def horizontal_extent(self) -> tuple[float, float]:
        """Off-axis angles, radians, seen to the left and to the right along the principal point's row."""
        return self._extent(0)

    @cached_property
    def vertical_extent(self) -> tuple[float, float]:
        """Off-axis angles, radians, seen above and below along the principal point's column."""
        return self._extent(1)

    def _extent(self, axis: int) -> tuple[float, float]:
        size, centre = (self.width, self.height)[axis], self.K[axis, 2]
        before, after = (self._outermost_angle(axis, edge) for edge in (-0.5, size - 0.5))
        return before * float(np.sign(centre + 0.5)), after * float(np.sign(size - 0.5 - centre))

    def _outermost_angle(self, axis: int, edge: float) -> float:
        """Off-axis angle at an image edge, or as near to it as the lens model reaches."""
        pixels = np.tile(self.K[:2, 2], (257, 1))
        pixels[:, axis] = np.linspace(edge, self.K[axis, 2], 257)
        directions = self.unproject(pixels)
        x, y, z = directions[np.isfinite(directions).all(axis=1)][0]  # the principal point always has a direction
        return math.atan2(math.hypot(x, y), z)


def _check_intrinsics(K: np.ndarray, width: int, height: int) -> None:
    if K.shape != (3, 3):
        raise ValueError(f"K has shape {K.shape}; expected 3x3")
    if not np.isfinite(K).all():
        raise ValueError(f"K is {K.tolist()}; all nine numbers must be finite, publish the camera's calibration")
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(
            f"K has focal lengths {K[0, 0]:g} and {K[1, 1]:g}; "
            f"expected positive pixels, publish the camera's calibration"
        )
    if abs(K[0, 1]) > K[0, 0]:
        raise ValueError(
            f"K has a skew of {K[0, 1]:g} pixels, more than its focal length; publish the camera's calibration"
        )
    if K[1, 0] != 0 or not np.array_equal(K[2], (0, 0, 1)):
        raise ValueError(f"K is {K.tolist()}; expected [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]")
    for axis, size in ((0, width), (1, height)):
        margin = _FAR_PRINCIPAL_POINT * size
        if not -margin <= K[axis, 2] <= size + margin:
            raise ValueError(
                f"K has its principal point at ({K[0, 2]:g}, {K[1, 2]:g}), far outside the {width}x{height} image; "
                f"publish a camera_info for this image size"
            )


def _as_columns(name: str, values: np.ndarray, columns: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != columns:
        raise ValueError(f"{name} have shape {values.shape}; expected (N, {columns})")
    return values
