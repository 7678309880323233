"""The recording car's sensors: cameras, each with its own stamps, and a spinning LiDAR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renderocc_model.field.classes import UNLABELLED
from renderocc_model.geometry.rig import Camera, CameraModel, Rig
from renderocc_model.geometry.transforms import invert
from training.recordings.recorder import Cloud

from .cameras import Imaging, blurred_by_motion, lattice, photograph
from .lights import Lights
from .mesh import Mesh
from .shade import develop, meter, radiance
from .town import Town
from .trace import Hits, Tracer, dot, place, rotate
from .traffic import SHADOW_REACH

__all__ = ["Lidar", "CameraRenderer", "LabelledImage", "camera_offsets", "town_rig"]

# Mounts like nuScenes': name, x, y, z in base_link, heading in degrees, horizontal field of view in degrees.
_MOUNTS = (
    ("cam_front", 1.72, 0.00, 1.51, 0.0, 70.0),
    ("cam_front_right", 1.58, -0.50, 1.51, -55.0, 70.0),
    ("cam_front_left", 1.58, 0.50, 1.51, 55.0, 70.0),
    ("cam_back", 0.05, 0.00, 1.57, 180.0, 110.0),
    ("cam_back_left", 1.04, 0.48, 1.56, 110.0, 70.0),
    ("cam_back_right", 1.04, -0.48, 1.56, -110.0, 70.0),
)
_SPIN = 0.05  # seconds of one LiDAR turn, during which the cameras are triggered one after the other


def town_rig(width: int = 704, height: int = 256) -> Rig:
    """The default rig: six pinhole cameras all around. The horizon is at 45% of the image's height."""
    cameras = []
    for name, x, y, z, heading, view in _MOUNTS:
        focal = (width / 2) / np.tan(np.radians(view) / 2)
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, 0.45 * (height - 1)], [0, 0, 1]])
        c, s = np.cos(np.radians(heading)), np.sin(np.radians(heading))
        mount = np.eye(4)
        mount[:3, :3] = np.stack([[s, -c, 0], [0, 0, -1], [c, s, 0]], 1)
        mount[:3, 3] = x, y, z
        model = CameraModel(width, height, K, "plumb_bob", (0.0,) * 5)
        cameras.append(Camera(name, model, mount, f"{name}_optical"))
    return Rig(tuple(cameras))


def camera_offsets(rig: Rig) -> dict[str, float]:
    """Seconds from a frame's nominal time to each camera's image: the LiDAR then points in the camera's direction.

    The LiDAR turns clockwise, seen from above, and points forward at the nominal time.
    """
    offsets = {}
    for camera in rig:
        forward = camera.base_from_camera[:3, 2]
        heading = np.arctan2(forward[1], forward[0])
        turned = (-heading) % (2 * np.pi)
        turned = turned - 2 * np.pi if turned > np.pi + 1e-6 else turned
        offsets[camera.name] = round(_SPIN * turned / (2 * np.pi), 6)
    return offsets


@dataclass(frozen=True)
class LabelledImage:
    """An image with its labels.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        semantic: (height, width) uint8 class ids; 255 on the sky, on the car's own body, and for pixels of a lens
            without a direction.
        depth: (height, width) float32 z-depth in metres; 0 without a class.
    """

    image: np.ndarray
    semantic: np.ndarray
    depth: np.ndarray


