"""Random recording cars: the mounts and lenses of their cameras, and the car's body in the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.distortion import make_lens
from renderocc_model.geometry.rig import Camera, Rig

from . import vehicles
from .mesh import Mesh
from .trace import Tracer
from .variety import stream

__all__ = ["Vehicle", "random_vehicle"]

_REAR_AXLE = 0.31  # share of a car's length by which `vehicles.car` puts the rear wheels behind its middle
_MOST_BODY = 0.45  # largest share of an image that the car's own body may fill
_SIDES = ("front", "front_left", "left", "rear_left", "rear", "rear_right", "right", "front_right")
_ASPECTS = (4 / 3, 16 / 10, 16 / 9, 2.0, 2.75)  # aspect ratios of sensors in cars
_STANDARD_WIDTH = 704


@dataclass(frozen=True)
class Vehicle:
    """A recording car.

    Attributes:
        rig: its cameras.
        body: its own body in base_link, without a class; None if no camera sees it.
        missing: probability that an image is not recorded, by camera name; 0 for cameras that are not named.
        random: the cameras are drawn from a seed, so no rig file describes them.
    """

    rig: Rig
    body: Mesh | None = None
    missing: Mapping[str, float] = field(default_factory=dict)
    random: bool = False

    def lost(self, seed: int, frame: int) -> frozenset[int]:
        """Numbers of the cameras without an image in a frame."""
        draws = stream(seed, "rig", 1 + frame).random(len(self.rig))
        return frozenset(
            index for index, name in enumerate(self.rig.names) if draws[index] < self.missing.get(name, 0.0)
        )


@dataclass(frozen=True)
class _Wish:
    """A camera as it is drawn, before it is mounted on a body: angles in degrees, lengths in metres."""

    heading: float
    height: float
    pitch: float  # positive downwards
    view: float


def random_vehicle(seed: int, width: int | None = None) -> Vehicle:
    """The recording car of a seed: 4 to 7 cameras, 0.5 to 2.2 m high, views of 50 to 190 degrees, any heading.

    Args:
        seed: the same seed gives the same car.
        width: approximate image width in pixels (images have 0.8 to 1.25 times as much; fisheyes a third more, because
            they cover twice the angle); default 704.
    Raises:
        ValueError: the width is out of range.
    """
    width = _STANDARD_WIDTH if width is None else width
    if not 64 <= width <= 8192:
        raise ValueError(f"width is {width}; expected 64 to 8192 pixels for a random rig")
    rng = stream(seed, "rig")
    body = _body(rng) if rng.random() < 0.85 else None
    tracer = None if body is None else Tracer([body])
    cameras: list[Camera] = []
    taken: dict[str, int] = {}
    for wish in _wishes(rng):
        side = _SIDES[round(wish.heading / 45) % 8]
        taken[side] = taken.get(side, 0) + 1
        name = f"camera_{side}" if taken[side] == 1 else f"camera_{side}_{taken[side]}"
        model = _model(rng, wish.view, width)
        turn = _rotation(wish.heading, wish.pitch, rng.normal(0, 1.2))
        mount = _mount(rng, wish, turn, model, tracer, body)
        cameras.append(Camera(name, model, mount, f"{name}_optical"))
    missing = {}
    if rng.random() < 0.35:  # the first camera's stamps are those of the frames, so its images are never lost
        for index in rng.choice(np.arange(1, len(cameras)), size=rng.integers(1, 3), replace=False):
            missing[cameras[index].name] = float(rng.uniform(0.1, 0.7))
    return Vehicle(Rig(tuple(cameras)), body, missing, random=True)


def _body(rng: np.random.Generator) -> Mesh:
    """A car's body in base_link, which lies under the middle of its rear axle."""
    mesh = vehicles.car(rng)
    length = float(np.ptp(mesh.vertices[:, 0]))
    return mesh.at(_REAR_AXLE * length, 0.0).labelled(UNLABELLED)


