"""`renderocc truth`: volumes accumulated from hand-made sweeps, and from the town against its exact truth."""

import numpy as np
import pytest
import tiny_bag
from test_deskew import cloud, drive
from tiny_bag import START_NS
from town import rewritten

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, UNLABELLED
from renderocc_model.geometry.grid import VoxelGrid
from training.evaluate.truth import main
from training.evaluate.truth.camera_mask import seen_voxels
from training.evaluate.truth.sweeps import Sweep, Sweeps
from training.evaluate.truth.volume import accumulate, covered, filled_ground, fullest, mark_cells
from training.label.clouds import LabelField, LidarClouds
from training.label.mapping import ClassMapping
from training.recordings.frames import Recording
from training.recordings.stamped_topic import StampedTopic

pytestmark = pytest.mark.slow

GRID = VoxelGrid((0, 0, 0), (8, 4, 2), 1.0)
CAR, ROAD, MANMADE = (OCC3D_NUSCENES.id_of(name) for name in ("car", "driveable_surface", "manmade"))
FREE = OCC3D_NUSCENES.free
GROUND, OBSTACLE = 0, 1


def sweep(stamp_ns, points, classes, origin=(0.5, 0.5, 0.5)):
    return Sweep(stamp_ns, np.array(origin), np.array(points, float).reshape(-1, 3), np.array(classes, np.uint8))


def test_a_car_is_only_where_its_own_moment_has_it():
    own = sweep(0, [[3.5, 0.5, 0.5]], [CAR])
    later = sweep(1, [[6.5, 0.5, 0.5], [0.5, 3.5, 0.5]], [CAR, MANMADE])
    made = accumulate(GRID, OCC3D_NUSCENES, np.eye(4), [own], [own, later])
    assert {tuple(place): made.semantics[tuple(place)] for place in np.argwhere(made.semantics != FREE)} == {
        (3, 0, 0): CAR,
        (0, 3, 0): MANMADE,
    }


def test_what_no_ray_meets_is_unobserved_and_not_free():
    own = sweep(0, [[3.5, 0.5, 0.5]], [MANMADE])
    made = accumulate(GRID, OCC3D_NUSCENES, np.eye(4), [own], [])
    assert np.argwhere(made.observed).tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]
    assert made.semantics[3, 0, 0] == MANMADE


def test_the_inside_of_a_car_is_unobserved_although_rays_pass_there_when_it_has_gone():
    own, later = sweep(0, [[2.5, 0.5, 0.5]], [CAR]), sweep(1, [[7.5, 0.5, 0.5]], [MANMADE])
    made = accumulate(GRID, OCC3D_NUSCENES, np.eye(4), [own], [later])
    # The shadow is 4 m long, from 2.5 to 6.5: it fills the voxels 3, 4 and 5.
    assert made.observed[:, 0, 0].tolist() == [True, True, True, False, False, False, True, True]


@pytest.mark.parametrize("passes, stays", [(2, True), (3, False)])
def test_an_obstacle_that_more_than_twice_as_many_sweeps_pass_as_hit_has_moved(passes, stays):
    own = sweep(0, [[3.5, 0.5, 0.5]], [OBSTACLE])
    others = [sweep(1 + number, [[6.5, 0.5, 0.5]], [OBSTACLE]) for number in range(passes)]
    made = accumulate(GRID, GROUND_OBSTACLE, np.eye(4), [own], others)
    assert (made.semantics[3, 0, 0] == OBSTACLE) == stays
    assert made.semantics[6, 0, 0] == OBSTACLE and made.observed[3, 0, 0]


@pytest.mark.parametrize("passes, stays", [(3, True), (4, False)])
def test_a_wall_that_more_than_three_times_as_many_sweeps_pass_as_hit_is_only_the_edge_of_one(passes, stays):
    own = sweep(0, [[3.5, 0.5, 0.5]], [MANMADE])
    others = [sweep(1 + number, [[6.5, 0.5, 0.5]], [MANMADE]) for number in range(passes)]
    made = accumulate(GRID, OCC3D_NUSCENES, np.eye(4), [own], others)
    assert (made.semantics[3, 0, 0] == MANMADE) == stays and made.observed[3, 0, 0]


def test_the_ground_stays_however_many_rays_graze_it():
    own = sweep(0, [[3.5, 0.5, 0.5]], [GROUND])
    others = [sweep(1 + number, [[6.5, 0.5, 0.5]], [GROUND]) for number in range(9)]
    assert accumulate(GRID, GROUND_OBSTACLE, np.eye(4), [own], others).semantics[3, 0, 0] == GROUND


def test_the_class_with_the_most_points_wins():
    own = sweep(0, [[3.5, 0.5, 0.5], [3.6, 0.5, 0.5], [3.4, 0.5, 0.5]], [ROAD, MANMADE, MANMADE])
    assert accumulate(GRID, OCC3D_NUSCENES, np.eye(4), [own], []).semantics[3, 0, 0] == MANMADE