class CameraRenderer:
    """Renders images of a town for one camera.

    Args:
        camera: the camera, of any `CameraModel`.
        body: the recording car's own body in base_link. It hides what is behind it, and has no label.
        imaging: the camera's image quality; None for the default, a good camera.
    """

    def __init__(self, camera: Camera, body: Mesh | None = None, imaging: Imaging | None = None) -> None:
        self.camera, self.body, self.imaging = camera, body, imaging
        model = camera.model
        u, v = np.meshgrid(np.arange(model.width), np.arange(model.height))
        directions = model.unproject(np.stack([u.ravel(), v.ravel()], -1).astype(float))
        self._seen = np.isfinite(directions).all(1)
        self._directions = np.where(self._seen[:, None], directions, [0, 0, 1.0]).astype(np.float32)
        self._pixel = 1.0 / float(np.sqrt(model.K[0, 0] * model.K[1, 1]))
        self._half_angle = max(model.horizontal_extent) + 0.1
        self._pinhole = model.distortion_model != "equidistant" and not any(model.coefficients)
        x, y, z = self._directions[self._seen].T
        # Tangents of the widest horizontal and vertical angles; None for a lens that sees (nearly) backwards.
        self._widest = (
            None if z.min() < 0.15 else (float(np.abs(x / z).max()) * 1.05, float(np.abs(y / z).max()) * 1.05)
        )

    def ray_grid(self, stride: int) -> tuple[tuple[int, int], np.ndarray]:
        """Number of (rows, columns) and unit directions of every `stride`-th pixel each way, in the optical frame."""
        model = self.camera.model
        directions = self._directions.reshape(model.height, model.width, 3)[::stride, ::stride]
        return directions.shape[:2], np.ascontiguousarray(directions.reshape(-1, 3))

    def may_see(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """A quick test of points in the optical frame, (N,) each. False only for points that the lens cannot see."""
        if self._widest is None:
            return np.ones(np.broadcast_shapes(x.shape, y.shape, z.shape), bool)
        return (np.abs(x) < z * np.float32(self._widest[0])) & (np.abs(y) < z * np.float32(self._widest[1]))

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`CameraModel.project`, in single precision for pinhole lenses."""
        model = self.camera.model
        if not self._pinhole:
            return model.project(points)
        K = model.K.astype(np.float32)
        behind = points[:, 2] <= 1e-6
        depth = np.where(behind, np.float32(1), points[:, 2])
        row = points[:, 1] / depth
        column = K[0, 0] * (points[:, 0] / depth) + K[0, 1] * row + K[0, 2]
        row = K[1, 1] * row + K[1, 2]
        inside = (column >= -0.5) & (column < model.width - 0.5) & (row >= -0.5) & (row < model.height - 0.5)
        return np.stack([column, row], -1), inside & ~behind

    def render(self, town: Town, static: Tracer, t: float, rng: np.random.Generator) -> LabelledImage:
        """Render the image at a time in seconds, with its labels."""
        model = self.camera.model
        shape = (model.height, model.width)
        odom_from_base = town.drive.odom_from_base(t)
        odom_from_camera = odom_from_base @ self.camera.base_from_camera
        origin, axis = odom_from_camera[:3, 3], odom_from_camera[:3, 2]
        directions = rotate(odom_from_camera, self._directions)
        models = town.traffic.models(t, origin, axis, self._half_angle)
        around = [model.moved(pose) for model, pose in in_sight(static, origin, models)]
        own = [] if self.body is None else [self.body.moved(odom_from_base)]
        tracer = static.with_moved(Mesh.join([*around, *own]))
        hits = tracer.trace(origin, directions)
        lights = Lights(town.lamps, odom_from_base) if town.weather.lamps else None
        columns = np.ascontiguousarray(directions.T)
        light = radiance(tracer, hits, columns, self._pixel, shape, town.weather, rng, town.materials, lights)
        image = self._photograph(light, town, t, origin, directions, hits, rng)
        labelled = hits.hit & self._seen & (hits.class_id != UNLABELLED)
        semantic = np.where(labelled, hits.class_id, np.uint8(UNLABELLED)).reshape(shape)
        depth = np.where(labelled, hits.distance * self._directions[:, 2], 0).astype(np.float32).reshape(shape)
        image[~self._seen.reshape(shape)] = 0
        return LabelledImage(image, semantic, np.maximum(depth, 0))

    def _photograph(self, light, town: Town, t: float, origin, directions, hits: Hits, rng) -> np.ndarray:
        """The camera's image, (height, width, 3) uint8, from linear radiance."""
        imaging = self.imaging
        if imaging is None:
            return develop(light, meter(light, rng.normal(0, 0.15)), rng)
        if imaging.shutter:
            light = blurred_by_motion(light, self._flow(town, t + imaging.shutter, origin, directions, hits))
        exposure = meter(light, rng.normal(imaging.stops, imaging.jitter))
        return photograph(light, imaging, exposure, town.weather.rain, town.weather.horizon, rng)

    def _flow(self, town: Town, t: float, origin, directions, hits: Hits) -> np.ndarray:
        """Motion of a lattice of pixels between two times, (h, w, 2) pixels; 0 on the car's own body."""
        model = self.camera.model
        pixels = lattice((model.height, model.width))
        chosen = pixels.ravel()
        far = np.where(hits.hit[chosen], hits.distance[chosen], 1000.0)
        points = origin + directions[chosen] * far[:, None]
        later = town.drive.odom_from_base(t) @ self.camera.base_from_camera
        moved = model.project(place(invert(later), points))[0]
        flow = moved - np.stack([chosen % model.width, chosen // model.width], -1)
        still = ~self._seen[chosen] | ~np.isfinite(flow).all(1) | (hits.hit & (hits.class_id == UNLABELLED))[chosen]
        flow[still] = 0
        return np.clip(flow, -40, 40).reshape(*pixels.shape, 2)


def in_sight(
    static: Tracer, origin: np.ndarray, models: list[tuple[Mesh, np.ndarray]]
) -> list[tuple[Mesh, np.ndarray]]:
    """The moving models (each with odom_from_model) that are not hidden behind houses.

    Near models are always kept, because their shadows may be visible. Others are kept if the static town does not hide
    all points of a lattice in the model's bounding box.
    """
    far = [index for index, (_, pose) in enumerate(models) if np.hypot(*(pose[:2, 3] - origin[:2])) > SHADOW_REACH]
    if not far:
        return models
    points = np.concatenate([place(models[index][1], models[index][0].lattice) for index in far])
    towards = points - origin.astype(np.float32)
    distance = np.sqrt(dot(towards.T, towards.T))
    free = static.distances(origin, towards / distance[:, None]) > distance
    hidden = {index for index, seen in zip(far, free.reshape(len(far), -1).any(1)) if not seen}
    return [model for index, model in enumerate(models) if index not in hidden]


class Lidar:
    """A LiDAR on the roof that turns once in each frame.

    `sweep` gives its cloud deskewed to the frame's stamp, `scan` what it sees while the car drives.

    Args:
        beams: number of lasers, from -30.7 to 10.7 degrees as in a Velodyne HDL-32E.
        columns: number of firings of each laser in a turn.
        reach: largest distance of a return, metres.
    Attributes:
        directions: (columns * beams, 3) float32 unit vectors in the LiDAR's frame, a column's beams together.
        elevations: (beams,) radians, ascending.
        base_from_lidar: (4, 4).
    """

    frame_id = "lidar"

    def __init__(self, beams: int = 32, columns: int = 1080, reach: float = 80.0) -> None:
        self.reach = reach
        self.base_from_lidar = np.eye(4)
        self.base_from_lidar[:3, 3] = 0.95, 0.0, 1.84
        self.beams, self.columns = beams, columns
        self.elevations = np.radians(np.linspace(-30.67, 10.67, beams))
        azimuth = -np.arange(columns) * 2 * np.pi / columns
        azimuth, elevation = np.meshgrid(azimuth, self.elevations, indexing="ij")
        self.directions = (
            np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1)
            .reshape(-1, 3)
            .astype(np.float32)
        )

    def sweep(self, odom_from_base: np.ndarray, tracer: Tracer, rng: np.random.Generator) -> Cloud:
        """The returns at a pose of the car. Distances have noise of 2 cm; glass and far objects give fewer returns."""
        odom_from_lidar = odom_from_base @ self.base_from_lidar
        directions = rotate(odom_from_lidar, self.directions)
        hits = tracer.trace(odom_from_lidar[:3, 3], directions)
        return self._returns(hits, directions, self.directions, rng)

    def scan(self, poses: np.ndarray, tracers: Sequence[Tracer], seconds: float, rng: np.random.Generator) -> Cloud:
        """The returns of a turn that begins at a stamp, each seen from where the LiDAR is at its time.

        Args:
            poses: (columns, 4, 4) odom_from_base, at the time of each column.
            tracers: the town in equal parts of the turn, one after the other.
            seconds: time of the turn.
            rng: for noise, as in `sweep`.
        """
        odom_from_lidar = poses @ self.base_from_lidar
        column = np.repeat(np.arange(self.columns), self.beams)
        directions = np.einsum("nij,nj->ni", odom_from_lidar[column, :3, :3], self.directions).astype(np.float32)
        parts = []
        for columns, tracer in zip(np.array_split(np.arange(self.columns), len(tracers)), tracers):
            rays = slice(columns[0] * self.beams, (columns[-1] + 1) * self.beams)
            hits = tracer.trace(odom_from_lidar[column[rays], :3, 3], directions[rays])
            time = (column[rays] * (seconds / self.columns)).astype(np.float32)
            parts.append(self._returns(hits, directions[rays], self.directions[rays], rng, time))
        names = ("points", "intensity", "label", "time")
        return Cloud(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _returns(
        self,
        hits: Hits,
        directions: np.ndarray,
        in_lidar: np.ndarray,
        rng: np.random.Generator,
        time: np.ndarray | None = None,
    ) -> Cloud:
        """The cloud of some rays: their hits, their directions (N, 3) in odom and in the LiDAR's frame, their times."""
        facing = np.abs(dot(hits.normal, directions.T))
        brightness = hits.colour.mean(0)
        strength = (0.25 + brightness) * np.sqrt(facing + 0.02) * 30 / np.maximum(hits.distance, 3)
        lost = rng.random(len(strength)) < np.clip(0.9 - strength * 4, 0.01, 0.95)
        kept = hits.hit & (hits.distance < self.reach) & (hits.distance > 1.0) & ~lost
        distance = (hits.distance + rng.normal(0, 0.02, len(strength)))[kept]
        points = (in_lidar[kept] * distance[:, None]).astype(np.float32)
        intensity = np.clip(brightness * np.sqrt(facing) * 255 + rng.normal(0, 4, len(strength)), 0, 255)
        times = None if time is None else time[kept]
        return Cloud(points, intensity[kept].astype(np.float32), hits.class_id[kept], times)
