"""Figures of the map beside those of single frames."""

from __future__ import annotations

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES as CLASSES
from renderocc_model.geometry.grid import VoxelGrid
from training.evaluate.frame_truth import FrameTruth
from training.evaluate.map_evaluation import GhostCounts, MovingTrails
from training.evaluate.report import evaluation_text

FREE, CAR, WALL = CLASSES.free, 4, 15
GRID = VoxelGrid((0.0, -1.0, 0.0), (8.0, 1.0, 1.0), 1.0)  # 8 x 2 x 1
DYNAMIC = np.isin(np.arange(256), CLASSES.dynamic)


def truth(*cars: int) -> FrameTruth:
    """Free but for cars at these places along x, in view but for the last place."""
    semantics, mask = np.full(GRID.shape, FREE, np.uint8), np.ones(GRID.shape, bool)
    semantics[list(cars), 0, 0] = CAR
    mask[7] = False
    return FrameTruth(semantics, mask)


def moved(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def test_ghosts_are_counted_by_the_time_since_something_moving_left():
    counts = GhostCounts((0.1, 0.5, 1.0))
    age = np.array([0.05, 0.1, 0.4, 0.5, 2.0, np.inf]).reshape(6, 1, 1)
    volume = np.array([CAR, CAR, FREE, WALL, CAR, CAR], np.uint8).reshape(6, 1, 1)
    counts.add(volume, age, DYNAMIC)
    # 0.05 s is too short to count; 0.1 and 0.4 are the first age, 0.5 the second, 2.0 the third.
    assert counts.left.tolist() == [2, 1, 1] and counts.ghosts.tolist() == [1, 0, 1]
    assert counts.as_dict()["shares"] == {"0.1": 0.5, "0.5": 0.0, "1": 1.0}


def test_an_age_without_voxels_has_no_share():
    assert GhostCounts().as_dict()["shares"] == {"0.1": None, "0.5": None, "1": None}


def test_a_voxel_that_a_car_has_left_has_the_time_since_and_one_beside_the_car_does_not_count():
    trails = MovingTrails(CLASSES, GRID)
    assert np.isinf(trails.ages(truth(2), moved(0.0), 10.0)).all()
    ages = trails.ages(truth(3), moved(0.0), 10.2)
    assert np.isinf(ages).all()  # the place that it left is beside it
    ages = trails.ages(truth(5), moved(0.0), 10.4)
    assert ages[2, 0, 0] == pytest.approx(0.4) and ages[3, 0, 0] == pytest.approx(0.2)
    assert np.isfinite(ages).sum() == 2


def test_trails_stay_on_the_ground_when_the_vehicle_moves_and_end_in_time():
    trails = MovingTrails(CLASSES, GRID)
    trails.ages(truth(4), moved(0.0), 10.0)
    ages = trails.ages(truth(), moved(2.0), 10.3)  # what was 4 voxels ahead is 2 ahead now
    assert np.argwhere(np.isfinite(ages)).tolist() == [[2, 0, 0]] and ages[2, 0, 0] == pytest.approx(0.3)
    assert np.isinf(trails.ages(truth(), moved(2.0), 13.1)).all()  # after three seconds


def test_the_report_shows_frame_and_map_beside_each_other():
    scores = {"miou": 0.2, "iou_occupied": 0.5, "rayiou": 0.3, "rayiou_1": 0.25, "rayiou_2": 0.3, "rayiou_4": None}
    better = {**scores, "miou": 0.25, "ghosts": {"shares": {"0.1": 0.02, "1": None}}}
    plain = {**scores, "ghosts": {"shares": {"0.1": 0.01, "1": None}}}
    rays = {"counts": {"returns": 1, "empty": 0}, "iou_2d": {}, "miou_2d": None}
    rays |= dict.fromkeys(
        ("abs_rel", "rmse", "delta_1", "abs_rel_median", "delta_1_median", "opacity_returns", "opacity_empty")
    )
    result = {"checkpoint": "x", "frames": 1, "recordings": ["a"], "threshold": 0.5, "calibration": None}
    result |= {"rays": rays, "cameras": {}, "volumes": None, "baselines": {}, "classes": []}
    text = evaluation_text({**result, "map": {"frame": plain, "map": better, "frames": 7}})
    assert "Map of 7 frames" in text
    ends = {line.rsplit(maxsplit=3)[0]: line.split()[-3:] for line in text.splitlines() if len(line.split()) > 3}
    assert ends["mIoU"] == ["20.00", "25.00", "+5.00"] and ends["RayIoU within 4 m"] == ["-", "-", "-"]
    assert ends["ghosts where a moving object left 0.1 to 1 s ago"] == ["1.00", "2.00", "+1.00"]
