"""The judge of the map in campaigns: what of a map can have been seen, by hand-worked numbers.

The scene: a vehicle with one camera that looks ahead, 45 degrees to each side, at the origin of odom unless said. Its
frames reach 16 m to every side. Images and poses came in the last seconds, ten a second.
"""

from __future__ import annotations

from types import SimpleNamespace

import lying_node
import numpy as np
import pytest
from campaign.map_judge import MapJudge
from campaign.player import SentImage
from geometry_msgs.msg import Transform
from nav_msgs.msg import MapMetaData, OccupancyGrid
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, PointCloud2
from system import SECOND, stamp_message

from renderocc_model.field.classes import OCC3D_NUSCENES as CLASSES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.inference.rolling_map import RollingMap
from renderocc_model.ops import mapping
from renderocc_model.rosio import cdr
from renderocc_ros.frame.vehicle_map import VehicleMap
from renderocc_ros.output import messages

FORWARD = (-0.5, 0.5, -0.5, 0.5)  # optical frame that looks along x: x right, y down, z forward
LAST = 3.0  # steady seconds and stamp of the last image
CAR, WALL = 4, 15


def ninety_degrees() -> CameraInfo:
    """x/z and y/z from -1 to 1: a focal length of half the width of 100 pixels."""
    info = CameraInfo(width=100, height=100, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [50.0, 0.0, 49.5, 0.0, 50.0, 49.5, 0.0, 0.0, 1.0]
    return info


def judge(jump: tuple[float, float, float] | None = None, until: float = LAST) -> MapJudge:
    """Of a map that was reset at 0.5 s; its odometry is at the origin, and after a jump (seconds, x, y) elsewhere.

    Args:
        until: when the camera stopped; another one that sees nothing has the images after it.
    """
    times = np.arange(0, LAST + 0.05, 0.1)
    images = [SentImage(float(at), round(at * SECOND), at <= until + 1e-6) for at in times]
    poses = []
    for at in times:
        pose = Transform()
        pose.rotation.w = 1.0
        if jump is not None and at >= jump[0]:
            pose.translation.x, pose.translation.y = jump[1:]
        poses.append((float(at), pose))
    up = (0.0, 0.0, 50.0), (0.0, 0.0, 0.0, 1.0)
    player = SimpleNamespace(sent={"front": images, "sky": [SentImage(LAST, round(LAST * SECOND), True)]})
    player.poses_sent = poses
    mounts = {"front": ((0.0, 0.0, 1.0), FORWARD), "sky": up}
    made = MapJudge(player, lambda camera: {camera: (ninety_degrees(), mounts[camera])})
    made.begin(0.4, 0.5)
    made.set_reach(grid_info(-16.0, -16.0, 32))
    made.set_classes([{"id": CAR, "dynamic": True}, {"id": WALL, "dynamic": False}])
    return made


def grid_info(x: float, y: float, cells: int) -> MapMetaData:
    info = MapMetaData(resolution=1.0, width=cells, height=cells)
    info.origin.position.x, info.origin.position.y, info.origin.position.z = x, y, 0.3
    return info


def grid(*free: tuple[float, float], stamp: float = LAST) -> OccupancyGrid:
    """A map of 80 x 80 cells around the origin, unknown but for the cells at these places."""
    message = OccupancyGrid(info=grid_info(-40.0, -40.0, 80))
    cells = np.full((80, 80), -1, np.int8)
    for x, y in free:
        cells[int(y) + 40 - (y < 0), int(x) + 40 - (x < 0)] = 0
    message.data = cells.ravel().tolist()
    message.header.stamp = stamp_message(round(stamp * SECOND))
    return message


def cloud(*points: tuple[float, float, float, int], stamp: float = LAST) -> PointCloud2:
    rows = np.array(points, np.float64).reshape(-1, 4)
    data = cdr.write_point_cloud(
        round(stamp * SECOND),
        "odom",
        rows[:, :3].astype(np.float32),
        np.zeros((len(rows), 3), np.uint8),
        np.ones(len(rows), np.float32),
        rows[:, 3].astype(np.uint8),
    )
    return deserialize_message(bytes(data), PointCloud2)


def test_free_cells_ahead_can_have_been_seen_and_those_behind_or_out_of_reach_cannot():
    assert judge().unseen_free(grid((10.5, 3.5), (10.5, -3.5))) == 0
    assert judge().unseen_free(grid((10.5, 3.5), (-10.5, 3.5))) == 1
    assert judge().unseen_free(grid((10.5, 3.5), (25.5, 3.5))) == 1, "in the camera's view, but frames end at 16 m"


def test_what_was_seen_before_the_odometry_jumped_cannot_be_in_the_map_after_it():
    """It jumps back by 10 m a second before the last map: what was ahead at 10 m lies beyond the reach of 16 m."""
    free = grid((10.5, 3.5))
    assert judge().unseen_free(free) == 0
    assert judge(jump=(2.0, -10.0, 0.0)).unseen_free(free) == 1
    assert judge(jump=(2.0, -10.0, 0.0)).unseen_free(grid((3.5, 0.5))) == 0, "13.5 m ahead of the new pose"
    assert judge(jump=(2.0, -4.0, 0.0)).unseen_free(free) == 0, "a step that a vehicle may take"
    assert judge(jump=(2.9, -10.0, 0.0)).unseen_free(free) == 0, "frames from before it may be under way"


def test_maps_of_images_from_before_the_reset_are_not_judged():
    assert judge().unseen_free(grid((-10.5, 3.5), stamp=0.4)) == 0
    assert judge().unseen_free(grid((-10.5, 3.5), stamp=99.0)) == 0, "the stamp of no image"


@pytest.mark.parametrize(
    ("until", "kept"),
    # In the map of 3.0 s: seen until 0.8 + 0.3 + 0.1 s before it is in time.
    [(3.0, 0), (1.9, 0), (1.7, 1)],
)
def test_what_moves_and_was_not_seen_for_longer_than_the_decay_must_be_gone(until, kept):
    assert judge(until=until).undecayed(cloud((10.5, 3.5, 1.0, CAR), (9.5, 3.5, 1.0, WALL))) == (1, kept)


def test_what_moves_can_be_kept_for_longer_where_the_decay_is_not_known():
    blind = judge(until=1.0)
    blind.decay = None
    assert blind.undecayed(cloud((10.5, 3.5, 1.0, CAR))) == (0, 0)


def test_what_moves_behind_the_camera_was_seen_by_none():
    points = cloud((10.5, 3.5, 1.0, CAR), (11.5, 3.5, 1.0, CAR), (-10.5, 3.5, 1.0, CAR), (-9.5, 3.5, 1.0, WALL))
    assert judge().undecayed(points) == (3, 1)


# ---- a whole map of honest frames, kept by an honest mapper and by one that lies

GRID = VoxelGrid((-16.0, -16.0, -1.0), (16.0, 16.0, 4.0), 1.0)


def frame(looks: bool) -> Occupancy:
    """What the camera sees: everything well within its view is free, but for a car 10 m ahead; nothing without it."""
    x, y, z = np.moveaxis(GRID.centres(), -1, 0)
    seen = (np.maximum(np.abs(y), np.abs(z - 1)) < 0.8 * x) & looks
    semantics = np.where(seen, CLASSES.free, 255).astype(np.uint8)
    semantics[seen & (np.abs(x - 10) < 1) & (np.abs(y) < 1) & (z < 1)] = CAR
    return Occupancy(GRID, CLASSES, semantics, (semantics == CAR).astype(np.float32), seen)


def judged(jump: tuple[float, float, float] | None = None, until: float = LAST) -> tuple[int, int]:
    """Free cells that nobody has seen, and voxels that should be gone, of the map of `judge(jump, until)`'s frames."""
    kept = RollingMap(CLASSES, GRID)
    for at in np.arange(0.5, LAST + 0.05, 0.1):
        pose = np.eye(4)
        if jump is not None and at >= jump[0]:
            pose[:2, 3] = jump[1:]
        kept.add(frame(at <= until + 1e-6), pose, round(at * SECOND))
    volume, stamp = kept.volume(), round(LAST * SECOND)
    cells = messages.height_band_cells(volume, 0.3, 2.0, ("driveable_surface",))
    grid_bytes = messages.grid_message(cells, volume, 0.3, stamp, "odom")
    points = messages.points_message(messages.surface_voxels(volume), CLASSES, stamp, "odom")
    outside = judge(jump, until)
    free = outside.unseen_free(deserialize_message(bytes(grid_bytes), OccupancyGrid))
    return free, outside.undecayed(deserialize_message(bytes(points), PointCloud2))[1]


HONEST = ({}, {"jump": (2.0, -10.0, 0.0)}, {"until": 1.5})


@pytest.mark.parametrize("drive", HONEST)
def test_an_honest_map_has_nothing_that_the_judge_finds(drive):
    assert judged(**drive) == (0, 0)


@pytest.fixture
def lie(monkeypatch):
    """A function that makes the mapper lie until the end of the test."""
    for owner, name in ((mapping, "read_out"), (mapping, "expire"), (RollingMap, "_jump"), (VehicleMap, "add")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # what is put in their place is taken back
    return lambda name: lying_node.LIES[name]()


def test_a_map_that_is_free_where_no_camera_looked_is_found(lie):
    lie("map free")
    free, kept = judged()
    assert free > 100 and kept == 0  # more than half of some 200 cells that are judged lie behind the camera


def test_a_map_that_goes_on_after_the_odometry_has_jumped_is_found(lie):
    lie("map jump")
    free, kept = judged(jump=(2.0, -10.0, 0.0))
    # 10 m ahead of the new pose begins what was seen from the old one; of its 16 m, the last 10 are beyond the frames.
    assert free > 10 and kept == 0
    assert judged() == (0, 0)  # nothing is wrong where nothing jumps


def test_a_map_that_never_forgets_what_moves_is_found_when_the_camera_stops(lie):
    lie("map decay")
    # The car's block of 2 x 2 x 2 voxels was last seen at 1.5 s: all of them are its surface.
    assert judged(until=1.5) == (0, 8)
    assert judged() == (0, 0)  # while the camera looks at it, it may stay