def _wishes(rng: np.random.Generator) -> list[_Wish]:
    """The directions of the cameras: a ring, four fisheyes with or without pinholes, or any mixture."""
    kind = rng.choice(["ring", "fisheyes", "mixture"], p=[0.45, 0.25, 0.3])
    return {"ring": _ring, "fisheyes": _fisheyes, "mixture": _mixture}[str(kind)](rng)


def _ring(rng: np.random.Generator) -> list[_Wish]:
    """A ring of pinholes of similar height and pitch, evenly spread; sometimes one is missing."""
    count = int(rng.integers(5, 8))
    height, pitch = rng.uniform(1.0, 2.1), rng.uniform(-3, 12)
    overlap = rng.uniform(1.0, 1.45)
    gap = rng.integers(1, count) if rng.random() < 0.25 else count
    found = []
    for index in range(count):
        heading = 360 * index / count + (rng.uniform(-8, 8) if index else rng.normal(0, 1.5))
        view = 360 / count * overlap * rng.uniform(0.92, 1.2)
        own_height, own_pitch = height + rng.uniform(-0.12, 0.12), pitch + rng.normal(0, 2)
        wish = _Wish(heading, own_height, own_pitch, float(np.clip(view, 50, 120)))
        if index != gap:
            found.append(wish)
    return found


def _fisheyes(rng: np.random.Generator) -> list[_Wish]:
    """One fisheye on each side, either low (for parking) or on the roof, and up to three pinholes."""
    high = rng.random() < 0.35
    view, pitch = rng.uniform(150, 188), rng.uniform(0, 15) if high else rng.uniform(8, 42)
    found = []
    for heading in (0, 90, 180, 270):
        low, top = (1.5, 2.2) if high else (0.5, 0.95) if heading in (0, 180) else (0.75, 1.25)
        found.append(
            _Wish(
                heading + rng.normal(0, 5),
                rng.uniform(low, top),
                pitch + rng.normal(0, 4),
                float(np.clip(view + rng.normal(0, 4), 130, 190)),
            )
        )
    for heading in list(rng.permutation([0, 180, 60, -60]))[: rng.integers(0, 4)]:
        found.append(_Wish(heading + rng.normal(0, 5), rng.uniform(1.1, 1.7), rng.uniform(-2, 8), rng.uniform(50, 110)))
    return found


def _mixture(rng: np.random.Generator) -> list[_Wish]:
    """Cameras drawn independently, except that they look in different directions."""
    count = int(rng.integers(4, 8))
    found = []
    for index in range(count):
        heading = 360 * index / count + (rng.uniform(-22, 22) if index else rng.normal(0, 4))
        least = 75 if count == 4 else 50
        view = rng.uniform(120, 190) if rng.random() < 0.3 else rng.uniform(least, 120)
        found.append(_Wish(heading, rng.uniform(0.5, 2.2), float(np.clip(rng.normal(6, 7), -8, 35)), view))
    return found


def _model(rng: np.random.Generator, view: float, width: int) -> CameraModel:
    """A camera model with a horizontal view of `view` degrees: a fisheye from 120 on; the widest have black corners."""
    fisheye = view > 120
    scale = rng.uniform(0.8, 1.25) * (4 / 3 if fisheye else 1.0)
    columns = 2 * round(width * scale / 2)
    rows = 2 * round(columns / (_ASPECTS[rng.integers(3 if fisheye else len(_ASPECTS))] * rng.uniform(0.97, 1.03)) / 2)
    name, coefficients = _distortion(rng, fisheye)
    offset = rng.normal(0, 0.012, 2).clip(-0.03, 0.03) * (columns, rows)
    squeeze = 1 + rng.normal(0, 0.003)
    half = np.radians(view) / 2
    for shrink in (1.0, 0.5, 0.25, 0.0):
        shrunk = tuple(float(value) * shrink for value in coefficients)
        edge, valid = make_lens(name, shrunk).distort(np.array([[np.sin(half), 0.0, np.cos(half)]]))
        if not valid[0]:
            continue
        focal = columns / 2 / edge[0, 0]
        K = np.array(
            [[focal, 0, (columns - 1) / 2 + offset[0]], [0, focal * squeeze, (rows - 1) / 2 + offset[1]], [0, 0, 1]]
        )
        model = CameraModel(columns, rows, K, name, shrunk)
        corners = np.array([[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]], float)
        if fisheye or np.isfinite(model.unproject(corners)).all():
            return model
    raise AssertionError(f"a lens without distortion shows {view:.0f} degrees")


