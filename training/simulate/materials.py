"""Surfaces drawn at random: tints, contrast, scale and stains of each material, road paint, lit windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mesh import Surface
from .noise import noise, scramble

__all__ = ["Materials", "draw_materials"]

_COUNT = len(Surface)
# Surfaces whose patterns may be scaled. Others have a fixed scale (markings, windows, parking bays).
_SCALED = (
    Surface.PLAIN,
    Surface.PAVING,
    Surface.GRASS,
    Surface.ROOF,
    Surface.BARK,
    Surface.BRICK,
    Surface.CLOTH,
    Surface.CONCRETE,
    Surface.COBBLES,
    Surface.EARTH,
)
_OBJECTS = (Surface.FACADE, Surface.ROOF, Surface.BRICK, Surface.LEAVES)  # each object has a tint of its own


@dataclass(frozen=True)
class Materials:
    """How the surfaces of one town differ from the default ones. Arrays are indexed by `Surface`.

    Attributes:
        tint: (S, 3) factors of the albedo.
        contrast: (S,) factor of the pattern's difference from the surface's colour.
        scale: (S,) how many times larger patterns are.
        stain, stain_size: (S,) amplitude of large stains, and the size of their finest detail in metres.
        variation: how much the colours of objects differ.
        paint: (3,) albedo of road markings.
        wear: 0 to 1, the share of the markings that is worn away.
    """

    tint: np.ndarray
    contrast: np.ndarray
    scale: np.ndarray
    stain: np.ndarray
    stain_size: np.ndarray
    variation: float
    paint: np.ndarray
    wear: float

    def altered(self, surface: int, colour: np.ndarray, albedo: np.ndarray, at) -> np.ndarray:
        """Albedo (3, N) of a surface with this town's changes.

        Args:
            surface: a `Surface`.
            colour: (3, N) the mean colour of the surface, without its pattern.
            albedo: (3, N) with the pattern.
            at: the points, as the painters get them.
        """
        albedo = colour + (albedo - colour) * np.float32(self.contrast[surface])
        albedo = albedo * self.tint[surface][:, None]
        if self.stain[surface] > 0.02:
            shift = np.float32(surface * 13.7)
            if surface in _OBJECTS:
                s, t = at.s + at.seed * np.float32(7.31), at.t
            else:
                s, t = at.point[0] + at.point[2] + shift, at.point[1] - at.point[2]
            stain = noise(s, t, float(self.stain_size[surface]), at.footprint)
            albedo *= np.exp(np.float32(self.stain[surface]) * stain)
        if surface in _OBJECTS and self.variation:
            own = np.stack([scramble(at.seed, np.float32(k)) for k in (11, 12, 13, 14)]) - np.float32(0.5)
            albedo *= np.exp(np.float32(self.variation) * (own[:3] + 1.5 * own[3]))
        return albedo


def draw_materials(rng: np.random.Generator) -> Materials:
    """The surfaces of a town."""
    brightness = np.exp(rng.normal(0, 0.3, _COUNT))
    tint = np.exp(rng.normal(0, 0.1, (_COUNT, 3))) * brightness[:, None]
    tint[Surface.ASPHALT] = np.exp(rng.normal(0, 0.05, 3)) * np.exp(rng.uniform(-0.9, 0.75))
    tint[Surface.PARKING] = tint[Surface.ASPHALT] * np.exp(rng.normal(0, 0.15))
    contrast = np.exp(rng.normal(0, 0.4, _COUNT))
    contrast[[Surface.ASPHALT, Surface.PARKING]] **= 0.4  # markings are part of the pattern
    season = rng.random()
    if season < 0.2:  # autumn
        tint[Surface.LEAVES] *= (rng.uniform(1.3, 2.6), rng.uniform(0.7, 1.1), rng.uniform(0.3, 0.8))
    elif season < 0.4:  # dry
        tint[Surface.GRASS] *= (rng.uniform(1.3, 2.2), rng.uniform(1.0, 1.4), rng.uniform(0.9, 1.5))
    scale = np.ones(_COUNT)
    scale[list(_SCALED)] = np.exp(rng.uniform(-0.7, 0.9, len(_SCALED)))
    paint = np.array([0.62, 0.62, 0.58]) * rng.uniform(0.6, 1.3)
    if rng.random() < 0.25:
        paint = paint * (1.0, 0.72, 0.18)  # yellow
    return Materials(
        tint.astype(np.float32),
        contrast,
        scale.astype(np.float32),
        np.abs(rng.normal(0, 0.16, _COUNT)),
        np.exp(rng.uniform(np.log(0.02), np.log(0.6), _COUNT)),
        float(rng.uniform(0, 0.9)),
        paint.astype(np.float32),
        float(rng.random() ** 2),
    )
