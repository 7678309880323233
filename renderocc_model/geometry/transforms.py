"""Rigid transforms in float64: `a_from_b` is 4x4 and acts on column vectors of b; quaternions are (x, y, z, w)."""

from __future__ import annotations

import numpy as np

__all__ = [
    "interpolate",
    "invert",
    "is_rotation",
    "matrix_from_quaternion",
    "quaternion_from_matrix",
    "slerp",
    "transform_from",
    "transform_points",
]

_ORTHONORMAL = 1e-4  # largest |R R^T - 1| taken for a rotation: float32 data passes, a scaled matrix does not
_NEARLY_PARALLEL = 1.0 - 1e-12  # cosine above which sin(angle) is too small to divide by


def invert(a_from_b: np.ndarray) -> np.ndarray:
    """b_from_a of a rigid transform (or a stack of them), by transposing the rotation.

        >>> odom_from_base = transform_from([10.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0])
        >>> transform_points(invert(odom_from_base), [[12.0, 3.0, 0.0]])
        array([[2., 3., 0.]])

    Args:
        a_from_b: (..., 4, 4), rotation and translation only.
    Returns:
        (..., 4, 4) float64.
    """
    a_from_b = _as_transform(a_from_b)
    b_from_a = np.zeros_like(a_from_b)
    rotation = np.swapaxes(a_from_b[..., :3, :3], -1, -2)
    b_from_a[..., :3, :3] = rotation
    b_from_a[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, a_from_b[..., :3, 3])
    b_from_a[..., 3, 3] = 1.0
    return b_from_a


def matrix_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix of a quaternion of any length above zero.

    Args:
        quaternion: (..., 4) as (x, y, z, w); normalised here.
    Returns:
        (..., 3, 3) float64.
    Raises:
        ValueError: not four numbers, one is NaN or infinite, or all are zero.
    """
    x, y, z, w = np.moveaxis(_unit_quaternion(quaternion), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (x, y, z, w) with w >= 0 of a rotation matrix.

    The largest of the four components is found first and divided by, so that no rotation loses precision (Shepperd).

    Args:
        rotation: (3, 3).
    Raises:
        ValueError: not a rotation matrix.
    """
    r = np.asarray(rotation, dtype=np.float64)
    if r.shape != (3, 3) or not is_rotation(r):
        raise ValueError(f"rotation: expected an orthonormal 3x3 matrix with determinant 1, got {r.tolist()}")
    trace = r[0, 0] + r[1, 1] + r[2, 2]
    # 4 q q^T, from which the row with the largest diagonal entry is 4 q_max times q.
    outer = np.array(
        [
            [1 + 2 * r[0, 0] - trace, r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[0, 1] + r[1, 0], 1 + 2 * r[1, 1] - trace, r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], 1 + 2 * r[2, 2] - trace, r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], 1 + trace],
        ]
    )
    quaternion = outer[np.argmax(np.diag(outer))]
    quaternion = quaternion / np.linalg.norm(quaternion)
    return -quaternion if quaternion[3] < 0 else quaternion