def _distortion(rng: np.random.Generator, fisheye: bool) -> tuple[str, np.ndarray]:
    """A distortion model, with coefficients of a usual size."""
    if fisheye:
        return "equidistant", rng.uniform(-1, 1, 4) * (0.08, 0.03, 0.01, 0.002)
    kind = rng.random()
    if kind < 0.3:
        return "plumb_bob", np.zeros(5)
    tangential = rng.normal(0, 0.0006, 2)
    if kind < 0.7:
        radial = rng.uniform(-0.34, 0.06)
        return "plumb_bob", np.array([radial, radial**2 * rng.uniform(0.3, 0.9), *tangential, 0.0])
    below = rng.uniform(0.1, 0.6)
    above = below - rng.uniform(0.02, 0.35)
    return "rational_polynomial", np.array(
        [above, rng.uniform(0, 0.03), *tangential, rng.uniform(-0.002, 0.002), below, rng.uniform(0, 0.04), 0.0]
    )


def _rotation(heading: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) base_from_camera of a camera that looks along a heading, `pitch` degrees downwards."""
    yaw, down, lean = np.radians([heading, pitch, roll])
    forward = np.array([np.cos(down) * np.cos(yaw), np.cos(down) * np.sin(yaw), -np.sin(down)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    level = np.stack([right, np.cross(forward, right), forward], 1)
    c, s = np.cos(lean), np.sin(lean)
    return level @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _mount(
    rng: np.random.Generator,
    wish: _Wish,
    turn: np.ndarray,
    model: CameraModel,
    tracer: Tracer | None,
    body: Mesh | None,
) -> np.ndarray:
    """base_from_camera (4, 4): on the body's surface where the camera looks away from it, or above its roof."""
    mount = np.eye(4)
    mount[:3, :3] = turn
    heading = np.radians(wish.heading)
    outward = np.array([np.cos(heading), np.sin(heading), 0.0])
    if body is None or tracer is None:
        mount[:3, 3] = np.array([1.0, 0, wish.height]) + outward * rng.uniform([0.2, 0.1, 0], [1.2, 0.6, 0])
        return mount
    middle = body.vertices[:, 0].min() + 0.52 * np.ptp(body.vertices[:, 0])
    inward = np.array([[middle, 0, wish.height]]) + outward * 8.0
    reached = tracer.trace(inward, -outward[None])
    roof = float(body.vertices[:, 2].max())
    if reached.hit[0]:
        place, step = reached.point[:, 0] + outward * rng.uniform(0.03, 0.08), outward * 0.15
    else:
        on_roof = outward * rng.uniform(0.2, 0.8) * (0.9, 0.7, 0)
        place = np.array([middle - 0.2, 0, max(wish.height, roof + 0.06)]) + on_roof
        step = outward * (0.3, 0.2, 0) + (0, 0, 0.05)
    for _ in range(6):  # move it outwards, as on an arm, until the car's body fills little of the image
        if place[2] < 2.2 and _share_of_body(model, turn, place, tracer) > _MOST_BODY:
            place = place + step
    mount[:3, 3] = place[0], place[1], np.clip(place[2], 0.5, 2.2)
    return mount


def _share_of_body(model: CameraModel, turn: np.ndarray, place: np.ndarray, tracer: Tracer) -> float:
    """The share of an image that the car's own body fills."""
    u, v = np.meshgrid(np.linspace(0, model.width - 1, 20), np.linspace(0, model.height - 1, 14))
    directions = model.unproject(np.stack([u.ravel(), v.ravel()], -1))
    directions = directions[np.isfinite(directions).all(1)]
    return float(tracer.trace(place, directions @ turn.T).hit.mean())
