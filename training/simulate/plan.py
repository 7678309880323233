"""The town's plan: streets and blocks on a rectangular grid, bent and laid over gentle hills, and its ground as a mesh.

Everything is planned in *plan coordinates*, where streets are straight. `Plan.place` bends the plan smoothly into
odom, so that streets curve while every object stays rigid; `Plan.height` is the ground. Because all borders of the plan
lie on lines of one rectangular grid, the ground is a single sheet without cracks, kerbs included.
"""

from __future__ import annotations

import numpy as np

from renderocc_model.field.classes import OCC3D_NUSCENES

from .mesh import Mesh, Surface
from .shapes import cross, linear, make
from .street_grid import (
    ISLAND,
    KERB,
    KERB_WIDTH,
    MARGIN,
    Block,
    Slopes,
    Verges,
    draw_streets,
    gaps_between,
    grid_lines,
    mound,
)

__all__ = ["Plan"]


# Class ids of the ground.
GROUND = DRIVEABLE, OTHER_FLAT, SIDEWALK, TERRAIN = tuple(
    OCC3D_NUSCENES.id_of(name) for name in ("driveable_surface", "other_flat", "sidewalk", "terrain")
)


class Plan:
    """Streets, blocks, the bend and the hills of one town.

    Args:
        rng: random numbers for all of it.
        size: number of streets each way.
        slopes: hills that differ from the default ones, which rise by 6 % at most.
        verges: what lies beside the roads, if it differs from sidewalks one kerb above them.
    Attributes:
        along_y, along_x: streets that run along plan y and plan x, ascending by their centre.
        blocks: what lies between them.
    """

    USES = ("dense", "houses", "park", "parking", "site", "plaza")

    def __init__(
        self, rng: np.random.Generator, size: int = 5, slopes: Slopes | None = None, verges: Verges | None = None
    ) -> None:
        self.along_y = draw_streets(rng, size)
        self.along_x = draw_streets(rng, size)
        self._phases = rng.uniform(0, 2 * np.pi, 8)
        self._bend = rng.uniform(3.0, 8.0, 2)
        self._hill, self._waves = rng.uniform(0.5, 1.3, 3), np.array([230.0, 190.0, 140.0])
        self.slopes = slopes
        if slopes:
            self._waves = self._waves * slopes.shortness
            steepest = 2 * np.pi * (self._hill * (1.0, 1.0, 0.5 * np.sqrt(2)) / self._waves).sum()
            self._hill = self._hill * (slopes.steepest / steepest)
        self.blocks = self._make_blocks(rng)
        self._kerb = KERB
        if verges:
            self._kerb = verges.kerb
            self.along_y, self.along_x = verges.along(self.along_y), verges.along(self.along_x)
            self.blocks = verges.between(self.blocks)
        self._mounds = [block for block in self.blocks if block.use in ("park", "field")]

    def _make_blocks(self, rng: np.random.Generator) -> list[Block]:
        columns, rows = gaps_between(self.along_y), gaps_between(self.along_x)
        inner = [(i, j) for i in range(1, len(columns) - 1) for j in range(1, len(rows) - 1)]
        # Every use occurs in the middle of the town, in shuffled order. The uses of the other blocks are random.
        pack = list(rng.permutation(list(self.USES) * 2 + ["dense"] * 3 + ["houses"] * 3))[: len(inner)]
        while len(pack) < len(inner):
            pack.append(rng.choice(self.USES, p=[0.4, 0.3, 0.12, 0.08, 0.05, 0.05]))
        uses = dict(zip(inner, pack))
        uses[2, 2], uses[1, 2] = "plaza", "houses"  # on both sides of the recording's start
        blocks = []
        for i, (x0, x1) in enumerate(columns):
            for j, (y0, y1) in enumerate(rows):
                use = str(uses.get((i, j), rng.choice(["houses", "park", "field"], p=[0.3, 0.2, 0.5])))
                blocks.append(Block(x0, y0, x1, y1, use, int(rng.integers(2**31))))
        return blocks

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Plan x0, y0, x1, y1 of the whole ground."""
        return (
            self.along_y[0].centre - MARGIN,
            self.along_x[0].centre - MARGIN,
            self.along_y[-1].centre + MARGIN,
            self.along_x[-1].centre + MARGIN,
        )

    def bend(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Odom x and y of plan points."""
        p = self._phases
        return (
            x + self._bend[0] * np.sin(2 * np.pi * np.asarray(y) / 260 + p[0]),
            y + self._bend[1] * np.sin(2 * np.pi * np.asarray(x) / 240 + p[1]),
        )

    def heading(self, x, y, yaw) -> np.ndarray:
        """Odom yaw of plan directions at plan points."""
        p = self._phases
        dx = self._bend[0] * 2 * np.pi / 260 * np.cos(2 * np.pi * y / 260 + p[0])
        dy = self._bend[1] * 2 * np.pi / 240 * np.cos(2 * np.pi * x / 240 + p[1])
        c, s = np.cos(yaw), np.sin(yaw)
        return np.arctan2(s + dy * c, c + dx * s)

    def hills(self, x, y) -> np.ndarray:
        """Height of the road level at plan points, metres."""
        p, h, w = self._phases, self._hill, self._waves
        return (
            h[0] * np.sin(2 * np.pi * np.asarray(x) / w[0] + p[2])
            + h[1] * np.sin(2 * np.pi * np.asarray(y) / w[1] + p[3])
            + 0.5 * h[2] * np.sin(2 * np.pi * (np.asarray(x) + y) / w[2] + p[4])
        )

    def height(self, x, y) -> np.ndarray:
        """Height of the ground at plan points: hills, kerbs, medians, and mounds in parks and fields."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        total = self.hills(x, y)
        off_x = np.min([np.abs(x - s.centre) - s.half for s in self.along_y], axis=0)
        off_y = np.min([np.abs(y - s.centre) - s.half for s in self.along_x], axis=0)
        off = np.minimum(off_x, off_y)
        total = total + self._kerb * np.clip(off / KERB_WIDTH, 0, 1)
        if np.any(off > 0):
            for block in self._mounds:
                total = total + mound(block, x, y)
        return total + KERB * self._on_island(x, y)

    def _on_island(self, x, y) -> np.ndarray:
        """1 on the raised medians of two-lane streets, away from junctions; 0 elsewhere."""
        result = np.zeros(np.shape(x))
        for own, others, across, along in ((self.along_y, self.along_x, x, y), (self.along_x, self.along_y, y, x)):
            clear = np.min([np.abs(along - s.centre) - s.reach for s in others], axis=0) - 12
            for street in own:
                if street.lanes == 2:
                    inside = np.minimum((ISLAND - np.abs(across - street.centre)) / KERB_WIDTH, clear / KERB_WIDTH)
                    result = np.maximum(result, np.clip(inside, 0, 1))
        return result

    def place(self, x, y, yaw=0.0, lift=0.0, tilt=False) -> np.ndarray:
        """Odom poses (..., 4, 4) of objects that stand at plan points, heading along plan directions `yaw`.

        Args:
            x, y, yaw, lift, tilt: numbers or arrays of one shape.
            lift: metres above the ground.
            tilt: objects lean with the slope, as vehicles do; otherwise they stand upright.
        """
        x, y, yaw, lift, tilt = np.broadcast_arrays(x, y, yaw, lift, tilt)
        turn, c, s = self.heading(x, y, yaw), np.cos(yaw), np.sin(yaw)
        climb = (self.hills(x + c, y + s) - self.hills(x - c, y - s)) / 2 * tilt
        bank = (self.hills(x - s, y + c) - self.hills(x + s, y - c)) / 2 * tilt
        forward = np.stack([np.cos(turn), np.sin(turn), climb], -1)
        forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
        left = np.stack([-np.sin(turn), np.cos(turn), bank], -1)
        left = left - forward * (left * forward).sum(-1, keepdims=True)
        left /= np.linalg.norm(left, axis=-1, keepdims=True)
        pose = np.zeros((*x.shape, 4, 4))
        pose[..., 3, 3] = 1
        pose[..., :3, 0], pose[..., :3, 1], pose[..., :3, 2] = forward, left, cross(forward, left)
        pose[..., 0, 3], pose[..., 1, 3] = self.bend(x, y)
        pose[..., 2, 3] = self.height(x, y) + lift
        return pose

    def ground(self) -> Mesh:
        """The whole ground as one mesh; each cell has its own surface, colour and class."""
        xs, ys = (
            grid_lines(self.along_y, self.extent[0], self.extent[2]),
            grid_lines(self.along_x, self.extent[1], self.extent[3]),
        )
        gx, gy = np.meshgrid(xs, ys, indexing="ij")
        ox, oy = self.bend(gx, gy)
        points = np.stack([ox, oy, self.height(gx, gy)], -1)
        cx, cy = np.meshgrid((xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2, indexing="ij")
        surface, colour, class_id = self._cells(cx, cy)

        def corner(grid):
            return np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], 2)

        vertices = corner(points).reshape(-1, 3)
        texture = self._texture(corner(gx[..., None])[..., 0], corner(gy[..., None])[..., 0], cx, cy).reshape(-1, 3)
        first = np.arange(cx.size)[:, None] * 4
        faces = np.stack([first + [0, 1, 2], first + [0, 2, 3]], 1).reshape(-1, 3)
        corners = vertices.reshape(-1, 4, 3)
        normal = cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        mesh = make(
            vertices,
            np.repeat(normal, 4, axis=0),
            texture,
            faces,
            np.repeat(surface.ravel(), 2),
            np.repeat(colour.reshape(-1, 3), 2, axis=0),
        )
        mesh.class_id = np.repeat(class_id.ravel(), 2).astype(np.uint8)
        return mesh

    def _cells(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Surface, colour and class of ground cells by their centres."""
        surface = np.full(x.shape, Surface.GRASS, np.uint8)  # what nothing covers, verges of grass among it
        colour = np.broadcast_to(linear(92, 110, 58), (*x.shape, 3)).copy()
        class_id = np.full(x.shape, TERRAIN, np.uint8)

        def cover(where, kind, tint, label):
            surface[where], colour[where], class_id[where] = kind, tint, label

        for block in self.blocks:
            inside = (x > block.x0) & (x < block.x1) & (y > block.y0) & (y < block.y1)
            deep = inside & (np.minimum.reduce([x - block.x0, block.x1 - x, y - block.y0, block.y1 - y]) > 2)
            if block.use == "parking":
                cover(deep, Surface.PARKING, linear(98, 98, 100), DRIVEABLE)
            elif block.use == "site":
                cover(inside, Surface.EARTH, linear(150, 122, 92), TERRAIN)
            elif block.use == "plaza":
                cover(inside, Surface.COBBLES, linear(150, 142, 132), OTHER_FLAT)
            elif block.use == "dense":
                cover(inside & ~deep, Surface.PAVING, linear(158, 154, 146), SIDEWALK)
        road = np.zeros(x.shape, bool)
        walk, kerb, gravel = (np.zeros(x.shape, bool) for _ in range(3))
        for street, offset in [(s, np.abs(x - s.centre)) for s in self.along_y] + [
            (s, np.abs(y - s.centre)) for s in self.along_x
        ]:
            road |= offset < street.half
            beside = (offset > street.half) & (offset < street.reach)
            if street.verge == "paved":
                kerb |= beside & (offset < street.half + KERB_WIDTH)
                walk |= beside
            elif street.verge == "gravel":
                gravel |= beside
        cover(gravel & ~road, Surface.EARTH, linear(158, 146, 128), TERRAIN)
        cover(walk & ~road, Surface.PAVING, linear(168, 162, 152), SIDEWALK)
        cover(kerb & ~road, Surface.KERB, linear(150, 148, 142), SIDEWALK)
        cover(road, Surface.ASPHALT, linear(84, 84, 86), DRIVEABLE)
        cover(self._on_island(x, y) > 0.01, Surface.COBBLES, linear(138, 132, 122), OTHER_FLAT)
        return surface, colour, class_id

    def _texture(self, x, y, cx, cy) -> np.ndarray:
        """Texture coordinates of cell corners: plan x and y, but on roads the street's own (see textures._asphalt).

        Args:
            x, y: (I, J, 4) corners. cx, cy: (I, J) centres.
        """
        texture = np.stack([x, y, np.zeros_like(x)], -1)
        for kind, own, others in (("y", self.along_y, self.along_x), ("x", self.along_x, self.along_y)):
            along, across, centre_along, centre_across = (y, x, cy, cx) if kind == "y" else (x, y, cx, cy)
            for street in own:
                on_street = np.abs(centre_across - street.centre) < street.half
                crossing = np.min([np.abs(centre_along - s.centre) - s.half for s in others], axis=0) < 0
                # The nearest junction, and the side of it on which the cell lies.
                gaps = np.stack([np.abs(centre_along - s.centre) - s.half for s in others])
                nearest = gaps.argmin(0)
                junction = np.array([s.centre for s in others])[nearest]
                edge = np.array([s.half for s in others])[nearest]
                side = np.sign(centre_along - junction)
                s = np.abs(along - junction[..., None]) - edge[..., None]
                turn = 1.0 if kind == "x" else -1.0
                t = (across - street.centre) * (side * turn)[..., None]
                code = 4 * round(street.half * 10) + street.lanes
                own_rows = np.stack([s, t, np.full_like(s, code)], -1)
                texture[on_street & ~crossing] = own_rows[on_street & ~crossing]
                texture[on_street & crossing, :, 2] = -1
        return texture
