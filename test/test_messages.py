"""From a volume to the messages: every one is read back by ROS's own deserialisation."""

import json

import numpy as np
import pytest
from nav_msgs.msg import OccupancyGrid
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2, PointField
from visualization_msgs.msg import Marker, MarkerArray

from renderocc_model.field.classes import GROUND_OBSTACLE, OCC3D_NUSCENES, UNLABELLED
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_ros.output import messages as outputs

CLASSES = OCC3D_NUSCENES
FREE, UNKNOWN = CLASSES.free, UNLABELLED
CAR, ROAD, SIDEWALK = (CLASSES.id_of(name) for name in ("car", "driveable_surface", "sidewalk"))
STAMP = 1_700_000_000_123_456_789


def volume(semantics, voxel_size: float = 1.0, lower=(0.0, 0.0, 0.0)) -> Occupancy:
    """A volume of these ids; the confidence of voxel number n, in memory order, is n / 1000."""
    semantics = np.asarray(semantics, np.uint8)
    upper = tuple(low + size * voxel_size for low, size in zip(lower, semantics.shape))
    confidence = (np.arange(semantics.size, dtype=np.float32) / 1000).reshape(semantics.shape)
    return Occupancy(VoxelGrid(lower, upper, voxel_size), CLASSES, semantics, confidence, semantics != UNKNOWN)


def two_voxels() -> Occupancy:
    """4 x 4 x 4 voxels of half a metre around the origin; a car's voxel [0, 1, 2] and the road's [3, 3, 0]."""
    semantics = np.full((4, 4, 4), FREE)
    semantics[0, 1, 2], semantics[3, 3, 0] = CAR, ROAD
    return volume(semantics, 0.5, (-1.0, -1.0, -1.0))


# Centres: -1 + (0.5, 1.5, 2.5) * 0.5 and -1 + (3.5, 3.5, 0.5) * 0.5. Memory index: 0 * 16 + 1 * 4 + 2 and 48 + 12 + 0.
CENTRES = [[-0.75, -0.25, 0.25], [0.75, 0.75, -0.75]]
CONFIDENCE = [0.006, 0.060]


# ---- surface voxels -------------------------------------------------------------------------------------------------


def test_surface_voxels_have_their_centre_class_and_confidence():
    surface = outputs.surface_voxels(two_voxels())
    assert len(surface) == 2
    assert surface.centres.tolist() == CENTRES and surface.labels.tolist() == [CAR, ROAD]
    assert surface.confidence == pytest.approx(CONFIDENCE)
    assert (surface.centres.dtype, surface.labels.dtype, surface.confidence.dtype) == (np.float32, np.uint8, np.float32)


def test_a_voxel_that_is_covered_on_all_six_sides_is_left_out():
    semantics = np.full((5, 5, 5), FREE)
    semantics[1:4, 1:4, 1:4] = CAR  # 27 voxels, of which only the middle one has no open face
    surface = outputs.surface_voxels(volume(semantics))
    assert len(surface) == 26
    assert [2.5, 2.5, 2.5] not in surface.centres.tolist()


def test_unknown_voxels_are_not_on_the_surface_and_cover_nothing():
    semantics = np.full((3, 3, 3), UNKNOWN)
    semantics[1, 1, 1] = CAR
    assert outputs.surface_voxels(volume(semantics)).centres.tolist() == [[1.5, 1.5, 1.5]]


def test_the_nearest_are_kept_with_their_class_and_confidence():
    semantics = np.full((9, 1, 1), FREE)
    semantics[[0, 3, 5, 8]] = np.array([CAR, ROAD, SIDEWALK, CAR]).reshape(4, 1, 1)
    surface = outputs.surface_voxels(volume(semantics, 1.0, (-4.5, -0.5, -0.5)))  # centres at x = -4, -1, 1, 4
    nearest = surface.nearest(2)
    assert sorted(nearest.centres[:, 0].tolist()) == [-1.0, 1.0]
    rows = dict(zip(nearest.centres[:, 0].tolist(), zip(nearest.labels.tolist(), nearest.confidence.tolist())))
    assert rows[-1.0] == (ROAD, pytest.approx(0.003)) and rows[1.0] == (SIDEWALK, pytest.approx(0.005))


def test_a_cap_above_the_number_of_voxels_changes_nothing_and_a_cap_of_zero_leaves_none():
    surface = outputs.surface_voxels(two_voxels())
    assert surface.nearest(2) is surface and surface.nearest(100) is surface
    nothing = surface.nearest(0)
    assert (len(nothing), nothing.centres.shape, nothing.confidence.shape) == (0, (0, 3), (0,))


# ---- messages -------------------------------------------------------------------------------------------------------


