"""Light: sun, sky, shadows, haze, and the camera that turns radiance into a photograph."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .textures import noise, paint
from .trace import Hits, Tracer, dot

__all__ = ["Weather", "develop", "footprints", "radiance", "sky"]

_AMBIENT_REACH = 5.0  # metres within which something overhead keeps the sky's light away


@dataclass(frozen=True)
class Weather:
    """Where light comes from.

    Attributes:
        sun: (3,) unit direction towards the sun, in odom.
        sun_colour, zenith, horizon: (3,) linear, in units of the sun's light on white paper.
        clouds: 0 (clear) to 1 (overcast).
        haze: metres over which a distant surface takes on 63% of the horizon's colour.
        drift: where in the cloud pattern this sky lies.
    """

    sun: np.ndarray
    sun_colour: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    clouds: float
    haze: float
    drift: float

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
            sun.astype(np.float32), (warmth * (1 - 0.88 * grey) * 1.15).astype(np.float32), zenith.astype(np.float32),
            horizon.astype(np.float32), clouds, float(rng.uniform(600, 2000)), float(rng.uniform(0, 1000)),
        )  # fmt: skip


def sky(directions: np.ndarray, weather: Weather, pixel: float, detail: bool = True) -> np.ndarray:
    """Radiance from the sky along unit directions; below the horizon, the horizon's. (N, 3)."""
    up = np.maximum(directions[:, 2], 0.0)
    blend = np.minimum(1.0, up * 1.6) ** 0.55
    colour = weather.horizon + (weather.zenith - weather.horizon) * blend[:, None]
    towards_sun = np.maximum(np.einsum("ij,j->i", directions, weather.sun), 0)
    if detail:
        reach = 1000.0 / (up + 0.12)
        x, y = directions[:, 0] * reach + weather.drift, directions[:, 1] * reach
        cover = noise(x, y, 14.0, reach * pixel * 2) * 0.75 + noise(y, x, 60.0, reach * pixel * 2) * 0.6
        threshold = 1.9 - 3.6 * weather.clouds
        density = np.clip((cover - threshold) * 0.9, 0, 1) * np.clip(up * 9, 0, 1)
        lit = np.float32([0.92, 0.92, 0.93]) * (0.75 + 0.25 * towards_sun[:, None]) * (1 - 0.35 * density[:, None] ** 2)
        colour = colour + (lit * (0.55 + 0.45 * weather.sun_colour.mean()) - colour) * (density * 0.9)[:, None]
    glow = 0.25 * towards_sun**8 + 0.6 * towards_sun**64
    if detail:
        glow += 30.0 * (towards_sun > 0.99995)
    return colour + glow[:, None] * weather.sun_colour


