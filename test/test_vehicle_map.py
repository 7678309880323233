"""The node's map: which frames go in, when it begins anew, and what of its parameters it follows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES as CLASSES
from renderocc_model.field.occupancy import Occupancy
from renderocc_model.geometry.grid import VoxelGrid
from renderocc_model.rosio.motion import Jump
from renderocc_ros.frame.pipeline import Frame
from renderocc_ros.frame.vehicle_map import VehicleMap
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.parameters import MapParameters, NodeConfig

pytestmark = pytest.mark.slow

GRID = VoxelGrid((-2.0, -2.0, 0.0), (2.0, 2.0, 1.0), 0.5)
WALL, TENTH = 15, 100_000_000


def new_map(**parameters) -> tuple[VehicleMap, list[str]]:
    said: list[str] = []
    network = SimpleNamespace(classes=CLASSES, grid=GRID)  # all that it needs of a predictor
    return VehicleMap(NodeConfig(map=MapParameters(**parameters)), network, ThrottledLog(said.append)), said


def frame(number: int, x: float = 0.0, state: int = WALL) -> Frame:
    visible = np.ones(GRID.shape, bool)
    volume = Occupancy(GRID, CLASSES, np.full(GRID.shape, state, np.uint8), visible.astype(np.float32), visible)
    pose = np.eye(4)
    pose[0, 3] = x
    return Frame((10 + number) * TENTH, "front", 0.0, occupancy=volume, odom_from_base=pose)


def test_frames_go_in_and_a_snapshot_has_the_stamp_and_place_of_the_last_one():
    kept, _ = new_map()
    assert kept.snapshot() is None
    kept.add(frame(0))
    kept.add(frame(1, x=0.5))
    snapshot = kept.snapshot()
    assert kept.frames == 2 and snapshot.stamp_ns == 11 * TENTH and snapshot.position.tolist() == [0.5, 0.0, 0.0]
    assert snapshot.volume.grid.frame == "odom" and snapshot.volume.occupied.any()


def test_warming_up_leaves_nothing_in_the_map():
    kept, said = new_map()
    kept.warm_up()
    assert kept.frames == 0 and kept.snapshot() is None
    kept.add(frame(0, x=300.0))
    assert said == []  # that is no jump: there was no frame before


def test_a_frame_without_ego_motion_is_left_out_with_the_reason_and_the_map_is_kept():
    kept, _ = new_map()
    kept.add(frame(0))
    kept.add(replace(frame(1), odom_from_base=None, ego_motion_missing="/tf has ended"))
    assert kept.frames == 1 and kept.missing == "the last frame is not in the map: /tf has ended"
    kept.add(frame(2))
    assert kept.frames == 2 and kept.missing == ""


def test_a_frame_at_an_impossible_place_is_left_out_with_the_reason_and_the_map_is_kept():
    kept, said = new_map()
    kept.add(frame(0))
    kept.add(frame(1, x=1e300))
    assert kept.frames == 1 and "pose is more than 1e+08 m from the origin" in kept.missing and said == []
    kept.add(frame(2))
    assert kept.frames == 2 and kept.missing == ""


def test_a_jump_that_the_pipeline_has_found_begins_a_new_map():
    kept, _ = new_map()
    kept.add(frame(0))
    before = kept.snapshot()
    jump = Jump(10 * TENTH, 11 * TENTH, 0.3, 0.0, 0.5)
    kept.add(replace(frame(1, state=CLASSES.free), jump=jump))
    assert kept.frames == 1 and kept.snapshot().generation != before.generation
    assert not kept.snapshot().volume.occupied.any()


def test_a_jump_between_frames_is_said_and_begins_a_new_map():
    kept, said = new_map()
    kept.add(frame(0))
    kept.add(frame(1, x=20.0))
    assert kept.frames == 1 and len(said) == 1 and "the map begins anew: the vehicle's pose: it jumps" in said[0]


def test_clearing_forgets_everything():
    kept, _ = new_map()
    kept.add(frame(0))
    kept.clear()
    assert kept.frames == 0 and kept.snapshot() is None


def test_a_map_that_is_not_wanted_takes_no_frame_and_says_why():
    kept, _ = new_map(enabled=False)
    kept.warm_up()
    kept.add(frame(0))
    assert kept.snapshot() is None and kept.missing == "parameter 'map.enabled' is false"


def test_the_memory_can_change_while_it_runs():
    kept, _ = new_map(memory=1.0, hit=0.5, highest=10.0)
    kept.add(frame(0))
    kept.set_config(NodeConfig(map=MapParameters(memory=0.0, hit=0.25, highest=10.0)))
    kept.add(frame(1))
    # log-odds 0.25 alone: 1 / (1 + exp(-0.25))
    assert kept.snapshot().volume.confidence.max() == pytest.approx(0.5621765)
