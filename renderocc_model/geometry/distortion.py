"""Lens distortion: from directions to distorted normalised image coordinates and back, for the models ROS publishes.

A lens maps the direction (x, y, z) of a point, in the optical frame, to a point on the plane at z = 1.
`BrownConrady` is the lens of `plumb_bob` and `rational_polynomial`, `KannalaBrandt` that of `equidistant`. A polynomial
fitted to the inside of an image folds over somewhere outside it: directions far off the axis would be mapped to pixels
that show something else. Each lens therefore knows the largest angle up to which it is invertible, and maps nothing
beyond it.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from .distortion_names import DISTORTION_MODELS
from .roots import CONVERGED, increasing_root, smallest_positive_root, solve_2x2

__all__ = ["BrownConrady", "KannalaBrandt", "make_lens"]

_NEWTON_STEPS = 30
_ACCEPTED = 1e-12  # residual, in normalised coordinates, of a solution: 1e-9 px at a focal length of 1000 px
_LARGEST_COEFFICIENT = 1e6  # those of real lenses reach hundreds; larger ones mean a corrupt message
_STEEPEST = math.tan(math.radians(89.9))  # largest tangent of the off-axis angle that is searched for a solution


class BrownConrady:
    """Radial, tangential, thin-prism and tilt distortion in OpenCV's order k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tx ty.

    Args:
        coefficients: 4, 5, 8, 12 or 14 of them; those left out are zero.
    """

    def __init__(self, coefficients: tuple[float, ...]) -> None:
        values = list(coefficients) + [0.0] * (14 - len(coefficients))
        self.radial = np.array([values[0], values[1], values[4]])  # numerator, k1 k2 k3
        self.rational = np.array(values[5:8])  # denominator, k4 k5 k6
        self.tangential = np.array(values[2:4])
        self.prism = np.array(values[8:12])
        self.tilt = _tilt_matrix(values[12], values[13])
        self.is_identity = not any(values)

    @cached_property
    def largest_radius(self) -> float:
        """Tangent of the off-axis angle up to which the model is one-to-one; infinite without distortion."""
        if self.is_identity:
            return math.inf
        radius = min(self._radial_fold(), _STEEPEST)
        return self._fold_in_all_directions(radius) if self.tangential.any() or self.prism.any() else radius

    @property
    def largest_angle(self) -> float:
        """Off-axis angle up to which the model is one-to-one, radians, at most pi/2."""
        return math.atan(self.largest_radius)

    def distort(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distorted normalised coordinates of directions.

        Args:
            directions: (N, 3) in the optical frame, any length.
        Returns:
            points (N, 2), NaN where not valid; valid (N,) bool: ahead of the camera and inside the one-to-one field.
        """
        x, y, z = directions.T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            plane = np.stack([x / z, y / z], axis=-1)
            squared = (plane * plane).sum(axis=1)
            valid = (z > 0) & (squared < self.largest_radius**2)  # false for NaN
        plane[~valid] = np.nan
        return (plane if self.is_identity else self._tilted(self._bent(plane))), valid

    def undistort(self, points: np.ndarray) -> np.ndarray:
        """Unit directions (N, 3) of distorted normalised coordinates (N, 2); NaN where no direction leads there."""
        if self.is_identity:
            plane = np.array(points, dtype=np.float64)
        else:
            plane = self._solve(self._untilted(points))
        directions = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        directions[~np.isfinite(directions).all(axis=1)] = np.nan
        return directions

    def _bent(self, plane: np.ndarray) -> np.ndarray:
        """The distortion without the tilt: (N, 2) undistorted to (N, 2) distorted."""
        x, y = plane[:, 0], plane[:, 1]
        r2 = x * x + y * y
        k1, k2, k3 = self.radial
        k4, k5, k6 = self.rational
        p1, p2 = self.tangential
        s1, s2, s3, s4 = self.prism
        scale = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return np.stack(
            [
                x * scale + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
                y * scale + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
            ],
            axis=-1,
        )

    def _jacobian(self, plane: np.ndarray) -> np.ndarray:
        """Derivative of `_bent`, (N, 2, 2), rows by output and columns by input."""
        x, y = plane[:, 0], plane[:, 1]
        r2 = x * x + y * y
        k1, k2, k3 = self.radial
        k4, k5, k6 = self.rational
        p1, p2 = self.tangential
        s1, s2, s3, s4 = self.prism
        top, bottom = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        top_slope, bottom_slope = k1 + r2 * (2 * k2 + r2 * 3 * k3), k4 + r2 * (2 * k5 + r2 * 3 * k6)
        scale = top / bottom
        slope = 2 * (top_slope * bottom - top * bottom_slope) / bottom**2  # d scale / dx = slope * x
        prism_x, prism_y = 2 * s1 + 4 * s2 * r2, 2 * s3 + 4 * s4 * r2
        jacobian = np.empty((len(plane), 2, 2))
        jacobian[:, 0, 0] = scale + slope * x * x + 2 * p1 * y + 6 * p2 * x + prism_x * x
        jacobian[:, 0, 1] = slope * x * y + 2 * p1 * x + 2 * p2 * y + prism_x * y
        jacobian[:, 1, 0] = slope * x * y + 2 * p1 * x + 2 * p2 * y + prism_y * x
        jacobian[:, 1, 1] = scale + slope * y * y + 6 * p1 * y + 2 * p2 * x + prism_y * y
        return jacobian

    def _solve(self, bent: np.ndarray) -> np.ndarray:
        """Inverse of `_bent` by Newton's method, started at the solution of the radial part alone."""
        target = np.linalg.norm(bent, axis=1)
        radius = self._solve_radial(target)
        with np.errstate(divide="ignore", invalid="ignore"):
            plane = bent * np.where(target > 0, radius / target, 1.0)[:, None]
        if self.tangential.any() or self.prism.any():
            # Where the radial part alone has no solution, or one near its fold, the start may be past the true edge.
            outside = ~(np.linalg.norm(plane, axis=1) < self.largest_radius)
            with np.errstate(divide="ignore", invalid="ignore"):
                plane[outside] = bent[outside] / target[outside, None] * (0.9 * self.largest_radius)
            for _ in range(_NEWTON_STEPS):
                step = solve_2x2(self._jacobian(plane), self._bent(plane) - bent)
                with np.errstate(invalid="ignore"):
                    longest = 0.5 * (0.1 + np.linalg.norm(plane, axis=1))  # a longer step leaves the branch
                    length = np.linalg.norm(step, axis=1)
                    step *= np.minimum(1.0, longest / np.maximum(length, 1e-300))[:, None]
                plane = plane - step
                if not (length > CONVERGED * (1 + np.linalg.norm(plane, axis=1))).any():
                    break
        with np.errstate(invalid="ignore"):
            residual = np.abs(self._bent(plane) - bent).max(axis=1)
            solved = (residual < _ACCEPTED * (1 + target)) & (np.linalg.norm(plane, axis=1) < self.largest_radius)
        plane[~solved] = np.nan
        return plane

    def _solve_radial(self, target: np.ndarray) -> np.ndarray:
        """Radius r in [0, fold) with r * scale(r) = target, (N,); NaN where there is none."""

        def value_and_slope(radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            r2 = radius * radius
            top, bottom = np.polyval([*self.radial[::-1], 1.0], r2), np.polyval([*self.rational[::-1], 1.0], r2)
            top_slope = np.polyval([3 * self.radial[2], 2 * self.radial[1], self.radial[0]], r2)
            bottom_slope = np.polyval([3 * self.rational[2], 2 * self.rational[1], self.rational[0]], r2)
            return radius * top / bottom, top / bottom + 2 * r2 * (top_slope * bottom - top * bottom_slope) / bottom**2

        return increasing_root(value_and_slope, target, min(self._radial_fold(), _STEEPEST))

    def _radial_fold(self) -> float:
        """Smallest radius where r * top(r^2) / bottom(r^2) stops growing, or its denominator is zero."""
        top = np.polynomial.Polynomial([1.0, *self.radial])
        bottom = np.polynomial.Polynomial([1.0, *self.rational])
        squared = np.polynomial.Polynomial([0.0, 1.0])
        growth = (top + 2 * squared * top.deriv()) * bottom - 2 * squared * top * bottom.deriv()
        reach = _STEEPEST**2
        fold = math.sqrt(min(smallest_positive_root(growth, reach), smallest_positive_root(bottom, reach)))
        return fold * (1 - 1e-9)  # below the fold or pole, even if its root was rounded up

    def _fold_in_all_directions(self, limit: float) -> float:
        """Largest radius up to `limit` inside which the Jacobian determinant is positive, over 90 directions."""
        angles = np.arange(90) * (2 * np.pi / 90)
        rays = np.stack([np.cos(angles), np.sin(angles)], axis=-1)

        def is_one_to_one(radii: np.ndarray) -> np.ndarray:
            with np.errstate(all="ignore"):
                determinant = np.linalg.det(self._jacobian((radii[:, None, None] * rays).reshape(-1, 2)))
            return (determinant.reshape(len(radii), -1) > 0).all(axis=1)

        low, high = 0.0, limit
        for _ in range(6):  # each pass narrows the interval of the first failure to 1/200
            radii = np.tan(np.linspace(math.atan(low), math.atan(high), 201))[1:]
            good = is_one_to_one(radii)
            if good.all():
                return high
            first = int(np.argmin(good))
            low, high = (low if first == 0 else float(radii[first - 1])), float(radii[first])
        return low

    def _tilted(self, bent: np.ndarray) -> np.ndarray:
        mapped = np.concatenate([bent, np.ones((len(bent), 1))], axis=1) @ self.tilt.T
        return mapped[:, :2] / mapped[:, 2:]

    def _untilted(self, points: np.ndarray) -> np.ndarray:
        mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ np.linalg.inv(self.tilt).T
        return mapped[:, :2] / mapped[:, 2:]


class KannalaBrandt:
    """Fisheye: distance from the principal point theta (1 + k1 theta^2 + ... + k4 theta^8) of the off-axis angle theta.

    Kannala and Brandt 2006 in the form of cv2.fisheye; angles beyond 90 degrees are ordinary.

    Args:
        coefficients: k1 k2 k3 k4.
    """

    def __init__(self, coefficients: tuple[float, ...]) -> None:
        k1, k2, k3, k4 = coefficients
        self.growth = np.polynomial.Polynomial([1.0, k1, k2, k3, k4])  # of theta squared
        self.slope = np.polynomial.Polynomial([1.0, 3 * k1, 5 * k2, 7 * k3, 9 * k4])

    @cached_property
    def largest_angle(self) -> float:
        """Off-axis angle up to which the model is one-to-one, radians, at most pi."""
        return min(math.sqrt(smallest_positive_root(self.slope, math.pi**2)), math.pi)

    def distort(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distorted normalised coordinates of directions; arguments and results as in `BrownConrady.distort`."""
        sideways = np.hypot(directions[:, 0], directions[:, 1])
        theta = np.arctan2(sideways, directions[:, 2])
        distorted = theta * self.growth(theta * theta)
        with np.errstate(invalid="ignore", divide="ignore"):
            valid = (theta < self.largest_angle) & np.isfinite(directions).all(axis=1)
            valid &= (sideways > 0) | (directions[:, 2] > 0)  # straight back and the zero vector have no image
            points = directions[:, :2] * np.where(sideways > 0, distorted / sideways, 1.0)[:, None]
        points[~valid] = np.nan
        return points, valid

    def undistort(self, points: np.ndarray) -> np.ndarray:
        """Unit directions (N, 3) of distorted normalised coordinates (N, 2); NaN where no direction leads there."""

        def value_and_slope(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            squared = theta * theta
            return theta * self.growth(squared), self.slope(squared)

        target = np.hypot(points[:, 0], points[:, 1])
        theta = increasing_root(value_and_slope, target, self.largest_angle)
        with np.errstate(invalid="ignore", divide="ignore"):
            sideways = points * np.where(target > 0, np.sin(theta) / target, 1.0)[:, None]
        return np.concatenate([sideways, np.cos(theta)[:, None]], axis=1)


def make_lens(distortion_model: str, coefficients: tuple[float, ...]) -> BrownConrady | KannalaBrandt:
    """The lens of a ROS distortion model.

    Args:
        distortion_model: a key of `DISTORTION_MODELS`.
        coefficients: as many as the model takes, finite.
    Raises:
        ValueError: unknown model, wrong number of coefficients, or one that is not finite.
    """
    if distortion_model not in DISTORTION_MODELS:
        raise ValueError(
            f"distortion_model is {distortion_model!r}; expected one of {', '.join(DISTORTION_MODELS)} in camera_info"
        )
    counts = DISTORTION_MODELS[distortion_model]
    if len(coefficients) not in counts:
        wanted = " or ".join(str(count) for count in counts if count)
        raise ValueError(
            f"{distortion_model} has {len(coefficients)} coefficients; expected {wanted}, zeros for no distortion"
        )
    if not all(abs(value) <= _LARGEST_COEFFICIENT for value in coefficients):  # false for NaN
        raise ValueError(
            f"{distortion_model} coefficients are {tuple(coefficients)}; "
            f"expected finite numbers of ordinary size; recalibrate"
        )
    return KannalaBrandt(coefficients) if distortion_model == "equidistant" else BrownConrady(coefficients)


def _tilt_matrix(tilt_x: float, tilt_y: float) -> np.ndarray:
    """Homography of a sensor tilted about x, then y (OpenCV's tilted model, Scheimpflug)."""
    cx, sx, cy, sy = math.cos(tilt_x), math.sin(tilt_x), math.cos(tilt_y), math.sin(tilt_y)
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    rotation = about_y @ about_x
    onto_sensor = np.array([[rotation[2, 2], 0, -rotation[0, 2]], [0, rotation[2, 2], -rotation[1, 2]], [0, 0, 1]])
    return onto_sensor @ rotation
