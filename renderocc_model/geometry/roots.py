"""Roots of the functions that lenses are inverted by."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["CONVERGED", "increasing_root", "smallest_positive_root", "solve_2x2"]

CONVERGED = 1e-14  # Newton steps below this have converged; normalised coordinates, relative to 1 + radius


def increasing_root(value_and_slope, target: np.ndarray, upper: float) -> np.ndarray:
    """x in [0, upper) with value(x) = target (N,) >= 0, value rising from 0; Newton kept inside a bisection bracket."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        highest = float(value_and_slope(np.array([upper]))[0][0])
        solvable = target < highest if math.isfinite(highest) else np.isfinite(target)
    low, high = np.zeros(target.shape), np.full(target.shape, upper)
    root = np.minimum(np.where(solvable, target, 0.0), 0.5 * upper)
    wanted = np.where(solvable, target, 0.0)
    for _ in range(100):
        value, slope = value_and_slope(root)
        above = value > wanted
        high, low = np.where(above, root, high), np.where(above, low, root)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = root - (value - wanted) / slope
            inside = (newton >= low) & (newton <= high)
        following = np.where(inside, newton, 0.5 * (low + high))
        moved = np.abs(following - root) > CONVERGED * (1 + following)
        root = following
        if not moved.any():
            break
    return np.where(solvable, root, np.nan)


def solve_2x2(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Solutions (N, 2) of N 2x2 systems by Cramer's rule; NaN or infinite where singular."""
    (a, b), (c, d) = np.moveaxis(matrices[:, 0], 1, 0), np.moveaxis(matrices[:, 1], 1, 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        determinant = a * d - b * c
        return np.stack(
            [
                (d * vectors[:, 0] - b * vectors[:, 1]) / determinant,
                (a * vectors[:, 1] - c * vectors[:, 0]) / determinant,
            ],
            axis=-1,
        )


def smallest_positive_root(polynomial: np.polynomial.Polynomial, reach: float) -> float:
    """Smallest root above zero of a polynomial that is 1 at zero; infinite if there is none up to `reach`.

    Terms that stay below rounding as far as `reach` are left out: a leading coefficient near zero spoils the roots.
    """
    counts = np.abs(polynomial.coef) * reach ** np.arange(len(polynomial.coef)) > 1e-15
    roots = np.polynomial.Polynomial(polynomial.coef[: int(np.flatnonzero(counts)[-1]) + 1]).roots()
    real = roots[np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots.real))].real
    return float(min(real[real > 0], default=math.inf))
