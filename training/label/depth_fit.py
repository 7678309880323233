"""Fits the scale and the shift of a depth network's output to points of known depth, robustly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderocc_model.base.config import configuration, setting

__all__ = ["DenseDepth", "DepthFit", "fit_depth"]

_TRIALS = 300  # pairs of points that give a first guess
_ROUNDS = 10  # of least squares
_BEYOND = 1.2  # times the farthest, or one by so much of the nearest, fitted depth: where filling ends


@configuration
class DenseDepth:
    """When a depth network may fill an image."""

    densify_min_points: int = setting(
        20, "fewest points with depth from motion in an image, below which it is not filled", minimum=4
    )
    densify_tolerance: float = setting(
        0.1, "largest error of a depth that agrees with its point, as a share of it", minimum=0.005, maximum=0.5
    )
    densify_min_fit: float = setting(
        0.7,
        "share of an image's points that the network's depths must agree with, else it is not filled",
        minimum=0.3,
        maximum=1.0,
    )


@dataclass(frozen=True)
class DepthFit:
    """The depth of a network's output y: 1 / (scale y + shift) for inverse depths, scale y for depths.

    Attributes:
        scale, shift: see above; depths have no shift.
        inverse: whether y is an inverse depth.
        share: of the points that agree.
        nearest, farthest: of the points that agree, metres.
    """

    scale: float
    shift: float
    inverse: bool
    share: float
    nearest: float
    farthest: float

    def depth(self, output: np.ndarray) -> np.ndarray:
        """Depths in metres, float32, of an output; 0 (unknown) where they lie outside of what the points span."""
        value = self.scale * output.astype(np.float64) + self.shift
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = 1 / value if self.inverse else value
        known = np.isfinite(depth) & (depth >= self.nearest / _BEYOND) & (depth <= self.farthest * _BEYOND)
        return np.where(known, depth, 0).astype(np.float32)


def fit_depth(output: np.ndarray, depth: np.ndarray, inverse: bool, settings: DenseDepth) -> DepthFit | str:
    """Fit scale (and shift) to points of an image, or the reason why they cannot be.

    Relative errors of the depths count. Of many guesses from one or two points each, that with the smallest sum of
    truncated squares is refined by least squares of the points that agree with it. Wrong points and things that move
    may be up to 1 - `densify_min_fit` of all.

    Args:
        output: (N,) of the network at the points.
        depth: (N,) z-depths of the points, metres.
        inverse: whether the output is an inverse depth, with any shift; else a depth without a shift.
        settings: thresholds.
    """
    usable = np.isfinite(output) & (depth > 0)
    output, depth = output[usable].astype(np.float64), depth[usable].astype(np.float64)
    if len(depth) < settings.densify_min_points:
        return "too few points"
    # A row times (scale, shift) is 1 where the depth agrees; its difference from 1 is the relative error.
    rows = np.stack([output * depth, depth], axis=1) if inverse else (output / depth)[:, None]
    tolerance = settings.densify_tolerance
    guesses = _guesses(rows)
    if not len(guesses):
        return "the network's output does not vary"
    errors = np.abs(guesses @ rows.T - 1)
    best = guesses[np.square(np.minimum(errors, tolerance)).sum(axis=1).argmin()]
    agrees = np.abs(rows @ best - 1) <= tolerance
    for _ in range(_ROUNDS):
        if np.count_nonzero(agrees) < rows.shape[1]:
            break
        best = np.linalg.lstsq(rows[agrees], np.ones(np.count_nonzero(agrees)), rcond=None)[0]
        before, agrees = agrees, np.abs(rows @ best - 1) <= tolerance
        if np.array_equal(before, agrees):
            break
    share = float(agrees.mean())
    if share < settings.densify_min_fit or best[0] <= 0:
        return "the network's depths do not fit the points"
    near, far = float(depth[agrees].min()), float(depth[agrees].max())
    return DepthFit(float(best[0]), float(best[1]) if inverse else 0.0, inverse, share, near, far)


def _guesses(rows: np.ndarray) -> np.ndarray:
    """Parameters (K, P) that make as many rows as there are parameters equal to 1, for random rows."""
    rng = np.random.default_rng(0)
    count, unknowns = rows.shape
    chosen = rows[rng.integers(count, size=(_TRIALS, unknowns))]
    solvable = np.abs(np.linalg.det(chosen)) > 1e-9 * np.square(rows).mean()
    return np.linalg.solve(chosen[solvable], np.ones((np.count_nonzero(solvable), unknowns, 1)))[..., 0]
