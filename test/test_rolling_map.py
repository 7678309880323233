"""A map that follows a vehicle: what it keeps, what it forgets, and that it stays straight."""

from __future__ import annotations

import math

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES as CLASSES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.geometry.transforms import transform_points
from renderocc_model.inference.map_config import MapConfig
from renderocc_model.inference.rolling_map import RollingMap

pytestmark = pytest.mark.slow

GRID = VoxelGrid((-4.0, -4.0, -1.0), (4.0, 4.0, 1.0), 0.4)  # 20 x 20 x 5
FREE, UNKNOWN, CAR, WALL = CLASSES.free, 255, 4, 15
CONFIG = MapConfig(
    scroll=2,
    memory=1.0,
    gain=1.0,
    hit=1.0,
    miss=1.0,
    highest=2.0,
    lowest=-2.0,
    dynamic_highest=1.0,
    dynamic_frames=1,
)
TENTH = 100_000_000  # nanoseconds


def frame(semantics: np.ndarray, grid: VoxelGrid = GRID) -> Occupancy:
    visible = semantics != UNKNOWN
    return Occupancy(grid, CLASSES, semantics, visible.astype(np.float32), visible)


def everywhere(state: int) -> np.ndarray:
    return np.full(GRID.shape, state, np.uint8)


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    made = np.eye(4)
    made[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    made[:3, 3] = x, y, z
    return made


def new_map(**changes) -> RollingMap:
    return RollingMap(CLASSES, GRID, MapConfig(**{**vars(CONFIG), **changes}))


def state_at(volume: Occupancy, *point: float) -> int:
    index, inside = volume.grid.index_of(np.array([point]))
    assert inside[0]
    return int(volume.semantics[tuple(index[0])])


def test_the_map_is_the_grid_with_a_margin_on_each_side_and_a_layer_above_and_below():
    made = new_map()
    assert made.shape == (20 + 2 * 2, 20 + 2 * 2, 5 + 2)
    assert made.grid is None and made.volume() is None
    made.add(frame(everywhere(FREE)), pose(0.2, 0.2), 1)
    # Around x = 0.2 m, 24 voxels begin at 0.5 - 12 of them, which is rounded to the even number; along z, in layers of
    # the frame's, 7 voxels around 0 m begin at 1.4 m below.
    assert made.grid.lower == pytest.approx((-12 * 0.4, -12 * 0.4, -1.4))
    assert made.grid.frame == "odom"


def test_size_and_voxels_of_ones_own():
    assert new_map(size=12.0).shape == (34, 34, 7)
    assert new_map(size=12.0, voxel_size=0.8).shape == (15 + 4, 15 + 4, 3 + 2)  # 2 m are 2.5 voxels


def test_after_one_frame_the_map_says_what_the_frame_says():
    generator = np.random.default_rng(0)
    semantics = generator.choice(np.array([FREE, WALL, CAR, UNKNOWN], np.uint8), GRID.shape)
    made = new_map()
    made.add(frame(semantics), pose(), 1)  # the odometry's voxels coincide with the frame's
    assert np.array_equal(made.view(GRID, pose()).semantics, semantics)


def test_confidence_and_threshold_weigh_a_frame():
    one = frame(everywhere(WALL))
    one.confidence[:] = 0.75
    weak = Occupancy(GRID, CLASSES, one.semantics, one.confidence, one.visible, None, np.full((20, 20, 1), 0.7, "f4"))
    made = new_map()
    made.add(weak, pose(), 1)
    # log-odds log(0.75 / 0.25) - log(0.7 / 0.3) = log(9 / 7), so 9 / 16
    assert made.view(GRID, pose()).confidence == pytest.approx(9 / 16, abs=1e-6)


def test_what_no_frame_has_seen_is_never_free_and_never_occupied():
    generator, made = np.random.default_rng(1), new_map()
    looked = np.zeros((200, 200, 40), bool)  # voxels within 40, 40 and 8 m that a frame looked at
    for number in range(30):
        at = pose(*generator.uniform(-1, 1, 2), generator.uniform(-0.3, 0.3), generator.uniform(-0.3, 0.3))
        semantics = generator.choice(np.array([FREE, WALL, UNKNOWN], np.uint8), GRID.shape, p=(0.1, 0.1, 0.8))
        made.add(frame(semantics), at, (number + 1) * TENTH * 50)  # far apart: any pose can follow any other
        grid = made.grid
        places, inside = GRID.index_of(transform_points(np.linalg.inv(at), grid.centres().reshape(-1, 3)))
        seen = np.zeros(grid.size, bool)
        seen[inside] = semantics[tuple(places[inside].T)] != UNKNOWN
        corner = np.floor(np.array(grid.lower) / 0.4 + 0.01).astype(int) + (100, 100, 20)
        x, y, z = (slice(first, first + count) for first, count in zip(corner, grid.shape))
        looked[x, y, z] |= seen.reshape(grid.shape)
        known = made.volume().semantics != UNKNOWN
        assert not (known & ~looked[x, y, z]).any()
    assert known.any()


def test_scrolling_moves_by_whole_voxels_and_changes_no_voxel_that_stays():
    generator, made = np.random.default_rng(2), new_map()
    made.add(frame(generator.choice(np.array([FREE, WALL], np.uint8), GRID.shape)), pose(), 1)
    before = made.volume()
    made.add(frame(everywhere(UNKNOWN)), pose(1.3, -2.2), 2 * TENTH)  # 3.25 and 5.5 voxels
    after = made.volume()
    moved = np.round((np.array(after.grid.lower) - before.grid.lower) / 0.4, 6)
    assert moved.tolist() == [3, -6, 0] or moved.tolist() == [3, -5, 0]
    dx, dy = int(moved[0]), int(-moved[1])
    assert np.array_equal(after.semantics[:-dx, dy:], before.semantics[dx:, :-dy])
    assert (after.semantics[-dx:] == UNKNOWN).all() and (after.semantics[:, :dy] == UNKNOWN).all()


def test_what_has_scrolled_out_is_unknown_when_the_vehicle_comes_back():
    made = new_map()
    made.add(frame(everywhere(WALL)), pose(), 1)
    made.add(frame(everywhere(UNKNOWN)), pose(6.0), 10 * TENTH)
    made.add(frame(everywhere(UNKNOWN)), pose(), 20 * TENTH)
    volume = made.volume()
    assert state_at(volume, -3.0, 0.0, 0.0) == UNKNOWN and state_at(volume, 3.0, 0.0, 0.0) == WALL
    made.add(frame(everywhere(UNKNOWN)), pose(60.0), 30 * TENTH)
    made.add(frame(everywhere(UNKNOWN)), pose(), 40 * TENTH)
    assert (made.volume().semantics == UNKNOWN).all()


def test_the_map_follows_a_vehicle_up_a_hill():
    made = new_map()
    for number in range(21):
        made.add(frame(everywhere(WALL)), pose(z=0.2 * number), (number + 1) * TENTH)
    grid = made.grid
    assert grid.lower[2] <= 3.0 and grid.upper[2] >= 5.0  # the last frame's: 4 m up, and 1 m each way


def test_a_wall_stays_straight_over_100_m_and_a_turn_of_90_degrees():
    """A wall in odom's voxels at 5.2 <= y < 5.6 along x, then one at 103.6 <= x < 104 along y, beside the way."""
    made = RollingMap(CLASSES, VoxelGrid((-8.0, -8.0, -1.0), (8.0, 8.0, 1.0), 0.4), MapConfig(size=240.0))
    grid = VoxelGrid((-8.0, -8.0, -1.0), (8.0, 8.0, 1.0), 0.4)
    way = [pose(0.7 * step, 0.3 * math.sin(step), 0.0, 0.1 * math.sin(0.3 * step)) for step in range(143)]
    way += [pose(99.4, 0.0, 0.0, angle) for angle in np.linspace(0.0, math.pi / 2, 16)]
    way += [pose(99.4, -0.7 * step, 0.0, math.pi / 2 + 0.05 * math.sin(step)) for step in range(12)]
    for number, at in enumerate(way):
        x, y, _ = np.moveaxis(transform_points(at, grid.centres()), -1, 0)
        wall = ((y >= 5.2) & (y < 5.6) & (x < 104)) | ((x >= 103.6) & (x < 104) & (y < 5.6))
        behind = (y >= 5.6) | (x >= 104)
        semantics = np.where(wall, WALL, np.where(behind, UNKNOWN, FREE)).astype(np.uint8)
        made.add(frame(semantics, grid), at, (number + 1) * 10**10)
    volume = made.volume()
    centres = volume.surface_points()[0]
    first = centres[(centres[:, 0] > -7) & (centres[:, 0] < 98)]
    assert np.abs(first[:, 1] - 5.4).max() < 0.41  # nowhere more than the voxel beside it
    assert (np.abs(first[:, 1] - 5.4) < 0.01).mean() > 0.6
    columns = np.unique(np.round((first[np.abs(first[:, 1] - 5.4) < 0.01][:, 0] - 0.2) / 0.4).astype(int))
    assert len(columns) == np.ptp(columns) + 1 > 250  # and without a hole
    second = centres[(centres[:, 1] < 0) & (centres[:, 1] > -7)]
    assert len(second) and np.abs(second[:, 0] - 103.8).max() < 0.41


def test_what_moves_is_forgotten_after_its_time_and_walls_are_not():
    made, semantics = new_map(dynamic_decay=0.5), everywhere(FREE)
    semantics[12, 10, 2], semantics[14, 10, 2] = CAR, WALL
    made.add(frame(semantics), pose(), TENTH)
    states = []
    for number in range(2, 9):
        made.add(frame(everywhere(UNKNOWN)), pose(), number * TENTH)
        view = made.view(GRID, pose()).semantics
        states.append((int(view[12, 10, 2]), int(view[14, 10, 2])))
    # Last seen at 0.1 s: still there at 0.6 s, gone at 0.7 s. Not free: nobody has looked there.
    assert states == 5 * [(CAR, WALL)] + 2 * [(UNKNOWN, WALL)]


def test_what_is_seen_free_is_freed():
    made, semantics = new_map(), everywhere(FREE)
    semantics[14, 10, 2] = WALL
    for number in range(5):
        made.add(frame(semantics), pose(), number * TENTH)
    seen = []
    for number in range(5, 9):  # from the most, 2, by 1 each frame: 1, then 0, which is to know nothing, then free
        made.add(frame(everywhere(FREE)), pose(), number * TENTH)
        seen.append(int(made.view(GRID, pose()).semantics[14, 10, 2]))
    assert seen == [WALL, UNKNOWN, FREE, FREE]


def test_a_camera_that_drops_out_takes_nothing_away():
    made, semantics = new_map(), everywhere(FREE)
    semantics[14] = WALL
    made.add(frame(semantics), pose(), TENTH)
    before = made.volume()
    half = semantics.copy()
    half[10:] = UNKNOWN
    made.add(frame(half), pose(), 2 * TENTH)
    assert np.array_equal(made.volume().semantics, before.semantics)


def test_a_jump_of_the_odometry_begins_a_new_map_and_drift_does_not():
    made = new_map()
    for number in range(1, 20):
        assert made.add(frame(everywhere(WALL)), pose(0.8 * number, 0.05 * number), number * TENTH) == ""
    assert made.frames == 19
    text = made.add(frame(everywhere(FREE)), pose(0.8 * 20, 2.5), 20 * TENTH)
    # From (15.2, 0.95) to (16, 2.5): sqrt(0.8^2 + 1.55^2) = 1.744.
    assert text == "the vehicle's pose: it jumps: moves 1.74 m within 0.100 s (17 m/s)"
    assert made.frames == 1 and not made.volume().occupied.any()


def test_time_that_goes_back_begins_a_new_map():
    made = new_map()
    made.add(frame(everywhere(WALL)), pose(), 100 * TENTH)
    assert made.add(frame(everywhere(FREE)), pose(), 90 * TENTH) == "time goes back by 1.0 s"
    assert not made.volume().occupied.any()


def test_clearing_forgets_everything():
    made = new_map()
    made.add(frame(everywhere(WALL)), pose(), TENTH)
    made.clear()
    assert made.volume() is None and (made.view(GRID, pose()).semantics == UNKNOWN).all()
    made.add(frame(everywhere(UNKNOWN)), pose(500.0), 2 * TENTH)  # no jump: nothing is known of before
    assert not made.volume().occupied.any()


def test_a_volume_is_a_copy_that_later_frames_do_not_change():
    made = new_map()
    made.add(frame(everywhere(WALL)), pose(), TENTH)
    volume = made.volume()
    for number in range(2, 8):
        made.add(frame(everywhere(FREE)), pose(), number * TENTH)
    assert volume.occupied.any() and (volume.confidence[volume.occupied] > 0.5).all()


def test_a_map_saves_like_a_frame(tmp_path):
    made = new_map()
    made.add(frame(everywhere(WALL)), pose(3.0), TENTH)
    volume = made.volume()
    volume.save_npz(tmp_path / "map.npz")
    read = Occupancy.load_npz(tmp_path / "map.npz", CLASSES)
    assert read.grid == volume.grid and np.array_equal(read.semantics, volume.semantics)


def test_frames_that_cannot_be_added_are_refused():
    made = new_map()
    with pytest.raises(ValueError, match="no finite 4x4"):
        made.add(frame(everywhere(WALL)), np.full((4, 4), np.nan), 1)
    far = np.eye(4)
    far[1, 3] = -1e300
    with pytest.raises(ValueError, match="more than 1e.08 m from the origin; the odometry is wrong"):
        made.add(frame(everywhere(WALL)), far, 1)
    assert made.frames == 0
