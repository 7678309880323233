"""The weather of a recording: sun, sky, clouds, haze, rain, and lamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Weather"]


@dataclass(frozen=True)
class Weather:
    """The light and the air.

    Attributes:
        sun: (3,) unit direction towards the sun, in odom.
        sun_colour, zenith, horizon: (3,) linear, in units of the sun's light on white paper.
        clouds: 0 (clear) to 1 (overcast).
        haze: distance in metres at which a surface has 63% of the horizon's colour.
        drift: offset in the cloud pattern.
        cloud_light: brightness of clouds.
        lamps: brightness of street lamps, headlights and windows; 0 by day.
        wet: 0 to 1, how wet the ground is.
        rain: 0 to 1, how much rain is in the air.
    """

    sun: np.ndarray
    sun_colour: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    clouds: float
    haze: float
    drift: float
    cloud_light: float = 1.0
    lamps: float = 0.0
    wet: float = 0.0
    rain: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Weather:
        """The weather of a recording: mostly sunny, sometimes overcast."""
        elevation, azimuth = np.radians(rng.uniform(24, 62)), rng.uniform(-np.pi, np.pi)
        sun = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        clouds = float(np.clip(rng.beta(1.1, 1.4), 0.05, 0.95))
        grey = np.clip((clouds - 0.55) / 0.4, 0, 1)
        low = np.clip((50 - np.degrees(elevation)) / 30, 0, 1)
        warmth = np.array([1.0, 0.93 - 0.1 * low, 0.84 - 0.24 * low])
        zenith = (1 - grey) * np.array([0.10, 0.20, 0.44]) + grey * np.array([0.42, 0.45, 0.50])
        horizon = (1 - grey) * np.array([0.52, 0.60, 0.70]) + grey * np.array([0.60, 0.62, 0.65])
        return cls(
            sun.astype(np.float32),
            (warmth * (1 - 0.88 * grey) * 1.15).astype(np.float32),
            zenith.astype(np.float32),
            horizon.astype(np.float32),
            clouds,
            float(rng.uniform(600, 2000)),
            float(rng.uniform(0, 1000)),
        )
