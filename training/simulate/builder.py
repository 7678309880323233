"""Collects the models of a town and their poses."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from renderocc_model.field.classes import OCC3D_NUSCENES

from .mesh import Mesh
from .plan import Plan
from .plants import thinned
from .street_grid import Street

__all__ = ["CLASSES", "Builder", "Models", "beside", "stretches"]

# Class ids of the objects of a town, by name; those of the ground are in `plan`.
CLASSES = {
    name: OCC3D_NUSCENES.id_of(name)
    for name in (
        "others",
        "barrier",
        "bicycle",
        "bus",
        "car",
        "construction_vehicle",
        "motorcycle",
        "pedestrian",
        "traffic_cone",
        "trailer",
        "truck",
        "manmade",
        "vegetation",
    )
}

_FAR = 120.0  # metres
_CELL = 24.0  # metres; two circles of 12 m that touch lie in neighbouring cells


class Models:
    """A few models of each kind, which repeat in the town. Each is made when it is first needed."""

    def __init__(self, rng: np.random.Generator, count: int = 24) -> None:
        self._seed = int(rng.integers(2**31))
        self._count = count
        self._made: dict[tuple, Mesh] = {}

    def draw(self, rng: np.random.Generator, make, *options) -> Mesh:
        """One of the models of a kind, each made by `make(rng, *options)`."""
        key = (make.__module__, make.__name__, *options, int(rng.integers(self._count)))
        if key not in self._made:
            # A model depends only on its own number, not on what was drawn before it.
            own = np.random.default_rng([self._seed, zlib.crc32(repr(key).encode())])
            self._made[key] = make(own, *options)
        return self._made[key]


class _Placed(NamedTuple):
    """A model and where it stands, in plan coordinates."""

    mesh: Mesh
    name: str
    x: float
    y: float
    yaw: float
    lift: float
    tilt: bool


@dataclass
class Builder:
    """Collects models and their places. `build` gives their meshes.

    Attributes:
        way: (P, 2) plan points that the recording car passes: trees far from all of them have fewer leaves.
        lamps: plan x, y and yaw of street lamps.
    """

    plan: Plan
    models: Models
    way: np.ndarray
    placed: list[_Placed] = field(default_factory=list)
    thinned: dict[int, tuple[Mesh, Mesh]] = field(default_factory=dict)
    taken: dict[tuple[int, int], list[tuple[float, float, float]]] = field(default_factory=dict)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)

    def put(
        self, mesh: Mesh, name: str, x: float, y: float, yaw: float = 0.0, lift: float = 0.0, tilt: bool = False
    ) -> None:
        """Place a mesh at a plan point, as one object of a class."""
        self.placed.append(_Placed(mesh, name, x, y, yaw, lift, tilt))

    def plant(
        self, rng: np.random.Generator, trees: list[Mesh], x: float, y: float, scale: tuple[float, float] = (0.8, 1.2)
    ) -> None:
        """Place one of the trees, rotated and scaled at random."""
        tree = trees[rng.integers(len(trees))]
        if np.hypot(*(self.way - [x, y]).T).min() > _FAR:
            if id(tree) not in self.thinned:
                self.thinned[id(tree)] = tree, thinned(tree)  # keep the tree, so that no other object gets its id
            tree = self.thinned[id(tree)][1]
        mesh = tree.at(0, 0, 0, rng.uniform(-np.pi, np.pi), rng.uniform(*scale))
        self.put(mesh.seeded(float(rng.uniform(0, 99))), "vegetation", x, y)

    def build(self) -> list[Mesh]:
        """The meshes of all models, in odom."""
        x, y, yaw, lift, tilt = np.array([placed[2:] for placed in self.placed], float).T
        poses = self.plan.place(x, y, yaw, lift, tilt > 0)
        meshes = [placed.mesh.moved(pose) for placed, pose in zip(self.placed, poses)]
        for placed, mesh in zip(self.placed, meshes):
            mesh.labelled(CLASSES[placed.name])
        return meshes

    def claim(self, x: float, y: float, radius: float) -> bool:
        """Reserve a circle of the plan, of at most 12 m in radius. False if another circle overlaps it."""
        i, j = int(x // _CELL), int(y // _CELL)
        for cell in ((i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)):
            for a, b, r in self.taken.get(cell, ()):
                if (x - a) ** 2 + (y - b) ** 2 < (radius + r) ** 2:
                    return False
        self.taken.setdefault((i, j), []).append((x, y, radius))
        return True


def stretches(plan: Plan):
    """Straight pieces of streets between junctions: (street, kind, from, to) in plan coordinates along the street."""
    for kind, own, others in (("y", plan.along_y, plan.along_x), ("x", plan.along_x, plan.along_y)):
        for street in own:
            for before, after in pairwise(others):
                yield street, kind, before.centre + before.reach, after.centre - after.reach


def beside(street: Street, kind: str, along: float, side: int, offset: float) -> tuple[float, float, float]:
    """A plan point beside a street, and the yaw of the direction from there to the road.

    Args:
        along: plan coordinate along the street.
        side: 1 for the left of increasing plan coordinates, -1 for the right.
        offset: metres from the centre line.
    """
    if kind == "y":
        return street.centre - side * offset, along, 0.0 if side > 0 else np.pi
    return along, street.centre + side * offset, -np.pi / 2 if side > 0 else np.pi / 2