def stamp_of(header) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def read_points(message: PointCloud2) -> np.ndarray:
    """The cloud's points, by the fields that the message itself declares."""
    kinds = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4"}
    dtype = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kinds[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(message.data, dtype)


def test_points_are_read_back_with_position_colour_confidence_and_label():
    surface = outputs.surface_voxels(two_voxels())
    message = deserialize_message(outputs.points_message(surface, CLASSES, STAMP, "base_link"), PointCloud2)
    assert (stamp_of(message.header), message.header.frame_id) == (STAMP, "base_link")
    assert (message.height, message.width, message.row_step, message.is_dense) == (1, 2, 2 * message.point_step, True)
    points = read_points(message)
    assert np.stack([points["x"], points["y"], points["z"]], axis=1).tolist() == CENTRES
    assert points["label"].tolist() == [CAR, ROAD]
    assert points["confidence"] == pytest.approx(CONFIDENCE)
    packed = points["rgb"].view("<u4")  # PCL's: 0x00RRGGBB in the bits of a float
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)
    assert colours.tolist() == [list(CLASSES.colours[CAR]), list(CLASSES.colours[ROAD])]


def test_a_volume_without_occupied_voxels_is_an_empty_cloud_and_takes_the_last_cubes_away():
    surface = outputs.surface_voxels(volume(np.full((2, 2, 2), FREE)))
    cloud = deserialize_message(outputs.points_message(surface, CLASSES, STAMP, "base_link"), PointCloud2)
    assert (cloud.width, len(cloud.data), len(cloud.fields)) == (0, 0, 6)
    message = deserialize_message(outputs.markers_message(surface, CLASSES, 1.0, STAMP, "base_link"), MarkerArray)
    (marker,) = message.markers
    assert marker.action == Marker.DELETE and not marker.points


def test_markers_are_read_back_as_cubes_in_the_colour_of_their_class():
    surface = outputs.surface_voxels(two_voxels())
    message = deserialize_message(outputs.markers_message(surface, CLASSES, 0.5, STAMP, "base_link"), MarkerArray)
    (marker,) = message.markers
    assert (stamp_of(marker.header), marker.header.frame_id) == (STAMP, "base_link")
    assert (marker.type, marker.action, marker.pose.orientation.w) == (Marker.CUBE_LIST, Marker.ADD, 1.0)
    assert (marker.scale.x, marker.scale.y, marker.scale.z) == (0.5, 0.5, 0.5)
    assert [[point.x, point.y, point.z] for point in marker.points] == CENTRES
    colours = [[colour.r, colour.g, colour.b] for colour in marker.colors]
    assert np.array(colours) * 255 == pytest.approx(np.array([CLASSES.colours[CAR], CLASSES.colours[ROAD]]), abs=1e-4)


def test_cubes_are_opaque_however_sure_the_network_is():
    confidence = np.array([0.1, 0.4, 0.7, 1.0], np.float32)
    surface = outputs.SurfaceVoxels(np.zeros((4, 3), np.float32), np.full(4, CAR, np.uint8), confidence)
    message = deserialize_message(outputs.markers_message(surface, CLASSES, 0.4, STAMP, "map"), MarkerArray)
    assert [colour.a for colour in message.markers[0].colors] == [1.0] * 4


def test_the_grid_is_read_back_with_its_corner_at_the_lower_edge_of_the_band():
    occupancy = volume(np.full((3, 2, 4), FREE), 0.5, (-1.0, 2.0, -0.5))
    cells = np.array([[0, 100], [-1, 0], [100, -1]], np.int8)  # [x, y]
    message = deserialize_message(outputs.grid_message(cells, occupancy, 0.3, STAMP, "base_link"), OccupancyGrid)
    assert (stamp_of(message.header), message.header.frame_id) == (STAMP, "base_link")
    assert (message.info.width, message.info.height, message.info.resolution) == (3, 2, 0.5)
    origin = message.info.origin
    assert (origin.position.x, origin.position.y, origin.position.z) == (-1.0, 2.0, 0.3)
    assert (origin.orientation.x, origin.orientation.y, origin.orientation.z, origin.orientation.w) == (0, 0, 0, 1)
    assert list(message.data) == [0, -1, 100, 100, 0, -1]  # row y = 0 along x, then row y = 1


def test_the_class_table_says_id_name_colour_and_role():
    table = json.loads(outputs.classes_json(CLASSES))
    assert [row["id"] for row in table["classes"]] == list(range(18))
    assert table["classes"][CAR] == {"id": 4, "name": "car", "color": list(CLASSES.colours[CAR]), "dynamic": True}
    assert table["classes"][ROAD]["dynamic"] is False
    assert (table["free"], table["unknown"]) == (FREE, 255)


# ---- the height band ------------------------------------------------------------------------------------------------

