"""Class tables: the ids of the two data sets, their roles and colours."""

import json

import numpy as np
import pytest

from renderocc_model.field.classes import (
    GROUND_OBSTACLE,
    OCC3D_NUSCENES,
    SEMANTIC_KITTI,
    UNLABELLED,
    ClassTable,
    by_name,
)


def test_occ3d_has_its_published_ids():
    assert len(OCC3D_NUSCENES) == 18
    # Spot checks against the data set's list: 4 car, 11 driveable surface, 16 vegetation, 17 free.
    assert [OCC3D_NUSCENES.names[index] for index in (0, 4, 11, 16, 17)] == [
        "others",
        "car",
        "driveable_surface",
        "vegetation",
        "free",
    ]
    assert OCC3D_NUSCENES.free == 17
    assert OCC3D_NUSCENES.occupied_ids == tuple(range(17))


def test_semantic_kitti_is_free_at_zero_and_channels_begin_at_one():
    assert len(SEMANTIC_KITTI) == 20 and SEMANTIC_KITTI.free == 0
    assert SEMANTIC_KITTI.occupied_ids == tuple(range(1, 20))
    assert SEMANTIC_KITTI.names[1] == "car" and SEMANTIC_KITTI.names[19] == "traffic-sign"


@pytest.mark.parametrize(
    ("table", "moving"),
    [
        (OCC3D_NUSCENES, "bicycle bus car construction_vehicle motorcycle pedestrian trailer truck"),
        (SEMANTIC_KITTI, "car bicycle motorcycle truck other-vehicle person bicyclist motorcyclist"),
    ],
)
def test_what_drives_rides_or_walks_is_dynamic_and_nothing_else(table, moving):
    assert {table.names[index] for index in table.dynamic} == set(moving.split())


def test_of_ground_and_obstacle_nobody_knows_whether_obstacles_move():
    assert GROUND_OBSTACLE.dynamic == ()
    assert [GROUND_OBSTACLE.names[index] for index in GROUND_OBSTACLE.may_move] == ["obstacle"]
    assert OCC3D_NUSCENES.may_move == SEMANTIC_KITTI.may_move == ()


@pytest.mark.parametrize("table", [OCC3D_NUSCENES, SEMANTIC_KITTI])
def test_colours_tell_the_classes_apart(table):
    palette = table.palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert len({tuple(colour) for colour in palette[: len(table)]}) == len(table)
    assert (palette[len(table) :] == 128).all()
    assert palette[UNLABELLED].tolist() == [128, 128, 128]


def test_cars_are_blue_and_vegetation_green_as_usual():
    assert OCC3D_NUSCENES.palette()[4].tolist() == [0, 150, 245]
    assert OCC3D_NUSCENES.palette()[16].tolist() == [0, 175, 0]


def test_a_table_survives_json():
    again = ClassTable.from_dict(json.loads(json.dumps(OCC3D_NUSCENES.to_dict())))
    assert again == OCC3D_NUSCENES and hash(again) == hash(OCC3D_NUSCENES)
    assert ClassTable.from_dict(json.loads(json.dumps(GROUND_OBSTACLE.to_dict()))).may_move == (1,)


def test_a_table_that_was_written_before_classes_could_be_undecided_is_the_same_table():
    described = GROUND_OBSTACLE.to_dict()
    del described["may_move"]
    older = ClassTable.from_dict(described)
    assert older == GROUND_OBSTACLE and hash(older) == hash(GROUND_OBSTACLE) and older.may_move == ()


def test_ids_and_tables_are_found_by_name():
    assert OCC3D_NUSCENES.id_of("truck") == 10
    assert by_name("semantic_kitti") is SEMANTIC_KITTI
    with pytest.raises(ValueError, match="no class 'lorry'; the table has others, barrier"):
        OCC3D_NUSCENES.id_of("lorry")
    with pytest.raises(ValueError, match="no class table 'kitti'; choose one of occ3d_nuscenes, semantic_kitti"):
        by_name("kitti")


GOOD = {"names": ("thing", "free"), "colours": ((1, 2, 3), (4, 5, 6)), "dynamic": (0,), "free": 1}


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"names": ("thing", "thing")}, "repeat"),
        ({"names": ("thing", "")}, "empty"),
        ({"names": ("free",), "colours": ((0, 0, 0),)}, "1 names"),
        ({"names": tuple(f"c{i}" for i in range(256))}, "256 names; expected 2 to 255"),
        ({"colours": ((1, 2, 3),)}, "2 names but 1 colours"),
        ({"colours": ((1, 2, 3), (4, 5, 256))}, "colour of 'free' is (4, 5, 256)"),
        ({"free": 2}, "free is 2"),
        ({"dynamic": (0, 2)}, "dynamic is (0, 2)"),
        ({"dynamic": (1,)}, "other than free (1)"),
        ({"may_move": (1,)}, "may_move is (1,); expected ids in 0..1 other than free (1)"),
        ({"may_move": (0,)}, "and those of dynamic ((0,))"),
    ],
)
def test_a_table_that_cannot_be_says_what_is_wrong(change, culprit):
    with pytest.raises(ValueError, match="classes: ") as error:
        ClassTable(**{**GOOD, **change})
    assert culprit in str(error.value)


def test_a_described_table_must_be_complete():
    with pytest.raises(ValueError, match="missing keys \\['colours'\\], unknown keys \\['colors'\\]"):
        ClassTable.from_dict({"names": ["a", "b"], "colors": [], "dynamic": [], "free": 0})
    with pytest.raises(ValueError, match="expected lists of names"):
        ClassTable.from_dict({"names": 3, "colours": [], "dynamic": [], "free": 0})