def is_rotation(matrix: np.ndarray) -> bool:
    """Whether a 3x3 matrix is a proper rotation, to the precision of float32 data."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(matrix).all():
        return False
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() < _ORTHONORMAL and np.linalg.det(matrix) > 0)


def transform_from(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """a_from_b of where b lies in a.

    Args:
        translation: (3,), origin of b in a, metres.
        quaternion: (4,) as (x, y, z, w), rotation of b's axes into a's; normalised here.
    Returns:
        (4, 4) float64.
    Raises:
        ValueError: a number is NaN or infinite, or the quaternion is zero.
    """
    translation = np.asarray(translation, dtype=np.float64)
    if translation.shape != (3,) or not np.isfinite(translation).all():
        raise ValueError(f"translation: expected three finite numbers in metres, got {translation.tolist()}")
    quaternion = np.asarray(quaternion, dtype=np.float64)
    if quaternion.shape != (4,):
        raise ValueError(f"quaternion: expected (x, y, z, w), got shape {quaternion.shape}")
    a_from_b = np.eye(4)
    a_from_b[:3, :3] = matrix_from_quaternion(quaternion)
    a_from_b[:3, 3] = translation
    return a_from_b


def transform_points(a_from_b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points of b, expressed in a.

    Args:
        a_from_b: (4, 4).
        points: (..., 3) in b.
    Returns:
        (..., 3) float64 in a.
    """
    a_from_b = _as_transform(a_from_b)
    if a_from_b.ndim != 2:
        raise ValueError(f"transform: expected one 4x4 matrix, got shape {a_from_b.shape}")
    points = np.asarray(points, dtype=np.float64)
    if points.shape[-1:] != (3,):
        raise ValueError(f"points: expected shape (..., 3), got {points.shape}")
    return points @ a_from_b[:3, :3].T + a_from_b[:3, 3]


def slerp(start: np.ndarray, end: np.ndarray, fraction: float) -> np.ndarray:
    """Unit quaternion a fraction of the way along the shorter arc from start to end (Shoemake 1985).

    Args:
        start: (4,) as (x, y, z, w).
        end: (4,); its negative, the same rotation, gives the same answer.
        fraction: 0 (start) to 1 (end).
    Raises:
        ValueError: a quaternion is zero or not finite, or fraction lies outside 0..1.
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"slerp: fraction is {fraction}; expected 0 to 1, as extrapolating a pose is guessing")
    start, end = _unit_quaternion(start), _unit_quaternion(end)
    cosine = float(start @ end)
    if cosine < 0:
        end, cosine = -end, -cosine
    if cosine > _NEARLY_PARALLEL:
        blend = (1 - fraction) * start + fraction * end
    else:
        angle = np.arctan2(np.linalg.norm(end - cosine * start), cosine)
        blend = (np.sin((1 - fraction) * angle) * start + np.sin(fraction * angle) * end) / np.sin(angle)
    return blend / np.linalg.norm(blend)


def interpolate(start: np.ndarray, end: np.ndarray, fraction: float) -> np.ndarray:
    """a_from_b between two of its values: translation linear, rotation by `slerp` (as tf2 does).

    Args:
        start: (4, 4), a_from_b at fraction 0.
        end: (4, 4), a_from_b at fraction 1.
        fraction: 0 to 1.
    Returns:
        (4, 4) float64.
    Raises:
        ValueError: fraction lies outside 0..1, or a matrix holds no rotation.
    """
    start, end = _as_transform(start), _as_transform(end)
    rotation = slerp(quaternion_from_matrix(start[:3, :3]), quaternion_from_matrix(end[:3, :3]), fraction)
    return transform_from((1 - fraction) * start[:3, 3] + fraction * end[:3, 3], rotation)


def _as_transform(a_from_b: np.ndarray) -> np.ndarray:
    a_from_b = np.asarray(a_from_b, dtype=np.float64)
    if a_from_b.shape[-2:] != (4, 4):
        raise ValueError(f"transform: expected a 4x4 matrix, got shape {a_from_b.shape}")
    return a_from_b


def _unit_quaternion(quaternion: np.ndarray) -> np.ndarray:
    quaternion = np.asarray(quaternion, dtype=np.float64)
    if quaternion.shape[-1:] != (4,):
        raise ValueError(f"quaternion: expected (..., 4) as (x, y, z, w), got shape {quaternion.shape}")
    # Scaled by the largest component first, so that tiny and huge quaternions neither under- nor overflow.
    largest = np.abs(quaternion).max(axis=-1, keepdims=True)
    if not (np.isfinite(largest).all() and (largest > 0).all()):
        raise ValueError(f"quaternion: (x, y, z, w) = {quaternion.tolist()} is no rotation; publish a unit quaternion")
    quaternion = quaternion / largest
    return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
