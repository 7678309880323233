"""Thresholds over the distance: what a curve says of a voxel, what it refuses, how it is stored."""

import doctest
import json

import numpy as np
import pytest
import torch

from renderocc_model.field import threshold
from renderocc_model.field.threshold import DistanceThreshold, checked_threshold, plain_threshold, threshold_of_voxels
from renderocc_model.geometry.grid import VoxelGrid

GRID = VoxelGrid((-3.0, -4.0, 0.0), (3.0, 4.0, 2.0), 2.0)  # centres at x -2, 0, 2 and y -3, -1, 1, 3
CURVE = DistanceThreshold((1.0, 3.0), (0.2, 0.6), 0.3)


def test_a_voxel_is_compared_with_the_curve_at_its_centre():
    """Optical depths 0.2231 at 1 m and 0.9163 at 3 m. At (0, 1) it is 1 m, at (0, 3) 3 m; at (2, 1) it is 2.236 m:
    0.2231 + 0.6181 * 0.6931 = 0.6515, a probability of 0.4787. Nothing changes beyond 3 m, or from layer to layer."""
    found = CURVE.of_grid(GRID)
    assert found.shape == (3, 4, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found[1, :, 0], [0.6, 0.2, 0.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found[2, :, 0], [0.6, 0.4787, 0.4787, 0.6], atol=1e-4)
    assert torch.equal(threshold_of_voxels(CURVE, GRID), torch.from_numpy(found))
    assert torch.equal(threshold_of_voxels(0.25, GRID), torch.full((3, 4, 1), 0.25))


def test_a_curve_comes_back_from_json_and_prints_its_ends():
    assert DistanceThreshold.from_dict(json.loads(json.dumps(plain_threshold(CURVE)))) == CURVE
    assert plain_threshold(0.3) == 0.3
    assert f"{CURVE:.2g}" == "0.2 (at 1 m) to 0.6 (at 3 m)"
    assert checked_threshold(CURVE) is CURVE and checked_threshold(0.3) == 0.3
    assert doctest.testmod(threshold).failed == 0


@pytest.mark.parametrize(
    ("distances", "probabilities", "flat", "said"),
    [
        ((0, 1), (0.2,), 0.3, "2 distances and 1 probabilities"),
        ((1,), (0.2,), 0.3, "two or more"),
        ((1, 1), (0.2, 0.3), 0.3, "ascending"),
        ((-1, 1), (0.2, 0.3), 0.3, "ascending"),
        ((0, float("inf")), (0.2, 0.3), 0.3, "ascending"),
        ((0, 1), (0.2, 1.0), 0.3, "threshold is 1.0; expected a probability"),
        ((0, 1), (0.2, float("nan")), 0.3, "expected a probability"),
        ((0, 1), (0.2, 0.3), True, "threshold is True"),
        ((0, 1, 2), (0.2, 0.4, 0.3), 0.3, "all to rise or all to fall"),
        ((0, "1"), (0.2, 0.4), 0.3, "expected a list of numbers"),
        ("01", (0.2, 0.4), 0.3, "expected a list of numbers"),
    ],
)
def test_what_is_no_curve_is_refused(distances, probabilities, flat, said):
    with pytest.raises(ValueError, match=said):
        DistanceThreshold(distances, probabilities, flat)


def test_what_is_no_threshold_is_refused():
    for value in (0, 1, 1.5, float("nan"), True, "0.3"):
        with pytest.raises(ValueError, match="expected an occupancy probability between 0 and 1"):
            checked_threshold(value)
    for content in ({}, [], {"distances": [0, 1], "probabilities": [0.1, 0.2]}):
        with pytest.raises(ValueError, match="expected distances, probabilities and flat"):
            DistanceThreshold.from_dict(content)
