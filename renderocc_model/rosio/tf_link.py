"""Rigid motions as tuples of seven Python floats, for chains of a few transforms.

On so few numbers NumPy's cost per call is larger than the arithmetic. A link is (x, y, z, qx, qy, qz, qw):
parent_from_child, in metres, with a unit quaternion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

# Above this cosine (0.001 rad) slerp is the normalised straight line to 1e-11 rad, while acos loses digits.
_NEARLY_EQUAL = 0.9999995

Link = tuple[float, float, float, float, float, float, float]
IDENTITY: Link = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def interpolate(a: Link, b: Link, fraction: float) -> Link:
    """Linear in translation, along the shorter great circle in rotation."""
    ax, ay, az, aqx, aqy, aqz, aqw = a
    bx, by, bz, bqx, bqy, bqz, bqw = b
    cosine = aqx * bqx + aqy * bqy + aqz * bqz + aqw * bqw
    sign = 1.0 if cosine >= 0.0 else -1.0
    cosine *= sign
    if cosine > _NEARLY_EQUAL:
        wa, wb = 1.0 - fraction, fraction * sign
    else:
        angle = math.acos(cosine)
        wa = math.sin((1.0 - fraction) * angle)
        wb = math.sin(fraction * angle) * sign
    qx, qy, qz, qw = wa * aqx + wb * bqx, wa * aqy + wb * bqy, wa * aqz + wb * bqz, wa * aqw + wb * bqw
    scale = 1.0 / math.sqrt(qx * qx + qy * qy + qz * qz + qw * qw)
    return (
        ax + (bx - ax) * fraction,
        ay + (by - ay) * fraction,
        az + (bz - az) * fraction,
        qx * scale,
        qy * scale,
        qz * scale,
        qw * scale,
    )


def times(a: Link, b: Link) -> Link:
    """a_from_c of a_from_b and b_from_c."""
    ax, ay, az, px, py, pz, pw = a
    bx, by, bz, qx, qy, qz, qw = b
    rx, ry, rz = _rotated(px, py, pz, pw, bx, by, bz)
    return (
        ax + rx,
        ay + ry,
        az + rz,
        pw * qx + px * qw + py * qz - pz * qy,
        pw * qy - px * qz + py * qw + pz * qx,
        pw * qz + px * qy - py * qx + pz * qw,
        pw * qw - px * qx - py * qy - pz * qz,
    )


def inverse_times(a: Link, b: Link) -> Link:
    """inv(a) b."""
    ax, ay, az, px, py, pz, pw = a
    rx, ry, rz = _rotated(-px, -py, -pz, pw, ax, ay, az)
    return times((-rx, -ry, -rz, -px, -py, -pz, pw), b)


def _rotated(qx: float, qy: float, qz: float, qw: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    tx, ty, tz = 2.0 * (qy * z - qz * y), 2.0 * (qz * x - qx * z), 2.0 * (qx * y - qy * x)
    return x + qw * tx + qy * tz - qz * ty, y + qw * ty + qz * tx - qx * tz, z + qw * tz + qx * ty - qy * tx


def composed(links: Iterable[Link]) -> Link:
    """top_from_bottom of the links from the bottom up."""
    total = IDENTITY
    for link in links:
        total = times(link, total)
    return total


def matrix(link: Link) -> np.ndarray:
    """The 4x4 float64 that acts on column vectors of the child."""
    x, y, z, qx, qy, qz, qw = link
    scale = 2.0 / (qx * qx + qy * qy + qz * qz + qw * qw)
    xx, yy, zz = scale * qx * qx, scale * qy * qy, scale * qz * qz
    xy, xz, yz = scale * qx * qy, scale * qx * qz, scale * qy * qz
    wx, wy, wz = scale * qw * qx, scale * qw * qy, scale * qw * qz
    return np.array(
        (
            (1.0 - yy - zz, xy - wz, xz + wy, x),
            (xy + wz, 1.0 - xx - zz, yz - wx, y),
            (xz - wy, yz + wx, 1.0 - xx - yy, z),
            (0.0, 0.0, 0.0, 1.0),
        )
    )
