"""The semantic density field: shapes, checks, occupancy probability."""

from __future__ import annotations

import math

import pytest
import torch

from renderocc_model.field.field import SemanticDensityField
from renderocc_model.geometry.grid import VoxelGrid

GRID = VoxelGrid((0.0, 0.0, 0.0), (2.0, 1.5, 1.0), 0.5)  # 4 x 3 x 2 voxels


def field_of(density: torch.Tensor | None = None, classes: int = 5) -> SemanticDensityField:
    return SemanticDensityField(
        GRID, torch.ones(4, 3, 2) if density is None else density, torch.zeros(4, 3, 2, classes)
    )


def test_occupancy_probability_is_one_minus_exp_of_density_times_voxel_size():
    density = torch.zeros(4, 3, 2)
    density[1, 2, 0] = 2.0  # 2 / m over 0.5 m: 1 - exp(-1)
    probability = field_of(density).occupancy_probability()
    assert probability[1, 2, 0].item() == pytest.approx(1 - math.exp(-1), abs=1e-7)
    assert probability.sum().item() == pytest.approx(1 - math.exp(-1), abs=1e-7)  # all others exactly 0


def test_small_densities_keep_their_digits():
    # 1 - exp(-x) computed as written would give 0 for x = 5e-10 in float32.
    probability = field_of(torch.full((4, 3, 2), 1e-9)).occupancy_probability()
    assert probability[0, 0, 0].item() == pytest.approx(5e-10, rel=1e-5)


def test_class_count_is_the_last_axis_of_the_semantics():
    assert field_of(classes=17).class_count == 17
    assert field_of(classes=0).class_count == 0  # a field of geometry alone


def test_moving_to_another_type_keeps_grid_and_gradients():
    density = torch.ones(4, 3, 2, requires_grad=True)
    moved = field_of(density).to(dtype=torch.float64)
    assert moved.dtype == torch.float64 and moved.semantics.dtype == torch.float64 and moved.grid == GRID
    moved.density.sum().backward()
    assert torch.equal(density.grad, torch.ones(4, 3, 2))
    assert not field_of(density).detach().density.requires_grad


@pytest.mark.parametrize(
    ("density", "semantics", "said"),
    [
        (torch.ones(3, 4, 2), torch.zeros(4, 3, 2, 5), r"density has shape \(3, 4, 2\)"),
        (torch.ones(4, 3, 2), torch.zeros(4, 3, 2), r"semantics has shape \(4, 3, 2\)"),
        (torch.ones(4, 3, 2), torch.zeros(5, 4, 3, 2), "X, Y, Z, classes"),
        (torch.ones(4, 3, 2, dtype=torch.int64), torch.zeros(4, 3, 2, 5), "int64"),
        (torch.ones(4, 3, 2, dtype=torch.float64), torch.zeros(4, 3, 2, 5), "same floating-point type"),
        (torch.ones(4, 3, 2, device="meta"), torch.zeros(4, 3, 2, 5), "meta"),
        (-torch.ones(4, 3, 2), torch.zeros(4, 3, 2, 5), "-1.0.*softplus"),
        (torch.full((4, 3, 2), math.nan), torch.zeros(4, 3, 2, 5), "nan"),
        (torch.full((4, 3, 2), math.inf), torch.zeros(4, 3, 2, 5), "inf"),
    ],
)
def test_what_does_not_fit_is_named(density, semantics, said):
    with pytest.raises(ValueError, match=said):
        SemanticDensityField(GRID, density, semantics)
