"""Patterns filtered over a pixel's footprint, and the points of one surface that a painter colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .materials import Materials
from .mesh import Surface
from .noise import noise

__all__ = ["Paint", "band", "mix", "stripes"]


def stripes(x: np.ndarray, period, width, footprint: np.ndarray) -> np.ndarray:
    """Share (N,) of a footprint around x that lies on stripes, where x mod period < width."""
    footprint = np.maximum(footprint, 1e-4)
    low, high = x - footprint / 2, x + footprint / 2

    def covered(edge):
        whole = np.floor(edge / period)
        return whole * width + np.minimum(edge - whole * period, width)

    return (covered(high) - covered(low)) / footprint


def band(x: np.ndarray, low, high, footprint: np.ndarray) -> np.ndarray:
    """Share (N,) of a footprint around x that lies between two values."""
    half = np.maximum(footprint, 1e-4) / 2
    return np.clip((np.minimum(x + half, high) - np.maximum(x - half, low)) / (2 * half), 0, 1)


@dataclass
class Paint:
    """The material at N points.

    Attributes:
        albedo: (3, N) linear.
        gloss: (N,) 0..1, strength of reflections.
        glow: (N,) emitted light; 1 is that of white paper in the sun.
        translucency: (N,) 0..1, share of light that comes through from behind (leaves, grass).
    """

    albedo: np.ndarray
    gloss: np.ndarray
    glow: np.ndarray
    translucency: np.ndarray


def mix(albedo: np.ndarray, colour, amount: np.ndarray) -> np.ndarray:
    """Blend towards a colour, (3,) or (3, N); amount (N,) in 0..1."""
    return albedo + (np.asarray(colour, np.float32).reshape(3, -1) - albedo) * amount


@dataclass
class SurfacePoints:
    """The points to paint: position in odom, texture coordinates, footprints, normals, and the town's materials."""

    point: np.ndarray
    s: np.ndarray
    t: np.ndarray
    seed: np.ndarray
    along: np.ndarray
    across: np.ndarray
    normal: np.ndarray
    materials: Materials | None
    lit: float

    def scaled(self, scale: np.float32) -> SurfacePoints:
        """The same points, for patterns that are `scale` times larger."""
        if scale == 1:
            return self
        places = (place / scale for place in (self.point, self.s, self.t))
        point, s, t = places
        return replace(self, point=point, s=s, t=t, along=self.along / scale, across=self.across / scale)

    def road_paint(self, usual: tuple[float, float, float], surface: Surface) -> np.ndarray:
        """Albedo (3,) of road markings, before the surface's own tint is put on it."""
        if self.materials is None:
            return np.asarray(usual, np.float32)
        return self.materials.paint / self.materials.tint[surface]

    def left_of_paint(self, worn: np.ndarray) -> np.ndarray:
        """Share of the markings that is not worn away, (N,)."""
        return worn if self.materials is None else np.clip(worn - self.materials.wear * (1.3 - 0.6 * worn), 0, 1)

    @property
    def footprint(self) -> np.ndarray:
        return np.maximum(self.along, self.across)

    def grain(self, texel: float, shift: float = 0.0) -> np.ndarray:
        """Noise in texture coordinates; `shift` selects another part of the pattern."""
        return noise(self.s + self.seed * 7.31 + shift, self.t + self.seed * 3.77 - shift, texel, self.footprint)

    def ground(self, texel: float, shift: float = 0.0) -> np.ndarray:
        """Noise in x and y of odom, without seams on horizontal surfaces."""
        return noise(self.point[0] + shift, self.point[1] - shift, texel, self.footprint)
