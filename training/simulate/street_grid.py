"""The streets, the blocks between them and the slopes that the town's plan is drawn from, in plan coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

__all__ = [
    "BAY",
    "ISLAND",
    "KERB",
    "KERB_WIDTH",
    "LANE",
    "MARGIN",
    "Block",
    "Slopes",
    "Street",
    "Verges",
    "draw_streets",
    "gaps_between",
    "grid_lines",
    "mound",
]

KERB = 0.14  # metres
KERB_WIDTH = 0.12
ISLAND = 0.6  # half-width of a raised median
BAY = 2.4
LANE = 3.5
MARGIN = 90.0  # how far streets continue beyond the outermost junctions


@dataclass(frozen=True)
class Street:
    """A street of the plan.

    Attributes:
        centre: plan x (streets along y) or plan y (streets along x).
        lanes: per direction, 1 or 2.
        parking: a strip of parking bays on both sides.
        pavement: width of the sidewalks, metres.
        verge: "paved", or "grass" or "gravel" in their place.
    """

    centre: float
    lanes: int
    parking: bool
    pavement: float
    verge: str = "paved"

    @property
    def driving(self) -> float:
        """Half the width of the lanes."""
        return self.lanes * LANE

    @property
    def half(self) -> float:
        """Half the carriageway, parking bays included."""
        return self.driving + (BAY if self.parking else 0.3)

    @property
    def reach(self) -> float:
        """Distance from the centre line to the outer edge of the sidewalk."""
        return self.half + KERB_WIDTH + self.pavement


@dataclass(frozen=True)
class Block:
    """A rectangle between streets, in plan coordinates; `use` says what is built on it."""

    x0: float
    y0: float
    x1: float
    y1: float
    use: str
    seed: int
    rise: float = 1.0  # of its mound, in units of the default one; below 0 it is a hollow


@dataclass(frozen=True)
class Slopes:
    """Hills that differ from the default ones.

    Attributes:
        steepest: slope (rise over run) where all waves of the hills are steepest at once, for example 0.08.
        shortness: factor of the default wavelengths of 140 to 230 m.
        sway: largest pitch and roll of the car's body, radians.
    """

    steepest: float
    shortness: float
    sway: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Slopes:
        """From flat to 12 % at the steepest."""
        return cls(0.12 * rng.random() ** 1.3, rng.uniform(0.5, 1.1), np.radians(1.1) * rng.random())


@dataclass(frozen=True)
class Verges:
    """What lies beside the roads, where that differs from sidewalks one kerb above them and fields that rise.

    Attributes:
        kerb: height of sidewalks and blocks above the road, metres.
        unpaved: share of the streets that have grass or gravel in place of sidewalks.
        hollow: share of parks and fields that lie below the road.
        rng: draws which.
    """

    kerb: float
    unpaved: float
    hollow: float
    rng: np.random.Generator

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Verges:
        """Two towns in five have no kerbs; in a third hardly a street has a sidewalk."""
        kerb = 0.0 if rng.random() < 0.4 else rng.uniform(0.02, 0.22)
        return cls(float(kerb), float(rng.choice([0.2, 0.5, 0.9])), float(rng.uniform(0, 0.6)), rng)

    def along(self, streets: list[Street]) -> list[Street]:
        """The streets, some of them without sidewalks."""
        kinds = self.rng.choice(["grass", "gravel"], len(streets))
        bare = self.rng.random(len(streets)) < self.unpaved
        return [
            replace(street, verge=str(kind) if none else "paved") for street, kind, none in zip(streets, kinds, bare)
        ]

    def between(self, blocks: list[Block]) -> list[Block]:
        """The blocks, some of them lower, some hardly higher than the road."""
        below = self.rng.random(len(blocks)) < self.hollow
        heights = np.where(below, -0.45 * self.rng.random(len(blocks)), self.rng.random(len(blocks)))
        return [replace(block, rise=float(rise)) for block, rise in zip(blocks, heights)]


def mound(block: Block, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of a block's rise above the level of its streets; 0 at its borders and outside."""
    u = np.clip((x - block.x0) / (block.x1 - block.x0), 0, 1)
    v = np.clip((y - block.y0) / (block.y1 - block.y0), 0, 1)
    swell = np.maximum(np.sin(np.pi * u) * np.sin(np.pi * v), 0) ** 1.5
    wave = 1 + 0.5 * np.sin(block.seed % 7 + 9 * u) * np.cos(block.seed % 5 + 8 * v)
    return swell * wave * ((1.4 if block.use == "park" else 2.5) * block.rise)


def draw_streets(rng: np.random.Generator, count: int) -> list[Street]:
    """Parallel streets 65 to 100 m apart, centred on 0; one of them has two lanes each way."""
    gaps = rng.uniform(66, 100, count - 1)
    centres = np.concatenate([[0], np.cumsum(gaps)])
    centres = np.round(centres - centres[count // 2], 2)
    wide = rng.integers(2, count - 1)
    return [
        Street(
            float(c),
            2 if i == wide else 1,
            bool(i != wide and (i == 1 or rng.random() < 0.65)),
            float(np.round(rng.uniform(2.4, 4.0), 1)),
        )
        for i, c in enumerate(centres)
    ]


def gaps_between(streets: list[Street]) -> list[tuple[float, float]]:
    """Intervals between the sidewalks of neighbouring streets, and beyond the outermost streets."""
    edges = [-np.inf] + [value for s in streets for value in (s.centre - s.reach, s.centre + s.reach)] + [np.inf]
    gaps = [(edges[k], edges[k + 1]) for k in range(0, len(edges), 2)]
    first, last = streets[0].centre - MARGIN, streets[-1].centre + MARGIN
    return [(max(a, first), min(b, last)) for a, b in gaps]


def grid_lines(streets: list[Street], low: float, high: float) -> np.ndarray:
    """Ascending grid lines: every border between surfaces, and more lines so that no cell is wider than 3 m."""
    lines = {low, high}
    for street in streets:
        offsets = [0.0, street.half, street.half + KERB_WIDTH, street.reach, street.reach + 2.0]
        if street.lanes == 2:
            offsets += [ISLAND - KERB_WIDTH, ISLAND]
        # Medians end 12 m before the crossing street's sidewalk.
        offsets += [street.reach + 12, street.reach + 12 + KERB_WIDTH]
        for offset in offsets:
            lines |= {round(street.centre - offset, 4), round(street.centre + offset, 4)}
    ordered = np.array(sorted(line for line in lines if low <= line <= high))
    filled = [np.linspace(a, b, int(np.ceil((b - a) / 3.0)) + 1)[:-1] for a, b in pairwise(ordered)]
    return np.concatenate([*filled, [high]])