def test_sweeps_are_placed_by_the_ego_pose():
    base_from_odom = np.eye(4)
    base_from_odom[0, 3] = -100  # the vehicle is at x = 100 m of odom
    own = sweep(0, [[103.5, 0.5, 0.5]], [MANMADE], (100.5, 0.5, 0.5))
    made = accumulate(GRID, OCC3D_NUSCENES, base_from_odom, [own], [])
    assert np.argwhere(made.semantics != FREE).tolist() == [[3, 0, 0]]


def test_a_floor_that_reaches_into_two_layers_is_one_voxel_thick():
    # 4 x 4 columns with 3 points below z = 1 and one above it, all within 0.1 of it: a plane that faces z.
    x, y = (axis.ravel() + 0.5 for axis in np.mgrid[0:4, 0:4])
    points = np.concatenate(
        [np.stack([x + dx, y + dy, np.full(16, z)], -1) for dx, dy, z in
         ((-0.3, 0, 0.95), (0.3, 0.1, 0.96), (0, -0.3, 0.97), (0, 0.3, 1.02))]
    )  # fmt: skip
    moments = np.zeros((10, 4, 4, 2))
    px, py, pz = points.T
    place = tuple(points.astype(int).T)
    for row, values in enumerate((1, px, py, pz, px * px, py * py, pz * pz, px * py, px * pz, py * pz)):
        np.add.at(moments[row], place, values)
    cells = np.zeros((3, 4 * 4 * 2), np.uint16)
    mark_cells(cells, points, np.ravel_multi_index(place, (4, 4, 2)))
    kept = fullest(moments, covered(cells).reshape(3, 4, 4, 2), moments[0] > 0)
    assert kept[..., 0].all() and not kept[..., 1].any()


def test_a_face_is_covered_where_points_are_and_not_by_how_many_there_are():
    # Cells of 0.25: seen along z, (0.1, 0.1) and (0.2, 0.2) share a cell; along x and y two heights make two cells.
    points = np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.6], [0.1, 0.1, 0.1], [1.9, 0.4, 0.9]])
    cells = np.zeros((3, 2), np.uint16)
    mark_cells(cells, points, np.array([0, 0, 0, 1]))
    assert covered(cells).tolist() == [[2, 1], [2, 1], [1, 1]]
    # Of the second voxel, along x: row y 0.4 -> 1, column z 0.9 -> 3, bit 1 * 4 + 3.
    assert cells[0, 1] == 1 << 7


def test_a_surface_is_where_it_covers_more_and_not_where_it_has_more_points():
    # A floor: 40 points in one cell of the voxel below z = 1, and 4 points in four cells of the voxel above it.
    x, y = (axis.ravel() for axis in np.mgrid[0.1:1:0.25, 0.1:1:0.25])
    floor = np.stack([x, y, np.full(16, 1.02)], -1)
    low = np.tile([[0.1, 0.1, 0.98]], (40, 1))
    points = np.concatenate([floor[[0, 3, 12, 15]], low])
    moments, place = np.zeros((10, 1, 1, 2)), points[:, 2].astype(int)
    px, py, pz = points.T
    for row, values in enumerate((1, px, py, pz, px * px, py * py, pz * pz, px * py, px * pz, py * pz)):
        np.add.at(moments[row, 0, 0], place, values)
    cells = np.zeros((3, 2), np.uint16)
    mark_cells(cells, points, place)
    kept = fullest(moments, covered(cells).reshape(3, 1, 1, 2), moments[0] > 0)
    assert kept.ravel().tolist() == [False, True]


def test_ground_is_filled_between_rings_and_not_beyond_them():
    semantics = np.full((9, 1, 3), 2, np.uint8)
    semantics[2, 0, 0] = semantics[5, 0, 1] = GROUND
    is_ground = np.arange(256) == GROUND
    filled = filled_ground(semantics, is_ground, 2)
    assert np.argwhere(filled == GROUND).tolist() == [[2, 0, 0], [3, 0, 0], [4, 0, 0], [5, 0, 1]]
    semantics[5, 0] = (2, 2, GROUND)  # a step of two voxels is no hole
    assert (filled_ground(semantics, is_ground, 2) == semantics).all()


