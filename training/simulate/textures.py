"""Procedural textures: noise and patterns filtered over a pixel's footprint, and what each surface is painted with.

Textures are computed at the points that rays hit, so there are no image files. Distant surfaces do not flicker, because
patterns are integrated over the footprint, and noise is read from the pyramid level that fits it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .materials import Materials
from .mesh import Surface
from .noise import noise, scramble
from .patterns import Paint, SurfacePoints, band, mix, stripes
from .trace import Hits, columns, put_columns

__all__ = ["paint"]

_NONE = 255  # for rays that hit nothing


def paint(
    hits: Hits, along: np.ndarray, across: np.ndarray, materials: Materials | None = None, lit: float = 0.0
) -> Paint:
    """The paint of every hit.

    Args:
        hits: N hits; rays without a hit are black.
        along, across: (N,) the footprint of a pixel in metres along the first and the second texture axis.
        materials: how this town's surfaces differ from the default ones.
        lit: 0 to 1, the share of windows that are lit.
    """
    count = len(hits.distance)
    result = Paint(
        np.zeros((3, count), np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, np.float32),
    )
    kinds = np.where(hits.hit, hits.surface, _NONE)
    for surface in np.flatnonzero(np.bincount(kinds, minlength=_NONE + 1)[:_NONE]):
        rows = np.flatnonzero(kinds == surface)
        s, t, seed = columns(hits.texture, rows)
        local = SurfacePoints(
            columns(hits.point, rows), s, t, seed, along[rows], across[rows], columns(hits.normal, rows), materials, lit
        )
        painter, colour = _PAINTERS.get(int(surface), _plain), columns(hits.colour, rows)
        painted = painter(colour, local if materials is None else local.scaled(materials.scale[surface]))
        albedo = painted[0] if materials is None else materials.altered(int(surface), colour, painted[0], local)
        put_columns(result.albedo, rows, np.minimum(np.maximum(albedo, np.float32(0.003)), np.float32(0.95)))
        for name, value in zip(("gloss", "glow", "translucency"), painted[1:]):
            getattr(result, name)[rows] = value
    return result


def _plain(colour, at):
    return (colour * (1 + 0.05 * at.grain(0.05) + 0.05 * at.grain(0.01)),)


def _asphalt(colour, at):
    """Road. s: metres from the nearest junction. t: metres from the centre line, positive on the side that drives to
    the junction. seed: 4 * (half-width in decimetres) + lanes, or -1 on a junction."""
    tone = 1 + 0.16 * at.ground(0.35) + 0.12 * at.ground(0.04) + 0.10 * at.ground(0.008, 3.1)
    patch = np.clip(at.ground(0.9, 17.0) * 3 - 4.2, 0, 1)
    albedo = colour * np.maximum(tone, 0.3) * (1 - 0.35 * patch)
    crack = np.exp(-((at.ground(0.12, 40.0) / (0.05 + at.footprint)) ** 2)) * np.clip(at.ground(1.5, 9.0), 0, 1)
    albedo *= 1 - 0.35 * crack * np.minimum(1, 0.03 / at.footprint)
    marking = _markings(at)
    worn = np.clip(0.88 + 0.16 * at.ground(0.06, 5.0) + 0.1 * at.ground(0.6, 8.0), 0.25, 1)
    colour = at.road_paint((0.62, 0.62, 0.58), Surface.ASPHALT)
    return (mix(albedo, colour, marking * at.left_of_paint(worn)), 0.02 + 0 * tone)


def _markings(at) -> np.ndarray:
    """Coverage with white paint: centre and lane lines, parking bays, stop lines and zebra crossings."""
    street = at.seed >= 0
    code = np.rint(np.where(street, at.seed, 0))
    half, lanes = np.floor(code / 4) / 10, np.mod(code, 4)
    running = band(at.s, 6.2, 1e6, at.along)
    dashes = stripes(at.s, 9.0, 4.0, at.along)
    offset = np.abs(at.t)
    centre = np.where(lanes >= 2, band(offset, 0.72, 0.84, at.across), band(offset, -1, 0.07, at.across) * dashes)
    lane = np.where(lanes >= 2, band(offset, 3.38, 3.5, at.across) * dashes, 0)
    driving = np.where(lanes >= 2, 7.0, 3.5)
    has_parking = half > driving + 1
    border = np.where(has_parking, band(offset, driving, driving + 0.1, at.across), 0)
    bays = np.where(has_parking, band(offset, driving, driving + 2.2, at.across) * stripes(at.s, 6.0, 0.1, at.along), 0)
    stop = band(at.s, 5.1, 5.5, at.along) * band(at.t, 0.1, driving - 0.1, at.across)
    zebra = band(at.s, 1.2, 4.2, at.along) * stripes(at.t, 1.0, 0.5, at.across) * band(offset, -1, driving, at.across)
    return np.where(street, np.clip(running * (centre + lane + border + bays) + stop + zebra, 0, 1), 0)


def _paving(colour, at):
    slab = scramble(np.floor(at.s / 0.6), np.floor(at.t / 0.4))
    fine = np.minimum(1, 0.25 / np.maximum(at.footprint, 1e-3))
    joint = 1 - (1 - stripes(at.s, 0.6, 0.015, at.along)) * (1 - stripes(at.t, 0.4, 0.015, at.across))
    tone = 1 + 0.1 * (slab - 0.5) * fine + 0.12 * at.ground(0.25) + 0.07 * at.ground(0.015)
    return (colour * (tone * (1 - 0.45 * joint)), 0.01 + 0 * tone)


def _cobbles(colour, at):
    row = np.floor(at.t / 0.11)
    stone = scramble(np.floor(at.s / 0.14 + 0.5 * np.mod(row, 2)), row)
    fine = np.minimum(1, 0.06 / np.maximum(at.footprint, 1e-3))
    joint = 1 - (1 - stripes(at.s + 0.07 * np.mod(row, 2), 0.14, 0.016, at.along)) * (
        1 - stripes(at.t, 0.11, 0.014, at.across)
    )
    tone = 1 + 0.5 * (stone - 0.5) * fine + 0.14 * at.ground(0.3)
    return (colour * (tone * (1 - 0.5 * joint)), 0.02 + 0 * tone)


def _grass(colour, at):
    dry = np.clip(0.4 + 0.22 * at.ground(2.3) + 0.1 * at.ground(0.2), 0, 1)
    albedo = mix(colour, (0.2, 0.17, 0.07), dry * 0.75)
    bare = np.clip(at.ground(0.7, 31.0) * 2 - 3.2, 0, 1)
    albedo = mix(albedo, (0.13, 0.095, 0.06), bare)
    tone = 1 + 0.3 * at.ground(0.05) + 0.35 * at.ground(0.012, 2.0)
    return (albedo * np.maximum(tone, 0.25), 0 * tone, 0 * tone, 0.2 + 0 * tone)


def _earth(colour, at):
    tone = 1 + 0.25 * at.grain(0.4) + 0.3 * at.grain(0.05, 2.0) + 0.2 * at.grain(0.012, 5.0)
    return (colour * np.maximum(tone, 0.3),)


def _parking(colour, at):
    tone = 1 + 0.15 * at.ground(0.4) + 0.12 * at.ground(0.03) + 0.1 * at.ground(0.008)
    bay = stripes(at.s, 2.7, 0.1, at.along) * band(np.mod(at.t, 16.0), 0.0, 5.0, at.across)
    bay += stripes(at.s, 2.7, 0.1, at.along) * band(np.mod(at.t, 16.0), 11.0, 16.0, at.across)
    return (
        mix(colour * np.maximum(tone, 0.3), (0.55, 0.55, 0.52), np.clip(bay, 0, 1) * 0.85),
        0.02 + 0 * tone,
    )


def _kerb(colour, at):
    joint = stripes(at.s, 1.0, 0.02, at.along)
    return (colour * ((1 + 0.15 * at.grain(0.05)) * (1 - 0.4 * joint)),)


def _facade(colour, at):
    """Wall with windows. s: metres along it. t: metres above the ground. seed: that of the building."""
    style = [scramble(at.seed, np.float32(k)) for k in range(8)]
    storey, pitch = 2.9 + 0.5 * style[0], 1.5 + 1.7 * style[1]
    wide, high = pitch * (0.4 + 0.3 * style[2]), 1.25 + 0.6 * style[3]
    shop = (style[4] < 0.4) & (at.t < storey)
    wide, high, pitch = np.where(shop, pitch * 1.7, wide), np.where(shop, 2.2, high), np.where(shop, pitch * 2, pitch)
    floor, column = np.floor(at.t / storey), np.floor(at.s / pitch)
    sill = np.where(shop, 0.35, 0.85)
    brick = style[5] < 0.45
    wall = colour * (1 + 0.1 * at.grain(0.3) + 0.06 * at.grain(0.03, 2.0))
    courses = 1 - (1 - stripes(at.t, 0.085, 0.014, at.across)) * (1 - stripes(at.s, 0.25, 0.012, at.along))
    wall *= 1 - np.where(brick, 0.25 * courses - 0.12 * at.grain(0.06, 9.0), 0)
    damp = np.clip(1 - at.t / 1.2, 0, 1) * 0.3 + 0.18 * np.clip(at.grain(0.5, 4.0), 0, 1)
    wall *= 1 - damp
    ledge = band(np.mod(at.t, storey), 0, 0.14, at.across) * (style[6] < 0.5)
    wall = mix(wall, colour[:, 0] * 1.25, ledge * 0.6)
    margin = (pitch - wide) / 2
    opening = stripes(at.s - margin, pitch, wide, at.along) * stripes(at.t - sill, storey, high, at.across)
    pane = stripes(at.s - margin - 0.07, pitch, wide - 0.14, at.along) * stripes(
        at.t - sill - 0.07, storey, high - 0.14, at.across
    )
    bars = stripes(at.s - margin - wide / 2 + 0.025, pitch, 0.05, at.along)
    opening *= at.t > 0.2
    pane *= (at.t > 0.2) * (1 - bars)
    frame = np.where(style[7] < 0.6, np.float32(0.6), np.float32(0.12))
    wall = wall + (frame - wall) * opening
    inside = scramble(column, floor, at.seed)
    curtain = np.where(inside > 0.7, 0.25 + 0.3 * (inside - 0.7), 0.02 + 0.05 * inside)
    curtain = np.array([[1], [0.96], [0.9]], np.float32) * curtain
    # The lintel shades the upper part of a pane.
    depth = np.mod(at.t - sill, storey) / high
    curtain = curtain * (1.15 - 0.75 * np.clip(depth, 0, 1))
    albedo = wall + (curtain - wall) * pane
    gloss = 0.5 * pane * np.where(inside > 0.7, 0.5, 1.0)
    if at.lit:
        bright = scramble(column + 3, floor, at.seed * np.float32(1.7))
        return (
            np.where(bright < 0.4 * at.lit, mix(albedo, (0.5, 0.4, 0.27), pane), albedo),
            gloss,
            pane * (bright < 0.4 * at.lit) * (0.05 + bright),
        )
    return (albedo, gloss)


def _roof(colour, at):
    row = stripes(at.t, 0.33, 0.07, at.across)
    column = stripes(at.s, 0.22, 0.03, at.along)
    tone = (1 + 0.15 * at.grain(0.3) + 0.1 * at.grain(0.04)) * (1 - 0.35 * row - 0.15 * column)
    return (colour * tone,)


def _leaves(colour, at):
    clump = noise(at.point[0] + at.point[2], at.point[1] - at.point[2], 0.12, at.footprint)
    fine = noise(at.point[0] - 2 * at.point[2], at.point[1] + at.point[2], 0.025, at.footprint)
    tone = np.maximum(1 + 0.25 * clump + 0.35 * fine + 0.15 * at.grain(0.05), 0.25)
    albedo = colour * tone
    return (mix(albedo, (0.25, 0.24, 0.05), np.clip(0.12 * clump, 0, 0.3)), 0.02 + 0 * tone, 0 * tone, 0.45 + 0 * tone)


def _bark(colour, at):
    ridges = noise(at.s * 3 + at.seed, at.t * 0.5, 0.02, at.footprint)
    return (colour * np.maximum(1 + 0.35 * ridges, 0.3),)


def _car_paint(colour, at):
    dust = np.clip(0.5 - at.normal[2], 0, 1) * 0.12 * (1 + at.grain(0.1))
    return (mix(colour, (0.2, 0.18, 0.15), np.clip(dust, 0, 0.4)), 0.55 + 0 * dust)


def _glass(colour, at):
    return (colour, np.full(colour.shape[1], 0.9, np.float32))


def _lamp(colour, at):
    return (colour, np.full(colour.shape[1], 0.4, np.float32), np.full(colour.shape[1], 0.12, np.float32))


def _stripes(colour, at):
    """Diagonal bands of the colour and white, 0.3 m wide."""
    white = stripes(at.s + at.t, 0.5, 0.25, at.footprint)
    return (mix(colour * (1 + 0.06 * at.grain(0.03)), (0.75, 0.75, 0.72), white), 0.05 + 0 * white)


def _brick(colour, at):
    row = np.floor(at.t / 0.085)
    joint = 1 - (1 - stripes(at.s + 0.125 * np.mod(row, 2), 0.25, 0.014, at.along)) * (
        1 - stripes(at.t, 0.085, 0.014, at.across)
    )
    tone = 1 + 0.16 * at.grain(0.06) + 0.12 * at.grain(0.4)
    return (mix(colour * tone, (0.4, 0.38, 0.35), joint * 0.7),)


def _cloth(colour, at):
    return (colour * np.maximum(1 + 0.18 * at.grain(0.08) + 0.1 * at.grain(0.015), 0.3),)


def _concrete(colour, at):
    tone = 1 + 0.14 * at.grain(0.3) + 0.09 * at.grain(0.03) + 0.07 * at.grain(0.008)
    streak = np.clip(noise(at.s * 4, at.t * 0.25, 0.1, at.footprint), 0, 2) * 0.1
    return (colour * np.maximum(tone - streak, 0.3),)


def _rubber(colour, at):
    return (colour * (1 + 0.2 * at.grain(0.03)), np.full(colour.shape[1], 0.03, np.float32))


def _sign(colour, at):
    border = 1 - band(np.mod(at.s, 10), 0.03, 9.97, at.along)
    letters = np.clip(noise(at.s * 1.0 + at.seed, at.t * 0.6, 0.03, at.footprint) - 0.6, 0, 1)
    return (
        mix(colour, (0.02, 0.02, 0.03), np.clip(letters * 1.2 + border * 0.5, 0, 0.8)),
        np.full(colour.shape[1], 0.1, np.float32),
    )


_PAINTERS: dict[int, Callable] = {
    Surface.ASPHALT: _asphalt,
    Surface.PAVING: _paving,
    Surface.GRASS: _grass,
    Surface.FACADE: _facade,
    Surface.ROOF: _roof,
    Surface.LEAVES: _leaves,
    Surface.BARK: _bark,
    Surface.PAINT: _car_paint,
    Surface.GLASS: _glass,
    Surface.LAMP: _lamp,
    Surface.STRIPES: _stripes,
    Surface.BRICK: _brick,
    Surface.CLOTH: _cloth,
    Surface.CONCRETE: _concrete,
    Surface.COBBLES: _cobbles,
    Surface.PARKING: _parking,
    Surface.EARTH: _earth,
    Surface.KERB: _kerb,
    Surface.RUBBER: _rubber,
    Surface.SIGN: _sign,
}
