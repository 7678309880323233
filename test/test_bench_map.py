"""`renderocc bench map`: a street that is there in part, and times of each stage."""

from __future__ import annotations

import numpy as np
import pytest

from renderocc_model.bench.map import Street, measure
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.grid import VoxelGrid

pytestmark = pytest.mark.slow

GRID = VoxelGrid((-8.0, -8.0, -1.0), (8.0, 8.0, 5.4), 0.4)


def test_a_street_is_seen_in_part_and_stands_still_while_the_vehicle_moves():
    street = Street(GRID, OCC3D_NUSCENES)
    ahead = np.eye(4)
    ahead[0, 3] = 4.0  # ten voxels
    one, other = street.frame(np.eye(4)), street.frame(ahead)
    for frame in (one, other):
        assert 0.2 < frame.visible.mean() < 0.9 and 0.005 < frame.occupied.mean() < 0.2
    both = one.visible[10:] & other.visible[:-10]
    assert both.mean() > 0.1
    assert (one.semantics[10:] == other.semantics[:-10])[both].mean() > 0.99  # but for rounding at faces


def test_each_stage_has_a_time():
    figures = measure(GRID, 2)
    assert set(figures) == {"frame", "add", "read out", "visible", "occupied"}
    assert all(value > 0 for value in figures.values())
