"""Light at night and on wet ground: street lamps, headlights, and reflections in puddles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mesh import Surface
from .noise import noise
from .patterns import Paint
from .trace import Hits, Tracer, columns, dot, put_columns
from .weather import Weather

__all__ = ["Lights", "mirror_things", "soak"]

_REACH = 55.0  # metres; lamps farther away are left out, because their light is hardly visible
_STREET = np.array([13.0, 10.5, 7.0], np.float32)  # radiant intensity; at 7 m a quarter of the sun's light
_HEAD = np.array([34.0, 33.0, 30.0], np.float32)
_HEADLAMPS = ((3.5, 0.62, 0.68), (3.5, -0.62, 0.68))  # in base_link
_DIPPED, _SPREAD = (
    np.float32(-0.045),
    np.array([0.09, 0.35], np.float32),
)  # radians: pitch downwards, and the beam's height and width
_SOAKED = (
    Surface.ASPHALT,
    Surface.PAVING,
    Surface.COBBLES,
    Surface.PARKING,
    Surface.KERB,
    Surface.CONCRETE,
    Surface.EARTH,
)


@dataclass(frozen=True)
class Lights:
    """The lamps that are on.

    Attributes:
        street: (L, 3) positions of street lamps in odom.
        odom_from_base: (4, 4) pose of the recording car, whose headlights are on.
    """

    street: np.ndarray
    odom_from_base: np.ndarray

    def arriving(self, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Light of the lamps on surfaces, without shadows, (3, N), for points and unit normals (3, N) in odom."""
        total = np.zeros_like(point)
        here = self.odom_from_base[:3, 3]
        near = self.street[np.hypot(*(self.street[:, :2] - here[:2]).T) < _REACH]
        for lamp in near.astype(np.float32):
            towards = lamp[:, None] - point
            squared = dot(towards, towards)
            length = np.sqrt(squared)
            facing = np.maximum(dot(normal, towards) / length, 0)
            down = np.maximum(towards[2] / length, 0)  # lamps shine downwards, and little sideways
            total += _STREET[:, None] * (facing * down / np.maximum(squared, 1))
        ahead, left, up = self.odom_from_base[:3, :3].T.astype(np.float32)
        for place in _HEADLAMPS:
            lamp = (self.odom_from_base @ [*place, 1.0])[:3].astype(np.float32)
            away = point - lamp[:, None]
            squared = dot(away, away)
            length = np.sqrt(squared)
            forward = np.maximum(dot(away, ahead), np.float32(1e-3))
            height, side = dot(away, up) / forward - _DIPPED, dot(away, left) / forward
            beam = np.exp(-((height / _SPREAD[0]) ** 2) - (side / _SPREAD[1]) ** 2) * (forward > 0.05)
            facing = np.maximum(-dot(normal, away) / length, 0)
            total += _HEAD[:, None] * (beam * facing / np.maximum(squared, 4))
        return total


def soak(paint: Paint, hits: Hits, footprint: np.ndarray, wet: float) -> None:
    """Make the ground wet: darker, and reflecting where there are puddles."""
    rows = np.flatnonzero(hits.hit & np.isin(hits.surface, _SOAKED) & (hits.normal[2] > 0.8))
    x, y = hits.point[0, rows], hits.point[1, rows]
    puddle = noise(x + 51, y - 17, 0.25, footprint[rows]) * 0.5 + noise(y, x, 1.1, footprint[rows]) * 0.7
    depth = np.clip(puddle + np.float32(2.2 * wet - 1.6), 0, 1)
    put_columns(paint.albedo, rows, columns(paint.albedo, rows) * (1 - np.float32(0.45 * wet) - 0.15 * depth * wet))
    paint.gloss[rows] = np.maximum(paint.gloss[rows], np.float32(0.22 * wet) + np.float32(0.5) * depth)


def mirror_things(
    tracer: Tracer,
    origin: np.ndarray,
    normal: np.ndarray,
    mirrored: np.ndarray,
    gloss: np.ndarray,
    weather: Weather,
    seen: np.ndarray,
) -> None:
    """Write the objects that wet ground reflects into `seen`, (3, N), roughly shaded. The sky is already there.

    Args:
        origin: (3, N) points just above the surface.
        normal, mirrored: (3, N) unit normals, and directions of the reflected rays.
        gloss: (N,); points of little gloss keep what is in `seen`.
    """
    rows = np.flatnonzero((gloss > 0.1) & (normal[2] > 0.8))
    if not len(rows):
        return
    hits = tracer.trace(columns(origin, rows).T, columns(mirrored, rows).T)
    found = np.flatnonzero(hits.hit)
    ambient = (weather.zenith * 0.4 + weather.horizon * 0.4 + weather.sun_colour * 0.3)[:, None]
    lamps = np.float32(2 * weather.lamps + 0.3) * (hits.surface[found] == Surface.LAMP)
    colour = columns(hits.colour, found) * (ambient + lamps)
    haze = 1 - np.exp(hits.distance[found] * np.float32(-1 / weather.haze))
    colour += (weather.horizon[:, None] * np.float32(0.9) - colour) * haze
    put_columns(seen, rows[found], colour)
