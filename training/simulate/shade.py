"""Light: sun, sky, shadows and haze, and the conversion of radiance to an image."""

from __future__ import annotations

import cv2
import numpy as np

from .lights import Lights, mirror_things, soak
from .materials import Materials
from .noise import noise
from .textures import paint
from .trace import Hits, Tracer, columns, dot, put_columns
from .weather import Weather

__all__ = ["BRIGHTEST", "develop", "footprints", "meter", "radiance", "sky", "tone"]

_CLOUD = np.array([0.92, 0.92, 0.93], np.float32)
_AMBIENT_REACH = 5.0  # metres within which objects hide the sky's light


def sky(directions: np.ndarray, weather: Weather, pixel: float, detail: bool = True) -> np.ndarray:
    """Radiance (3, N) of the sky along unit directions (3, N). Below the horizon it is that of the horizon."""
    up = np.maximum(directions[2], 0.0)
    blend = np.minimum(1.0, up * 1.6) ** 0.55
    colour = weather.horizon[:, None] + (weather.zenith - weather.horizon)[:, None] * blend
    towards_sun = np.maximum(dot(directions, weather.sun), 0)
    if detail:
        reach = 1000.0 / (up + 0.12)
        x, y = directions[0] * reach + weather.drift, directions[1] * reach
        cover = noise(x, y, 14.0, reach * pixel * 2) * 0.75 + noise(y, x, 60.0, reach * pixel * 2) * 0.6
        threshold = 1.9 - 3.6 * weather.clouds
        density = np.clip((cover - threshold) * 0.9, 0, 1) * np.clip(up * 9, 0, 1)
        lit = (0.75 + 0.25 * towards_sun) * (1 - 0.35 * density**2) * (0.55 + 0.45 * weather.sun_colour.mean())
        lit *= np.float32(weather.cloud_light)
        colour += (_CLOUD[:, None] * lit - colour) * (density * 0.9)
    glow = 0.25 * _power(towards_sun, 3) + 0.6 * _power(towards_sun, 6)
    if detail:
        glow += 30.0 * (towards_sun > 0.99995)
    return colour + glow * weather.sun_colour[:, None]


def _power(x: np.ndarray, doublings: int) -> np.ndarray:
    """x to the power of 2 ** doublings."""
    for _ in range(doublings):
        x = x * x
    return x


