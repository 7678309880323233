"""Judges the node's map from outside: can what it says have been seen in the frames that were sent since it began?

A map begins when ~/map/reset answers, and anew when the odometry jumps. A cell of it can be known only if it lay, from
a pose that was sent since, in the view of a camera with usable images and within reach of the frames' grid. Voxels of
classes that move must have been in such a view within the time after which they decay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from system import SECOND, stamp_ns

from campaign.player import ScenePlayer, SentImage
from campaign.seen import columns, columns_perhaps_seen, composed, rotation
from renderocc_model.inference.map_config import MapConfig

__all__ = ["MapJudge"]

BAND = 2.0 - 0.3  # metres, the node's default grid_max_height - grid_min_height
MATCHED = 100_000_000  # the node's default max_camera_time_diff, nanoseconds
UNDER_WAY = 1.2  # seconds for which an image may be on its way through the node
MOST = 200  # cells or voxels of a map that are judged: it must not take longer than the next map
ENOUGH = 3  # messages with something wrong, after which no more are judged: what no camera saw takes longest to judge
STEPS = 2  # parts of the way between two poses from which an image can be
FARTHEST_STEP = 3.0  # metres between two poses in a row that have others between them
JUMP, FASTEST = 6.0, 20.0  # metres, m/s: between two poses a vehicle of a scene goes less than JUMP + FASTEST x seconds
AFTER_JUMP = 0.3  # seconds after a jump from which on no image lies before it or within it
SLACK = 0.3  # seconds by which the node may be later than `decay`: that of a frame, and its images differ by MATCHED
MARGIN = 0.5  # metres by which poses between those sent may be wrong

Pose = tuple[np.ndarray, np.ndarray]  # translation, quaternion (x, y, z, w)


class MapJudge:
    """Compares maps with what was sent.

    Args:
        player: what was sent.
        calibrations: {key: (camera_info, mount)} of a camera, all that the node may still use.
    Attributes:
        decay: seconds after which the node forgets what moves; None: it is not known, and nothing is judged by it.
    """

    def __init__(self, player: ScenePlayer, calibrations: Callable[[str], dict[tuple, tuple]]) -> None:
        self._reset = (0.0, 0.0)  # steady seconds at which ~/map/reset was last called and had answered
        self._wrong = 0
        self.decay: float | None = MapConfig().dynamic_decay
        self._player, self._calibrations = player, calibrations
        self._reach: tuple[np.ndarray, np.ndarray] | None = None  # corners of the frames' grid along x and y
        self._moving = np.zeros(256, bool)

    def begin(self, called: float, answered: float) -> None:
        """A map begins: ~/map/reset was called and had answered at these steady seconds."""
        self._reset, self._wrong = (called, answered), 0

    def set_reach(self, info) -> None:
        """Learn how far the frames reach from the `info` of ~/grid."""
        lower = np.array([info.origin.position.x, info.origin.position.y])
        margin = info.resolution + MARGIN
        self._reach = lower - margin, lower + np.array([info.width, info.height]) * info.resolution + margin

    def set_classes(self, classes: list[dict]) -> None:
        """Learn which classes move from ~/classes."""
        self._moving[:] = False
        self._moving[[one["id"] for one in classes if one["dynamic"]]] = True

    def unseen_free(self, message) -> int:
        """How many cells of ~/map/grid are free though no camera can have seen them since the map began.

        Of many free cells, some are judged, spread evenly. Maps that may be from before the reset are not judged.
        """
        if (began := self._began(stamp_ns(message))) is None:
            return 0
        info = message.info
        cells = np.asarray(message.data, np.int8).reshape(info.height, info.width)
        rows, across = np.nonzero(cells == 0)
        places = _some(np.column_stack([across, rows])) + 0.5
        places = places * info.resolution + (info.origin.position.x, info.origin.position.y)
        low = info.origin.position.z
        used = [
            camera
            for camera, sent in self._images().items()
            if any(image.usable and image.at >= began - UNDER_WAY for image in sent)
        ]
        return self._unseen(columns(places, info.resolution, low, low + BAND), places, used, self._poses(began))

    def undecayed(self, message) -> tuple[int, int]:
        """How many voxels of ~/map/points have a class that moves, and how many of these no camera can have seen for
        longer than such voxels are kept.

        Of many such voxels, some are judged and counted. Maps that may be from before the reset are not judged.
        """
        stamp = stamp_ns(message)
        began = self._began(stamp)
        if began is None or self.decay is None:
            return 0, 0
        points, labels = _cloud(message)
        points = _some(points[self._moving[labels]])
        first = stamp - round((self.decay + SLACK) * SECOND) - MATCHED
        late = {
            camera: [image for image in sent if image.usable and first <= image.stamp <= stamp + MATCHED]
            for camera, sent in self._images().items()
        }
        times = [image.at for sent in late.values() for image in sent]
        if not times:
            return 0, 0
        poses = self._poses(max(began, min(times) - SLACK))
        size = _spacing(points)
        around = columns(points[:, :2], size, -size / 2, size / 2) + np.pad(points[:, 2:], ((0, 0), (2, 0)))[:, None]
        used = [camera for camera, sent in late.items() if sent]
        return len(points), self._unseen(around, points[:, :2], used, poses)

    def _images(self) -> dict[str, list[SentImage]]:
        return {camera: list(images) for camera, images in self._player.sent.items()}

    def _began(self, stamp: int) -> float | None:
        """Steady seconds since which what was sent can be in the map of this stamp; None: it cannot be told."""
        called, answered = self._reset
        sent = [image.at for images in self._images().values() for image in images if image.stamp == stamp]
        if not sent or max(sent) <= answered:
            return None
        jumps = [at for at in self._jumps() if at + AFTER_JUMP <= max(sent)]
        return max([called - UNDER_WAY, *jumps])

    def _sent_poses(self) -> list[tuple[float, Pose]]:
        """Those that are numbers, (steady seconds, pose), oldest first."""
        found = []
        for at, sent in list(self._player.poses_sent):
            t, q = sent.translation, sent.rotation
            place, turn = np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w])
            if np.isfinite(place).all() and np.isfinite(turn).all() and turn.any():
                found.append((at, (place, turn / np.linalg.norm(turn))))
        return found

    def _jumps(self) -> list[float]:
        """When poses were sent that no vehicle reaches from those before them, steady seconds."""
        poses = self._sent_poses()
        return [
            at
            for (before, (old, _)), (at, (new, _)) in zip(poses, poses[1:])
            if np.linalg.norm(new - old) > JUMP + FASTEST * (at - before)
        ]

    def _poses(self, since: float) -> list[Pose]:
        """The vehicle's poses that were sent since then, newest first, and poses on the way between two in a row."""
        poses: list[Pose] = []
        before = None
        for at, pose in reversed(self._sent_poses()):
            if at < since:
                break
            poses.append(pose)
            if before is not None and 0 < np.linalg.norm(pose[0] - before[0]) < FARTHEST_STEP:
                for share in np.arange(1, STEPS) / STEPS:
                    other = before[1] if pose[1] @ before[1] >= 0 else -before[1]
                    poses.append(tuple(share * one + (1 - share) * two for one, two in zip(pose, (before[0], other))))
            before = pose
        return poses

    def _unseen(self, points: np.ndarray, places: np.ndarray, cameras: list[str], poses: list[Pose]) -> int:
        """Of points (N, K, 3) in and around cells or voxels at (N, 2) of odom: how many no camera saw from any pose."""
        if self._wrong >= ENOUGH:
            return 0
        known = [found for camera in cameras for found in self._calibrations(camera).values()]
        for pose in poses:
            if not len(points):
                return 0
            near = self._within_reach(places, pose)
            seen = np.zeros(len(points), bool)
            for info, mount in known:
                left = np.flatnonzero(near & ~seen)
                seen[left] = columns_perhaps_seen(info, *composed(pose, mount), points[left])
            points, places = points[~seen], places[~seen]
        self._wrong += len(points) > 0
        return len(points)

    def _within_reach(self, places: np.ndarray, pose: Pose) -> np.ndarray:
        if self._reach is None:
            return np.ones(len(places), bool)
        forward = rotation(pose[1])[:2, 0]
        yaw = forward / max(np.linalg.norm(forward), 1e-9)
        away = places - pose[0][:2]
        own = np.column_stack([away @ yaw, away @ (-yaw[1], yaw[0])])
        return ((own >= self._reach[0]) & (own <= self._reach[1])).all(axis=1)


def _some(rows: np.ndarray) -> np.ndarray:
    """At most MOST rows, spread evenly."""
    return rows[:: len(rows) // MOST + 1]


def _spacing(points: np.ndarray) -> float:
    """The edge of the voxels whose centres these are; 1 m where it cannot be told."""
    apart = np.diff(np.unique(np.round(points[:, 0], 3)))
    return float(apart.min()) if len(apart) else 1.0


def _cloud(message) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) float64 positions and (N,) labels of a PointCloud2."""
    names = {field.name: field for field in message.fields}
    formats = {"x": "<f4", "y": "<f4", "z": "<f4", "label": {2: "u1", 4: "<u2", 6: "<u4"}[names["label"].datatype]}
    layout = np.dtype(
        {
            "names": list(formats),
            "formats": list(formats.values()),
            "offsets": [names[name].offset for name in formats],
            "itemsize": message.point_step,
        }
    )
    rows = np.frombuffer(bytes(message.data), layout, message.width * message.height)
    return np.column_stack([rows["x"], rows["y"], rows["z"]]).astype(np.float64), rows["label"].astype(int)
