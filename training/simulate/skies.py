"""Light and weather drawn at random: sun, overcast sky, dusk, night with lamps, haze, fog, rain and wet roads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .weather import Weather

__all__ = ["draw_light", "draw_weather"]

_HAZE_M = (600.0, 2000.0)


def draw_light(rng: np.random.Generator) -> Weather:
    """A random sky: the sun 3 to 75 degrees high (60 %), overcast (20 %), dusk or night (10 % each)."""
    kind = rng.choice(["sun", "overcast", "dusk", "night"], p=[0.6, 0.2, 0.1, 0.1])
    azimuth = rng.uniform(-np.pi, np.pi)
    haze, drift = float(rng.uniform(*_HAZE_M)), float(rng.uniform(0, 1000))
    if kind == "sun":
        elevation = 3 + 72 * rng.random() ** 1.2
        clouds = float(np.clip(rng.beta(1.1, 2.0), 0.05, 0.8))
        low = np.clip((50 - elevation) / 40, 0, 1)
        strength = 1.15 * np.clip(elevation / 12, 0.35, 1) * rng.uniform(0.75, 1.25)
        colour = np.array([1.0, 0.93 - 0.22 * low**2, 0.84 - 0.5 * low**2]) * strength
        blue = rng.uniform(0.5, 1.3)
        zenith = np.array([0.10, 0.20, 0.30 + 0.14 * blue]) * rng.uniform(0.7, 1.5)
        horizon = np.array([0.52 + 0.12 * low, 0.60, 0.70 - 0.12 * low]) * rng.uniform(0.7, 1.3)
    elif kind == "overcast":
        elevation, clouds = rng.uniform(15, 70), 0.95
        level, tint = rng.uniform(0.3, 1.0), rng.normal(0, 0.03)
        colour = np.array([1.0, 0.97, 0.93]) * rng.uniform(0.0, 0.25) * level
        zenith = np.array([0.42, 0.45, 0.50 + tint]) * level
        horizon = np.array([0.60, 0.62, 0.65 + tint]) * level * rng.uniform(0.8, 1.2)
    elif kind == "dusk":
        elevation, clouds = rng.uniform(1.0, 4.0), float(rng.uniform(0.1, 0.8))
        colour = np.array([1.0, 0.55, 0.28]) * rng.uniform(0.0, 0.35)
        zenith = np.array([0.06, 0.09, 0.2]) * rng.uniform(0.5, 1.5)
        horizon = np.array([0.42, 0.30, 0.27]) * rng.uniform(0.5, 1.3)
    else:
        elevation, clouds = rng.uniform(20, 60), 0.3  # the moon's
        colour = np.array([0.8, 0.9, 1.0]) * rng.uniform(0.0, 0.012)
        zenith = np.array([0.004, 0.005, 0.009]) * rng.uniform(0.5, 2.5)
        horizon = np.array([0.014, 0.011, 0.010]) * rng.uniform(0.5, 2.5)
    cloud_light = {"overcast": 1.2 * float(horizon.mean()), "dusk": 0.55, "night": 0.02}.get(str(kind), 1.0)
    lamps = {"dusk": 0.35 * float(rng.random() < 0.7), "night": 1.0}.get(str(kind), 0.0)
    height, turn = np.radians(elevation), azimuth
    sun = np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)])
    return Weather(
        sun.astype(np.float32),
        colour.astype(np.float32),
        zenith.astype(np.float32),
        horizon.astype(np.float32),
        clouds,
        haze,
        drift,
        cloud_light=cloud_light,
        lamps=lamps,
    )


def draw_weather(weather: Weather, rng: np.random.Generator) -> Weather:
    """The same light in clear air (58 %), mist or fog (12 %), on wet roads without rain (15 %), or in rain (15 %)."""
    kind = rng.choice(["clear", "fog", "wet", "rain"], p=[0.58, 0.12, 0.15, 0.15])
    amount, wet, drops = rng.random(3)
    if kind == "clear":
        return replace(weather, haze=float(400 * 10**amount))
    if kind == "wet":
        return replace(weather, wet=float(0.4 + 0.6 * wet))
    grey = weather.zenith.mean() * 0.4 + weather.horizon.mean() * 0.6
    if kind == "fog":
        thick = 1 - amount  # 1 where the haze is 35 m
        return replace(
            weather,
            haze=float(35 * 10 ** (1.1 * amount)),
            sun_colour=weather.sun_colour * np.float32(1 - 0.8 * thick),
            zenith=_towards(weather.zenith, grey, 0.8 * thick),
            horizon=_towards(weather.horizon, grey, 0.8 * thick),
            clouds=max(weather.clouds, 0.5 + 0.4 * thick),
            wet=float(0.5 * wet * (drops < 0.4)),
        )
    return replace(
        weather,
        haze=float(120 * 10 ** (0.8 * amount)),
        sun_colour=weather.sun_colour * np.float32(0.12),
        zenith=_towards(weather.zenith, grey, 0.85),
        horizon=_towards(weather.horizon, grey, 0.85),
        clouds=0.95,
        wet=float(0.5 + 0.5 * wet),
        rain=float(0.15 + 0.85 * drops),
    )


def _towards(colour: np.ndarray, grey: float, amount: float) -> np.ndarray:
    return (colour + (np.float32(grey) - colour) * np.float32(amount)).astype(np.float32)