def test_a_camera_sees_up_to_the_first_occupied_voxel():
    occupied = np.zeros(GRID.shape, bool)
    occupied[4, 0, 0] = occupied[6, 0, 0] = True
    base_from_camera = np.eye(4)
    base_from_camera[:3, 3] = 1.5, 0.5, 0.5
    base_from_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # optical z is x of the vehicle
    seen = seen_voxels(occupied, GRID, base_from_camera, np.array([[0.0, 0, 1]]))
    assert np.argwhere(seen).tolist() == [[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]


@pytest.fixture(scope="module")
def made(town_bag, tmp_path_factory):
    out = tmp_path_factory.mktemp("truth") / "occupancy"
    assert main([str(town_bag), "--out", str(out)]) == 0
    return out


def near(occupied):
    """The voxels that are occupied or touch one that is."""
    padded = np.pad(occupied, 1)
    for axis in range(3):
        padded = padded | np.roll(padded, 1, axis) | np.roll(padded, -1, axis)
    return padded[1:-1, 1:-1, 1:-1]


def test_the_towns_surfaces_are_found_and_nothing_is_where_it_has_none(town_bag, made):
    files = sorted(made.glob("*.npz"))
    assert [file.name for file in files] == [file.name for file in sorted((town_bag / "occupancy").glob("*.npz"))]
    found = wrong = both = occupied = 0
    for file in files:
        ours, exact = np.load(file), np.load(town_bag / "occupancy" / file.name)
        mask = (exact["mask_lidar"] > 0) & (ours["mask_lidar"] > 0)
        mine, true = ours["semantics"] != FREE, exact["semantics"] != FREE
        occupied += np.count_nonzero(mine & mask)
        wrong += np.count_nonzero(mine & mask & ~near(true))
        both += np.count_nonzero(mine & mask & true & (ours["semantics"] == exact["semantics"]))
        found += np.count_nonzero(mine & mask & true)
        assert not (ours["mask_camera"] & ~ours["mask_lidar"] & 1).any()
        assert (ours["semantics"][ours["mask_lidar"] == 0] == FREE).all()
    assert wrong <= 0.01 * occupied
    assert found >= 0.8 * occupied
    assert both >= 0.95 * found


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(town_bag, made, capsys):
    files = sorted(made.glob("*.npz"))
    before = [file.read_bytes() for file in files]
    kept = files[0].stat().st_mtime_ns
    files[1].unlink()
    assert main([str(town_bag), "--out", str(made)]) == 0
    assert [file.read_bytes() for file in files] == before and files[0].stat().st_mtime_ns == kept
    assert main([str(town_bag), "--out", str(made), "--reach", "30"]) == 2
    assert "was made with other settings" in capsys.readouterr().err


def test_other_truth_is_not_overwritten(town_bag, capsys):
    assert main([str(town_bag)]) == 2
    assert "holds truth that this command did not make; name another folder with --out" in capsys.readouterr().err


def test_a_recording_without_lidar_is_refused(town_bag, tmp_path, capsys):
    bag = rewritten(town_bag, tmp_path / "bag", drop=lambda topic: "lidar" in topic, truth=False)
    assert main([str(bag)]) == 2
    assert "there is no PointCloud2 topic" in capsys.readouterr().err


def test_classes_from_the_ground_need_no_labels(town_bag, tmp_path):
    words = ["--classes-from", "ground", "--ground-method", "plane", "--rate", "0.5"]
    assert main([str(town_bag), "--out", str(tmp_path / "two"), *words]) == 0
    for file in (tmp_path / "two").glob("*.npz"):
        ids = set(np.unique(np.load(file)["semantics"]).tolist())
        assert {GROUND, OBSTACLE, GROUND_OBSTACLE.free} <= ids <= {GROUND, OBSTACLE, GROUND_OBSTACLE.free, UNLABELLED}


def test_no_sweep_reaches_across_a_jump_of_the_ego_pose(tmp_path, monkeypatch):
    def jumping(stamp_ns):
        """Drives at 4 m/s along x and is 30 m further along y from the third frame on."""
        pose, seconds = np.eye(4), (stamp_ns - START_NS) / 1e9
        pose[:2, 3] = 4 * seconds, 30.0 * (seconds > 0.75)
        return pose

    monkeypatch.setattr(tiny_bag, "odom_from_base", jumping)
    bag = drive(tmp_path, lambda at: cloud(at, False, False), frames=4)
    with Recording(bag) as recording:
        assert len(recording.jumps) == 1
        topic = StampedTopic(recording.bag, "/lidar/points")
        sweeps = Sweeps(recording, LidarClouds(recording, topic, None), spacing=0.5, reach=60)
        first, second, third, fourth = topic.stamps
        assert [sweep.stamp_ns for sweep in sweeps.around(second)] == [first, second]
        assert [sweep.stamp_ns for sweep in sweeps.around(third)] == [third, fourth]


def test_points_get_the_classes_of_label_images_whose_depth_agrees(town_bag):
    with Recording(town_bag) as recording:
        topic = StampedTopic(recording.bag, "/lidar/points")
        field = LabelField("label", ClassMapping.identity(OCC3D_NUSCENES))
        exact, seen = (
            Sweeps(recording, LidarClouds(recording, topic, source), 0.5, 40).own(topic.stamps[1])[0].classes
            for source in (field, None)
        )
    known = seen != UNLABELLED
    assert np.count_nonzero(known) > 0.3 * len(seen)
    assert np.count_nonzero(seen[known] == exact[known]) > 0.95 * np.count_nonzero(known)


def test_without_any_classes_it_says_what_to_give(town_bag, tmp_path, capsys):
    bag = drive(tmp_path, lambda at: cloud(at, False, False))
    assert main([str(bag)]) == 2
    assert "nothing gives the points classes" in (said := capsys.readouterr().err)
    assert "--classes-from ground" in said