# Columns of five voxels, the lowest first, with centres at 0.5, 1.5, 2.5, 3.5 and 4.5 m. The band from 1 to 4 m holds
# the three in the middle.
GROUND = ("driveable_surface", "sidewalk", "a name the table lacks")
COLUMNS = {
    "free": ([FREE] * 5, 0),
    "car in the band": ([FREE, FREE, CAR, FREE, FREE], 100),
    "car at the band's lowest voxel": ([FREE, CAR, FREE, FREE, FREE], 100),
    "car at the band's highest voxel": ([FREE, FREE, FREE, CAR, FREE], 100),
    "car under the band": ([CAR, FREE, FREE, FREE, FREE], 0),
    "car above the band": ([FREE, FREE, FREE, FREE, CAR], 0),
    "nothing known": ([UNKNOWN] * 5, -1),
    "one unknown voxel in the band": ([FREE, FREE, FREE, UNKNOWN, FREE], -1),
    "unknown under the band": ([UNKNOWN, FREE, FREE, FREE, FREE], 0),
    "unknown above the band": ([FREE, FREE, FREE, FREE, UNKNOWN], 0),
    "car, the rest unknown": ([UNKNOWN, UNKNOWN, CAR, UNKNOWN, UNKNOWN], 100),
    "ground in the band": ([FREE, ROAD, FREE, FREE, FREE], 0),
    "ground in the whole band": ([ROAD, SIDEWALK, ROAD, SIDEWALK, ROAD], 0),
    "unknown under ground in the band": ([UNKNOWN, UNKNOWN, ROAD, FREE, FREE], 0),
    "unknown under ground above the band": ([UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, SIDEWALK], -1),
    "under a bridge that was looked through": ([ROAD, FREE, FREE, FREE, ROAD], 0),
    "unknown above the ground": ([ROAD, ROAD, UNKNOWN, FREE, FREE], -1),
    "unknown above ground that lies under the band": ([ROAD, UNKNOWN, UNKNOWN, UNKNOWN, FREE], -1),
    "car on the ground": ([FREE, ROAD, CAR, FREE, FREE], 100),
    "car under a bridge": ([FREE, CAR, FREE, ROAD, FREE], 100),
}


@pytest.mark.parametrize(("column", "cell"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_becomes_a_cell(column, cell):
    occupancy = volume([[column]])
    assert outputs.height_band_cells(occupancy, 1.0, 4.0, GROUND).tolist() == [[cell]]


def test_columns_do_not_speak_for_their_neighbours():
    columns = [column for column, _ in COLUMNS.values()][:18]
    cells = outputs.height_band_cells(volume(np.array(columns).reshape(6, 3, 5)), 1.0, 4.0, GROUND)
    assert cells.dtype == np.int8
    assert cells.ravel().tolist() == [cell for _, cell in COLUMNS.values()][:18]


def test_without_ground_classes_a_road_is_an_obstacle_and_hides_what_is_under_it():
    columns = [[ROAD, ROAD, FREE, FREE, FREE], [ROAD, FREE, FREE, FREE, FREE], [UNKNOWN, UNKNOWN, FREE, FREE, ROAD]]
    cells = outputs.height_band_cells(volume([columns]), 1.0, 4.0, ())
    assert cells.tolist() == [[100, 0, -1]]


@pytest.mark.parametrize(
    ("lowest", "highest", "cell"),
    [
        (1.5, 1.5, 100),  # both edges count: the voxel with its centre at 1.5 m
        (1.6, 9.0, 0),
        (-9.0, 1.4, 0),
        (1.6, 2.4, -1),  # between two centres
        (5.0, 9.0, -1),  # above the grid
        (-9.0, 0.4, -1),  # under the grid
    ],
)
def test_voxels_whose_centre_lies_in_the_band_count_and_a_band_without_any_is_unknown(lowest, highest, cell):
    occupancy = volume([[[FREE, CAR, FREE, FREE, FREE]]])
    assert outputs.height_band_cells(occupancy, lowest, highest, GROUND).tolist() == [[cell]]


def test_the_band_is_in_the_grids_frame_not_counted_from_its_floor():
    occupancy = volume([[[FREE, CAR, FREE]]], 0.4, (0.0, 0.0, -1.0))  # the car's centre is at -1 + 1.5 * 0.4 = -0.4 m
    assert outputs.height_band_cells(occupancy, -0.5, -0.3, GROUND).tolist() == [[100]]
    assert outputs.height_band_cells(occupancy, 0.4, 0.8, GROUND).tolist() == [[-1]]


def test_the_ground_of_a_network_of_two_classes_is_free_in_the_grid_and_its_obstacles_are_not():
    from renderocc_ros.parameters import NodeConfig

    ground, obstacle, free = (GROUND_OBSTACLE.id_of(name) for name in GROUND_OBSTACLE.names)
    semantics = np.array([[[ground, free, free]], [[ground, obstacle, free]], [[255, free, free]]], np.uint8)
    shape = semantics.shape
    occupancy = Occupancy(
        VoxelGrid((0, 0, 0), tuple(map(float, shape)), 1.0),
        GROUND_OBSTACLE,
        semantics,
        np.ones(shape, np.float32),
        semantics != UNLABELLED,
    )
    ignored = NodeConfig(checkpoint="").grid_ignored_classes
    assert outputs.height_band_cells(occupancy, 0.0, 3.0, ignored).tolist() == [[0], [100], [-1]]
    told = json.loads(outputs.classes_json(GROUND_OBSTACLE))
    assert [(row["id"], row["name"], row["dynamic"]) for row in told["classes"]] == [
        (0, "ground", False),
        (1, "obstacle", False),
        (2, "free", False),
    ]