def footprints(
    hits: Hits, directions: np.ndarray, pixel: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Metres along both texture axes that a pixel covers, from its neighbours where they lie on the same surface.

    Args:
        hits, directions: of an image's rays, row by row.
        pixel: radians between neighbouring pixels.
        shape: (height, width).
    """
    facing = np.maximum(np.abs(dot(hits.normal, directions)), 0.03)
    smallest = np.where(hits.hit, hits.distance, 1.0) * pixel
    largest = smallest / facing * 1.5
    texture = hits.texture[:, :2].reshape(*shape, 2)
    down, right = np.zeros_like(texture), np.zeros_like(texture)
    down[:-1] = np.abs(texture[1:] - texture[:-1])
    right[:, :-1] = np.abs(texture[:, 1:] - texture[:, :-1])
    change = np.maximum(down, right).reshape(-1, 2)
    return np.clip(change[:, 0], smallest, largest), np.clip(change[:, 1], smallest, largest)


def radiance(
    tracer: Tracer,
    hits: Hits,
    directions: np.ndarray,
    pixel: float,
    shape: tuple[int, int],
    weather: Weather,
    rng: np.random.Generator,
) -> np.ndarray:
    """Light that arrives along each ray of an image, (height, width, 3) float32 linear."""
    along, across = footprints(hits, directions, pixel, shape)
    surface = paint(hits, along, across)
    rows = np.flatnonzero(hits.hit)
    image = np.empty((len(hits.hit), 3), np.float32)
    missed = np.flatnonzero(~hits.hit)
    image[missed] = sky(directions[missed], weather, pixel)

    point, normal, view = hits.point[rows], hits.normal[rows], directions[rows]
    distance = hits.distance[rows]
    start = point + normal * (2e-3 + 2e-4 * distance)[:, None]
    albedo, translucency = surface.albedo[rows], surface.translucency[rows]
    facing = np.einsum("ij,j->i", normal, weather.sun)
    lit = np.where(facing > 0, facing, -facing * translucency * 0.6) + translucency * 0.25
    towards = np.flatnonzero(lit > 0.004)
    through = np.where(facing < 0, -1.0, 1.0)[:, None]
    origin = point + normal * through * (2e-3 + 2e-4 * distance)[:, None]
    shadow = np.ones(len(rows), np.float32)
    sunward = np.broadcast_to(weather.sun, (len(towards), 3))
    shadow[towards] = ~tracer.blocked(origin[towards], sunward)
    openness = sky_openness(tracer, start, normal, rows, shape, rng)

    upward = 0.5 + 0.5 * normal[:, 2:]
    bounce = 0.16 * (weather.zenith + weather.sun_colour * max(weather.sun[2], 0)).mean()
    ambient = (weather.zenith * 0.55 + weather.horizon * 0.45) * upward + bounce * (1 - upward)
    light = weather.sun_colour * (lit * shadow)[:, None] + ambient * openness[:, None] * 0.95
    colour = albedo * (light + surface.glow[rows][:, None] * 4)
    colour += reflection(surface.gloss[rows], normal, view, shadow, weather, pixel)
    haze = 1 - np.exp(-distance / weather.haze)
    image[rows] = colour + (weather.horizon * 0.9 - colour) * haze[:, None]
    return image.reshape(*shape, 3)


def sky_openness(tracer, start, normal, rows, shape, rng) -> np.ndarray:
    """How much of the sky reaches each point, 0.25 to 1: random rays, averaged over neighbours."""
    row, column = np.divmod(rows, shape[1])
    chosen = np.flatnonzero((row % 2 == 0) & (column % 2 == 0))  # averaged anyway: a quarter of the rays will do
    around = rng.standard_normal((len(chosen), 3), dtype=np.float32)
    around /= np.maximum(np.sqrt(dot(around, around))[:, None], 1e-6)
    direction = normal[chosen] * 1.02 + around
    direction /= np.sqrt(dot(direction, direction))[:, None]
    free = tracer.distances(start[chosen], direction)
    sample = np.ones(((shape[0] + 1) // 2, (shape[1] + 1) // 2), np.float32)
    sample[row[chosen] // 2, column[chosen] // 2] = np.minimum(free / _AMBIENT_REACH, 1.0) ** 0.7
    smooth = cv2.GaussianBlur(cv2.blur(sample, (3, 3)), (0, 0), 1.2)
    smooth = cv2.resize(smooth, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return 0.22 + 0.78 * smooth.ravel()[rows]


def reflection(gloss, normal, view, shadow, weather: Weather, pixel: float) -> np.ndarray:
    """Mirrored sky and sun on glossy surfaces, (N, 3)."""
    result = np.zeros(normal.shape, np.float32)
    rows = np.flatnonzero(gloss > 0.015)
    cosine = -dot(normal[rows], view[rows])
    mirrored = view[rows] + 2 * cosine[:, None] * normal[rows]
    fresnel = (0.05 + 0.95 * (1 - np.clip(cosine, 0, 1)) ** 5) * gloss[rows]
    seen = sky(mirrored, weather, pixel, detail=False)
    street = 0.14 * (weather.horizon + weather.sun_colour * 0.4)
    blend = np.clip(mirrored[:, 2:] * 6 + 0.4, 0, 1)
    # Houses stand around: near the horizon a mirror shows them rather than the sky.
    houses = np.clip(1.25 - mirrored[:, 2:] * 2.2, 0, 1) * 0.55
    seen = street + (seen * (1 - houses) + street * 1.6 * houses - street) * blend
    sparkle = np.maximum(np.einsum("ij,j->i", mirrored, weather.sun), 0) ** 180 * 2.5 * shadow[rows] * gloss[rows]
    result[rows] = seen * (fresnel * 1.6)[:, None] + sparkle[:, None] * weather.sun_colour * 0.6
    return result


def develop(image: np.ndarray, exposure: float, rng: np.random.Generator) -> np.ndarray:
    """A photograph of linear radiance: lens blur, vignette, sensor noise, tone curve.

    Args:
        image: (height, width, 3) linear.
        exposure: multiplies the radiance; see `meter`.
    Returns:
        (height, width, 3) uint8 sRGB.
    """
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(np.minimum(image * exposure, 8.0), (0, 0), 0.55)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32) * (height / width)
    image = image * (1 - 0.16 * (x[None] ** 2 + y[:, None] ** 2))[..., None]
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = np.maximum(image + grain * np.sqrt(0.00006 + 0.0007 * np.maximum(image, 0)), 0)
    # A filmic curve (Hable's fit by Narkowicz): a straight middle, shoulders towards black and white.
    curve = image * 0.8
    curve = np.clip(curve * (2.51 * curve + 0.03) / (curve * (2.43 * curve + 0.59) + 0.14), 0, 1)
    srgb = np.where(curve <= 0.0031308, 12.92 * curve, 1.055 * np.power(np.maximum(curve, 1e-6), 1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


def meter(image: np.ndarray, jitter: float) -> float:
    """The exposure an automatic camera chooses, `jitter` stops off: middle grey over its lower three quarters."""
    lower = image[image.shape[0] // 4 :: 4, ::4].mean(-1)
    return float(0.21 / np.exp(np.log(np.clip(lower, 0.01, 2.0)).mean()) * 2.0**jitter)
