"""Moving vehicles in accumulated truth: what the simulator knows of them says that they leave no ghosts."""

from dataclasses import replace

import numpy as np
import pytest
from truth_figures import boxes_at, figures, within

from renderocc_model.field.classes import OCC3D_NUSCENES
from training.evaluate.truth import main
from training.evaluate.truth.sweeps import Sweeps
from training.simulate.record import Settings, record
from training.simulate.sensors import town_rig
from training.simulate.town import build_town

pytestmark = pytest.mark.slow

SEED, FRAMES, RATE = 2021, 16, 10.0
DURATION = (FRAMES - 1) / RATE
MANMADE = np.uint8(OCC3D_NUSCENES.id_of("manmade"))


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """A drive of 1.5 s among moving traffic, whose clouds are scans, and its town."""
    folder = tmp_path_factory.mktemp("traffic") / "drive"
    record(folder, town_rig(48, 32), Settings(SEED, FRAMES, RATE, scan=True))
    return folder, build_town(SEED, DURATION + 1.0)


def test_a_box_holds_what_lies_in_it_and_within_a_margin_of_it():
    model_from_odom = np.eye(4)
    model_from_odom[0, 3] = -10.0  # the box is at x = 10 of odom
    boxes = [(model_from_odom, np.array([-1.0, -2, 0]), np.array([1.0, 2, 3]))]
    points = np.array([[10.0, 0, 1], [11.2, 0, 1], [11.5, 0, 1], [0.0, 0, 1]])
    assert within(points, boxes).tolist() == [True, False, False, False]
    assert within(points, boxes, 0.4).tolist() == [True, True, False, False]


def test_the_boxes_of_traffic_hold_the_points_of_what_moves(traffic):
    _, town = traffic
    here = town.drive.odom_from_base(0.0)[:3, 3]
    boxes, models = boxes_at(town, 0.0, here, 40.0), town.traffic.models(0.0, here, reach=40.0)
    assert len(boxes) == len(models) > 3
    for mesh, pose in models:
        assert within(mesh.vertices[::10] @ pose[:3, :3].T + pose[:3, 3], boxes, 1e-3).all()


def test_moving_vehicles_leave_no_ghosts_and_are_not_smeared(traffic, tmp_path, monkeypatch):
    bag, town = traffic
    words = [str(bag), "--rate", "1"]
    assert main([*words, "--out", str(tmp_path / "made")]) == 0
    found = figures(bag, tmp_path / "made", town, DURATION).as_dict()
    assert found["ghosts"] < 1 and found["without any surface"] < 1
    # The same with points where they were seen: a car is found in fewer of its voxels.
    monkeypatch.setattr("training.evaluate.truth.write.moved_to", lambda moment, sweep, *_: sweep)
    assert main([*words, "--out", str(tmp_path / "smeared")]) == 0
    smeared = figures(bag, tmp_path / "smeared", town, DURATION).as_dict()
    assert smeared["car"] < found["car"] and smeared["without any surface"] > found["without any surface"]
    # And where what moves is called a wall, the count finds ghosts.
    monkeypatch.setattr(Sweeps, "_placed", lambda *given, placed=Sweeps._placed: walls(placed(*given)))
    assert main([*words, "--out", str(tmp_path / "walls")]) == 0
    assert figures(bag, tmp_path / "walls", town, DURATION).as_dict()["ghosts"] > 3 * max(found["ghosts"], 0.1)


def walls(sweep):
    """A sweep in which everything that moves is a wall."""
    return replace(sweep, classes=np.where(np.isin(sweep.classes, OCC3D_NUSCENES.dynamic), MANMADE, sweep.classes))
