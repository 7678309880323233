"""Rigs: the cameras of a vehicle and where they sit, and their YAML file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..base.files import replacing
from ..base.plain_yaml import read_yaml
from .camera_model import CameraModel
from .transforms import is_rotation, quaternion_from_matrix, transform_from

__all__ = ["Camera", "CameraModel", "Rig"]


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera on a vehicle.

    Args:
        name: unique in its rig; topics and messages call the camera so.
        model: intrinsics and distortion.
        base_from_camera: (4, 4) rigid transform, metres, from the optical frame into base_link.
        frame_id: optical frame in TF; empty when not known.
    Raises:
        ValueError: names the camera and what is wrong.
    """

    name: str
    model: CameraModel
    base_from_camera: np.ndarray
    frame_id: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"camera name is {self.name!r}; give each camera a name")
        transform = np.array(self.base_from_camera, dtype=np.float64)
        is_rigid = (
            transform.shape == (4, 4)
            and np.isfinite(transform).all()
            and is_rotation(transform[:3, :3])
            and np.array_equal(transform[3], (0, 0, 0, 1))
        )
        if not is_rigid:
            raise ValueError(
                f"camera '{self.name}': base_from_camera is {transform.tolist()}; expected a rigid 4x4 transform"
            )
        transform.setflags(write=False)
        object.__setattr__(self, "base_from_camera", transform)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Camera)
            and (self.name, self.model, self.frame_id) == (other.name, other.model, other.frame_id)
            and np.array_equal(self.base_from_camera, other.base_from_camera)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.model, self.frame_id))


@dataclass(frozen=True)
class Rig:
    """The cameras of a vehicle, in order; at least one, names all different."""

    cameras: tuple[Camera, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        if not self.cameras:
            raise ValueError("rig: there are no cameras; list at least one")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"rig: camera names {repeated} repeat; give each camera its own name")

    @property
    def names(self) -> tuple[str, ...]:
        """Camera names in the rig's order."""
        return tuple(camera.name for camera in self.cameras)

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def __getitem__(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"rig: there is no camera '{name}'; it has {', '.join(self.names)}")

    def summary(self) -> dict:
        """What a network gets used to, for its checkpoint: plain numbers, JSON-ready; angles in radians.

        Returns:
            {"count": int, "cameras": [{"name", "width", "height", "horizontal_fov", "mount_height", "yaw"}, ...]}, yaw
            being the heading of the optical axis in base_link and mount_height its z there, metres.
        """
        cameras = []
        for camera in self.cameras:
            forward = camera.base_from_camera[:3, 2]
            cameras.append(
                {
                    "name": camera.name,
                    "width": camera.model.width,
                    "height": camera.model.height,
                    "horizontal_fov": round(sum(camera.model.horizontal_extent), 6),
                    "mount_height": round(float(camera.base_from_camera[2, 3]), 6),
                    "yaw": round(math.atan2(forward[1], forward[0]), 6),
                }
            )
        return {"count": len(cameras), "cameras": cameras}

    @classmethod
    def load(cls, path: str | Path) -> Rig:
        """Read a rig file (format: the comment that `save` writes on top).

        Raises:
            ValueError: names the file, the camera and the entry that is missing, unknown or wrong.
            OSError: the file cannot be read.
        """
        document = read_yaml(path)
        try:
            document = _check_keys("rig", document, ("cameras",))
            if not isinstance(document["cameras"], Mapping):
                raise ValueError("cameras: expected a mapping of camera names to calibrations")
            return cls(tuple(_camera_from(str(name), entry) for name, entry in document["cameras"].items()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the rig file that `load` reads back to the same numbers; an existing file is replaced in one step."""
        lines = [_HEADER, "cameras:"]
        for camera in self.cameras:
            lines += _camera_lines(camera)
        with replacing(Path(path)) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


_HEADER = """\
# A rig: where each camera sits on the vehicle and how it maps directions to pixels.
#   frame_id           optical frame in TF (x right, y down, z forward); empty when not known
#   size               [width, height], pixels
#   K                  [fx, skew, cx, 0, fy, cy, 0, 0, 1], pixels; integer coordinates are pixel centres
#   distortion_model   plumb_bob, rational_polynomial or equidistant, with its coefficients in ROS order
#   base_from_camera   pose of the optical frame in base_link: translation [x, y, z], metres; rotation [x, y, z, w]"""
_CAMERA_KEYS = ("frame_id", "size", "K", "distortion_model", "coefficients", "base_from_camera")


def _camera_lines(camera: Camera) -> list[str]:
    def numbers(values) -> str:
        return "[" + ", ".join(repr(float(value)) for value in values) + "]"

    model, mount = camera.model, camera.base_from_camera
    return [
        f"  {_quoted(camera.name)}:",
        f"    frame_id: {_quoted(camera.frame_id)}",
        f"    size: [{model.width}, {model.height}]",
        f"    K: {numbers(model.K.ravel())}",
        f"    distortion_model: {model.distortion_model}",
        f"    coefficients: {numbers(model.coefficients)}",
        "    base_from_camera:",
        f"      translation: {numbers(mount[:3, 3])}",
        f"      rotation: {numbers(quaternion_from_matrix(mount[:3, :3]))}",
    ]


def _quoted(text: str) -> str:
    """A text in double quotes: names like "on" or "1" would otherwise come back as something else."""
    plain = "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text.replace("\\", r"\\").replace('"', r"\""))
    return f'"{plain}"'


def _camera_from(name: str, entry: object) -> Camera:
    try:
        entry = _check_keys("camera", entry, _CAMERA_KEYS)
        width, height = _numbers("size", entry["size"], (2,))
        K = _numbers("K", entry["K"], (9,)).reshape(3, 3)
        coefficients = _numbers("coefficients", entry["coefficients"], None)
        mount = _check_keys("base_from_camera", entry["base_from_camera"], ("translation", "rotation"))
        base_from_camera = transform_from(
            _numbers("translation", mount["translation"], (3,)), _numbers("rotation", mount["rotation"], (4,))
        )
        model = CameraModel(width, height, K, str(entry["distortion_model"]), tuple(coefficients))
    except ValueError as error:
        raise ValueError(f"camera '{name}': {error}") from None
    return Camera(name, model, base_from_camera, str(entry["frame_id"]))


def _check_keys(what: str, mapping: object, keys: tuple[str, ...]) -> Mapping:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{what}: expected a mapping with {', '.join(keys)}")
    for key in mapping:
        if key not in keys:
            nearest = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"expected {', '.join(keys)}"
            raise ValueError(f"{what}: unknown entry '{key}'; {hint}")
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise ValueError(f"{what}: {', '.join(missing)} missing; expected {', '.join(keys)}")
    return mapping


def _numbers(name: str, values: object, shape: tuple[int] | None) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.ndim != 1 or (shape is not None and array.shape != shape) or not np.isfinite(array).all():
        count = "a list of" if shape is None else str(shape[0])
        raise ValueError(f"{name} is {values!r}; expected {count} finite numbers")
    return array