def footprints(
    hits: Hits, directions: np.ndarray, pixel: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Metres that a pixel covers along both texture axes, from its neighbours if they are on the same surface.

    Args:
        hits, directions: those of an image's rays, row by row; directions (3, N).
        pixel: radians between neighbouring pixels.
        shape: (height, width).
    """
    facing = np.maximum(np.abs(dot(hits.normal, directions)), 0.03)
    smallest = np.where(hits.hit, hits.distance, 1.0) * np.float32(pixel)
    largest = smallest / facing * 1.5
    both = []
    for texture in hits.texture[:2].reshape(2, *shape):
        change = np.zeros_like(texture)
        change[:-1] = np.abs(texture[1:] - texture[:-1])
        change[:, :-1] = np.maximum(change[:, :-1], np.abs(texture[:, 1:] - texture[:, :-1]))
        both.append(np.minimum(np.maximum(change.ravel(), smallest), largest))
    return both[0], both[1]


def radiance(
    tracer: Tracer,
    hits: Hits,
    directions: np.ndarray,
    pixel: float,
    shape: tuple[int, int],
    weather: Weather,
    rng: np.random.Generator,
    materials: Materials | None = None,
    lights: Lights | None = None,
) -> np.ndarray:
    """Radiance along each ray of an image, directions (3, N): (height, width, 3) float32 linear.

    Args:
        materials: how surfaces differ from the default ones.
        lights: street lamps and headlights; None if they are off.
    """
    along, across = footprints(hits, directions, pixel, shape)
    surface = paint(hits, along, across, materials, weather.lamps)
    if weather.wet:
        soak(surface, hits, np.maximum(along, across), weather.wet)
    rows, missed = np.flatnonzero(hits.hit), np.flatnonzero(~hits.hit)
    image = np.empty((3, len(hits.hit)), np.float32)
    put_columns(image, missed, sky(columns(directions, missed), weather, pixel))

    point, normal, view = (columns(vectors, rows) for vectors in (hits.point, hits.normal, directions))
    distance = hits.distance[rows]
    albedo, translucency = columns(surface.albedo, rows), surface.translucency[rows]
    facing = dot(normal, weather.sun)
    lit = np.where(facing > 0, facing, -facing * translucency * 0.6) + translucency * 0.25
    off = normal * (2e-3 + 2e-4 * distance)  # above the surface, so that rays from it do not hit it
    towards = np.flatnonzero(lit > 0.004)
    side = np.where(facing[towards] < 0, np.float32(-1), np.float32(1))
    origin = columns(point, towards) + columns(off, towards) * side
    shadow = np.ones(len(rows), np.float32)
    shadow[towards] = ~tracer.blocked(origin.T, weather.sun)
    openness = sky_openness(tracer, point, off, normal, rows, shape, rng)

    upward = 0.5 + 0.5 * normal[2]
    bounce = 0.16 * (weather.zenith + weather.sun_colour * max(weather.sun[2], 0)).mean()
    ambient = (weather.zenith * 0.55 + weather.horizon * 0.45 - bounce)[:, None] * upward + bounce
    light = weather.sun_colour[:, None] * (lit * shadow)
    light += ambient * (openness * 0.95)
    light += surface.glow[rows] * 4
    if lights is not None:
        light += lights.arriving(point, normal) * np.float32(weather.lamps)
    light *= albedo
    wet = (tracer, point + off) if weather.wet else None
    _reflect(light, surface.gloss[rows], normal, view, shadow, weather, pixel, wet)
    haze = 1 - np.exp(distance * np.float32(-1 / weather.haze))
    light += (weather.horizon[:, None] * np.float32(0.9) - light) * haze
    put_columns(image, rows, light)
    return cv2.merge(list(image.reshape(3, *shape)))


def sky_openness(tracer, point, off, normal, rows, shape, rng) -> np.ndarray:
    """Share of the sky's light that reaches each point, 0.22 to 1: random rays, averaged over neighbours."""
    row, column = np.divmod(rows, shape[1])
    chosen = np.flatnonzero((row % 2 == 0) & (column % 2 == 0))  # a quarter is enough, as results are averaged
    around = rng.standard_normal((3, len(chosen)), dtype=np.float32)
    around /= np.maximum(np.sqrt(dot(around, around)), 1e-6)
    direction = columns(normal, chosen) * np.float32(1.02) + around
    direction /= np.sqrt(dot(direction, direction))
    free = tracer.distances((columns(point, chosen) + columns(off, chosen)).T, direction.T, _AMBIENT_REACH)
    sample = np.ones(((shape[0] + 1) // 2, (shape[1] + 1) // 2), np.float32)
    sample[row[chosen] // 2, column[chosen] // 2] = (free * np.float32(1 / _AMBIENT_REACH)) ** np.float32(0.7)
    smooth = cv2.GaussianBlur(cv2.blur(sample, (3, 3)), (0, 0), 1.2)
    smooth = cv2.resize(smooth, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return 0.22 + 0.78 * smooth.ravel()[rows]


def _reflect(light, gloss, normal, view, shadow, weather: Weather, pixel: float, wet) -> None:
    """Add reflections of sky and sun on glossy surfaces to (3, N) light.

    Args:
        wet: the tracer, and (3, N) points just above the surface, if wet ground reflects objects too.
    """
    rows = np.flatnonzero(gloss > 0.015)
    gloss, normal, view, shadow = gloss[rows], columns(normal, rows), columns(view, rows), shadow[rows]
    cosine = -dot(normal, view)
    mirrored = view + 2 * cosine * normal
    away = 1 - np.clip(cosine, 0, 1)
    fresnel = (0.05 + 0.95 * away * _power(away, 2)) * gloss
    seen = sky(mirrored, weather, pixel, detail=False)
    street = 0.14 * (weather.horizon + weather.sun_colour * 0.4)[:, None]
    blend = np.clip(mirrored[2] * 6 + 0.4, 0, 1)
    # Near the horizon, reflections show the houses around rather than the sky.
    houses = np.clip(1.25 - mirrored[2] * 2.2, 0, 1) * 0.55
    seen = street + (seen * (1 - houses) + street * (1.6 * houses - 1)) * blend
    if wet is not None:
        mirror_things(wet[0], columns(wet[1], rows), normal, mirrored, gloss, weather, seen)
    glare = np.flatnonzero(dot(mirrored, weather.sun) > 0.9)  # 0.9 ** 180 is nothing
    sparkle = np.zeros(len(rows), np.float32)
    sparkle[glare] = dot(columns(mirrored, glare), weather.sun) ** 180 * 1.5 * shadow[glare] * gloss[glare]
    seen = seen * (fresnel * 1.6) + sparkle * weather.sun_colour[:, None]
    put_columns(light, rows, columns(light, rows) + seen)


def develop(image: np.ndarray, exposure: float, rng: np.random.Generator) -> np.ndarray:
    """An image from linear radiance: lens blur, vignette, sensor noise, tone curve.

    Args:
        image: (height, width, 3) linear.
        exposure: multiplies the radiance; see `meter`.
    Returns:
        (height, width, 3) uint8 sRGB.
    """
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(np.minimum(image * np.float32(exposure), BRIGHTEST), (0, 0), 0.55)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32) * (height / width)
    vignette = 1 - 0.16 * (x[None] ** 2 + y[:, None] ** 2)
    image *= cv2.merge([vignette.astype(np.float32)] * 3)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image += grain * np.sqrt(np.float32(0.00006) + np.float32(0.0007) * image)
    return tone(image)


def tone(image: np.ndarray) -> np.ndarray:
    """The sRGB values, uint8, of exposed radiance of any shape."""
    steps = np.sqrt(np.clip(image, 0, BRIGHTEST) * np.float32((len(_CURVE) - 1) ** 2 / BRIGHTEST))
    return _CURVE[(steps + np.float32(0.5)).astype(np.int32)]


def _tone_curve(count: int) -> np.ndarray:
    """A table (count,) uint8 of sRGB values for exposed radiance 0 to `BRIGHTEST`, in even steps of its square root."""
    curve = np.linspace(0, 1, count) ** 2 * BRIGHTEST * 0.8
    # A filmic curve (Hable's fit by Narkowicz): straight in the middle, flat towards black and white.
    curve = np.clip(curve * (2.51 * curve + 0.03) / (curve * (2.43 * curve + 0.59) + 0.14), 0, 1)
    srgb = np.where(curve <= 0.0031308, 12.92 * curve, 1.055 * np.power(np.maximum(curve, 1e-6), 1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


BRIGHTEST = 8.0  # exposed radiance above this is white
_CURVE = _tone_curve(8192)


def meter(image: np.ndarray, jitter: float) -> float:
    """The exposure of an automatic camera, wrong by `jitter` stops: the lower three quarters become middle grey."""
    lower = image[image.shape[0] // 4 :: 4, ::4].mean(-1)
    return float(0.21 / np.exp(np.log(np.clip(lower, 0.01, 2.0)).mean()) * 2.0**jitter)
