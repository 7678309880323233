"""Matches features of two images whose poses are known: only along the epipolar line, and only where both rays meet."""

from __future__ import annotations

import numpy as np

from .features import Features

__all__ = ["epipolar_errors", "match_along_lines", "match_anywhere"]

_NEAREST, _FARTHEST = 0.3, 150.0  # metres along a ray
_LEAST_SIMILAR = 0.9  # cosine between descriptors
_RATIO = 0.8  # largest ratio of the best distance of descriptors to the second best
_SAME_PLACE = 3.0  # pixels: features of the same corner are no rivals


def match_along_lines(one: Features, other: Features, other_from_one: np.ndarray, max_error: float) -> np.ndarray:
    """Matches (K, 2), indices of features of one image and of the other.

    Of the features within `max_error` of the epipolar line, whose rays meet in front of both cameras, the most similar
    one is taken, if it is the most similar in both directions and clearly more similar than the next.

    Args:
        one, other: features of the two images.
        other_from_one: (4, 4), pose of one's optical frame in the other's.
        max_error: pixels, Sampson's distance to the epipolar line.
    """
    rows, columns = _near_lines(one, other, other_from_one, max_error)
    near, far = _along_rays(one.directions[rows], other.directions[columns], other_from_one)
    meet = (near > _NEAREST) & (far > _NEAREST) & (near < _FARTHEST) & (far < _FARTHEST)
    rows, columns = rows[meet], columns[meet]
    similarity = np.einsum("ij,ij->i", one.descriptors[rows], other.descriptors[columns])
    return _unambiguous(rows, columns, similarity, one, other, _RATIO)


def match_anywhere(one: Features, other: Features, ratio: float = 0.8) -> np.ndarray:
    """Matches (K, 2) by the descriptors alone, for tests of the poses."""
    if not len(one) or not len(other):
        return np.zeros((0, 2), np.int64)
    similarity = one.descriptors @ other.descriptors.T
    count = min(4, len(other))
    columns = np.argpartition(-similarity, count - 1, axis=1)[:, :count].ravel()
    rows = np.repeat(np.arange(len(one)), count)
    back = similarity.argmax(axis=0)
    chosen = _unambiguous(rows, columns, similarity[rows, columns], one, other, ratio)
    return chosen[back[chosen[:, 1]] == chosen[:, 0]]


def epipolar_errors(one: Features, other: Features, matches: np.ndarray, other_from_one: np.ndarray) -> np.ndarray:
    """Sampson's distance of each match to its epipolar lines, (K,) pixels.

    With unit rays f and g, E = [t]x R and e = g.E f, an error of a pixel of either ray changes e by its angle times
    |E f - e g| or |E^T g - e f|. The distance is e by the root of the sum of both squares.
    """
    essential = _essential(other_from_one)
    f, g = one.directions[matches[:, 0]], other.directions[matches[:, 1]]
    lines, back = f @ essential.T, g @ essential
    e = np.einsum("ij,ij->i", lines, g)
    of_g = (np.einsum("ij,ij->i", lines, lines) - e * e) * other.angles[matches[:, 1]] ** 2
    of_f = (np.einsum("ij,ij->i", back, back) - e * e) * one.angles[matches[:, 0]] ** 2
    return np.abs(e) / np.sqrt(np.maximum(of_f + of_g, 1e-30))


def _essential(other_from_one: np.ndarray) -> np.ndarray:
    x, y, z = other_from_one[:3, 3]
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ other_from_one[:3, :3]


def _near_lines(one: Features, other: Features, pose: np.ndarray, max_error: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of features within `max_error` of their epipolar lines.

    The condition of `epipolar_errors` is two thin matrix products: e^2 < max_error^2 (|E f|^2 b^2 + |E^T g|^2 a^2),
    with the angles a and b of a pixel. Its terms in e^2 on the right are left out; they are below max_error^2 a^2.
    """
    essential = _essential(pose)
    lines, back = (one.directions @ essential.T).astype(np.float32), other.directions @ essential
    e = lines @ other.directions.T.astype(np.float32)
    left = np.stack([(lines * lines).sum(axis=1), one.angles**2], axis=1).astype(np.float32)
    right = np.stack([other.angles**2, (back * back).sum(axis=1)], axis=1).astype(np.float32) * np.float32(max_error**2)
    np.multiply(e, e, out=e)
    rows, columns = np.nonzero(e < left @ right.T)
    return rows, columns


def _along_rays(f: np.ndarray, g: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (K,), (K,) along the rays f and g to where they are nearest to each other, metres."""
    turned = f @ pose[:3, :3].T
    cosine = np.einsum("ij,ij->i", turned, g)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_f, by_g = turned @ pose[:3, 3], g @ pose[:3, 3]
        scale = 1 - cosine * cosine
        return (cosine * by_g - by_f) / scale, (by_g - cosine * by_f) / scale


def _unambiguous(
    rows: np.ndarray, columns: np.ndarray, similarity: np.ndarray, one: Features, other: Features, ratio: float
) -> np.ndarray:
    good = similarity > _LEAST_SIMILAR
    rows, columns, similarity = rows[good], columns[good], similarity[good]
    forth = _winners(rows, columns, similarity, other.pixels, ratio)
    back = _winners(columns, rows, similarity, one.pixels, ratio)
    both = np.intersect1d(forth, back)
    return np.stack([rows[both], columns[both]], axis=1)


def _winners(keys: np.ndarray, values: np.ndarray, similarity: np.ndarray, pixels: np.ndarray, ratio: float):
    """Indices of the best candidate of each key, where it is clearly better than the next one at another place."""
    order = np.lexsort((-similarity, keys))
    if not len(order):
        return order
    keys, values, similarity = keys[order], values[order], similarity[order]
    first = np.concatenate([[True], keys[1:] != keys[:-1]])
    group = np.cumsum(first) - 1
    best = np.flatnonzero(first)
    apart = np.linalg.norm(pixels[values] - pixels[values[best]][group], axis=1) > _SAME_PLACE
    rival = np.full(len(best), -1.0)
    np.maximum.at(rival, group[apart], similarity[apart])
    # Distances of unit vectors: |a - b|^2 = 2 - 2 a.b
    clear = np.sqrt(np.maximum(1 - similarity[best], 0)) < ratio * np.sqrt(np.maximum(1 - rival, 0))
    return order[best[clear]]
