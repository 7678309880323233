"""What moves during a scan: its points are put where it is at the scan's stamp."""

import numpy as np
import pytest

from renderocc_model.field.classes import OCC3D_NUSCENES
from training.evaluate.truth.movers import moved_to, velocity
from training.evaluate.truth.sweeps import Sweep

CAR, ROAD = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.id_of("driveable_surface")
SCAN_NS = 100_000_000


def seen(corner, motion, begin, seed=0):
    """Two sides of a car, 4.5 m and 1.8 m, in a scan of 0.1 s: places (N, 3) and times (N,), seconds after `begin`."""
    rng = np.random.default_rng([seed, round(begin * 100) + 1000])
    motion = np.asarray(motion, float)
    ahead = motion / np.linalg.norm(motion) if motion.any() else np.array([1.0, 0.0])
    aside = np.array([-ahead[1], ahead[0]])
    share, long = rng.random(300), rng.random(300) < 0.7
    local = np.where(long[:, None], 4.5 * share[:, None] * ahead, 1.8 * share[:, None] * aside)
    times = rng.uniform(0, 0.1, 300)
    places = corner + local + (begin + times)[:, None] * motion + rng.normal(0, 0.02, (300, 2))
    return np.column_stack([places, rng.uniform(0.3, 1.5, 300)]), times


def scans(*cars):
    """Scans that begin at -0.1, 0 and 0.1 s, with cars (corner, motion) and one point of the road."""
    found = []
    for number in (-1, 0, 1):
        parts = [seen(corner, motion, number * 0.1, seed) for seed, (corner, motion) in enumerate(cars)]
        points = np.concatenate([part[0] for part in parts] + [[[1.0, 2.0, 0.0]]])
        times = np.concatenate([part[1] for part in parts] + [[0.05]])
        names = np.append(np.full(len(points) - 1, CAR, np.uint8), np.uint8(ROAD))
        found.append(Sweep(number * SCAN_NS, np.zeros(3), points, names, times))
    return found


@pytest.mark.parametrize("motion", [(8.0, 0.0), (-3.0, 7.0), (0.0, 0.0), (0.0, -25.0)])
def test_the_velocity_of_a_car_is_found(motion):
    before, own, after = (np.column_stack([one.points[:-1, :2], one.stamp_ns * 1e-9 + one.times[:-1]]) for one in
                          scans(((20.0, 5.0), motion)))  # fmt: skip
    assert np.linalg.norm(velocity(own, [before, after]) - motion) < 0.5
    assert np.linalg.norm(velocity(own, [after]) - motion) < 1.0


def test_a_car_is_put_where_it_is_at_the_stamp_and_what_stands_stays():
    drives, stands = ((20.0, 5.0), (10.0, 0.0)), ((20.0, -5.0), (0.0, 0.0))
    before, own, after = scans(drives, stands)
    moved = moved_to(0, own, [before, after], OCC3D_NUSCENES.dynamic)
    # At time 0 the sides of the first car are at x 20 to 24.5 and y 5 to 6.8; during the scan it moved on by a metre.
    assert own.points[:300, 0].max() > 25.2
    assert abs(moved.points[:300, 0].min() - 20) < 0.1 and abs(moved.points[:300, 0].max() - 24.5) < 0.1
    assert np.array_equal(moved.points[300:], own.points[300:])  # the second car and the road
    assert np.array_equal(moved.points[:, 2], own.points[:, 2])


def test_a_moment_after_the_scan_has_the_car_further_on():
    before, own, after = scans(((20.0, 5.0), (10.0, 0.0)))
    moved = moved_to(SCAN_NS, own, [before, after], OCC3D_NUSCENES.dynamic)
    assert abs(moved.points[:300, 0].min() - 21) < 0.1


def test_an_object_that_no_other_sweep_shows_stays_where_it_was_seen():
    before, own, after = scans(((20.0, 5.0), (10.0, 0.0)))
    elsewhere = [scans(((-30.0, 5.0), (10.0, 0.0)))[number] for number in (0, 2)]
    assert np.array_equal(moved_to(0, own, elsewhere, OCC3D_NUSCENES.dynamic).points, own.points)
    assert moved_to(0, own, [], OCC3D_NUSCENES.dynamic) is own
    late = [Sweep(10 * SCAN_NS, one.origin, one.points, one.classes, one.times) for one in (before, after)]
    assert moved_to(0, own, late, OCC3D_NUSCENES.dynamic) is own
